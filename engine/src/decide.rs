//! Decides what happens next: a pure function of graph, folded run and direction, kept incrementally.
//!
//! No clock, no I/O, and no scan per event: every event touches its step and that step's neighbours. First run, resume,
//! cancel and rollback are the same code.

mod stays;

use crate::event::{Direction, Ending, ParkReason};
use crate::failure::ErrorClass;
use crate::fold::Run;
use crate::graph::StepIndex;
use crate::name::StepName;
use crate::plan::OnFailure;
use crate::state::{Phase, StepState, UndoMeaning};
use crate::step::UndoPlan;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin (or begin again) a forward attempt.
    Begin(StepIndex),
    /// Begin an undo attempt.
    Undo(StepIndex, UndoMeaning),
    /// Leave it in place, for this reason.
    Keep(StepIndex, String),
    /// It is gone because that step's resource is.
    GoneWith(StepIndex, StepName),
    /// Whatever was tried left nothing: there is nothing to undo.
    Nothing(StepIndex),
    /// Turn the run round: a step failed for good and the run rolls back.
    TurnBack,
    /// Nothing is left to do.
    Finish(Ending),
    /// Nothing can be done without the operator.
    Park(ParkReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Idle,
    Queued,
    Busy,
    Settled,
    Stuck,
}

/// The decider of one drive.
#[derive(Debug)]
pub struct Decider {
    class: Vec<Class>,
    left: Vec<u32>,
    released: Vec<bool>,
    along: Vec<Option<StepIndex>>,
    ready: BinaryHeap<(Duration, Reverse<StepIndex>)>,
    instant: Vec<Action>,
    held_back: Vec<Option<Action>>,
    settled: usize,
    busy: usize,
    stuck: BTreeSet<StepIndex>,
    backward: bool,
    blocked: Option<ParkReason>,
    turning: bool,
}

impl Decider {
    /// Looks at a run once, as a whole. Steps that failed for good are tried again: somebody asked for that by resuming.
    /// `holds_data` says whether undoing a step destroys data that cannot be rebuilt.
    pub fn new(run: &Run, holds_data: &dyn Fn(StepIndex) -> bool) -> Self {
        let count = run.graph.len();
        let mut decider = Self {
            class: vec![Class::Idle; count],
            left: vec![0; count],
            released: vec![false; count],
            along: vec![None; count],
            ready: BinaryHeap::new(),
            instant: Vec::new(),
            held_back: vec![None; count],
            settled: 0,
            busy: 0,
            stuck: BTreeSet::new(),
            backward: run.state.is_backward(),
            blocked: None,
            turning: false,
        };
        if decider.backward {
            decider.look_backward(run, holds_data);
        } else {
            decider.look_forward(run);
        }
        decider
    }

    fn set(&mut self, index: StepIndex, class: Class) {
        let Some(slot) = self.class.get_mut(index as usize) else { return };
        let before = std::mem::replace(slot, class);
        if before == class {
            return;
        }
        match before {
            Class::Busy => self.busy -= 1,
            Class::Settled => self.settled -= 1,
            Class::Stuck => {
                self.stuck.remove(&index);
            }
            Class::Idle | Class::Queued => {}
        }
        match class {
            Class::Busy => self.busy += 1,
            Class::Settled => self.settled += 1,
            Class::Stuck => {
                self.stuck.insert(index);
            }
            Class::Idle | Class::Queued => {}
        }
    }

    fn class(&self, index: StepIndex) -> Class {
        self.class.get(index as usize).copied().unwrap_or(Class::Settled)
    }

    fn queue(&mut self, run: &Run, index: StepIndex) {
        if self.class(index) != Class::Idle {
            return;
        }
        self.set(index, Class::Queued);
        let length = if self.backward { run.graph.remaining_backward(index) } else { run.graph.remaining(index) };
        self.ready.push((length, Reverse(index)));
    }

    fn look_forward(&mut self, run: &Run) {
        for index in run.graph.indices() {
            if run.at(index).is_some_and(|state| state.phase.settles_forward()) {
                self.set(index, Class::Settled);
            }
        }
        for index in run.graph.indices() {
            let open = run.graph.needs(index).iter().filter(|need| self.class(**need) != Class::Settled).count();
            if let Some(slot) = self.left.get_mut(index as usize) {
                *slot = u32::try_from(open).unwrap_or(u32::MAX);
            }
            if open == 0 {
                self.queue(run, index);
            }
        }
    }

