//! The catalog of a rehearsal: the real kinds, watched (time stands still while a verb works, a chosen step fails once),
//! and doubles for what only the user's own programs could answer.

use crate::rehearsal::clock::at_work;
use crate::rehearsal::doubles::Double;
use crate::rehearsal::recorder::Recorder;
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::kind::Catalog;
use platflow_engine::name::StepName;
use platflow_engine::step::{Known, Observation, Progress, Step, UndoProgress};
use platflow_engine::survey::{Findings, Scope, Survey};
use platflow_sandbox::embedded::Embedded;
use platflow_sandbox::virtual_time::VirtualTime;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// A failure that waits for its step.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) step: StepName,
    pub(crate) class: ErrorClass,
    pub(crate) landed: bool,
}

/// The failure to come, if one is.
pub(crate) type Troubles = Arc<Mutex<Option<Trouble>>>;

/// What watching needs.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) time: Arc<VirtualTime>,
    pub(crate) embedded: Arc<Embedded>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) troubles: Troubles,
    /// Steps whose programs and requests are executed.
    pub(crate) real: Arc<BTreeSet<StepName>>,
}

struct Watched {
    watch: Watch,
    kind: String,
    inner: Arc<dyn Step>,
    double: Option<Double>,
}

/// Wraps every kind.
pub(crate) fn watched(catalog: &Catalog, watch: &Watch) -> Catalog {
    let mut all = Catalog::default();
    for description in catalog.descriptions() {
        let Some(inner) = catalog.step(&description.name) else { continue };
        let kind = description.name.as_str().to_owned();
        let simulated = matches!(kind.as_str(), "core.exec" | "core.http" | "core.approval" | "core.wait");
        let double = simulated.then(|| Double {
            kind: kind.clone(),
            recorder: Arc::clone(&watch.recorder),
            embedded: Arc::clone(&watch.embedded),
        });
        let step = Watched { watch: watch.clone(), kind, inner, double };
        all.insert(description.clone(), Arc::new(step));
    }
    for survey in catalog.surveys() {
        all.add_survey(Arc::new(WatchedSurvey { time: Arc::clone(&watch.time), inner: Arc::clone(survey) }));
    }
    all
}

/// Time stands still while a search works.
struct WatchedSurvey {
    time: Arc<VirtualTime>,
    inner: Arc<dyn Survey>,
}

#[async_trait]
impl Survey for WatchedSurvey {
    async fn survey(&self, scope: &Scope) -> Result<Findings, StepError> {
        at_work(&self.time, self.inner.survey(scope)).await
    }
}

impl Watched {
    fn is_real(&self, spec: &Value, context: &Context) -> bool {
        match self.kind.as_str() {
            // A time is waited for in virtual time; only a URL would have to answer.
            "core.wait" => spec.get("until_url").is_none_or(Value::is_null),
            "core.exec" | "core.http" => self.watch.real.contains(&context.step),
            _ => self.double.is_none(),
        }
    }

    fn step(&self, spec: &Value, context: &Context) -> &dyn Step {
        match &self.double {
            Some(double) if !self.is_real(spec, context) => double,
            _ => &*self.inner,
        }
    }

    /// Its effects are outside of the sandbox, so nobody else sees them.
    fn is_program(&self, context: &Context) -> bool {
        matches!(self.kind.as_str(), "core.exec" | "core.http") && self.watch.real.contains(&context.step)
    }

    fn trouble(&self, context: &Context) -> Option<Trouble> {
        let mut troubles = self.watch.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.take_if(|trouble| trouble.step == context.step)
    }

    fn before_program(&self, verb: &str, context: &Context) {
        let (world, now_ms) = self.watch.embedded.look(|world, now_ms| (world.clone(), now_ms));
        self.watch.recorder.before_program(format!("{verb} of {}", context.step), world, now_ms);
    }

    fn after_program(&self, verb: &str, context: &Context) {
        let (world, now_ms) = self.watch.embedded.look(|world, now_ms| (world.clone(), now_ms));
        self.watch.recorder.after_program(&format!("{verb} of {}", context.step), world, now_ms);
    }
}

fn failure(trouble: &Trouble) -> StepError {
    let residue = if trouble.landed { Residue::Present } else { Residue::Unknown };
    StepError::new(trouble.class, "the rehearsal made this step fail").leaving(residue).with_code("Rehearsed")
}

#[async_trait]
impl Step for Watched {
    fn spares_strangers(&self) -> bool {
        self.double.is_none() && self.inner.spares_strangers()
    }

    async fn observe(&self, spec: &Value, known: &Known, context: &Context) -> Result<Observation, StepError> {
        at_work(&self.watch.time, self.step(spec, context).observe(spec, known, context)).await
    }

    async fn apply(
        &self,
        spec: &Value,
        observed: &Observation,
        known: &Known,
        context: &Context,
    ) -> Result<Progress, StepError> {
        let trouble = self.trouble(context);
        if let Some(trouble) = trouble.as_ref().filter(|trouble| !trouble.landed) {
            return Err(failure(trouble));
        }
        at_work(&self.watch.time, async {
            let program = self.is_program(context);
            if program {
                self.before_program("apply", context);
            }
            let made = self.step(spec, context).apply(spec, observed, known, context).await;
            if program {
                self.after_program("apply", context);
            }
            match trouble {
                Some(trouble) => made.and(Err(failure(&trouble))),
                None => made,
            }
        })
        .await
    }

    async fn undo(&self, spec: &Value, known: &Known, context: &Context) -> Result<UndoProgress, StepError> {
        at_work(&self.watch.time, async {
            let program = self.is_program(context);
            if program {
                self.before_program("undo", context);
            }
            let undone = self.step(spec, context).undo(spec, known, context).await;
            if program {
                self.after_program("undo", context);
            }
            undone
        })
        .await
    }
}
