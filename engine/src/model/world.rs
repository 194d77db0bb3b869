//! The world itself: objects with owners, calls that can be refused, lost, or be the last thing a process did.
//!
//! It also keeps watch: a call without a durable intent, an object made before what it needs, or deleted under what
//! needs it, is a violation.

use crate::clock::{Clock, after};
use crate::context::Context;
use crate::failure::{ErrorClass, Residue, StepError};
use crate::model::clock::SimulatedClock;
use crate::name::StepName;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a new object may be missing from lists.
pub const LAG: Duration = Duration::from_secs(20);

/// Something that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The step whose tag it carries.
    pub step: StepName,
    /// The environment whose tag it carries.
    pub owner: String,
    /// What it is like.
    pub spec: Value,
    /// When it was made.
    pub made_at: Timestamp,
    /// From when on it can be used.
    pub ready_at: Timestamp,
    /// From when on it is gone, if it is being deleted.
    pub gone_at: Option<Timestamp>,
    /// Its secret was put away safely.
    pub sealed: bool,
    /// It will never be right.
    pub broken: bool,
}

/// Before or after a call had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The call never reached the world.
    Before,
    /// The call had its effect, nobody heard the answer.
    After,
}

/// A failure to be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Calls of this step.
    pub step: StepName,
    /// Calls of this name; any if none.
    pub call: Option<&'static str>,
    /// The class that the step reports.
    pub class: ErrorClass,
    /// The residue that the step reports.
    pub residue: Residue,
    /// Whether the call had its effect all the same.
    pub landed: bool,
    /// How many calls fail.
    pub times: u32,
}

/// Tells whether a step may make calls now: an intent of it is durable.
pub type Witness = Arc<dyn Fn(&Context) -> bool + Send + Sync>;

#[derive(Default)]
struct Inner {
    objects: BTreeMap<u64, Object>,
    last_id: u64,
    /// The last id of what stood before the run.
    earlier: u64,
    tokens: HashMap<String, u64>,
    calls: u64,
    created: BTreeMap<StepName, u32>,
    die: Option<(u64, Moment)>,
    faults: Vec<Fault>,
    breaking: Vec<StepName>,
    needs: BTreeMap<StepName, Vec<StepName>>,
    before: BTreeMap<StepName, Vec<StepName>>,
    along: BTreeMap<StepName, Vec<StepName>>,
    witness: Option<Witness>,
    violations: Vec<String>,
}

/// The world.
pub struct World {
    /// Its time.
    pub clock: Arc<SimulatedClock>,
    inner: Mutex<Inner>,
    /// Notified when the process is to die.
    pub death: Notify,
}

