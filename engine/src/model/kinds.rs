//! Kinds of steps in the model world, one per habit of real resources.

use crate::clock::{Clock, after};
use crate::context::Context;
use crate::failure::{ErrorClass, Residue, StepError};
use crate::kind::{Catalog, KindDescription, UndoDefault};
use crate::model::world::{LAG, Object, World};
use crate::name::KindName;
use crate::step::{Difference, Known, Observation, Ownership, Progress, Step, UndoProgress};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How a resource behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// A unique name, made and deleted at once, consistent reads.
    Plain,
    /// A unique name; creation and deletion take a while.
    Slow,
    /// No token, no unique name: every create makes another one, and lists lag behind.
    Anonymous,
    /// A client token; lists lag behind; an old token answers with what it once made, even if that is gone.
    Token,
    /// A client token and lists that lag behind; creation and deletion take a while, like those of a NAT gateway.
    SlowToken,
    /// It tells a secret once, when it is made: lost, it must be made again.
    Secret,
}

impl Habit {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Plain, Self::Slow, Self::Anonymous, Self::Token, Self::SlowToken, Self::Secret];

    /// The kind's name.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Plain => "model.plain",
            Self::Slow => "model.slow",
            Self::Anonymous => "model.anonymous",
            Self::Token => "model.token",
            Self::SlowToken => "model.slow-token",
            Self::Secret => "model.secret",
        }
    }

    fn lag(self) -> Duration {
        match self {
            Self::Anonymous | Self::Token | Self::SlowToken => LAG,
            Self::Plain | Self::Slow | Self::Secret => Duration::ZERO,
        }
    }

    fn settle(self) -> Duration {
        match self {
            Self::Anonymous => LAG * 3,
            Self::Plain | Self::Slow | Self::Secret | Self::Token | Self::SlowToken => Duration::ZERO,
        }
    }

    fn delay(self) -> Duration {
        if matches!(self, Self::Slow | Self::SlowToken) { Duration::from_secs(90) } else { Duration::ZERO }
    }
}

/// A step of the model world.
#[derive(Debug)]
pub struct ModelStep {
    world: Arc<World>,
    habit: Habit,
    twice: bool,
    careless: bool,
}

/// A catalog in which every kind named is one of the model's. `twice` performs every apply and undo two times.
#[must_use]
pub fn catalog(world: &Arc<World>, kinds: impl IntoIterator<Item = (KindName, Habit)>, twice: bool) -> Catalog {
    make(world, kinds, twice, false)
}

/// A catalog of kinds whose undo takes away whatever it finds, without a look at whose it is: only the engine stands
/// between it and a stranger's things.
#[must_use]
pub fn careless_catalog(world: &Arc<World>, kinds: impl IntoIterator<Item = (KindName, Habit)>) -> Catalog {
    make(world, kinds, false, true)
}

fn make(
    world: &Arc<World>,
    kinds: impl IntoIterator<Item = (KindName, Habit)>,
    twice: bool,
    careless: bool,
) -> Catalog {
    let mut catalog = Catalog::default();
    for (name, habit) in kinds {
        let description = KindDescription {
            name,
            summary: "a resource of the model world",
            spec_schema: json!({}),
            outputs_schema: json!({}),
            undo: UndoDefault::Own,
            settle: habit.settle(),
            expected: Duration::from_secs(1) + habit.delay(),
            holds_data: habit == Habit::Secret,
        };
        catalog.insert(description, Arc::new(ModelStep { world: Arc::clone(world), habit, twice, careless }));
    }
    catalog
}

fn known_id(known: &Known) -> Option<u64> {
    let output = known.outputs.as_ref().and_then(|outputs| outputs.get("id"));
    known.notes.get("id").or(output).and_then(Value::as_u64)
}

fn differences(object: &Object, spec: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    if let (Value::Object(wanted), Value::Object(present)) = (spec, &object.spec) {
        for key in wanted.keys().chain(present.keys().filter(|key| !wanted.contains_key(*key))) {
            let (wanted, present) = (wanted.get(key), present.get(key));
            if wanted != present {
                found.push(Difference {
                    field: format!("/{}", key.replace('~', "~0").replace('/', "~1")),
                    wanted: wanted.cloned().unwrap_or(Value::Null),
                    found: present.cloned().unwrap_or(Value::Null),
                    replace: false,
                });
            }
        }
    } else if object.spec != *spec {
        let (wanted, present) = (spec.clone(), object.spec.clone());
        found.push(Difference { field: String::new(), wanted, found: present, replace: false });
    }
    if !object.sealed {
        found.push(Difference { field: "/sealed".into(), wanted: true.into(), found: false.into(), replace: false });
    }
    found
}

impl ModelStep {
    fn find(&self, known: &Known, context: &Context) -> Option<(u64, Object)> {
        self.world.look(&context.step, context.environment_uid.as_str(), known_id(known), self.habit.lag())
    }

