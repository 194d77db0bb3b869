//! Power cuts at every write and sync of a scripted story of the real engine on the real store: what was on its way to the
//! disk is lost, kept or torn in every combination that is small enough, and in drawn ones elsewhere.
//!
//! Every image must open, hold every acknowledged fact and secret, and nothing that was not submitted; its rows must be
//! the fold of its events, and its run must be free to be taken over. A part of the images loses power once more while
//! they are opened and taken over. Disks that lie about syncs may lose facts, but only from the end, and never unseen
//! within what is left.

use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::Ending;
use platflow_engine::failure::ErrorClass;
use platflow_engine::fold::Run;
use platflow_engine::journal::Journal;
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::model::generate;
use platflow_engine::model::sweep::{self, Crash, Recovery, Subject};
use platflow_engine::model::trial::{End, MortalJournal, Trial};
use platflow_engine::name::{EnvironmentUid, RunId};
use platflow_engine::plan::OnFailure;
use platflow_engine::secret::SecretStore;
use platflow_report::Sweep;
use platflow_simulation::disk::{Disk, Image, Kept, Operation, Settled, Survival};
use platflow_simulation::journal::{Fact, SimulatedStore, departed, missing, settings, wait};
use platflow_simulation::{scale, workers};
use platflow_state::Store;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most operations on their way of which every combination is tried.
const EXHAUSTIVE: usize = 3;

/// A secret, and how much of the trace was there when it was acknowledged.
struct Sealed {
    at: usize,
    name: String,
    ciphertext: Vec<u8>,
}

/// A story, as the disk and the one who waited for its answers saw it.
struct Story {
    folder: String,
    base: Image,
    trace: Vec<Operation>,
    facts: Vec<Fact>,
    secrets: Vec<Sealed>,
    environment: EnvironmentUid,
}

fn id(number: u32) -> RunId {
    format!("r-20270115-{number:06}").parse().expect("a run id")
}

fn ended(end: Result<End, String>, wanted: Ending) {
    assert_eq!(end, Ok(End::Outcome(DriveOutcome::Finished(wanted))));
}

/// Runs that end well, park, roll back, die and are resumed, destroy; and secrets in between.
async fn tell(seed: u64) -> Story {
    let told = |seed| generate::subject(seed, 8).expect("well-formed names");
    // Of five steps at least, so that the one that dies has something left to do.
    let subject = (seed * 1_000..).map(told).find(|subject| subject.plan.steps.len() >= 5).expect("a larger graph");
    let store = Arc::new(SimulatedStore::recorded());
    let disk = store.disk();
    let base = Image::with_empty(&store.path().to_string_lossy());
    let folder = store.path().parent().expect("a folder").to_string_lossy().into_owned();
    let trial = Trial::on(Arc::clone(&store), Arc::new(SimulatedClock::default()), &subject.habits, false);
    let trial = trial.expect("a trial");
    let mut secrets = Vec::new();
    let mut seal = |number: u8| {
        let (name, ciphertext) = (format!("vault/{number}"), vec![number; 700]);
        store.put_secret(&trial.uid, &name, &ciphertext).expect("a secret is sealed");
        secrets.push(Sealed { at: disk.recorded(), name, ciphertext });
    };
    let failing = subject.plan.steps.last().expect("a step").name.clone();
    let faults = Subject::faults(&failing, u32::MAX);
    let fault = faults.iter().find(|fault| fault.class == ErrorClass::Permanent).unwrap_or(&faults[0]);
    let said = |error: &dyn std::error::Error| error.to_string();
    // It parks, and goes back when told to.
    trial.world.fail(fault.clone());
    let end = trial.run(&id(1), &subject.plan, OnFailure::Park).await;
    assert!(matches!(end, Ok(End::Outcome(DriveOutcome::Parked(_)))), "{end:?}");
    seal(1);
    trial.world.heal();
    ended(sweep::recover(&trial, &id(1), Recovery::Backward).await, Ending::RolledBack);
    // It goes back by itself.
    trial.world.fail(fault.clone());
    ended(trial.run(&id(2), &subject.plan, OnFailure::Rollback).await.map_err(|e| said(&e)), Ending::RolledBack);
    trial.world.heal();
    seal(2);
    // It is stopped in the middle, gone on with, and ends well; then all of it is destroyed.
    sweep::arm(&trial, Crash::Event(12), 0);
    assert_eq!(trial.run(&id(3), &subject.plan, OnFailure::Park).await.map_err(|e| said(&e)), Ok(End::Died));
    store.revive();
    trial.world.spare();
    ended(sweep::recover(&trial, &id(3), Recovery::Forward).await, Ending::Done);
    ended(trial.run(&id(4), &subject.plan, OnFailure::Park).await.map_err(|e| said(&e)), Ending::Done);
    ended(trial.destroy(&id(5), &subject.plan).await.map_err(|e| said(&e)), Ending::RolledBack);
    seal(3);
    assert!(store.lost().is_empty());
    let (trace, facts) = (disk.take_trace(), store.acknowledged());
    let environment = trial.uid.clone();
    Story { folder, base, trace, facts, secrets, environment }
}

