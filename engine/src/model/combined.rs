//! Troubles that come together: a step fails and the process dies, while every action is done twice.
//!
//! It adds no oracle of its own: what must hold in the end is what the sweep of single troubles demands.

use crate::drive::DriveOutcome;
use crate::event::Ending;
use crate::model::sweep::{Broken, Crash, Recovery, Subject, Undisturbed, arm, chain, consistent, recover, run_id};
use crate::model::trial::End;
use crate::model::world::Fault;
use crate::plan::OnFailure;

/// One case of troubles that come together.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Where the process dies, if the run gets that far.
    pub crash: Crash,
    /// What fails, until an operator has seen the run parked.
    pub fault: Fault,
    /// What the run does about it.
    pub policy: OnFailure,
    /// Where the operator takes the run then.
    pub recovery: Recovery,
    /// Whether every apply and undo is performed two times.
    pub twice: bool,
}

impl Subject {
    /// A step fails and the process dies on the way, before, during or after the failure is dealt with; it is recovered
    /// while the trouble lasts, and again when it is gone.
    ///
    /// # Errors
    /// As for [`Subject::crash`].
    pub async fn trouble(&self, trouble: &Trouble, expected: &Undisturbed) -> Result<(), Broken> {
        self.troubled(trouble, expected).await.map_err(|problem| Broken { case: format!("{trouble:?}"), problem })
    }

    async fn troubled(&self, trouble: &Trouble, expected: &Undisturbed) -> Result<(), String> {
        let trial = self.prepare(trouble.twice).await.map_err(|error| chain(&error))?;
        let id = run_id().map_err(|error| chain(&error))?;
        arm(&trial, trouble.crash, 0);
        trial.world.fail(trouble.fault.clone());
        let end = trial.run(&id, &self.plan, trouble.policy).await.map_err(|error| chain(&error))?;
        // A crash that was not reached must not come later: the process that recovers is another one.
        trial.journal.revive();
        trial.world.spare();
        if end == End::Died {
            if !consistent(&trial, &id).await? {
                return Err("the rows are not the fold of the events after the crash".to_owned());
            }
            match recover(&trial, &id, trouble.recovery).await? {
                End::Outcome(_) => {}
                End::Died => return Err("the process that recovered died as well".to_owned()),
            }
        }
        trial.world.heal();
        let run = trial.load(&id).await.map_err(|error| chain(&error))?;
        let recovery = if run.state.is_backward() { Recovery::Backward } else { trouble.recovery };
        let wanted = match recovery {
            Recovery::Forward => Ending::Done,
            Recovery::Backward => Ending::RolledBack,
        };
        let end = recover(&trial, &id, recovery).await?;
        if end != End::Outcome(DriveOutcome::Finished(wanted)) {
            return Err(format!("recovery ended as {end:?}"));
        }
        self.check(&trial, &id, recovery, expected).await
    }
}
