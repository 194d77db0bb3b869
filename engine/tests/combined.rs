//! Crash and failure together, over generated plans in the model world: every cut of the journal with every failing step.
//!
//! Every case that fails names the seed of its plan and the whole trouble, and can be replayed by them.

use platflow_engine::model::combined::Trouble;
use platflow_engine::model::generate;
use platflow_engine::model::sweep::{Crash, Recovery, Subject};
use platflow_engine::plan::OnFailure;
use platflow_report::Sweep;

/// How many generated plans are tried, each wholly.
const GRAPHS: u64 = 6;

const WAYS: [(OnFailure, Recovery); 3] = [
    (OnFailure::Park, Recovery::Forward),
    (OnFailure::Park, Recovery::Backward),
    (OnFailure::Rollback, Recovery::Backward),
];

/// Proves that wherever the journal is cut while a step fails in any class and residue, once or until it is mended, done
/// once or two times, the run ends in the undisturbed world or in the first one, with nothing made twice or forgotten.
#[test]
fn a_crash_amid_a_failure_is_recovered_from() {
    let sweep = Sweep::begin("generated graphs, crash and failure together");
    let mut cases = 0_u64;
    for seed in 0..GRAPHS {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let subject = generate::subject(seed, 3).unwrap();
            for twice in [false, true] {
                let expected =
                    subject.undisturbed(twice).await.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
                // A failing run writes more events than an undisturbed one: the cuts go on past its end.
                for event in 2..=expected.events + 12 {
                    for step in &subject.plan.steps {
                        for fault in [1, u32::MAX].into_iter().flat_map(|times| Subject::faults(&step.name, times)) {
                            for (policy, recovery) in WAYS {
                                let fault = fault.clone();
                                let trouble = Trouble { crash: Crash::Event(event), fault, policy, recovery, twice };
                                cases += 1;
                                subject
                                    .trouble(&trouble, &expected)
                                    .await
                                    .unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
                            }
                        }
                    }
                }
            }
        });
    }
    sweep.end(cases, format_args!("0 to {}", GRAPHS - 1), "plans of at most 3 steps");
    assert!(cases > 10_000);
}