/// What one who waited for the story's answers knew when the power went.
struct Heard<'a> {
    facts: &'a [Fact],
    /// The batch that may be on its way.
    unheard: Vec<Vec<Fact>>,
    secrets: Vec<&'a Sealed>,
}

impl Story {
    /// What had been acknowledged before the operation at `boundary`.
    fn heard(&self, boundary: usize) -> Heard<'_> {
        let marks = |operations: &[Operation]| -> Vec<usize> {
            let mark = |operation: &Operation| match operation {
                Operation::Mark(count) => Some(*count),
                _ => None,
            };
            operations.iter().filter_map(mark).collect()
        };
        let (before, after) = self.trace.split_at(boundary);
        let count = marks(before).last().copied().unwrap_or(0);
        let next = marks(after).first().copied().unwrap_or(count);
        Heard {
            facts: &self.facts[..count],
            unheard: vec![self.facts[count..next].to_vec()],
            secrets: self.secrets.iter().filter(|secret| secret.at <= boundary).collect(),
        }
    }

    /// What was durable and what was on its way at a boundary, if the disk tells the truth about syncs that `lies` does
    /// not name.
    fn settled(&self, boundary: usize, lies: &BTreeSet<usize>) -> Settled {
        let mut settled = Settled::of(&self.base);
        for (number, operation) in self.trace[..boundary].iter().enumerate() {
            if !lies.contains(&number) {
                settled.apply(operation.clone());
            }
        }
        settled
    }
}

/// The images that a power cut may leave, `limit` at most, no two alike.
fn images(settled: &Settled, seed: u64, limit: usize) -> Vec<Image> {
    let mut seen = BTreeSet::new();
    let mut images = Vec::new();
    let mut take = |image: Image| {
        if seen.insert(image.digest()) {
            images.push(image);
        }
    };
    let pending = settled.pending();
    if pending <= EXHAUSTIVE {
        for kept in 0_u32..1 << pending {
            let mut number = 0;
            take(settled.cut(|_| {
                number += 1;
                if kept >> (number - 1) & 1 == 1 { Kept::All } else { Kept::Nothing }
            }));
        }
    }
    let drawn = if pending == 0 { 0 } else { limit };
    for number in 0..drawn as u64 {
        let mut survival = Survival::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        take(settled.cut(|operation| survival.of(operation)));
    }
    images.truncate(limit.max(1 << EXHAUSTIVE));
    images
}

/// A folder of its own for each worker: the locks of owners are real files.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the locks"))
    }

    fn folder(&self) -> String {
        self.0.path().to_string_lossy().into_owned()
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state.db")
    }
}

