//! The preflight: a gallery of worlds and runbooks that are wrong in one place, each told before anything is made; and what
//! is right, which stops nothing.

mod request;
mod surroundings;
mod world;

use platflow_tests::TestEnvironment;
use platflow_tests::misconfigured::{Case, Verdict, tried};
use std::collections::BTreeSet;

/// The issue asks for 48 of 50; fewer than this many would be no gallery.
const FEWEST: usize = 50;

/// Tries a part of the gallery, in places of their own that work at the same time.
fn gallery(cases: &[Case]) -> Vec<Verdict> {
    let half = cases.len().div_ceil(2);
    std::thread::scope(|scope| {
        let parts: Vec<_> = cases
            .chunks(half)
            .map(|part| {
                scope.spawn(move || {
                    let place = TestEnvironment::new();
                    place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
                    part.iter().map(|case| tried(&place, case)).collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a part of the gallery")).collect()
    })
}

fn all_found(verdicts: &[Verdict]) {
    let missed: Vec<String> =
        verdicts.iter().filter_map(|one| Some(format!("{}: {}", one.check, one.missed.as_ref()?))).collect();
    platflow_report::told(format!("preflight gallery: {} of {} found", verdicts.len() - missed.len(), verdicts.len()));
    assert!(missed.is_empty(), "{} of {} not found:\n{}", missed.len(), verdicts.len(), missed.join("\n\n"));
}

/// Proves that the gallery is one: enough cases, of most families.
#[test]
fn the_gallery_is_large() {
    let cases: Vec<Case> = [world::cases(), request::cases()].into_iter().flatten().collect();
    let checks: BTreeSet<&str> = cases.iter().map(|case| case.check).collect();
    let families: BTreeSet<&str> = checks.iter().filter_map(|check| check.split('.').next()).collect();
    assert!(checks.len() >= FEWEST, "{} checks", checks.len());
    assert!(families.len() >= 16, "{families:?}");
}

/// Proves that accounts that are wrong (permissions, quotas, zones, offerings, versions, add-ons, names, the clock) are
/// told before the first mutation.
#[test]
fn accounts_that_are_wrong_are_told() {
    all_found(&gallery(&world::cases()));
}

/// Proves that runbooks, parameters and settings that are wrong are told before the first mutation.
#[test]
fn requests_that_are_wrong_are_told() {
    all_found(&gallery(&request::cases()));
}

/// Proves that the shipped runbooks as they are find nothing in an ordinary account that stops them, that a plan and a
/// doctor call nothing that changes anything, and that what they look at is looked at in a few seconds.
#[test]
fn what_is_right_stops_nothing() {
    let place = TestEnvironment::new();
    place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
    for workflow in ["deploy-aws-dev", "deploy-aws-staging", "deploy-aws-production"] {
        let open = "public_access_cidrs=[127.0.0.0/8]";
        let arguments = ["plan", workflow, "--sandbox", "--output", "json", "--set", open];
        let plan = place.run(&arguments).expect_code(3).json();
        let findings = plan["preflight"]["findings"].as_array().expect("findings");
        let stops: Vec<_> = findings.iter().filter(|one| one["severity"] == "blocker").collect();
        assert!(stops.is_empty(), "{workflow}: {stops:?}");
        let unseen: Vec<_> = findings
            .iter()
            .filter(|one| one["evidence"].as_str().is_some_and(|text| text.contains("could not be")))
            .collect();
        assert!(unseen.is_empty(), "{workflow}: {unseen:?}");
        assert!(
            plan["preflight"]["checks"].as_u64().is_some_and(|count| count >= 60),
            "{}",
            plan["preflight"]["checks"]
        );
    }
    place.run(&["doctor", "--sandbox"]).expect_code(0);
    let counters = place.counters();
    assert_eq!(counters["mutating"]["total"], 0, "{counters}");
    assert!(counters["dry_runs"]["total"].as_u64().is_some_and(|count| count > 20), "{counters}");
    assert!(counters["reads"]["by_operation"]["iam:SimulatePrincipalPolicy"].is_u64(), "{counters}");
}

/// Proves that a run goes on in spite of a blocker that its operator skips, which is told with what may come of it, and that
/// a check that does not exist cannot be skipped.
#[test]
fn a_blocker_can_be_skipped_by_name() {
    let place = TestEnvironment::new();
    place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
    place.run(&["sandbox", "account", r#"{"quotas": {"L-6D54EA21": 2}}"#]).expect_code(0);
    let unknown = place.run(&["run", "deploy-aws-dev", "--sandbox", "--skip-preflight", "quota.moons"]).expect_code(2);
    assert!(unknown.stderr.contains("no check quota.moons"), "{}", unknown.stderr);
    place.run(&["run", "deploy-aws-dev", "--sandbox"]).expect_code(6);
    assert_eq!(place.counters()["mutating"]["total"], 0);
    let run =
        place.run(&["run", "deploy-aws-dev", "--sandbox", "--skip-preflight", "quota.node-groups"]).expect_code(0);
    assert!(
        run.stderr.contains("skipped quota.node-groups") && run.stderr.contains("what may come of it"),
        "{}",
        run.stderr
    );
    // The environment exists now: what is built counts no more against what may be built.
    let again = place.run(&["plan", "deploy-aws-dev", "--sandbox"]);
    assert!(!again.stdout.contains("leftover."), "{}", again.stdout);
}