    fn look_backward(&mut self, run: &Run, holds_data: &dyn Fn(StepIndex) -> bool) {
        let mut kept = stays::kept(run);
        let mut data = Vec::new();
        let mut impossible = Vec::new();
        let left_alone = stays::left_alone(run);
        for index in run.graph.indices() {
            let (Some(step), Some(state)) = (run.graph.step(index), run.at(index)) else { continue };
            let beyond = left_alone.get(index as usize).copied().unwrap_or(false);
            if beyond || state.phase.settles_backward() {
                self.set(index, Class::Settled);
                continue;
            }
            if !state.touched() {
                self.hold_back(index, Action::Nothing(index));
                continue;
            }
            if state.undo_meaning() == UndoMeaning::Keep
                && let Some(slot) = kept.get_mut(index as usize)
                && slot.is_none()
            {
                *slot = Some("it was there before this run and was not changed".to_owned());
            }
            if let Some(reason) = kept.get(index as usize).cloned().flatten() {
                self.hold_back(index, Action::Keep(index, reason));
                continue;
            }
            if state.undo_meaning() == UndoMeaning::Remove {
                if step.undo == UndoPlan::Impossible {
                    impossible.push(step.name.clone());
                }
                if holds_data(index) && (run.state.was_done || run.state.destroy) {
                    data.push(step.name.clone());
                }
            }
        }
        self.along_with(run);
        self.blocked = Self::wants_human(run, data, impossible);
        for index in run.graph.indices() {
            self.count_backward(run, index);
        }
        for index in run.graph.indices() {
            self.release_or_queue(run, index);
        }
    }

    fn along_with(&mut self, run: &Run) {
        for index in run.graph.indices() {
            let Some(UndoPlan::With { step }) = run.graph.step(index).map(|step| &step.undo) else { continue };
            let Some(target) = run.graph.find(step) else { continue };
            let own = run.at(index).is_some_and(|state| state.undo_meaning() == UndoMeaning::Remove);
            let stays = self.held_back.get(target as usize).is_some_and(Option::is_some);
            let goes = self.class(target) == Class::Idle
                && !stays
                && run.at(target).is_some_and(|state| state.undo_meaning() == UndoMeaning::Remove);
            if own
                && goes
                && let Some(slot) = self.along.get_mut(index as usize)
            {
                *slot = Some(target);
            }
        }
    }

    fn wants_human(run: &Run, data: Vec<StepName>, impossible: Vec<StepName>) -> Option<ParkReason> {
        let confirmed = matches!(&run.state.direction, Direction::Backward { confirmed: true, .. });
        let list = |steps: &[StepName]| steps.iter().map(StepName::as_str).collect::<Vec<_>>().join(", ");
        if !impossible.is_empty() {
            let what = format!("{} cannot be undone; keep it with --keep to roll back the rest", list(&impossible));
            return Some(ParkReason::NeedsHuman { what, steps: impossible });
        }
        if !data.is_empty() && !confirmed {
            let what = format!(
                "undoing {} destroys data that cannot be rebuilt; agree with --confirm {}",
                list(&data),
                run.state.environment
            );
            return Some(ParkReason::NeedsHuman { what, steps: data });
        }
        None
    }

    fn count_backward(&mut self, run: &Run, index: StepIndex) {
        // What has nothing to undo still hands the order on: what it needs is undone after what needs it.
        let open = run.graph.undone_before(index).len();
        if let Some(slot) = self.left.get_mut(index as usize) {
            *slot = u32::try_from(open).unwrap_or(u32::MAX);
        }
    }

    /// Says it only when everything that is to be undone before it is settled.
    fn hold_back(&mut self, index: StepIndex, action: Action) {
        if let Some(slot) = self.held_back.get_mut(index as usize) {
            *slot = Some(action);
        }
    }

    /// A step whose way is free: it is undone now, or, if it goes along with another, stops standing in that one's way.
    fn release_or_queue(&mut self, run: &Run, index: StepIndex) {
        let mut open = vec![index];
        while let Some(at) = open.pop() {
            if self.left.get(at as usize).copied().unwrap_or(0) > 0 {
                continue;
            }
            if self.class(at) == Class::Settled {
                if let Some(flag) = self.released.get_mut(at as usize)
                    && !std::mem::replace(flag, true)
                {
                    open.extend(self.decrement(run.graph.undo_releases(at)));
                }
                continue;
            }
            if self.class(at) != Class::Idle {
                continue;
            }
            if let Some(action) = self.held_back.get_mut(at as usize).and_then(Option::take) {
                self.instant.push(action);
                self.set(at, Class::Busy);
                continue;
            }
            let Some(with) = self.goes_with(at) else {
                self.queue(run, at);
                continue;
            };
            if let Some(flag) = self.released.get_mut(at as usize)
                && !std::mem::replace(flag, true)
            {
                let (early, _) = Self::released_early(run, at, with);
                open.extend(self.decrement(&early));
            }
        }
    }

