//! Seeded runs of the real engine on the real store on a simulated disk: crashes, power cuts, failing disks, failing
//! steps, and clocks that are set between one process and the next.
//!
//! A seed names a case wholly; `PLATFLOW_SEED=n` replays it alone. What must hold in the end is what the sweeps of the
//! engine demand (the undisturbed world or the first one, nothing made twice, the record and the world alike), and that
//! no acknowledged fact is ever missing.

use platflow_engine::clock::Clock;
use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::{Ending, Event};
use platflow_engine::model::clock::{SimulatedClock, WrongClock};
use platflow_engine::model::generate;
use platflow_engine::model::sweep::{self, Crash, Recovery, Subject, Undisturbed};
use platflow_engine::model::trial::{End, MortalJournal, Trial};
use platflow_engine::model::world::Moment;
use platflow_engine::plan::OnFailure;
use platflow_report::Sweep;
use platflow_simulation::disk::Trouble;
use platflow_simulation::journal::{Restart, SimulatedStore};
use platflow_simulation::{scale, shipped, workers};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// What the seeds are drawn over.
struct Field {
    subject: Subject,
    expected: Undisturbed,
}

fn field(subject: Subject) -> Field {
    let expected = block_on(subject.undisturbed(false)).unwrap_or_else(|broken| panic!("{broken}"));
    Field { subject, expected }
}

/// What happened in all cases together.
#[derive(Debug, Default)]
struct Tally {
    runs: AtomicU64,
    deaths: AtomicU64,
    power_cuts: AtomicU64,
    disk_troubles: AtomicU64,
    clock_jumps: AtomicU64,
    events: AtomicU64,
}

/// The story of a case and the world in the end.
type Told = (Vec<Event>, Vec<String>);

/// Where and how the process is next struck; the numbers count from now on.
fn strike(trial: &Trial<SimulatedStore>, random: &mut StdRng, expected: &Undisturbed, head: u64) {
    let disk = trial.journal.disk();
    match random.random_range(0..8) {
        0 => sweep::arm(trial, Crash::Event(random.random_range(2..=expected.events.max(2))), head),
        1 => {
            let moment = if random.random_bool(0.5) { Moment::Before } else { Moment::After };
            let call = trial.world.calls() + random.random_range(1..=expected.calls.max(1));
            sweep::arm(trial, Crash::Call(call, moment), 0);
        }
        2 => disk.fail_read(disk.reads() + random.random_range(1..=expected.events * 4)),
        kind => {
            let trouble = match kind {
                3 | 4 => Trouble::PowerCut,
                5 => Trouble::NoSpace,
                6 => Trouble::ShortWrite,
                _ => Trouble::InputOutput,
            };
            // About ten operations of the disk make one event durable.
            let ahead = random.random_range(1..=expected.events * 10);
            disk.trouble(disk.operations() + ahead, trouble);
        }
    }
}

/// What the next process finds. A device that failed a sync and then loses power may lose what it showed in between:
/// nobody can promise anything there, so a power cut comes at once or not at all.
fn next_restart(trial: &Trial<SimulatedStore>, random: &mut StdRng, failed: &mut bool) -> Restart {
    let disk = trial.journal.disk();
    let first = !*failed;
    *failed |= disk.met().iter().any(|(_, trouble)| *trouble == Trouble::InputOutput);
    if first && random.random_bool(0.5) {
        *failed = false;
        Restart::PowerCut(random.random())
    } else {
        Restart::Killed
    }
}

/// Between two processes time passes, and the next one may find its wall clock set forward or back.
fn jump(world: &SimulatedClock, seen: &WrongClock, random: &mut StdRng, tally: &Tally) {
    const FAR_MS: [i64; 4] = [1_000, 45_000, 3_600_000, 86_400_000];
    let far = |random: &mut StdRng| FAR_MS.choose(random).copied().unwrap_or_default();
    if random.random_bool(0.3) {
        world.pass(Duration::from_millis(far(random).unsigned_abs()));
    }
    if random.random_bool(0.4) {
        tally.clock_jumps.fetch_add(1, Ordering::Relaxed);
        let ahead_ms = far(random);
        seen.set(if random.random_bool(0.5) { ahead_ms } else { -ahead_ms });
    }
}