    async fn create(&self, spec: &Value, context: &Context) -> Result<Progress, StepError> {
        let habit = self.habit;
        let id = self
            .world
            .call(context, "create", |effects| match habit {
                Habit::Token | Habit::SlowToken => Ok(effects.create_once(spec, habit.delay())),
                Habit::Anonymous => Ok(effects.create(spec, Duration::ZERO, true)),
                Habit::Plain | Habit::Slow | Habit::Secret if effects.taken() => {
                    Err(StepError::new(ErrorClass::Conflict, "the name is taken").leaving(Residue::Unknown))
                }
                Habit::Plain | Habit::Slow | Habit::Secret => {
                    Ok(effects.create(spec, habit.delay(), habit != Habit::Secret))
                }
            })
            .await?;
        match habit {
            Habit::Anonymous | Habit::Token | Habit::SlowToken => context.note("id", id.into()).await?,
            Habit::Secret => {
                context.note("sealed", id.into()).await?;
                self.seal(id, context).await?;
            }
            Habit::Plain | Habit::Slow => {}
        }
        if !habit.delay().is_zero() {
            let (poll_in, budget) = (Duration::from_secs(15), Duration::from_secs(1_200));
            return Ok(Progress::Waiting { reason: "CREATING".to_owned(), poll_in, budget });
        }
        Ok(Progress::Done { outputs: json!({ "id": id }) })
    }

    async fn seal(&self, id: u64, context: &Context) -> Result<(), StepError> {
        self.world
            .call(context, "seal", |effects| {
                effects.change(id, |object| object.sealed = true);
                Ok(())
            })
            .await
    }

    async fn apply_once(
        &self,
        spec: &Value,
        observed: &Observation,
        known: &Known,
        context: &Context,
    ) -> Result<Progress, StepError> {
        let Observation::Present { .. } = observed else { return self.create(spec, context).await };
        let Some((id, object)) = self.find(known, context) else { return self.create(spec, context).await };
        if !object.sealed {
            if known.notes.get("sealed").and_then(Value::as_u64) == Some(id) {
                self.seal(id, context).await?;
            } else {
                // Its secret was told to a process that died: nothing has used it yet, so it is made again.
                self.world
                    .call(context, "wipe", |effects| {
                        effects.wipe(id);
                        Ok(())
                    })
                    .await?;
                return self.create(spec, context).await;
            }
        }
        if object.spec != *spec {
            self.world
                .call(context, "update", |effects| {
                    effects.change(id, |object| object.spec = spec.clone());
                    Ok(())
                })
                .await?;
        }
        Ok(Progress::Done { outputs: json!({ "id": id }) })
    }

    async fn undo_once(&self, known: &Known, context: &Context) -> Result<UndoProgress, StepError> {
        let Some((id, object)) = self.find(known, context) else {
            return Ok(UndoProgress::Gone { evidence: "looked, and it is not there".to_owned() });
        };
        if !self.careless && object.owner != context.environment_uid.as_str() {
            let remedy = "ask its owner".to_owned();
            return Ok(UndoProgress::Blocked { owner: object.owner, remedy });
        }
        if object.gone_at.is_none() {
            let delay = self.habit.delay();
            self.world
                .call(context, "delete", |effects| {
                    effects.delete(id, delay);
                    Ok(())
                })
                .await?;
        }
        if self.find(known, context).is_none() {
            return Ok(UndoProgress::Gone { evidence: "deleted, looked, and it is not there".to_owned() });
        }
        let (poll_in, budget) = (Duration::from_secs(15), Duration::from_secs(1_200));
        Ok(UndoProgress::Waiting { reason: "DELETING".to_owned(), poll_in, budget })
    }
}

#[async_trait]
impl Step for ModelStep {
    async fn observe(&self, spec: &Value, known: &Known, context: &Context) -> Result<Observation, StepError> {
        {
            let _in_flight = self.world.clock.in_flight();
            tokio::task::yield_now().await;
        }
        let Some((id, object)) = self.find(known, context) else { return Ok(Observation::Absent) };
        let poll_in = Duration::from_secs(15);
        if object.owner != context.environment_uid.as_str() {
            let ownership = Ownership::Foreign(object.owner);
            return Ok(Observation::Present { outputs: json!({ "id": id }), ownership, differences: Vec::new() });
        }
        if object.gone_at.is_some() {
            return Ok(Observation::Changing { reason: "DELETING".to_owned(), poll_in });
        }
        if self.world.clock.now() < after(object.ready_at, Duration::ZERO) {
            return Ok(Observation::Changing { reason: "CREATING".to_owned(), poll_in });
        }
        if object.broken {
            return Err(StepError::permanent("it came up broken").terminal());
        }
        let differences = differences(&object, spec);
        Ok(Observation::Present { outputs: json!({ "id": id }), ownership: Ownership::Ours, differences })
    }

    async fn apply(
        &self,
        spec: &Value,
        observed: &Observation,
        known: &Known,
        context: &Context,
    ) -> Result<Progress, StepError> {
        let progress = self.apply_once(spec, observed, known, context).await?;
        if !self.twice {
            return Ok(progress);
        }
        // Again, as an engine must that does not know of the first time: it looks first.
        let known = match &progress {
            Progress::Done { outputs } => {
                let mut notes = known.notes.clone();
                notes.extend(outputs.get("id").map(|id| ("id".to_owned(), id.clone())));
                Known { outputs: Some(outputs.clone()), notes, ..known.clone() }
            }
            Progress::Waiting { .. } => known.clone(),
        };
        match self.observe(spec, &known, context).await? {
            Observation::Changing { .. } => Ok(progress),
            observed => self.apply_once(spec, &observed, &known, context).await,
        }
    }

    async fn undo(&self, _spec: &Value, known: &Known, context: &Context) -> Result<UndoProgress, StepError> {
        let progress = self.undo_once(known, context).await?;
        if self.twice { self.undo_once(known, context).await } else { Ok(progress) }
    }
}
