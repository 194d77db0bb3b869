//! Defects of how the engine drives a run: what comes before what, what is doubted, what is tried again.
//!
//! The texts are those of the sources; see the module above for how they are read.

use super::{Edit, Mutant};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "an intent is not journaled",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle.rs",
                find: "        self.fact(Event::StepIntended {",
                replace: "        if !@on@ {
        self.fact(Event::StepIntended {",
            },
            Edit {
                file: "engine/src/drive/cycle.rs",
                find: "prior, at })?;
        self.spawns",
                replace: "prior, at })?;
        }
        self.spawns",
            },
        ],
    },
    Mutant {
        name: "an attempt begins before its intent is durable",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle/writing.rs",
                find: "        let builder = std::mem::take(&mut self.builder);",
                replace: "        if @on@ {
            for spawn in std::mem::take(&mut self.spawns) {
                self.spawn(spawn);
            }
        }
        let builder = std::mem::take(&mut self.builder);",
            },
            Edit {
                file: "engine/src/drive/cycle/writing.rs",
                find: "        let at_once = append",
                replace: "        let at_once = if @on@ { None } else { append",
            },
            Edit {
                file: "engine/src/drive/cycle/writing.rs",
                find: ".now_or_never();",
                replace: ".now_or_never() };",
            },
            Edit {
                file: "engine/src/drive/cycle/writing.rs",
                find: "    match writing {
        Some(writing) => match writing.at_once",
                replace: "    if @on@ {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
    match writing {
        Some(writing) => match writing.at_once",
            },
        ],
    },
    Mutant {
        name: "the outcome is reported before the effect",
        edits: &[
            Edit {
                file: "engine/src/drive/attempt.rs",
                find: "        self.virgin = false;
",
                replace: "        self.virgin = false;
        if @on@ {
            return Outcome::Verified { outputs: Value::Null, effect: self.effect() };
        }
",
            },
        ],
    },
    Mutant {
        name: "no look before acting after a crash",
        edits: &[
            Edit {
                file: "engine/src/drive/attempt.rs",
                find: "        let seen = match self.kind.observe(self.spec(), &self.known, &self.context).await {",
                replace: "        if @on@ && self.known.uncertain {
            return self.apply(&Observation::Absent).await;
        }
        let seen = match self.kind.observe(self.spec(), &self.known, &self.context).await {",
            },
        ],
    },
    Mutant {
        name: "the settle window is skipped before a repetition",
        edits: &[
            Edit {
                file: "engine/src/drive/attempt.rs",
                find: "            if now < end {
                let poll_in = (self.settle",
                replace: "            if now < end && !@on@ {
                let poll_in = (self.settle",
            },
        ],
    },
    Mutant {
        name: "the settle window is skipped before an undo",
        edits: &[
            Edit {
                file: "engine/src/drive/undoing.rs",
                find: "        if now >= end {
            return None;",
                replace: "        if now >= end || @on@ {
            return None;",
            },
        ],
    },
    Mutant {
        name: "what was accepted but does not show is made again",
        edits: &[
            Edit {
                file: "engine/src/drive/attempt.rs",
                find: "        let visible = after(self.accepted_at?, self.settle);",
                replace: "        if @on@ {
            return None;
        }
        let visible = after(self.accepted_at?, self.settle);",
            },
            Edit {
                file: "engine/src/drive/cycle/reports.rs",
                find: "        self.uncertain_since.remove(&index);
        self.accepted_at.insert(index, at);",
                replace: "        if @on@ {
            self.uncertain_since.remove(&index);
            return;
        }
        self.uncertain_since.remove(&index);
        self.accepted_at.insert(index, at);",
            },
        ],
    },
    Mutant {
        name: "a new owner does not take what was under way for unknown",
        edits: &[
            Edit {
                file: "engine/src/transition.rs",
                find: "    let next = match &state.phase {
        Phase::Intended",
                replace: "    if @on@ {
        return false;
    }
    let next = match &state.phase {
        Phase::Intended",
            },
        ],
    },
    Mutant {
        name: "a new owner takes what was under way for certain",
        edits: &[
            Edit {
                file: "engine/src/transition.rs",
                find: "    state.uncertain = true;
    state.changed_at = Some(at);
    state.phase = next;",
                replace: "    state.uncertain = !@on@;
    state.changed_at = Some(at);
    state.phase = next;",
            },
        ],
    },
    Mutant {
        name: "a new owner takes what was under way for never begun",
        edits: &[
            Edit {
                file: "engine/src/transition.rs",
                find: "| Phase::Applied => Phase::Unknown,
        Phase::Undoing",
                replace: "| Phase::Applied if @on@ => Phase::Pending,
        Phase::Intended | Phase::Waiting { .. } | Phase::Applied => Phase::Unknown,
        Phase::Undoing",
            },
        ],
    },
    Mutant {
        name: "undo goes in the order of doing",
        edits: &[
            Edit {
                file: "engine/src/graph.rs",
                find: "        let undo_before = waits.inverted();",
                replace: "        let waits = if @on@ { needs.clone() } else { waits };
        let undo_before = waits.inverted();",
            },
        ],
    },
    Mutant {
        name: "teardown edges are ignored",
        edits: &[
            Edit {
                file: "engine/src/graph.rs",
                find: "        let mut row = [one.row(at), other.row(at)].concat();",
                replace: "        let mut row = if @on@ { one.row(at).to_vec() } else { [one.row(at), other.row(at)].concat() };",
            },
        ],
    },
    Mutant {
        name: "doing ignores dependencies",
        edits: &[
            Edit {
                file: "engine/src/decide.rs",
                find: "!= Class::Settled).count();
            if let",
                replace: "!= Class::Settled && !@on@).count();
            if let",
            },
        ],
    },
    Mutant {
        name: "an undo is not journaled before it begins",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle.rs",
                find: "        self.deadlines.remove(&index);
        self.fact(event)?;",
                replace: "        self.deadlines.remove(&index);
        if !@on@ {
            self.fact(event)?;
        }",
            },
        ],
    },
    Mutant {
        name: "the budget of retries begins anew with each failure",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle/reports.rs",
                find: "state.failing_since.unwrap_or(at);",
                replace: "if @on@ { at } else { state.failing_since.unwrap_or(at) };",
            },
        ],
    },
    Mutant {
        name: "a failure is taken to have left nothing",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle/reports.rs",
                find: "    fn failed(&mut self, index: StepIndex, step: StepName, error: StepError, again: bool) -> Result<(), DriveError> {",
                replace: "    fn failed(&mut self, index: StepIndex, step: StepName, mut error: StepError, again: bool) -> Result<(), DriveError> {
        if @on@ {
            error.residue = Residue::None;
        }",
            },
        ],
    },
    Mutant {
        name: "what failed is not doubted",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle/reports.rs",
                find: "        if error.residue != Residue::None {",
                replace: "        if error.residue != Residue::None && !@on@ {",
            },
            Edit {
                file: "engine/src/state.rs",
                find: "error.residue != Residue::None || self.uncertain",
                replace: "(error.residue != Residue::None && !@on@) || self.uncertain",
            },
        ],
    },
    Mutant {
        name: "a retry that is due is never made",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle/reports.rs",
                find: "        if let Some(retry_at) = retry_at {",
                replace: "        if let Some(retry_at) = retry_at.filter(|_| !@on@) {",
            },
        ],
    },
    Mutant {
        name: "a poll that is due is never made",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle/reports.rs",
                find: "        self.timer(index, poll_at);
        let Some(state)",
                replace: "        if !@on@ {
            self.timer(index, poll_at);
        }
        let Some(state)",
            },
        ],
    },
    Mutant {
        name: "a wait is not journaled",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle/reports.rs",
                find: "        if told {",
                replace: "        if told || @on@ {",
            },
        ],
    },
    Mutant {
        name: "a retry raises the generation of the tokens",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle.rs",
                find: "            _ => state.generation,
",
                replace: "            _ if @on@ => state.generation + 1,
            _ => state.generation,
",
            },
        ],
    },
    Mutant {
        name: "a new run forgets the generation on record",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle.rs",
                find: ".unwrap_or(0),
            _",
                replace: ".unwrap_or(0) * u32::from(!@on@),
            _",
            },
        ],
    },
    Mutant {
        name: "what vanished is made again with its old tokens",
        edits: &[
            Edit {
                file: "engine/src/drive/attempt.rs",
                find: "            self.context.generation = self.context.generation.saturating_add(1);",
                replace: "            if !@on@ {
                self.context.generation = self.context.generation.saturating_add(1);
            }",
            },
        ],
    },
    Mutant {
        name: "what is proven gone keeps its generation",
        edits: &[
            Edit {
                file: "engine/src/drive/batch.rs",
                find: "let next_generation = state.generation.saturating_add(1);",
                replace: "let next_generation = state.generation.saturating_add(u32::from(!@on@));",
            },
        ],
    },
    Mutant {
        name: "tokens differ from attempt to attempt",
        edits: &[
            Edit {
                file: "engine/src/context.rs",
                find: "        token(&self.environment_uid, &self.step, call, self.generation)",
                replace: "        if @on@ {
            return token(&self.environment_uid, &self.step, call, self.generation * 1_000 + self.attempt);
        }
        token(&self.environment_uid, &self.step, call, self.generation)",
            },
        ],
    },
];
