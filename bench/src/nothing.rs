//! A step that does nothing but say when, and, if asked to, where it was done.

use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Known, Observation, Ownership, Progress, Step, UndoProgress};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What happens when the n-th step of this process begins.
pub(crate) enum At {
    /// Nothing.
    Never,
    /// The process kills itself.
    Die(u64),
}

pub(crate) struct Nothing {
    inner: Mutex<Inner>,
    at: At,
}

struct Inner {
    begun: Vec<Instant>,
    /// One line per step that was done, across processes.
    effects: Option<File>,
}

impl Nothing {
    pub(crate) fn new(steps: usize, effects: Option<File>, at: At) -> Self {
        Self { inner: Mutex::new(Inner { begun: Vec::with_capacity(steps), effects }), at }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When each step began, in order.
    pub(crate) fn begun(&self) -> Vec<Instant> {
        self.inner().begun.clone()
    }
}

#[async_trait]
impl Step for Nothing {
    async fn observe(&self, _spec: &Value, known: &Known, _context: &Context) -> Result<Observation, StepError> {
        Ok(match &known.outputs {
            Some(outputs) => {
                Observation::Present { outputs: outputs.clone(), ownership: Ownership::Ours, differences: Vec::new() }
            }
            None => Observation::Absent,
        })
    }

    async fn apply(
        &self,
        spec: &Value,
        _observed: &Observation,
        _known: &Known,
        _context: &Context,
    ) -> Result<Progress, StepError> {
        let mut inner = self.inner();
        inner.begun.push(Instant::now());
        if let At::Die(number) = self.at
            && inner.begun.len() as u64 > number
        {
            // SIGKILL, as a machine that runs out of memory sends it: nothing of this process has another word.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::thread::park();
        }
        if let Some(effects) = &mut inner.effects {
            writeln!(effects, "{}", spec["number"])
                .map_err(|error| StepError::permanent(format!("the effects file cannot be written: {error}")))?;
        }
        Ok(Progress::Done { outputs: json!({ "done": true }) })
    }

    async fn undo(&self, _spec: &Value, _known: &Known, _context: &Context) -> Result<UndoProgress, StepError> {
        Ok(UndoProgress::Gone { evidence: "there was nothing".to_owned() })
    }
}