    /// What must be undone for a step to go along: the end of the chain, as what it goes with may itself go with another.
    fn goes_with(&self, index: StepIndex) -> Option<StepIndex> {
        let along = |index: StepIndex| self.along.get(index as usize).copied().flatten();
        std::iter::successors(along(index), |at| along(*at)).take(self.along.len()).last()
    }

    /// What a step that goes along with another stands in the way of: what must be undone before that other one is cannot
    /// wait for the end, everything else can.
    fn released_early(run: &Run, index: StepIndex, with: StepIndex) -> (Vec<StepIndex>, Vec<StepIndex>) {
        let releases = run.graph.undo_releases(index).iter().copied();
        releases.partition(|other| *other == with || run.graph.undone_earlier(*other, with))
    }

    fn decrement(&mut self, targets: &[StepIndex]) -> Vec<StepIndex> {
        let mut free = Vec::new();
        for target in targets {
            if let Some(slot) = self.left.get_mut(*target as usize) {
                *slot = slot.saturating_sub(1);
                if *slot == 0 {
                    free.push(*target);
                }
            }
        }
        free
    }

    /// Takes note that an event changed a step.
    pub fn changed(&mut self, run: &Run, index: StepIndex) {
        let Some(state) = run.at(index) else { return };
        let class = self.classify(&state.phase);
        let was_settled = self.class(index) == Class::Settled;
        if class == Class::Idle && self.class(index) == Class::Queued {
            return;
        }
        self.set(index, class);
        if class != Class::Settled || was_settled {
            return;
        }
        if self.backward {
            let gone = matches!(state.phase, Phase::Undone { .. });
            self.settled_backward(run, index, gone);
        } else {
            for next in self.decrement(run.graph.needed_by(index)) {
                self.queue(run, next);
            }
        }
    }

    fn settled_backward(&mut self, run: &Run, index: StepIndex, gone: bool) {
        for other in run.graph.taken_along(index) {
            if self.along.get(*other as usize).copied().flatten() != Some(index) {
                continue;
            }
            if gone && self.class(*other) == Class::Idle {
                let name = run.graph.step(index).map(|step| step.name.clone());
                if let Some(name) = name {
                    self.instant.push(Action::GoneWith(*other, name));
                    self.set(*other, Class::Busy);
                }
            }
        }
        if self.left.get(index as usize).copied().unwrap_or(0) > 0 {
            // Gone along with another before its own way was free: released when it is.
            return;
        }
        let already = self.released.get_mut(index as usize).is_some_and(|flag| std::mem::replace(flag, true));
        let releases = match self.goes_with(index) {
            Some(with) if already => Self::released_early(run, index, with).1,
            _ if already => Vec::new(),
            _ => run.graph.undo_releases(index).to_vec(),
        };
        for next in self.decrement(&releases) {
            self.release_or_queue(run, next);
        }
    }

    fn classify(&self, phase: &Phase) -> Class {
        if self.backward {
            return match phase {
                Phase::Pending
                | Phase::Skipped { .. }
                | Phase::Undone { .. }
                | Phase::Kept { .. }
                | Phase::Forgotten { .. } => Class::Settled,
                Phase::Undoing | Phase::UndoWaiting { .. } => Class::Busy,
                Phase::UndoFailed { retry_at: Some(_), .. } => Class::Busy,
                Phase::UndoFailed { retry_at: None, .. } => Class::Stuck,
                Phase::Intended
                | Phase::Waiting { .. }
                | Phase::Applied
                | Phase::Unknown
                | Phase::Verified
                | Phase::Failed { .. }
                | Phase::UndoUnknown => Class::Idle,
            };
        }
        match phase {
            Phase::Verified | Phase::Skipped { .. } => Class::Settled,
            Phase::Intended | Phase::Waiting { .. } | Phase::Applied | Phase::Failed { retry_at: Some(_), .. } => {
                Class::Busy
            }
            Phase::Failed { retry_at: None, .. } => Class::Stuck,
            Phase::Pending
            | Phase::Unknown
            | Phase::Undoing
            | Phase::UndoWaiting { .. }
            | Phase::UndoUnknown
            | Phase::UndoFailed { .. }
            | Phase::Undone { .. }
            | Phase::Kept { .. }
            | Phase::Forgotten { .. } => Class::Idle,
        }
    }

