//! Holds the simulated API server against recorded answers of a real one, scenario by scenario, and prints how many replay whole.
//! The table below names those that do not, each with what differs and why nothing of ours, kubectl or a kube-rs client meets it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "helpers of a test fail it by panicking"
)]

mod recordings;

use std::collections::BTreeMap;
use std::path::PathBuf;

use platflow_report::told;
use recordings::play::{Play, Verdict};
use recordings::world::World;
use serde_json::Value;

/// Scenarios that differ, and why that may be.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "apiserver-restart",
        "the sandbox never takes its API server away for seconds, so the refused connections, /readyz 500 and the 403 of a server that has \
         not read its roles yet are not met there. On EKS they are: its servers are restarted by AWS. The steps' answer to them is tested \
         without this scenario: refused and reset connections to every kind of step by tests/tests/proxied_platform.rs, an early 403 is \
         waited out (steps/src/kubernetes/api.rs), and what a restart does to watches with kube-rs in kubernetes_client.rs",
    ),
    (
        "nodes",
        "the recorded nodes were made by a simulated kubelet and say less than machines of EKS, as which they join here: labels, addresses, \
         capacity and the kubelet's texts differ by design; cordoning, taints and what happens to pods agree",
    ),
];

fn scenarios() -> BTreeMap<String, Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/kubernetes");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files
        .map(|path| {
            let scenario: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            (scenario["scenario"].as_str().unwrap_or_default().to_owned(), scenario)
        })
        .collect()
}

/// A scenario in a fresh world; one was recorded in the world that another had left, after its storage was compacted.
fn replay(name: &str, all: &BTreeMap<String, Value>, fresh: &World) -> Verdict {
    let mut play = Play::new(fresh.clone());
    if name == "list-continue-expired-410" {
        play.scenario(&all["list-pagination"]);
        play.world.compact();
    }
    if name == "watch-too-old-410" {
        play.world.restart(&mut []);
    }
    play.scenario(&all[name])
}

/// The simulated API server answers recorded requests as the real one did.
#[test]
fn answers_as_the_real_api_server_did() {
    let all = scenarios();
    let fresh = World::new();
    let (mut whole, mut wrong, mut compared, mut worded) = (0, Vec::new(), 0, 0);
    for name in all.keys() {
        let verdict = replay(name, &all, &fresh);
        compared += verdict.compared;
        worded += verdict.worded;
        let listed = DIFFERENT.iter().find(|(each, _)| each == name).map(|(_, why)| *why);
        match (verdict.differences.is_empty(), listed) {
            (true, None) => whole += 1,
            (true, Some(_)) => wrong.push(format!("{name} is listed as different and agrees: take it off the list")),
            (false, Some(why)) => told(format_args!("differs {name}: {why}")),
            (false, None) => wrong.push(format!("{name} differs:\n    {}", verdict.differences.join("\n    "))),
        }
    }
    told(format_args!("{whole} of {} scenarios replay whole, {compared} answers compared", all.len()));
    told(format_args!("{worded} texts of refusals that nothing reads are worded otherwise"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(all.len(), 58, "scenarios that were recorded");
    assert!(whole >= 48, "only {whole} replay whole");
    assert!(DIFFERENT.iter().all(|(_, why)| why.len() > 80), "each that differs says why nobody meets it");
    assert!(whole + DIFFERENT.len() == all.len(), "the list names scenarios that are not there");
}
