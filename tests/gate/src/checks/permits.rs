//! Permits of mutating calls: no lease, or an engine that stops, means no call; no call outlasts its lease; a token is the
//! call's identity and nothing else.

use super::{ensure, said};
use crate::battery::Case;
use async_trait::async_trait;
use platflow_engine::context::{Context, StepGuard};
use platflow_engine::failure::StepError;
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Lease(Option<Duration>);

#[async_trait]
impl StepGuard for Lease {
    async fn note(&self, _step: &StepName, _key: &str, _value: Value) -> Result<(), StepError> {
        Ok(())
    }

    fn lease_left(&self) -> Result<Duration, StepError> {
        self.0.ok_or_else(|| StepError::transient("the lease is gone"))
    }
}

fn context(lease: Option<Duration>, run: &str, attempt: u32, generation: u32) -> Result<Context, String> {
    Ok(Context {
        step: StepName::new("network.vpc").map_err(said)?,
        run: RunId::new(run).map_err(said)?,
        environment: EnvironmentName::new("aws-dev").map_err(said)?,
        environment_uid: EnvironmentUid::new("uid").map_err(said)?,
        attempt,
        generation,
        clock: Arc::new(SimulatedClock::default()),
        cancelled: CancellationToken::new(),
        guard: Arc::new(Lease(lease)),
    })
}

fn calls() -> Result<(), String> {
    ensure(context(None, "run", 1, 0)?.begin("create").is_err(), || "a call without a lease".to_owned())?;
    for left_ms in [1, 100, 2_000, 10_000, 3_600_000] {
        let left = Duration::from_millis(left_ms);
        let call = context(Some(left), "run", 1, 0)?.begin("create").map_err(said)?;
        ensure(call.timeout < left, || format!("a call of {:?} under a lease of {left:?}", call.timeout))?;
    }
    let stopping = context(Some(Duration::from_secs(10)), "run", 1, 0)?;
    stopping.cancelled.cancel();
    ensure(stopping.begin("create").is_err(), || "a call while the engine stops".to_owned())
}

fn tokens() -> Result<(), String> {
    let token = |run: &str, attempt, generation, call: &str| {
        context(None, run, attempt, generation).map(|context| context.token(call))
    };
    let first = token("run", 1, 0, "create")?;
    for (run, attempt) in [("run", 2), ("other", 1), ("other", 7)] {
        ensure(token(run, attempt, 0, "create")? == first, || format!("another token in {run}, attempt {attempt}"))?;
    }
    let others = BTreeSet::from([token("run", 1, 1, "create")?, token("run", 1, 0, "attach")?, first]);
    ensure(others.len() == 3, || "two calls, or two generations, of one token".to_owned())
}

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![Case::new("permits", calls), Case::new("tokens", tokens)]
}