async fn case(seed: u64, fields: &[Field], tally: &Tally) -> Result<Told, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let field = fields.choose(&mut random).ok_or("no field")?;
    let (subject, expected) = (&field.subject, &field.expected);
    let said = |error: &dyn std::error::Error| format!("{error} ({error:?})");
    let clock = Arc::new(SimulatedClock::default());
    let seen = Arc::new(WrongClock::of(Arc::clone(&clock)));
    let store = Arc::new(SimulatedStore::new());
    let mut trial = Trial::on(store, Arc::clone(&clock), &subject.habits, false).map_err(|e| said(&e))?;
    trial.engine.clock = Arc::clone(&seen) as Arc<dyn Clock>;
    let trial = subject.prepare_on(trial).await.map_err(|error| said(&error))?;
    let id = sweep::run_id().map_err(|error| said(&error))?;
    let recovery = if random.random_bool(0.5) { Recovery::Forward } else { Recovery::Backward };
    let policy = if random.random_bool(0.3) { OnFailure::Rollback } else { OnFailure::Park };
    if random.random_bool(0.4) {
        let step = subject.plan.steps.choose(&mut random).ok_or("a plan without steps")?;
        let times = if random.random_bool(0.5) { 1 } else { u32::MAX };
        let fault = Subject::faults(&step.name, times).choose(&mut random).cloned().ok_or("no fault")?;
        trial.world.fail(fault);
    }
    let (mut begun, mut failed) = (false, false);
    let strikes = random.random_range(1..=3);
    for round in 0..=strikes {
        let run = if begun { Some(trial.load(&id).await.map_err(|error| said(&error))?) } else { None };
        let head = run.as_ref().map_or(0, |run| run.head);
        if round < strikes {
            strike(&trial, &mut random, expected, head);
        }
        let end = match run {
            Some(run) if run.state.is_backward() => sweep::recover(&trial, &id, Recovery::Backward).await?,
            Some(_) => sweep::recover(&trial, &id, recovery).await?,
            None => trial.run(&id, &subject.plan, policy).await.map_err(|error| said(&error))?,
        };
        trial.world.spare();
        if end == End::Died {
            tally.deaths.fetch_add(1, Ordering::Relaxed);
        }
        let disk = trial.journal.disk();
        tally.disk_troubles.fetch_add(disk.met().len() as u64, Ordering::Relaxed);
        let restart = next_restart(&trial, &mut random, &mut failed);
        if restart != Restart::Killed {
            tally.power_cuts.fetch_add(1, Ordering::Relaxed);
        }
        trial.journal.restart(restart);
        jump(&clock, &seen, &mut random, tally);
        trial.journal.revive();
        if !trial.journal.lost().is_empty() {
            return Err(format!("{restart:?} after {:?}: {}", disk.met(), trial.journal.lost().join("; ")));
        }
        begun = trial.load(&id).await.is_ok();
        if begun && !sweep::consistent(&trial, &id).await? {
            return Err("the rows are not the fold of the events".to_owned());
        }
    }
    finish(&trial, subject, expected, recovery, policy).await?;
    let story = trial.journal.story(&id).map_err(|error| said(&error))?;
    tally.runs.fetch_add(1, Ordering::Relaxed);
    tally.events.fetch_add(story.len() as u64, Ordering::Relaxed);
    Ok((story, trial.world.picture()))
}

/// The trouble is over: the run is brought to its end, and all is looked at.
async fn finish(
    trial: &Trial<SimulatedStore>,
    subject: &Subject,
    expected: &Undisturbed,
    recovery: Recovery,
    policy: OnFailure,
) -> Result<(), String> {
    let id = sweep::run_id().map_err(|error| error.to_string())?;
    trial.world.heal();
    let Ok(run) = trial.load(&id).await else {
        // Nothing of it was ever acknowledged: begun anew.
        let end = trial.run(&id, &subject.plan, policy).await.map_err(|error| error.to_string())?;
        if end != End::Outcome(DriveOutcome::Finished(Ending::Done)) {
            return Err(format!("begun anew, it ended as {end:?}"));
        }
        return subject.check(trial, &id, Recovery::Forward, expected).await;
    };
    let recovery = if run.state.is_backward() { Recovery::Backward } else { recovery };
    let wanted = match recovery {
        Recovery::Forward => Ending::Done,
        Recovery::Backward => Ending::RolledBack,
    };
    let end = sweep::recover(trial, &id, recovery).await?;
    if end != End::Outcome(DriveOutcome::Finished(wanted)) {
        return Err(format!("recovery ended as {end:?}"));
    }
    subject.check(trial, &id, recovery, expected).await
}

fn sweep_seeds(what: &str, fields: &[Field], count: usize) {
    let sweep = Sweep::begin(format!("{what} on a failing disk"));
    let tally = Tally::default();
    let first = 20_000;
    let seeds: Vec<u64> = match scale::replay() {
        Some(seed) => vec![seed],
        None => (first..first + count as u64).collect(),
    };
    workers::judge(
        &seeds,
        || (),
        |(), seed| {
            block_on(case(*seed, fields, &tally)).map(|_| ()).map_err(|problem| format!("seed {seed}: {problem}"))
        },
    );
    sweep.end(seeds.len(), platflow_report::seeds(&seeds), format_args!("{tally:?}"));
}

/// Proves that runs of the shipped graph, on an empty account and on what an earlier run built, survive whatever comes.
#[test]
fn the_shipped_graph_survives_on_a_failing_disk() {
    let graph = shipped::fixture();
    let fields = [field(shipped::subject(&graph, false)), field(shipped::subject(&graph, true))];
    sweep_seeds("the shipped graph", &fields, scale::of(10_000, 100_000));
}

/// Proves the same for graphs of every shape.
#[test]
fn generated_graphs_survive_on_a_failing_disk() {
    let fields: Vec<Field> =
        (0..200).map(|seed| field(generate::subject(seed, 9).expect("well-formed names"))).collect();
    sweep_seeds("generated graphs", &fields, scale::of(4_000, 40_000));
}

/// Proves that one seed is one story: the same facts in the same order, the same world.
#[test]
fn a_seed_is_one_story() {
    let fields: Vec<Field> =
        (0..20).map(|seed| field(generate::subject(seed, 9).expect("well-formed names"))).collect();
    let tally = Tally::default();
    for seed in 0..60 {
        let once = block_on(case(seed, &fields, &tally)).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
        let again = block_on(case(seed, &fields, &tally)).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
        assert_eq!(once, again, "seed {seed}");
    }
}
