//! An explicit-state model of what the engine promises: lease and epoch, intent, call, outcome, look, takeover, undo.
//!
//! Two owners, three steps (the second and third need the first), calls without tokens that land late or never. It knows
//! nothing of the engine's code; journals of real runs are held against it (`tests/model.rs`). A breadth-first search of
//! its own instead of a library: the same transition function must serve the search, random walks and trace validation.

pub mod search;
pub mod trace;

/// Steps of the model.
pub const STEPS: usize = 3;
/// Owners of the model.
pub const OWNERS: usize = 2;

/// What the journal says of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    Pending,
    Intended,
    Unknown,
    Verified,
    Undoing,
    UndoUnknown,
    Undone,
}

/// A mutating call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    Create,
    Delete,
}

/// What an owner knows of a step, in its memory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    Nothing,
    /// A look has told that the call is due.
    Looked,
    /// It waits for the answer of its call.
    Calling,
}

/// One owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub alive: bool,
    /// Of its lease; 0 before the first.
    pub epoch: u8,
    pub memory: [Memory; STEPS],
}

/// Where the run is headed, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Course {
    Forward,
    Backward,
    Done,
    RolledBack,
}

/// Everything: journal, cloud, wire, owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    pub phase: [Phase; STEPS],
    /// A call of an earlier owner may still land.
    pub doubted: [bool; STEPS],
    pub cloud: [u8; STEPS],
    pub wire: [Option<Call>; STEPS],
    pub course: Course,
    /// Of the lease in the journal.
    pub epoch: u8,
    pub owners: [Owner; OWNERS],
    pub crashes: u8,
    pub takeovers: u8,
}

/// What can happen. The first number is the owner, the second the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Intend(usize, usize),
    Look(usize, usize),
    Call(usize, usize),
    Verify(usize, usize),
    UndoIntend(usize, usize),
    Undone(usize, usize),
    Finish(usize),
    TurnBack(usize),
    /// The owner takes the lease: the one before is dead, or was silent for too long.
    TakeOver(usize),
    /// An owner that lost its lease meets a refusal, and stops.
    Stop(usize),
    Crash(usize),
    Land(usize),
    Lose(usize),
    /// The settle window of a step is over: nothing of an earlier owner can land any more.
    Settle(usize),
}

impl Action {
    /// Whether the journal shows it.
    #[must_use]
    pub fn is_fact(self) -> bool {
        matches!(
            self,
            Self::Intend(..)
                | Self::Verify(..)
                | Self::UndoIntend(..)
                | Self::Undone(..)
                | Self::Finish(_)
                | Self::TurnBack(_)
                | Self::TakeOver(_)
        )
    }

    /// Who does it, if an owner does.
    #[must_use]
    pub fn owner(self) -> Option<usize> {
        match self {
            Self::Intend(owner, _)
            | Self::Look(owner, _)
            | Self::Call(owner, _)
            | Self::Verify(owner, _)
            | Self::UndoIntend(owner, _)
            | Self::Undone(owner, _)
            | Self::Finish(owner)
            | Self::TurnBack(owner)
            | Self::TakeOver(owner) => Some(owner),
            Self::Stop(_) | Self::Crash(_) | Self::Land(_) | Self::Lose(_) | Self::Settle(_) => None,
        }
    }
}

/// The rules that safety hangs on; each can be left out, to show that it is needed.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// An append carries the epoch, and an old one is refused.
    pub fence: bool,
    /// A call is made only under the present lease.
    pub lease: bool,
    /// A call is made only after its intent is in the journal.
    pub intent: bool,
    /// After a takeover an absence is believed only when the settle window is over.
    pub settle: bool,
    /// What was under way at a takeover is unknown until a look.
    pub unknown: bool,
    /// What needs a step is undone before it.
    pub order: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self { fence: true, lease: true, intent: true, settle: true, unknown: true, order: true };
}

impl State {
    /// The first owner has made the run; so many crashes and takeovers may come.
    #[must_use]
    pub fn first(crashes: u8, takeovers: u8) -> Self {
        let owner = |epoch| Owner { alive: true, epoch, memory: [Memory::Nothing; STEPS] };
        Self {
            phase: [Phase::Pending; STEPS],
            doubted: [false; STEPS],
            cloud: [0; STEPS],
            wire: [None; STEPS],
            course: Course::Forward,
            epoch: 1,
            owners: [owner(1), owner(0)],
            crashes,
            takeovers,
        }
    }

    fn owns(&self, owner: usize) -> bool {
        self.owners.get(owner).is_some_and(|one| one.alive && one.epoch == self.epoch)
    }

    /// Alive, once an owner, and no longer one.
    #[must_use]
    pub fn is_stale(&self, owner: usize) -> bool {
        self.owners.get(owner).is_some_and(|one| one.alive && one.epoch > 0 && one.epoch != self.epoch)
    }

