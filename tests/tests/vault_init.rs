//! The once-only step through the real binary: Vault's initialisation under lost replies and SIGKILL.
//!
//! It proves that an initialised Vault is never without its keys: a lost reply on virgin storage of this very run is wiped
//! and initialised again, and what was sealed opens what is there. Any other storage without its keys is left to a human.

use platflow_tests::{TestEnvironment, wait_for};
use std::time::Duration;

const FAST: &str = "150";
const LIMIT: Duration = Duration::from_secs(120);

fn step_state(place: &TestEnvironment, step: &str) -> String {
    let status = place.run(&["status", "--output", "json"]);
    if status.code != 0 {
        return String::new();
    }
    let status = status.json();
    let steps = status["steps"].as_array().cloned().unwrap_or_default();
    let found = steps.iter().find(|one| one["name"] == step);
    found.and_then(|one| one["state"].as_str()).unwrap_or_default().to_owned()
}

/// Initialised, unsealed, three voters, and every share on record.
fn assert_vault_has_its_keys(place: &TestEnvironment, when: &str) {
    let world = place.world();
    let vaults: Vec<_> = world.made().filter(|resource| resource.kind == "vault:cluster").collect();
    assert_eq!(vaults.len(), 1, "{when}: {vaults:#?}");
    assert!(vaults[0].state.contains("unsealed"), "{when}: {vaults:#?}");
    for share in 1..=5 {
        let name = format!("vault/share-{share}");
        let shown = place.run(&["secret", "show", "aws-dev", &name]).expect_code(0);
        assert!(shown.stdout.trim().len() >= 32, "{when}: {name}");
    }
}

/// Proves that a reply to init which never arrived ends in a Vault whose keys are on record.
#[test]
fn a_lost_reply_to_init_loses_no_keys() {
    let place = TestEnvironment::new();
    let rule = "vault:POST:sys/init=lose_reply*1";
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--sandbox-fault", rule]).expect_code(0);
    assert_vault_has_its_keys(&place, "after a lost reply");
}

/// Proves that SIGKILL while the answer to init is on its way, and again while its loss is being mended, ends in a Vault
/// whose keys are on record.
#[test]
fn a_kill_during_init_loses_no_keys() {
    for rule in ["vault:POST:sys/init=delay:1500*1", "vault:POST:sys/init=lose_reply*2"] {
        let place = TestEnvironment::new();
        let mut running =
            place.start(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--sandbox-fault", rule]);
        wait_for("vault.init to begin", LIMIT, || {
            running.ended().is_some() || !matches!(step_state(&place, "vault.init").as_str(), "" | "pending")
        });
        running.kill();
        let run = place.newest_run().expect("a run");
        let mut again = place.start(&["resume", &run]);
        wait_for("vault.init to be looked at again", LIMIT, || {
            again.ended().is_some() || step_state(&place, "vault.init") != "unknown"
        });
        again.kill();
        place.run(&["resume", &run]).expect_code(0);
        assert_vault_has_its_keys(&place, rule);
    }
}

/// What holds Vault's data: its cluster, the claims of its servers, the volumes behind them.
fn storage(place: &TestEnvironment) -> Vec<(String, String)> {
    let world = place.world();
    let holds = |kind: &str, name: &str| {
        kind == "vault:cluster"
            || kind == "ec2:volume"
            || (kind == "kubernetes:PersistentVolumeClaim" && name.contains("vault"))
    };
    let held = world.resources.iter().filter(|resource| holds(&resource.kind, &resource.name));
    let mut held: Vec<(String, String)> = held.map(|resource| (resource.kind.clone(), resource.id.clone())).collect();
    held.sort();
    held
}

/// Loses every record of Vault's keys: in the state file and in the second place.
fn lose_keys(place: &TestEnvironment) {
    let state = rusqlite::Connection::open(place.state().join("state.db")).expect("the state file");
    let lost = state.execute("DELETE FROM secrets WHERE name LIKE 'vault/%'", []).expect("deleted");
    assert!(lost >= 5, "{lost} keys were on record");
    std::fs::remove_dir_all(place.path().join("config/platflow/keys")).expect("a second place");
}

/// Proves that another run which comes to an initialised Vault without keys on record stops with exit 6 and says so, that
/// it stops there again when it is resumed, and that the storage and what is in it are as they were.
#[test]
fn another_run_leaves_a_vault_without_keys_alone() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    let before = storage(&place);
    assert!(before.iter().filter(|(kind, _)| kind == "kubernetes:PersistentVolumeClaim").count() == 3, "{before:?}");
    assert!(before.iter().any(|(kind, _)| kind == "vault:cluster"), "{before:?}");
    lose_keys(&place);
    let stopped = place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(6);
    let said = format!("{}{}", stopped.stdout, stopped.stderr);
    assert!(said.contains("vault.init") && said.contains("keys"), "{said}");
    assert_eq!(storage(&place), before);
    place.run(&["resume", &place.newest_run().expect("a run")]).expect_code(6);
    assert_eq!(storage(&place), before);
}
