//! Sees every call to the sandbox: counts, tells what was made, writes the story of a replay, and films an undisturbed run,
//! that is, keeps a moment at every journal boundary and around every mutating call.

use crate::failure::{CommandError, ExitCode};
use crate::rehearsal::moment::{Files, Made, Moment, Things};
use platflow_engine::name::StepName;
use platflow_sandbox::counting::Counters;
use platflow_sandbox::embedded::Witness;
use platflow_sandbox::world::World;
use platflow_state::Copier;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A commit of the undisturbed run.
#[derive(Debug, Clone)]
pub(crate) struct Boundary {
    /// What it made durable, for people.
    pub(crate) what: String,
    /// Right after it; calls under way have landed or not, as they had.
    pub(crate) cut: Moment,
    /// After those calls went as far as they could; nothing when that changes nothing.
    pub(crate) landed: Option<Moment>,
}

/// A mutating call of the undisturbed run.
#[derive(Debug, Clone)]
pub(crate) struct CallPoint {
    /// Such as `ec2:CreateVpc`.
    pub(crate) what: String,
    pub(crate) before: Moment,
    pub(crate) after: Moment,
    /// A program that still runs, or a simulated step that is just being made.
    open: bool,
}

/// Moments of one undisturbed run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Film {
    pub(crate) boundaries: Vec<Boundary>,
    pub(crate) calls: Vec<CallPoint>,
}

struct Camera {
    copier: Copier,
    version: Option<i64>,
    copies: PathBuf,
    copied: usize,
    files: PathBuf,
    pending: Option<(Arc<World>, i64, Things)>,
    film: Film,
    failure: Option<String>,
}

#[derive(Default)]
struct Inner {
    /// Sum of the tally.
    total: u64,
    tally: BTreeMap<String, u64>,
    made: Made,
    things: Things,
    story: Option<Vec<String>>,
    camera: Option<Camera>,
}

/// See the file.
#[derive(Default)]
pub(crate) struct Recorder {
    inner: Mutex<Inner>,
    calls: AtomicU64,
}

fn tally(counters: &Counters) -> BTreeMap<String, u64> {
    let mut tally = counters.mutations.clone();
    for (name, count) in &counters.smoke {
        *tally.entry(name.clone()).or_default() += count;
    }
    tally
}

fn note_made(made: &mut Made, world: &World) {
    for record in world.aws.records() {
        if let Some(step) = record.tags.get("platflow:step") {
            let ids = made.entry((record.kind.clone(), step.clone())).or_default();
            if !ids.contains(&record.id) {
                ids.insert(record.id.clone());
            }
        }
    }
}

impl Camera {
    fn state(&mut self) -> Result<PathBuf, String> {
        let version = self.copier.version().map_err(|error| error.to_string())?;
        if self.version != Some(version) {
            self.copied += 1;
            let path = self.copies.join(format!("{}.db", self.copied));
            self.copier.copy_to(&path).map_err(|error| error.to_string())?;
            self.version = Some(version);
        }
        Ok(self.copies.join(format!("{}.db", self.copied)))
    }

    fn moment(&mut self, world: Arc<World>, now_ms: i64, things: Things, made: Made) -> Option<Moment> {
        let kept = self.state().and_then(|state| {
            let files = Files::read(&self.files).map_err(|error| error.to_string())?;
            Ok(Moment { world, now_ms, state, files: Arc::new(files), things, made })
        });
        kept.map_err(|error| self.failure = Some(error)).ok()
    }
}

impl Recorder {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls of any kind there were.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Begins to film the run on a state file.
    pub(crate) fn film(&self, state: &Path, files: &Path, copies: &Path) -> Result<(), CommandError> {
        let copier = Copier::open(state).map_err(crate::wiring::journal_error)?;
        self.inner().camera = Some(Camera {
            copier,
            version: None,
            copies: copies.to_owned(),
            copied: 0,
            files: files.to_owned(),
            pending: None,
            film: Film::default(),
            failure: None,
        });
        Ok(())
    }

    /// Ends filming.
    pub(crate) fn cut(&self) -> Result<Film, CommandError> {
        let camera = self.inner().camera.take();
        let Some(camera) = camera else { return Ok(Film::default()) };
        match camera.failure {
            Some(failure) => Err(CommandError::new(ExitCode::Internal, "the undisturbed run could not be kept")
                .caused_by(failure)
                .with_remedy("check the space under /dev/shm, or of the state directory where there is none")),
            None => Ok(camera.film),
        }
    }

    /// Goes on from a moment.
    pub(crate) fn restore(&self, counters: &Counters, things: Things, made: Made) {
        let mut inner = self.inner();
        inner.tally = tally(counters);
        inner.total = inner.tally.values().sum();
        inner.things = things;
        inner.made = made;
    }

    /// Begins to write the story.
    pub(crate) fn tell(&self) {
        self.inner().story = Some(Vec::new());
    }

