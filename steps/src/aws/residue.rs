//! Keeps every kind honest about what a failed attempt left behind.
//!
//! A refused call left nothing *of that call*. A step may claim residue none only if that call was the attempt's first,
//! nothing was there before, and no earlier attempt's outcome is unknown. One wrapper sees to it for all kinds.

use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::{Context, StepGuard};
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::kind::UndoDefault;
use platflow_engine::name::StepName;
use platflow_engine::step::UndoProgress;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A kind whose residues are corrected.
pub(crate) struct Honest<K>(pub(crate) K);

/// Counts the mutating calls that were begun.
struct Counting {
    inner: Arc<dyn StepGuard>,
    begun: AtomicUsize,
}

#[async_trait]
impl StepGuard for Counting {
    async fn note(&self, step: &StepName, key: &str, value: Value) -> Result<(), StepError> {
        self.inner.note(step, key, value).await
    }

    fn lease_left(&self) -> Result<Duration, StepError> {
        let left = self.inner.lease_left()?;
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ok(left)
    }
}

fn at_least(error: StepError, floor: Residue) -> StepError {
    if error.residue == Residue::None { error.leaving(floor) } else { error }
}

#[async_trait]
impl<K: StepKind> StepKind for Honest<K> {
    type Spec = K::Spec;
    type Outputs = K::Outputs;

    const NAME: &'static str = K::NAME;
    const SUMMARY: &'static str = K::SUMMARY;
    const SETTLE: Duration = K::SETTLE;
    const SPARES_STRANGERS: bool = K::SPARES_STRANGERS;
    const EXPECTED: Duration = K::EXPECTED;
    const HOLDS_DATA: bool = K::HOLDS_DATA;
    const UNDO: UndoDefault = K::UNDO;

    async fn observe(
        &self,
        spec: &K::Spec,
        record: &Record<K::Outputs>,
        context: &Context,
    ) -> Result<Seen<K::Outputs>, StepError> {
        self.0.observe(spec, record, context).await.map_err(|error| at_least(error, Residue::Unknown))
    }

    async fn apply(
        &self,
        spec: &K::Spec,
        seen: &Seen<K::Outputs>,
        record: &Record<K::Outputs>,
        context: &Context,
    ) -> Result<Made<K::Outputs>, StepError> {
        let counting = Arc::new(Counting { inner: Arc::clone(&context.guard), begun: AtomicUsize::new(0) });
        let mut watched = context.clone();
        watched.guard = counting.clone();
        let made = self.0.apply(spec, seen, record, &watched).await;
        made.map_err(|error| {
            let begun = counting.begun.load(Ordering::Relaxed);
            let foreign = error.code.as_deref() == Some("Foreign");
            match seen {
                _ if begun == 0 && foreign => error,
                Seen::Absent if begun < 2 && record.uncertain => at_least(error, Residue::Unknown),
                Seen::Absent if begun < 2 => error,
                _ => at_least(error, Residue::Present),
            }
        })
    }

    async fn undo(
        &self,
        spec: &K::Spec,
        record: &Record<K::Outputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        self.0.undo(spec, record, context).await.map_err(|error| at_least(error, Residue::Unknown))
    }
}