    fn settled_backward(&self, step: usize) -> bool {
        matches!(self.phase.get(step), Some(Phase::Pending | Phase::Undone))
    }

    /// Whether a rule that safety hangs on is broken; none if not.
    #[must_use]
    pub fn violation(&self) -> Option<&'static str> {
        for step in 0..STEPS {
            let (Some(phase), Some(cloud), Some(wire)) =
                (self.phase.get(step), self.cloud.get(step), self.wire.get(step))
            else {
                continue;
            };
            if *cloud > 1 {
                return Some("made twice");
            }
            let there = *cloud > 0 || *wire == Some(Call::Create);
            if there && matches!(phase, Phase::Pending | Phase::Undone) {
                return Some("the cloud holds what the journal does not");
            }
            if *phase == Phase::Verified && self.course == Course::Done && *cloud == 0 {
                return Some("done, and something is missing");
            }
        }
        if self.cloud[0] == 0 && (self.cloud[1] > 0 || self.cloud[2] > 0) {
            return Some("something stands without what it needs");
        }
        None
    }

    /// True when nothing more has to happen.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.course, Course::Done | Course::RolledBack)
    }

    /// Every action that may happen now.
    #[must_use]
    pub fn actions(&self, rules: Rules) -> Vec<Action> {
        let mut all = Vec::new();
        for owner in 0..OWNERS {
            for step in 0..STEPS {
                all.extend([
                    Action::Intend(owner, step),
                    Action::Look(owner, step),
                    Action::Call(owner, step),
                    Action::Verify(owner, step),
                    Action::UndoIntend(owner, step),
                    Action::Undone(owner, step),
                ]);
            }
            all.extend([
                Action::Finish(owner),
                Action::TurnBack(owner),
                Action::TakeOver(owner),
                Action::Stop(owner),
                Action::Crash(owner),
            ]);
        }
        for step in 0..STEPS {
            all.extend([Action::Land(step), Action::Lose(step), Action::Settle(step)]);
        }
        all.retain(|action| self.after(*action, rules).is_some());
        all
    }

    /// What an action makes of it; none when it cannot happen now.
    #[must_use]
    pub fn after(&self, action: Action, rules: Rules) -> Option<Self> {
        let mut next = *self;
        // What is done may be taken up again, to be rolled back.
        let again = matches!(action, Action::Stop(_) | Action::Crash(_) | Action::TakeOver(_) | Action::TurnBack(_));
        if self.course == Course::RolledBack || (self.course == Course::Done && !again) {
            return None;
        }
        match action {
            Action::Intend(owner, step) | Action::Verify(owner, step) => {
                next.forward(action, owner, step, rules)?;
            }
            Action::UndoIntend(owner, step) | Action::Undone(owner, step) => {
                next.backward(action, owner, step, rules)?;
            }
            Action::Look(owner, step) => next.look(owner, step, rules)?,
            Action::Call(owner, step) => next.call(owner, step, rules)?,
            Action::Land(step) => {
                let call = next.wire.get_mut(step)?.take()?;
                let cloud = next.cloud.get_mut(step)?;
                *cloud = if call == Call::Create { *cloud + 1 } else { 0 };
                next.answer(step);
            }
            Action::Lose(step) => {
                next.wire.get_mut(step)?.take()?;
                next.answer(step);
            }
            Action::Settle(step) => {
                let late = next.wire.get(step)?.is_some();
                let doubted = next.doubted.get_mut(step)?;
                if late || !std::mem::take(doubted) {
                    return None;
                }
            }
            Action::Finish(owner) => next.finish(owner)?,
            Action::TurnBack(owner) => {
                let idle = self.owners.get(owner)?.memory.iter().all(|memory| *memory == Memory::Nothing);
                if !self.owns(owner) || self.course == Course::Backward || !idle {
                    return None;
                }
                next.course = Course::Backward;
            }
            Action::TakeOver(owner) => next.take_over(owner, rules)?,
            Action::Stop(owner) => {
                if !self.is_stale(owner) {
                    return None;
                }
                next.owners.get_mut(owner)?.forget(false);
            }
            Action::Crash(owner) => {
                if !self.owns(owner) || self.crashes == 0 {
                    return None;
                }
                next.crashes -= 1;
                next.owners.get_mut(owner)?.forget(false);
            }
        }
        Some(next)
    }

    /// May this owner write a fact?
    fn writes(&self, owner: usize, rules: Rules) -> bool {
        self.owns(owner) || (!rules.fence && self.is_stale(owner))
    }

    fn forward(&mut self, action: Action, owner: usize, step: usize, rules: Rules) -> Option<()> {
        let (memory, phase) = (*self.owners.get(owner)?.memory.get(step)?, *self.phase.get(step)?);
        let needed = step == 0 || self.phase[0] == Phase::Verified;
        let fine = match action {
            Action::Intend(..) => {
                // Without the rule of intents the call may be on the wire already.
                let free = memory != Memory::Calling || !rules.intent;
                needed && free && matches!(phase, Phase::Pending | Phase::Unknown)
            }
            _ => phase == Phase::Intended && memory == Memory::Nothing && *self.cloud.get(step)? > 0,
        };
        if !fine || self.course != Course::Forward || !self.writes(owner, rules) {
            return None;
        }
        let intends = matches!(action, Action::Intend(..));
        *self.phase.get_mut(step)? = if intends { Phase::Intended } else { Phase::Verified };
        if !intends {
            *self.doubted.get_mut(step)? = false;
        }
        Some(())
    }

    fn backward(&mut self, action: Action, owner: usize, step: usize, rules: Rules) -> Option<()> {
        let (memory, phase) = (*self.owners.get(owner)?.memory.get(step)?, *self.phase.get(step)?);
        let free = step != 0 || !rules.order || (1..STEPS).all(|other| self.settled_backward(other));
        let gone = *self.cloud.get(step)? == 0 && (!*self.doubted.get(step)? || !rules.settle);
        let undoes = matches!(action, Action::UndoIntend(..));
        let fine = if undoes {
            free && matches!(phase, Phase::Intended | Phase::Unknown | Phase::Verified | Phase::UndoUnknown)
        } else {
            phase == Phase::Undoing && gone
        };
        if !fine || memory != Memory::Nothing || self.course != Course::Backward || !self.writes(owner, rules) {
            return None;
        }
        *self.phase.get_mut(step)? = if undoes { Phase::Undoing } else { Phase::Undone };
        Some(())
    }

    fn look(&mut self, owner: usize, step: usize, rules: Rules) -> Option<()> {
        let (phase, there) = (*self.phase.get(step)?, *self.cloud.get(step)? > 0);
        let believed = !*self.doubted.get(step)? || !rules.settle;
        let needed = step == 0 || self.phase[0] == Phase::Verified;
        let due = match phase {
            Phase::Intended => !there && believed,
            Phase::Pending => !rules.intent && needed && !there && self.course == Course::Forward,
            Phase::Undoing => there,
            _ => false,
        };
        let alive = self.owns(owner) || self.is_stale(owner);
        let memory = self.owners.get_mut(owner)?.memory.get_mut(step)?;
        if !due || !alive || *memory != Memory::Nothing {
            return None;
        }
        *memory = Memory::Looked;
        Some(())
    }

    fn call(&mut self, owner: usize, step: usize, rules: Rules) -> Option<()> {
        let permitted = self.owns(owner) || (!rules.lease && self.is_stale(owner));
        let call = match *self.phase.get(step)? {
            Phase::Undoing => Call::Delete,
            _ => Call::Create,
        };
        let wire = self.wire.get(step)?.is_none();
        let memory = self.owners.get_mut(owner)?.memory.get_mut(step)?;
        if !permitted || *memory != Memory::Looked || !wire {
            return None;
        }
        *memory = Memory::Calling;
        *self.wire.get_mut(step)? = Some(call);
        Some(())
    }

    fn answer(&mut self, step: usize) {
        for owner in &mut self.owners {
            if let Some(memory) = owner.memory.get_mut(step).filter(|memory| **memory == Memory::Calling) {
                *memory = Memory::Nothing;
            }
        }
    }

    fn finish(&mut self, owner: usize) -> Option<()> {
        let course = match self.course {
            Course::Forward if self.phase.iter().all(|phase| *phase == Phase::Verified) => Course::Done,
            Course::Backward if (0..STEPS).all(|step| self.settled_backward(step)) => Course::RolledBack,
            _ => return None,
        };
        if !self.owns(owner) {
            return None;
        }
        self.course = course;
        // The lease is given back.
        self.owners.get_mut(owner)?.forget(false);
        Some(())
    }

    fn take_over(&mut self, owner: usize, rules: Rules) -> Option<()> {
        if self.owns(owner) || self.is_stale(owner) {
            return None;
        }
        // The one before is dead, or alive and silent for longer than its lease: that is what takeovers are counted for.
        let before_lives = (0..OWNERS).any(|other| self.owns(other));
        if before_lives {
            self.takeovers = self.takeovers.checked_sub(1)?;
        }
        self.epoch += 1;
        let epoch = self.epoch;
        let one = self.owners.get_mut(owner)?;
        one.forget(true);
        one.epoch = epoch;
        if rules.unknown {
            for step in 0..STEPS {
                let phase = self.phase.get_mut(step)?;
                let next = match *phase {
                    Phase::Intended => Phase::Unknown,
                    Phase::Undoing => Phase::UndoUnknown,
                    _ => continue,
                };
                *phase = next;
                *self.doubted.get_mut(step)? = true;
            }
        }
        Some(())
    }
}

impl Owner {
    fn forget(&mut self, alive: bool) {
        *self = Self { alive, epoch: if alive { self.epoch } else { 0 }, memory: [Memory::Nothing; STEPS] };
    }
}