    /// A line of the story.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.inner().story {
            story.push(line());
        }
    }

    /// The story so far.
    pub(crate) fn story(&self) -> Vec<String> {
        self.inner().story.take().unwrap_or_default()
    }

    /// What was ever made.
    pub(crate) fn made(&self) -> Made {
        self.inner().made.clone()
    }

    /// What simulated steps made.
    pub(crate) fn things(&self) -> Things {
        self.inner().things.clone()
    }

    /// A simulated step's outputs.
    pub(crate) fn thing(&self, step: &StepName) -> Option<Value> {
        self.inner().things.get(step).map(|(_, outputs)| outputs.clone())
    }

    /// A commit is durable, and nobody has heard of it.
    pub(crate) fn boundary(&self, what: String, world: World, now_ms: i64) {
        let mut inner = self.inner();
        let (things, made) = (inner.things.clone(), inner.made.clone());
        let Some(camera) = &mut inner.camera else { return };
        if let Some(cut) = camera.moment(Arc::new(world), now_ms, things, made) {
            camera.film.boundaries.push(Boundary { what, cut, landed: None });
        }
    }

    /// The calls that were under way at the last commit have landed.
    pub(crate) fn landed(&self, world: World, now_ms: i64) {
        let mut inner = self.inner();
        let (things, made) = (inner.things.clone(), inner.made.clone());
        let Some(camera) = &mut inner.camera else { return };
        let landed = camera.moment(Arc::new(world), now_ms, things, made);
        if let Some(last) = camera.film.boundaries.last_mut() {
            last.landed = landed;
        }
    }

    /// How much was changed so far: simulated steps and the world.
    pub(crate) fn changes(&self) -> (u64, Things) {
        let inner = self.inner();
        (inner.tally.values().sum(), inner.things.clone())
    }

    /// Something outside of the sandbox is about to be changed, in the world as it is now.
    pub(crate) fn before_program(&self, what: String, world: World, now_ms: i64) {
        let mut inner = self.inner();
        let (things, made) = (inner.things.clone(), inner.made.clone());
        let Some(camera) = &mut inner.camera else { return };
        if let Some(before) = camera.moment(Arc::new(world), now_ms, things, made) {
            camera.film.calls.push(CallPoint { what, after: before.clone(), before, open: true });
        }
    }

    /// Something is about to be made durable. A program that is under way may have done its work by now, and a process that
    /// dies here never says so.
    pub(crate) fn before_commit(&self, world: impl FnOnce() -> (World, i64)) {
        let mut inner = self.inner();
        let (things, made) = (inner.things.clone(), inner.made.clone());
        let Some(camera) = &mut inner.camera else { return };
        if !camera.film.calls.iter().any(|point| point.open) {
            return;
        }
        let (world, now_ms) = world();
        let Some(now) = camera.moment(Arc::new(world), now_ms, things, made) else { return };
        for point in camera.film.calls.iter_mut().filter(|point| point.open) {
            point.after = now.clone();
        }
    }

    /// It was changed.
    pub(crate) fn after_program(&self, what: &str, world: World, now_ms: i64) {
        let mut inner = self.inner();
        if let Some(story) = &mut inner.story {
            story.push(format!("    did {what}"));
        }
        let (things, made) = (inner.things.clone(), inner.made.clone());
        let Some(camera) = &mut inner.camera else { return };
        let Some(at) = camera.film.calls.iter().rposition(|point| point.open && point.what == what) else { return };
        let untold = camera.film.calls.get(at).is_some_and(|point| point.after.same_files(&point.before));
        // Nothing was made durable since its work was done: the moment is now.
        let after = if untold { camera.moment(Arc::new(world), now_ms, things, made) } else { None };
        if let Some(point) = camera.film.calls.get_mut(at) {
            point.open = false;
            point.after = after.unwrap_or_else(|| point.after.clone());
        }
    }

    /// A simulated step is made or taken away.
    pub(crate) fn change_thing(&self, step: &StepName, made: Option<(String, Value)>) {
        let mut inner = self.inner();
        match made {
            Some(made) => inner.things.insert(step.clone(), made),
            None => inner.things.remove(step),
        };
    }
}

impl Witness for Recorder {
    fn before(&self, world: &World, now_ms: i64, may_change: bool) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut inner = self.inner();
        if inner.camera.is_none() {
            return;
        }
        let pending = may_change.then(|| (Arc::new(world.clone()), now_ms, inner.things.clone()));
        if let Some(camera) = &mut inner.camera {
            camera.pending = pending;
        }
    }

    fn after(&self, world: &World, now_ms: i64) {
        let inner = &mut *self.inner();
        // Most calls only look, and counts never fall: the sum tells.
        let counted = world.counters.mutations.values().chain(world.counters.smoke.values()).sum();
        if inner.total == counted {
            return;
        }
        inner.total = counted;
        let tally = tally(&world.counters);
        let Some(what) = tally.iter().find(|(name, count)| inner.tally.get(*name) != Some(count)) else { return };
        let what = what.0.clone();
        inner.tally = tally;
        let made_before = inner.made.clone();
        note_made(&mut inner.made, world);
        if let Some(story) = &mut inner.story {
            story.push(format!("    called {what}"));
        }
        let made = inner.made.clone();
        let Some(camera) = &mut inner.camera else { return };
        let Some((pending, at_ms, things)) = camera.pending.take() else { return };
        let before = camera.moment(pending, at_ms, things.clone(), made_before);
        let after = camera.moment(Arc::new(world.clone()), now_ms, things, made);
        if let (Some(before), Some(after)) = (before, after) {
            camera.film.calls.push(CallPoint { what, before, after, open: false });
        }
    }
}
