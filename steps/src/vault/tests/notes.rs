//! What a verb notes on its way, kept in a map, and how a kind's run ended.

use async_trait::async_trait;
use platflow_engine::context::StepGuard;
use platflow_engine::failure::StepError;
use platflow_engine::name::StepName;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Notes(pub(super) Mutex<BTreeMap<(String, String), Value>>);

#[async_trait]
impl StepGuard for Notes {
    async fn note(&self, step: &StepName, key: &str, value: Value) -> Result<(), StepError> {
        self.0.lock().expect("lock").insert((step.to_string(), key.to_owned()), value);
        Ok(())
    }
    fn lease_left(&self) -> Result<Duration, StepError> {
        Ok(Duration::from_secs(20))
    }
}

pub(super) enum Outcome {
    Done(Value),
    Failed(StepError),
}

impl Outcome {
    pub(super) fn expect_done(self, kind: &str) -> Value {
        match self {
            Self::Done(outputs) => outputs,
            Self::Failed(error) => panic!("{kind} failed: {error}"),
        }
    }
}
