//! The crash sweep over generated plans in the model world.
//!
//! Every case that fails names the seed of its plan and the point of the crash, and can be replayed by them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::Ending;
use platflow_engine::model::generate;
use platflow_engine::model::sweep::{Crash, Recovery, Subject};
use platflow_engine::model::trial::End;
use platflow_engine::model::world::Moment;
use platflow_engine::name::RunId;
use platflow_engine::plan::{OnFailure, Plan};

const SEEDS: std::ops::Range<u64> = 0..16;

fn crashes(events: u64, calls: u64) -> Vec<Crash> {
    let events = (2..=events).map(Crash::Event);
    let calls = (1..=calls).flat_map(|call| [Crash::Call(call, Moment::Before), Crash::Call(call, Moment::After)]);
    events.chain(calls).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn describe(subject: &Subject) -> String {
    let steps = |plan: &Plan| -> Vec<String> {
        plan.steps
            .iter()
            .map(|step| format!("{} {} {} needs {:?}", step.name, step.kind, step.spec, step.needs))
            .collect()
    };
    let earlier = subject.earlier.as_ref().map(steps);
    format!("plan {:#?}\nearlier {earlier:#?}\nvanished {:?}", steps(&subject.plan), subject.vanished)
}

fn subject(seed: u64) -> Subject {
    generate::subject(seed, 8).unwrap()
}

/// Proves that a process can die at every event and around every call of a run, once, and the run still ends in the
/// undisturbed world when resumed, and in the first world when rolled back, with nothing made twice.
#[test]
fn every_crash_is_recovered_from() {
    for seed in SEEDS {
        block_on(async {
            let subject = subject(seed);
            for twice in [false, true] {
                let expected = subject
                    .undisturbed(twice)
                    .await
                    .unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", describe(&subject)));
                for crash in crashes(expected.events, expected.calls) {
                    for recovery in [Recovery::Forward, Recovery::Backward] {
                        subject
                            .crash(crash, recovery, None, twice, &expected)
                            .await
                            .unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", describe(&subject)));
                    }
                }
            }
        });
    }
}

/// Proves the same when the recovery dies as well, at each of its first events and calls.
#[test]
fn a_crash_during_recovery_is_recovered_from() {
    for seed in SEEDS.step_by(4) {
        block_on(async {
            let subject = generate::subject(seed, 4).unwrap();
            let expected = subject
                .undisturbed(false)
                .await
                .unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", describe(&subject)));
            for crash in crashes(expected.events, expected.calls) {
                for again in crashes(8, 3) {
                    for recovery in [Recovery::Forward, Recovery::Backward] {
                        subject
                            .crash(crash, recovery, Some(again), false, &expected)
                            .await
                            .unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", describe(&subject)));
                    }
                }
            }
        });
    }
}

/// Proves that every step may fail with every class and residue, for a moment or for good, landed or not: the run ends
/// by itself, or parks and ends when resumed, or goes back, in the right world.
#[test]
fn every_failure_is_recovered_from() {
    for seed in SEEDS.step_by(4) {
        block_on(async {
            let subject = generate::subject(seed, 4).unwrap();
            let expected = subject
                .undisturbed(false)
                .await
                .unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", describe(&subject)));
            for step in &subject.plan.steps {
                for times in [1, u32::MAX] {
                    for fault in Subject::faults(&step.name, times) {
                        for (policy, recovery) in [
                            (OnFailure::Park, Recovery::Forward),
                            (OnFailure::Park, Recovery::Backward),
                            (OnFailure::Rollback, Recovery::Backward),
                        ] {
                            subject
                                .fault(fault.clone(), policy, recovery, &expected)
                                .await
                                .unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", describe(&subject)));
                        }
                    }
                }
            }
        });
    }
}

/// Proves that a second run of the same plan makes no mutating call, and that a destroy run then empties the world.
#[test]
fn a_second_run_changes_nothing_and_destroy_empties_the_world() {
    for seed in SEEDS {
        block_on(async {
            let subject = subject(seed);
            let trial = subject.prepare(false).await.unwrap();
            let done = End::Outcome(DriveOutcome::Finished(Ending::Done));
            let first = trial.run(&RunId::new("first").unwrap(), &subject.plan, OnFailure::Park).await.unwrap();
            assert_eq!(first, done, "seed {seed}");
            let (calls, picture) = (trial.world.calls(), trial.world.picture());
            let second = trial.run(&RunId::new("second").unwrap(), &subject.plan, OnFailure::Park).await.unwrap();
            assert_eq!(second, done, "seed {seed}");
            assert_eq!((trial.world.calls(), trial.world.picture()), (calls, picture), "seed {seed}");
            let end = trial.destroy(&RunId::new("destroy").unwrap(), &subject.plan).await.unwrap();
            assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)), "seed {seed}");
            assert_eq!(trial.world.picture(), Vec::<String>::new(), "seed {seed}");
            assert_eq!(trial.world.violations(), Vec::<String>::new(), "seed {seed}");
        });
    }
}
