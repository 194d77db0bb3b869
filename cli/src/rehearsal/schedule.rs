//! Which cases there are for a runbook, and in which order a rehearsal with a budget takes them: every journal boundary
//! once first, then whatever was covered least. Pure: the same runbook gives the same order.

use crate::rehearsal::case::{CLASSES, Case, Origin, PROFILES, Recovery};
use crate::rehearsal::draw::drawn;
use crate::rehearsal::recorder::Film;
use platflow_engine::name::StepName;
use platflow_engine::plan::Plan;
use std::collections::BTreeSet;

/// Each profile is drawn from so many seeds.
const SEEDS: u64 = 3;
/// A recovery dies after at most so many commits of its own.
const SECOND_DEATH: usize = 6;

/// What can be cut: the places of an undisturbed run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// One for each commit: whether calls were on their way that could land without it.
    pub(crate) boundaries: Vec<bool>,
    /// Mutating calls.
    pub(crate) calls: usize,
    /// Steps.
    pub(crate) steps: Vec<StepName>,
}

impl Extent {
    /// Of the run that was filmed.
    pub(crate) fn of(film: &Film, plan: &Plan) -> Self {
        Self {
            boundaries: film.boundaries.iter().map(|boundary| boundary.landed.is_some()).collect(),
            calls: film.calls.len(),
            steps: plan.steps.iter().map(|step| step.name.clone()).collect(),
        }
    }
}

const WAYS: [Recovery; 2] = [Recovery::Resume, Recovery::Rollback];

fn both(origin: &Origin) -> impl Iterator<Item = Case> + '_ {
    WAYS.into_iter().map(|recovery| Case { origin: origin.clone(), recovery, again: None })
}

/// One or the other, by what is cut.
fn alternating(number: usize) -> Recovery {
    if number % 2 == 1 { Recovery::Resume } else { Recovery::Rollback }
}

fn boundaries(extent: &Extent) -> Vec<Case> {
    let origins = extent.boundaries.iter().enumerate().flat_map(|(index, landed)| {
        let at = |landed| Origin::Boundary { number: index + 1, landed };
        std::iter::once(at(false)).chain(landed.then(|| at(true)))
    });
    origins.flat_map(|origin| both(&origin).collect::<Vec<_>>()).collect()
}

fn calls(extent: &Extent) -> Vec<Case> {
    let origins = (1..=extent.calls).flat_map(|number| [false, true].map(|after| Origin::Call { number, after }));
    origins.flat_map(|origin| both(&origin).collect::<Vec<_>>()).collect()
}

fn failures(extent: &Extent) -> Vec<Case> {
    let mut cases = Vec::new();
    for step in &extent.steps {
        for class in CLASSES {
            for landed in [false, true] {
                cases.extend(both(&Origin::Failure { step: step.clone(), class, landed }));
            }
        }
    }
    cases
}

fn profiles() -> Vec<Case> {
    let origins = (1..=SEEDS).flat_map(|seed| PROFILES.map(|name| Origin::Profile { name, seed }));
    origins.flat_map(|origin| both(&origin).collect::<Vec<_>>()).collect()
}

/// The recovery of each boundary dies too, once, somewhere in its first commits.
fn second_crashes(extent: &Extent) -> Vec<Case> {
    let at = |number: usize| {
        let origin = Origin::Boundary { number, landed: false };
        let after = 1 + drawn(&format!("again {number}"), SECOND_DEATH);
        Case { origin, recovery: alternating(number + 1), again: u64::try_from(after).ok() }
    };
    (1..=extent.boundaries.len()).map(at).collect()
}

/// Every case there is.
pub(crate) fn whole(extent: &Extent) -> Vec<Case> {
    [boundaries(extent), calls(extent), failures(extent), profiles(), second_crashes(extent)].concat()
}

/// Every boundary once, then the kinds of cases in turns, each kind in an order that jumps about the run.
pub(crate) fn sampled(extent: &Extent) -> Vec<Case> {
    let first = extent.boundaries.iter().enumerate().map(|(index, landed)| {
        let number = index + 1;
        let landed = *landed && drawn(&format!("landed {number}"), 2) == 1;
        Case { origin: Origin::Boundary { number, landed }, recovery: alternating(number), again: None }
    });
    let mut cases: Vec<Case> = first.collect();
    let taken: BTreeSet<Case> = cases.iter().cloned().collect();
    let mut kinds = [calls(extent), failures(extent), profiles(), second_crashes(extent), boundaries(extent)];
    for kind in &mut kinds {
        kind.retain(|case| !taken.contains(case));
        kind.sort_by_cached_key(|case| std::cmp::Reverse(drawn(&case.to_string(), usize::MAX)));
    }
    while kinds.iter().any(|kind| !kind.is_empty()) {
        cases.extend(kinds.iter_mut().filter_map(Vec::pop));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent() -> Extent {
        let steps = ["network.vpc", "cluster"].map(|name| StepName::new(name).unwrap()).to_vec();
        Extent { boundaries: (0..30).map(|number| number % 3 == 0).collect(), calls: 12, steps }
    }

    /// A sample is the whole in another order, no case twice, and its head is every boundary once, both ways alternately.
    #[test]
    fn a_sample_is_the_whole_in_another_order() {
        let sampled = sampled(&extent());
        let set: BTreeSet<Case> = sampled.iter().cloned().collect();
        assert_eq!(set.len(), sampled.len());
        assert_eq!(set, whole(&extent()).into_iter().collect());
        let head: Vec<usize> = sampled
            .iter()
            .take(30)
            .map(|case| match case.origin {
                Origin::Boundary { number, .. } => number,
                _ => 0,
            })
            .collect();
        assert_eq!(head, (1..=30).collect::<Vec<_>>());
        let resumed = sampled.iter().take(30).filter(|case| case.recovery == Recovery::Resume).count();
        assert_eq!(resumed, 15);
    }

    /// Whatever is scheduled can be typed again as a seed.
    #[test]
    fn every_case_has_a_seed() {
        for case in whole(&extent()) {
            assert_eq!(case.to_string().parse::<Case>().unwrap(), case);
        }
    }
}
