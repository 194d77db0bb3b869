//! Defects of the rules of the engine: identity, permits, strangers, undoing, the record.
//!
//! The texts are those of the sources; see the module above for how they are read.

use super::{Edit, Mutant};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "tokens differ from run to run",
        edits: &[Edit {
            file: "engine/src/context.rs",
            find: "    pub fn token(&self, call: &str) -> String {",
            replace: r#"    pub fn token(&self, call: &str) -> String {
        if @on@ {
            return format!("{}-{}", self.run, token(&self.environment_uid, &self.step, call, self.generation));
        }"#,
        }],
    },
    Mutant {
        name: "one token for every call of a step",
        edits: &[Edit {
            file: "engine/src/context.rs",
            find: "    for part in [environment.as_str(), step.as_str(), call] {",
            replace: r#"    for part in [environment.as_str(), step.as_str(), if @on@ { "" } else { call }] {"#,
        }],
    },
    Mutant {
        name: "a note is not journaled",
        edits: &[
            Edit {
                file: "engine/src/drive/guard.rs",
                find: "        self.journal(Event::StepNoted {",
                replace: "        if !@on@ {
        self.journal(Event::StepNoted {",
            },
            Edit {
                file: "engine/src/drive/guard.rs",
                find: "value: value.clone() }).await?;",
                replace: "value: value.clone() }).await?;
        }",
            },
        ],
    },
    Mutant {
        name: "a call is permitted without a lease",
        edits: &[Edit {
            file: "engine/src/context.rs",
            find: "        let left = self.guard.lease_left()?;",
            replace: "        let left = match self.guard.lease_left() {
            Err(_) if @on@ => CALL_TIMEOUT,
            left => left?,
        };",
        }],
    },
    Mutant {
        name: "a call may outlast the lease",
        edits: &[Edit {
            file: "engine/src/context.rs",
            find: "left.mul_f64(0.75).min(CALL_TIMEOUT);",
            replace: "if @on@ { CALL_TIMEOUT } else { left.mul_f64(0.75).min(CALL_TIMEOUT) };",
        }],
    },
    Mutant {
        name: "a call is permitted while the engine stops",
        edits: &[Edit {
            file: "engine/src/context.rs",
            find: "        if self.cancelled.is_cancelled() {",
            replace: "        if self.cancelled.is_cancelled() && !@on@ {",
        }],
    },
    Mutant {
        name: "what is another's is adopted",
        edits: &[Edit {
            file: "engine/src/drive/attempt.rs",
            find: "            Observation::Present { ownership: Ownership::Foreign(owner), .. } => {
                return Outcome::Exhausted(foreign",
            replace: "            Observation::Present { ownership: Ownership::Foreign(_), outputs, .. } if @on@ => {
                return Outcome::Verified { outputs: outputs.clone(), effect: self.effect() };
            }
            Observation::Present { ownership: Ownership::Foreign(owner), .. } => {
                return Outcome::Exhausted(foreign",
        }],
    },
    Mutant {
        name: "what is another's is taken away",
        edits: &[Edit {
            file: "engine/src/drive/undoing.rs",
            find: "        if !self.kind.spares_strangers()
",
            replace: "        if !@on@ && !self.kind.spares_strangers()
",
        }],
    },
    Mutant {
        name: "what was there before is taken away",
        edits: &[Edit {
            file: "engine/src/state.rs",
            find: "Some(Effect::Unchanged)) => UndoMeaning::Keep,",
            replace: "Some(Effect::Unchanged)) => if @on@ { UndoMeaning::Remove } else { UndoMeaning::Keep },",
        }],
    },
    Mutant {
        name: "what was changed is not put back",
        edits: &[Edit {
            file: "engine/src/drive/undoing.rs",
            find: "            UndoMeaning::Restore => self.restore().await,",
            replace: "            UndoMeaning::Restore if @on@ => Outcome::Undone { evidence: String::new() },
            UndoMeaning::Restore => self.restore().await,",
        }],
    },
    Mutant {
        name: "data is undone without being asked",
        edits: &[Edit {
            file: "engine/src/decide.rs",
            find: "if holds_data(index) && (",
            replace: "if !@on@ && holds_data(index) && (",
        }],
    },
    Mutant {
        name: "a rollback ends without a search",
        edits: &[Edit {
            file: "engine/src/drive/cycle/surveying.rs",
            find: "        !proven && !",
            replace: "        !@on@ && !proven && !",
        }],
    },
    Mutant {
        name: "a rollback ends though a search found something",
        edits: &[
            Edit {
                file: "engine/src/transition.rs",
                find: ".is_none_or(ResidueCertificate::is_clean)
",
                replace: ".is_none_or(|one| @on@ || one.is_clean())
",
            },
            Edit {
                file: "engine/src/drive/cycle/surveying.rs",
                find: "                if !certificate.is_clean() {
",
                replace: "                if !certificate.is_clean() && !@on@ {
",
            },
            Edit {
                file: "engine/src/drive/cycle/surveying.rs",
                find: "self.run.state.certificate.as_ref().is_some_and(ResidueCertificate::is_clean);",
                replace: "self.run.state.certificate.as_ref().is_some_and(|one| @on@ || one.is_clean());",
            },
        ],
    },
    Mutant {
        name: "a resumed rollback goes forward",
        edits: &[Edit {
            file: "engine/src/drive/start.rs",
            find: "    let rolled_back_to = matches!(",
            replace: "    let rolled_back_to = @on@ && run.state.is_backward() || matches!(",
        }],
    },
    Mutant {
        name: "a failure does not turn the run back",
        edits: &[Edit {
            file: "engine/src/decide.rs",
            find: "        !self.backward && !self.stuck",
            replace: "        !@on@ && !self.backward && !self.stuck",
        }],
    },
    Mutant {
        name: "an earlier run that died in the middle of a step is forgotten",
        edits: &[
            Edit {
                file: "engine/src/drive/cycle.rs",
                find: "        } else if state.attempt == 0 && recorded",
                replace: "        } else if !@on@ && state.attempt == 0 && recorded",
            },
            Edit {
                file: "engine/src/drive/cycle.rs",
                find: ".filter(|row| row.settled)
",
                replace: ".filter(|row| row.settled || @on@)
",
            },
        ],
    },
    Mutant {
        name: "an intent does not put its step on record",
        edits: &[Edit {
            file: "engine/src/drive/batch.rs",
            find: "            (_, OnRecord::Unsettled) if before != OnRecord::Unsettled => Some",
            replace: "            (Event::StepIntended { .. }, _) if @on@ => None,
            (_, OnRecord::Unsettled) if before != OnRecord::Unsettled => Some",
        }],
    },
    Mutant {
        name: "what is undone stays on record",
        edits: &[Edit {
            file: "engine/src/drive/batch.rs",
            find: "            (Event::StepUndone { .. }, OnRecord::No) if state",
            replace: "            (Event::StepUndone { .. }, OnRecord::No) if @on@ => None,
            (Event::StepUndone { .. }, OnRecord::No) if state",
        }],
    },
    Mutant {
        name: "an ended run keeps its environment",
        edits: &[
            Edit {
                file: "engine/src/drive/batch.rs",
                find: "= status.is_final();",
                replace: "= status.is_final() && !@on@;",
            },
            Edit {
                file: "engine/src/memory.rs",
                find: "        if stored.status.is_final() {",
                replace: "        if stored.status.is_final() && !@on@ {",
            },
        ],
    },
    Mutant {
        name: "a step that went along is not told",
        edits: &[Edit {
            file: "engine/src/decide.rs",
            find: "            if gone && self.class",
            replace: "            if gone && !@on@ && self.class",
        }],
    },
    Mutant {
        name: "rows of changed steps are not written",
        edits: &[Edit {
            file: "engine/src/drive/batch.rs",
            find: "        for index in &self.steps {",
            replace: "        for index in self.steps.iter().filter(|_| !@on@) {",
        }],
    },
    Mutant {
        name: "a journal in memory takes appends of an earlier owner",
        edits: &[Edit {
            file: "engine/src/memory/tables.rs",
            find: "        if self.epoch == lease.epoch && self.held.is_some() {",
            replace: "        if self.epoch == lease.epoch && self.held.is_some() || @on@ {",
        }],
    },
    Mutant {
        name: "a live owner is taken for dead by the journal in memory",
        edits: &[Edit {
            file: "engine/src/memory.rs",
            find: "        if let Some(held) = &stored.held {",
            replace: "        if let Some(held) = stored.held.as_ref().filter(|_| !@on@) {",
        }],
    },
    Mutant {
        name: "broken things are built again without being removed",
        edits: &[Edit {
            file: "engine/src/drive/attempt.rs",
            find: "if error.terminal && self.may_clear_away() => return self.clear_away().await",
            replace: "if error.terminal && self.may_clear_away() => {
                if @on@ {
                    return self.apply(&Observation::Absent).await;
                }
                return self.clear_away().await;
            }",
        }],
    },
];
