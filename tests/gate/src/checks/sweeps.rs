//! The crash sweep, the sweep of failures and both together over generated plans, as the engine's own tests have them.

use super::{block_on, ensure, said};
use crate::battery::Case;
use platflow_engine::model::combined::Trouble;
use platflow_engine::model::generate;
use platflow_engine::model::sweep::{Crash, Recovery, Subject, Undisturbed};
use platflow_engine::model::world::Moment;
use platflow_engine::plan::OnFailure;
use std::sync::Arc;

const SEEDS: std::ops::Range<u64> = 0..10;
const WAYS: [Recovery; 2] = [Recovery::Forward, Recovery::Backward];
const POLICIES: [(OnFailure, Recovery); 3] = [
    (OnFailure::Park, Recovery::Forward),
    (OnFailure::Park, Recovery::Backward),
    (OnFailure::Rollback, Recovery::Backward),
];
/// Of the failures and of the troubles that come together, every so-many-th is tried.
const SHARE: usize = 11;

type Swept = Arc<(Subject, Undisturbed)>;

fn crashes(expected: &Undisturbed) -> Vec<Crash> {
    let calls =
        (1..=expected.calls).flat_map(|call| [Crash::Call(call, Moment::Before), Crash::Call(call, Moment::After)]);
    (2..=expected.events).map(Crash::Event).chain(calls).collect()
}

async fn as_before(swept: &Swept) -> Result<(), String> {
    let now = swept.0.undisturbed(false).await.map_err(said)?;
    let wanted = &swept.1;
    ensure(now.before == wanted.before && now.after == wanted.after, || "another world".to_owned())?;
    ensure((now.events, now.calls) == (wanted.events, wanted.calls), || {
        format!("{} events, {} calls; not {}, {}", now.events, now.calls, wanted.events, wanted.calls)
    })
}

fn failures(swept: &Swept) -> Vec<Case> {
    let mut cases = Vec::new();
    for step in &swept.0.plan.steps {
        for fault in [1, u32::MAX].into_iter().flat_map(|times| Subject::faults(&step.name, times)) {
            for (policy, recovery) in POLICIES {
                let (swept, fault) = (Arc::clone(swept), fault.clone());
                cases.push(Case::new("failures", move || {
                    let case = swept.0.fault(fault.clone(), policy, recovery, &swept.1);
                    block_on(async { case.await.map_err(said) })
                }));
            }
        }
    }
    cases
}

fn troubles(swept: &Swept) -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, crash) in crashes(&swept.1).into_iter().enumerate() {
        for (place, step) in swept.0.plan.steps.iter().enumerate() {
            let faults = Subject::faults(&step.name, if number % 2 == 0 { 1 } else { u32::MAX });
            let Some(fault) = faults.get((number * 5 + place * 3) % faults.len().max(1)).cloned() else { continue };
            for (policy, recovery) in POLICIES {
                let trouble = Trouble { crash, fault: fault.clone(), policy, recovery, twice: place % 2 == 0 };
                let swept = Arc::clone(swept);
                cases.push(Case::new("crashes amid failures", move || {
                    block_on(async { swept.0.trouble(&trouble, &swept.1).await.map_err(said) })
                }));
            }
        }
    }
    cases
}

/// The cases.
///
/// # Errors
/// When an undisturbed run does not end well.
pub fn cases() -> Result<Vec<Case>, String> {
    let mut swept: Vec<Swept> = Vec::new();
    for seed in SEEDS {
        let subject = generate::subject(seed, 7).map_err(said)?;
        let expected = block_on(async { subject.undisturbed(false).await.map_err(said) })?;
        swept.push(Arc::new((subject, expected)));
    }
    let mut cases = Vec::new();
    for one in &swept {
        let one = Arc::clone(one);
        cases.push(Case::new("undisturbed runs", move || block_on(as_before(&one))));
    }
    for one in &swept {
        for crash in crashes(&one.1) {
            for way in WAYS {
                let one = Arc::clone(one);
                cases.push(Case::new("crashes", move || {
                    block_on(async { one.0.crash(crash, way, None, false, &one.1).await.map_err(said) })
                }));
            }
        }
    }
    cases.extend(swept.iter().flat_map(failures).step_by(SHARE));
    cases.extend(swept.iter().flat_map(troubles).step_by(SHARE));
    Ok(cases)
}