impl std::fmt::Debug for World {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("World").field("objects", &self.inner().objects).finish_non_exhaustive()
    }
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(clock: Arc<SimulatedClock>) -> Self {
        Self { clock, inner: Mutex::new(Inner::default()), death: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What must exist before an object of a step is made, what must be gone before it is deleted, and what its end takes
    /// along.
    pub fn watch(
        &self,
        needs: BTreeMap<StepName, Vec<StepName>>,
        before: BTreeMap<StepName, Vec<StepName>>,
        along: BTreeMap<StepName, Vec<StepName>>,
        witness: Witness,
    ) {
        let mut inner = self.inner();
        inner.needs = needs;
        inner.before = before;
        inner.along = along;
        inner.witness = Some(witness);
    }

    /// The process dies at this call from now on (from 1).
    pub fn die_at(&self, call: u64, moment: Moment) {
        let mut inner = self.inner();
        inner.die = Some((inner.calls + call, moment));
    }

    /// A failure to be met from now on.
    pub fn fail(&self, fault: Fault) {
        self.inner().faults.push(fault);
    }

    /// The next object of this step comes up broken; said twice, the next two.
    pub fn break_next(&self, step: &StepName) {
        self.inner().breaking.push(step.clone());
    }

    /// Nobody dies any more; what fails goes on failing.
    pub fn spare(&self) {
        self.inner().die = None;
    }

    /// No failures any more, and nobody dies.
    pub fn heal(&self) {
        let mut inner = self.inner();
        inner.faults.clear();
        inner.die = None;
    }

    /// How many mutating calls were made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.inner().calls
    }

    /// How often an object was made for each step, since the last [`World::forget_counts`].
    #[must_use]
    pub fn created(&self) -> BTreeMap<StepName, u32> {
        self.inner().created.clone()
    }

    /// Counts from zero again: what stands by now stood before the run.
    pub fn forget_counts(&self) {
        let mut inner = self.inner();
        inner.created.clear();
        inner.earlier = inner.last_id;
    }

    /// What should never have happened.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// Everything that exists, without ids and times: equal pictures are equal worlds.
    #[must_use]
    pub fn picture(&self) -> Vec<String> {
        self.collect_garbage();
        let inner = self.inner();
        let mut picture: Vec<String> = inner
            .objects
            .values()
            .map(|object| {
                let going = if object.gone_at.is_some() { " going away" } else { "" };
                format!("{} of {} sealed={} {}{going}", object.step, object.owner, object.sealed, object.spec)
            })
            .collect();
        picture.sort();
        picture
    }

    /// Every object there is, by id.
    #[must_use]
    pub fn objects(&self) -> Vec<(u64, Object)> {
        self.collect_garbage();
        self.inner().objects.iter().map(|(id, object)| (*id, object.clone())).collect()
    }

    /// Steps that have an object.
    #[must_use]
    pub fn populated(&self) -> Vec<StepName> {
        self.collect_garbage();
        let mut steps: Vec<StepName> = self.inner().objects.values().map(|object| object.step.clone()).collect();
        steps.sort();
        steps
    }

    /// Somebody else takes the objects of a step away.
    pub fn remove_behind_the_back(&self, step: &StepName) {
        self.inner().objects.retain(|_, object| object.step != *step);
    }

    /// Somebody else changes the objects of a step.
    pub fn change_behind_the_back(&self, step: &StepName, spec: &Value) {
        for object in self.inner().objects.values_mut().filter(|object| object.step == *step) {
            object.spec = spec.clone();
        }
    }

    /// Somebody else takes the objects of a step over, but for those that are on their way out already.
    pub fn usurp(&self, step: &StepName, owner: &str) {
        let mut inner = self.inner();
        let standing = |object: &&mut Object| object.step == *step && object.gone_at.is_none();
        for object in inner.objects.values_mut().filter(standing) {
            owner.clone_into(&mut object.owner);
        }
    }

    /// Somebody else has an object where a step wants its own.
    pub fn squat(&self, step: &StepName, owner: &str, spec: &Value) {
        let now = self.clock.now();
        let mut inner = self.inner();
        inner.last_id += 1;
        let id = inner.last_id;
        let object = Object {
            step: step.clone(),
            owner: owner.to_owned(),
            spec: spec.clone(),
            made_at: now,
            ready_at: now,
            gone_at: None,
            sealed: true,
            broken: false,
        };
        inner.objects.insert(id, object);
    }

    fn collect_garbage(&self) {
        let now = self.clock.now();
        self.inner().objects.retain(|_, object| object.gone_at.is_none_or(|gone_at| gone_at > now));
    }

    /// The object of a step: by a known id at once, by list only when `lag` has passed since it was made. Lists are asked
    /// for what carries `owner`'s tag first: a stranger's thing of the same name does not hide it.
    #[must_use]
    pub fn look(&self, step: &StepName, owner: &str, id: Option<u64>, lag: Duration) -> Option<(u64, Object)> {
        self.collect_garbage();
        let now = self.clock.now();
        let inner = self.inner();
        if let Some((id, object)) = id.and_then(|id| Some((id, inner.objects.get(&id)?))) {
            return Some((id, object.clone()));
        }
        let listed = |object: &Object| object.step == *step && after(object.made_at, lag) <= now;
        let first = |ours: bool| inner.objects.iter().find(|(_, one)| listed(one) && (!ours || one.owner == owner));
        first(true).or_else(|| first(false)).map(|(id, object)| (*id, object.clone()))
    }

    /// Makes one mutating call. Every `.await` in it is a place where its process may die.
    ///
    /// # Errors
    /// What the engine refuses, what was planned as a fault, and what the effect itself refuses.
    pub async fn call<T>(
        &self,
        context: &Context,
        name: &'static str,
        effect: impl FnOnce(&mut Effects<'_>) -> Result<T, StepError> + Send,
    ) -> Result<T, StepError> {
        let permit = context.begin(name)?;
        let _in_flight = self.clock.in_flight();
        tokio::task::yield_now().await;
        let (number, fault) = self.arrive(context, name);
        if self.inner().die == Some((number, Moment::Before)) {
            self.end().await;
        }
        if let Some(fault) = fault.as_ref().filter(|fault| !fault.landed) {
            return Err(failure(fault, name));
        }
        let answer = {
            let mut inner = self.inner();
            let now = self.clock.now();
            effect(&mut Effects { inner: &mut inner, context, token: &permit.token, now })
        };
        if self.inner().die == Some((number, Moment::After)) {
            self.end().await;
        }
        tokio::task::yield_now().await;
        match fault {
            Some(fault) => Err(failure(&fault, name)),
            None => answer,
        }
    }

    fn arrive(&self, context: &Context, name: &'static str) -> (u64, Option<Fault>) {
        let mut inner = self.inner();
        inner.calls += 1;
        let number = inner.calls;
        if inner.witness.as_ref().is_some_and(|witness| !witness(context)) {
            inner.violations.push(format!("{} called {name} without a durable intent", context.step));
        }
        let met = inner
            .faults
            .iter_mut()
            .find(|fault| fault.times > 0 && fault.step == context.step && fault.call.is_none_or(|call| call == name));
        let fault = met.map(|fault| {
            fault.times = fault.times.saturating_sub(1);
            fault.clone()
        });
        (number, fault)
    }

    /// The process is dead: nothing it awaits ever comes.
    async fn end(&self) {
        self.death.notify_one();
        std::future::pending().await
    }
}

fn failure(fault: &Fault, name: &str) -> StepError {
    StepError::new(fault.class, format!("{name} was made to fail")).leaving(fault.residue).with_code("Fault")
}

/// What a call may do to the world.
pub struct Effects<'a> {
    inner: &'a mut Inner,
    context: &'a Context,
    token: &'a str,
    now: Timestamp,
}