fn runs(facts: &[Fact]) -> Vec<RunId> {
    facts.iter().map(|fact| fact.run.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Everything that an image must show to its next owner.
fn judge(store: &Store, heard: &Heard<'_>, environment: &EnvironmentUid) -> Result<(), String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    wait(store.check_file()).map_err(|error| said(&error))?;
    let mut problems = missing(store, heard.facts, &heard.unheard);
    for secret in &heard.secrets {
        let found = wait(store.get_secret(environment, &secret.name)).map_err(|error| said(&error))?;
        if found.is_none_or(|found| found.ciphertext != secret.ciphertext) {
            problems.push(format!("the secret {} was acknowledged and is not there", secret.name));
        }
    }
    for run in runs(heard.facts) {
        let loaded = wait(store.load(&run)).map_err(|error| said(&error))?;
        let events = wait(store.events(&run, 0, usize::MAX)).map_err(|error| said(&error))?;
        let folded = Run::refold(run.clone(), Arc::new(loaded.plan.clone()), &events).map_err(|error| said(&error))?;
        let rows = Run::load(loaded).map_err(|error| said(&error))?;
        let steps = |run: &Run| -> Vec<serde_json::Value> {
            run.steps().filter_map(|(_, state)| serde_json::to_value(state).ok()).collect()
        };
        if folded.state != rows.state || folded.head != rows.head || steps(&folded) != steps(&rows) {
            problems.push(format!("{run}: the rows are not the fold of the events"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Opens an image, looks at all of it, and takes its newest run over; returns what that did to the disk when `recorded`.
fn open(
    place: &Place,
    image: &Image,
    heard: &Heard<'_>,
    story: &Story,
    recorded: bool,
) -> Result<Vec<Operation>, String> {
    let disk = Disk::holding(image);
    if recorded {
        disk.record();
    }
    let store = Store::open(&place.state(), settings(&disk)).map_err(|error| format!("it does not open: {error}"))?;
    let outcome = judge(&store, heard, &story.environment).and_then(|()| {
        let Some(last) = heard.facts.last() else { return Ok(()) };
        let row = wait(store.list(None, 1)).map_err(|error| error.to_string())?;
        let newest = row.first().map_or_else(|| last.run.clone(), |row| row.id.clone());
        let lease = wait(store.acquire(&newest, &departed())).map_err(|error| format!("no lease: {error}"))?;
        wait(store.release(&lease)).map_err(|error| format!("a lease cannot be given back: {error}"))
    });
    disk.turn_off();
    drop(store);
    outcome.map(|()| disk.take_trace())
}

#[derive(Debug, Default)]
struct Tally {
    boundaries: AtomicUsize,
    images: AtomicUsize,
    second_cuts: AtomicUsize,
}

/// One boundary: all its images; every tenth loses power again at every boundary of being opened.
fn cut_at(place: &Place, story: &Story, boundary: usize, limit: usize, tally: &Tally) -> Result<(), String> {
    let settled = story.settled(boundary, &BTreeSet::new());
    let heard = story.heard(boundary);
    tally.boundaries.fetch_add(1, Ordering::Relaxed);
    for (number, image) in images(&settled, boundary as u64, limit).into_iter().enumerate() {
        let image = image.moved(&story.folder, &place.folder());
        let again = (boundary + number).is_multiple_of(10);
        let trace = open(place, &image, &heard, story, again)
            .map_err(|problem| format!("cut before operation {boundary}, image {number}: {problem}"))?;
        tally.images.fetch_add(1, Ordering::Relaxed);
        let mut settled = Settled::of(&image);
        for (second, operation) in trace.into_iter().enumerate() {
            settled.apply(operation);
            let mut survival = Survival::new((boundary * 1_000 + second) as u64);
            let twice = settled.cut(|operation| survival.of(operation));
            open(place, &twice, &heard, story, false).map_err(|problem| {
                format!("cut before operation {boundary}, image {number}, again after operation {second}: {problem}")
            })?;
            tally.second_cuts.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// Proves that a power cut anywhere loses nothing that was acknowledged, and leaves a file that opens.
#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let sweep = Sweep::begin("power cuts");
    let (stories, limit) = (scale::of(1, 6), scale::of(21, 64));
    let tally = Tally::default();
    for seed in 0..stories as u64 {
        let story = block_on(tell(seed));
        let boundaries: Vec<usize> =
            (1..=story.trace.len()).filter(|end| !matches!(story.trace[end - 1], Operation::Mark(_))).collect();
        workers::judge(&boundaries, Place::new, |place, boundary| {
            cut_at(place, &story, *boundary, limit, &tally).map_err(|problem| format!("story {seed}: {problem}"))
        });
    }
    let wanted = scale::of(20_000, 200_000);
    let images = tally.images.load(Ordering::Relaxed) + tally.second_cuts.load(Ordering::Relaxed);
    sweep.end(images, format_args!("0 to {}", stories - 1), format_args!("{tally:?}"));
    assert!(images >= wanted, "{images} images are fewer than {wanted}");
}

/// What a disk that lied left.
#[derive(Debug, Default)]
struct Found {
    whole: AtomicUsize,
    shortened: AtomicUsize,
    refused: AtomicUsize,
}

/// What is left of a run: all of its facts or the first of them. Nothing if the store itself says that it is damaged.
fn left(store: &Store, run: &RunId, facts: &[&Fact]) -> Result<Option<bool>, String> {
    let Ok(events) = wait(store.events(run, 0, usize::MAX)) else { return Ok(None) };
    let Ok(loaded) = wait(store.load(run)) else {
        return if events.is_empty() { Ok(Some(false)) } else { Ok(None) };
    };
    if wait(store.verify(run)).is_err() {
        return Ok(None);
    }
    let prefix = events.iter().zip(facts).all(|(stored, fact)| stored.payload == fact.payload);
    let plan = Arc::new(loaded.plan.clone());
    let folded = Run::refold(run.clone(), plan, &events).map_err(|error| error.to_string())?;
    let rows = Run::load(loaded).map_err(|error| error.to_string())?;
    if !prefix || folded.state != rows.state || folded.head != rows.head {
        return Err(format!("{run} is neither whole nor the beginning of itself, and passes for sound"));
    }
    Ok(Some(events.len() >= facts.len()))
}

fn lied_to(place: &Place, story: &Story, boundary: usize, found: &Found) -> Result<(), String> {
    let syncs: Vec<usize> = (0..boundary).filter(|at| matches!(story.trace[*at], Operation::Sync { .. })).collect();
    for count in [1, 2, 5, 20] {
        let lies = syncs.iter().rev().take(count).copied().collect();
        let heard = story.heard(boundary);
        for image in images(&story.settled(boundary, &lies), (boundary * 100 + count) as u64, 2) {
            let image = image.moved(&story.folder, &place.folder());
            let disk = Disk::holding(&image);
            let Ok(store) = Store::open(&place.state(), settings(&disk)) else {
                found.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mut outcome = wait(store.check_file()).is_ok().then_some(true);
            for run in runs(heard.facts) {
                let facts: Vec<&Fact> = heard.facts.iter().filter(|fact| fact.run == run).collect();
                let whole = left(&store, &run, &facts).map_err(|problem| format!("after {count} lies: {problem}"))?;
                outcome = outcome.zip(whole).map(|(sound, whole)| sound && whole);
            }
            disk.turn_off();
            drop(store);
            match outcome {
                None => &found.refused,
                Some(true) => &found.whole,
                Some(false) => &found.shortened,
            }
            .fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Proves that a disk which reports syncs that it did not do can take facts from the end only, or leaves a file that the
/// store calls damaged: never a journal with a hole that passes for sound.
#[test]
fn a_disk_that_lies_shortens_the_journal_or_is_found_out() {
    let sweep = Sweep::begin("disks that lie about syncs");
    let story = block_on(tell(1));
    let found = Found::default();
    let step = scale::of(5, 1);
    let boundaries: Vec<usize> = (1..=story.trace.len()).step_by(step).collect();
    workers::judge(&boundaries, Place::new, |place, boundary| {
        lied_to(place, &story, *boundary, &found)
            .map_err(|problem| format!("cut before operation {boundary}: {problem}"))
    });
    let images = [&found.whole, &found.shortened, &found.refused].map(|count| count.load(Ordering::Relaxed));
    sweep.end(images.iter().sum::<usize>(), 1, format_args!("{found:?}"));
    assert!(found.shortened.load(Ordering::Relaxed) > 0, "the lies took nothing away: they were none");
}