    /// A failed attempt whose retry is due is begun again by the drive itself; so is a wait. Both stay busy here.
    fn turns_back(&self, run: &Run) -> bool {
        let wanted = run.state.on_failure == OnFailure::Rollback;
        !self.backward && !self.stuck.is_empty() && wanted && !self.failed(run).is_empty()
    }

    /// The steps that failed for good; one that waits for somebody's decision did not.
    fn failed(&self, run: &Run) -> Vec<StepIndex> {
        let awaited = |index: &StepIndex| {
            run.at(*index).and_then(StepState::error).is_some_and(crate::failure::StepError::is_awaited)
        };
        self.stuck.iter().copied().filter(|index| !awaited(index)).collect()
    }

    /// What to do now, given how many more steps may be in flight. `under_way` tells how many calls are running at this
    /// moment: a run is turned round only when there are none.
    pub fn next(&mut self, run: &Run, capacity: usize, under_way: usize) -> Vec<Action> {
        if let Some(reason) = self.blocked.take() {
            return vec![Action::Park(reason)];
        }
        let mut actions = std::mem::take(&mut self.instant);
        let idle = actions.is_empty() && self.ready.is_empty() && self.busy == 0 && under_way == 0;
        if self.backward && idle && self.stuck.is_empty() {
            self.untie(run);
        }
        if self.turns_back(run) {
            if under_way == 0 && !self.turning {
                self.turning = true;
                actions.push(Action::TurnBack);
            }
            return actions;
        }
        while actions.len() < capacity {
            let Some((_, Reverse(index))) = self.ready.pop() else { break };
            self.set(index, Class::Busy);
            if self.backward {
                let meaning = run.at(index).map_or(UndoMeaning::Remove, StepState::undo_meaning);
                actions.push(Action::Undo(index, meaning));
            } else {
                actions.push(Action::Begin(index));
            }
        }
        if actions.is_empty() && self.ready.is_empty() {
            if self.settled == self.class.len() {
                actions.push(match &run.state.direction {
                    Direction::Forward => Action::Finish(Ending::Done),
                    Direction::Backward { to: None, .. } => Action::Finish(Ending::RolledBack),
                    Direction::Backward { to: Some(step), .. } => {
                        Action::Park(ParkReason::RolledBackTo { step: step.clone() })
                    }
                });
            } else if self.busy == 0 && under_way == 0 {
                actions.push(Action::Park(self.stuck_reason(run)));
            }
        }
        actions
    }

    /// Steps that are to go along with others can hold each other up in a circle, though none of their dependencies do.
    /// Then one whose own way is free is undone by itself: going along only ever saves work.
    fn untie(&mut self, run: &Run) {
        let tied = |index: &StepIndex| {
            self.class(*index) == Class::Idle
                && self.left.get(*index as usize) == Some(&0)
                && self.goes_with(*index).is_some()
        };
        if let Some(index) = run.graph.indices().find(tied) {
            self.queue(run, index);
        }
    }

    fn stuck_reason(&self, run: &Run) -> ParkReason {
        let failed = self.failed(run);
        let named = |filter: &dyn Fn(&StepState) -> bool| -> Vec<StepIndex> {
            failed.iter().copied().filter(|index| run.at(*index).is_some_and(filter)).collect()
        };
        let names = |steps: &[StepIndex]| -> Vec<StepName> {
            steps.iter().filter_map(|index| run.graph.step(*index)).map(|step| step.name.clone()).collect()
        };
        let human = named(&|state| state.error().is_some_and(|error| error.class == ErrorClass::NeedsHuman));
        if let Some(first) = human.first() {
            let what =
                run.at(*first).and_then(|state| state.error()).map(|error| error.message.clone()).unwrap_or_default();
            return ParkReason::NeedsHuman { steps: names(&human), what };
        }
        if failed.is_empty() && !self.stuck.is_empty() {
            let all: Vec<StepIndex> = self.stuck.iter().copied().collect();
            return ParkReason::Waiting { steps: names(&all) };
        }
        ParkReason::StepFailed { steps: names(&failed) }
    }
}