impl std::fmt::Debug for Effects<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Effects").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Effects<'_> {
    /// Makes an object that is ready after `delay`; returns its id.
    pub fn create(&mut self, spec: &Value, delay: Duration, sealed: bool) -> u64 {
        let missing: Vec<&StepName> = self.inner.needs.get(&self.context.step).map_or_else(Vec::new, |needs| {
            let usable = |need: &StepName| {
                self.inner.objects.values().any(|object| {
                    object.step == *need && object.gone_at.is_none() && object.ready_at <= self.now && object.sealed
                })
            };
            needs.iter().filter(|need| !usable(need)).collect()
        });
        if !missing.is_empty() {
            let violation = format!("{} was made before {missing:?} could be used", self.context.step);
            self.inner.violations.push(violation);
        }
        self.inner.last_id += 1;
        let id = self.inner.last_id;
        *self.inner.created.entry(self.context.step.clone()).or_default() += 1;
        let breaks = self.inner.breaking.iter().position(|step| *step == self.context.step);
        let broken = breaks.map(|place| self.inner.breaking.swap_remove(place)).is_some();
        let object = Object {
            step: self.context.step.clone(),
            owner: self.context.environment_uid.to_string(),
            spec: spec.clone(),
            made_at: self.now,
            ready_at: after(self.now, delay),
            gone_at: None,
            sealed,
            broken,
        };
        self.inner.objects.insert(id, object);
        id
    }

    /// The same call again (by its token) makes nothing new, even when what it made is gone by now.
    pub fn create_once(&mut self, spec: &Value, delay: Duration) -> u64 {
        if let Some(id) = self.inner.tokens.get(self.token) {
            return *id;
        }
        let id = self.create(spec, delay, true);
        self.inner.tokens.insert(self.token.to_owned(), id);
        id
    }

    /// True when an object of the step exists, visible or not.
    #[must_use]
    pub fn taken(&self) -> bool {
        self.inner.objects.values().any(|object| object.step == self.context.step)
    }

    /// Changes an object.
    pub fn change(&mut self, id: u64, change: impl FnOnce(&mut Object)) {
        if let Some(object) = self.inner.objects.get_mut(&id) {
            change(object);
        }
    }

    /// Takes an unfinished object away at once so that it can be made again. It is no undo: what must be gone before the
    /// step is undone may stand, but nothing may stand that needs it, nor may it be finished or another's.
    pub fn wipe(&mut self, id: u64) {
        let Some(object) = self.inner.objects.get(&id) else { return };
        let step = object.step.clone();
        if object.sealed || object.owner != self.context.environment_uid.as_str() {
            self.inner.violations.push(format!("{step}: an object that is finished, or another's, was wiped"));
        }
        let objects = &self.inner.objects;
        let stands = |other: &StepName| objects.values().any(|object| object.step == *other);
        let needing = self.inner.needs.iter().filter(|(other, needs)| needs.contains(&step) && stands(other));
        let needing: Vec<StepName> = needing.map(|(other, _)| other.clone()).collect();
        if !needing.is_empty() {
            self.inner.violations.push(format!("{step} was wiped under {needing:?}"));
        }
        self.inner.objects.remove(&id);
    }

    /// Deletes an object, which takes `delay`.
    pub fn delete(&mut self, id: u64, delay: Duration) {
        let Some(object) = self.inner.objects.get(&id) else { return };
        let (step, owner) = (object.step.clone(), object.owner.clone());
        if owner != self.context.environment_uid.as_str() {
            self.inner.violations.push(format!("{step}: an object of {owner} was deleted"));
        }
        let blocking = self.inner.before.get(&step).cloned().unwrap_or_default();
        // What stood before the run is kept when what the run made is taken away: it orders nothing then.
        let earlier = if id > self.inner.earlier { self.inner.earlier } else { 0 };
        let objects = &self.inner.objects;
        let stands = |other: &StepName| objects.iter().any(|(id, one)| *id > earlier && one.step == *other);
        let standing: Vec<&StepName> = blocking.iter().filter(|other| stands(other)).collect();
        if !standing.is_empty() {
            let violation = format!("{step} was deleted under {standing:?}");
            self.inner.violations.push(violation);
        }
        for other in self.inner.along.get(&step).cloned().unwrap_or_default() {
            let own = self.inner.objects.iter();
            let taken: Vec<u64> =
                own.filter(|(_, one)| one.step == other && one.owner == owner).map(|(id, _)| *id).collect();
            for id in taken {
                self.delete(id, Duration::ZERO);
            }
        }
        if delay.is_zero() {
            self.inner.objects.remove(&id);
        } else if let Some(object) = self.inner.objects.get_mut(&id) {
            object.gone_at = object.gone_at.or(Some(after(self.now, delay)));
        }
    }
}
