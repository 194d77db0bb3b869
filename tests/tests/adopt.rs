//! `platflow adopt`: an environment whose state file is lost, taken over with everything in it, keys included.

use platflow_tests::{Finished, TestEnvironment};
use std::path::{Path, PathBuf};

const FAST: &str = "300";

/// A whole platform whose state file is lost, and a new state directory over the same world.
struct Lost {
    place: TestEnvironment,
    uid: String,
    fresh: String,
    shares: Vec<String>,
}

fn share(number: usize) -> String {
    format!("vault/share-{number}")
}

fn lost() -> Lost {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    let uid = place.run(&["list", "--output", "json"]).json()["runs"][0]["environment_uid"].as_str().map(str::to_owned);
    let shares = (1..=5).map(|n| place.run(&["secret", "show", "aws-dev", &share(n)]).expect_code(0).stdout).collect();
    let fresh = place.path().join("fresh");
    std::fs::create_dir(&fresh).expect("a directory");
    std::os::unix::fs::symlink(place.state().join("sandbox"), fresh.join("sandbox")).expect("a link");
    for file in std::fs::read_dir(place.state()).expect("readable").flatten() {
        if file.file_name().to_string_lossy().starts_with("state.db") {
            std::fs::remove_file(file.path()).expect("removable");
        }
    }
    Lost { place, uid: uid.expect("a uid"), fresh: fresh.display().to_string(), shares }
}

impl Lost {
    fn run(&self, arguments: &[&str]) -> Finished {
        let mut all = vec!["--state", self.fresh.as_str()];
        all.extend(arguments);
        self.place.run(&all)
    }

    fn outside_smoke(&self) -> serde_json::Value {
        self.place.counters()["mutating"]["outside_smoke"].clone()
    }
}

/// The arguments of the one `platflow <verb> …` command that a message prints.
#[track_caller]
fn printed(text: &str, verb: &str) -> Vec<String> {
    let start = text.find(&format!("platflow {verb} ")).unwrap_or_else(|| panic!("no platflow {verb} in {text}"));
    text[start..].lines().next().unwrap_or_default().split(' ').skip(1).map(str::to_owned).collect()
}

/// Proves that a lost state file costs nothing: the first run from a new one is refused with the owner named and the
/// command printed that takes over; that command, as printed, adopts everything, brings Vault's shares back from the second
/// place and says that the Argo CD password is a new one; then a run mutates nothing and a destroy empties the world.
#[test]
fn a_lost_state_file_is_made_again_from_tags_and_the_second_key_store() {
    let lost = lost();
    let refused = lost.run(&["run", "deploy-aws-dev", "--sandbox"]).expect_code(6);
    assert!(refused.stderr.contains(&lost.uid), "the owner is named: {}", refused.stderr);
    let command = printed(&refused.stderr, "adopt");
    assert_eq!(command, ["adopt", "aws-dev", "--from", &lost.uid, "--sandbox"]);

    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let adopted = lost.run(&command).expect_code(0);
    assert!(
        adopted.stderr.contains("recovered from") && adopted.stderr.contains("vault/share-5"),
        "{}",
        adopted.stderr
    );
    let told = printed(&adopted.stderr, "secret");
    assert_eq!(told, ["secret", "show", "aws-dev", "argocd/admin-password"]);
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    assert!(lost.run(&told).expect_code(0).stdout.trim().len() >= 20);
    for (number, before) in (1..).zip(&lost.shares) {
        assert_eq!(*before, lost.run(&["secret", "show", "aws-dev", &share(number)]).expect_code(0).stdout);
    }
    let listed = lost.run(&["secret", "list", "aws-dev"]).expect_code(0).stdout;
    assert!(listed.contains("vault/share-1"), "they are in the state file again: {listed}");

    let before = lost.outside_smoke();
    lost.run(&["run", "deploy-aws-dev", "--sandbox"]).expect_code(0);
    assert_eq!(before, lost.outside_smoke(), "nothing is left to be changed");
    lost.run(&["adopt", "aws-dev", "--from", "another-uid"]).expect_code(6);
    lost.run(&["destroy", "aws-dev", "--confirm", "aws-dev"]).expect_code(0);
    let left = lost.place.world();
    let left: Vec<_> = left.made().filter(|one| one.state != "PendingDeletion").collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// Proves that without the second place, too, nothing is wiped or initialised again: the command stops with exit 6, says
/// where keys were looked for and how to name another place, and with that place named it is gone on with to the end.
#[test]
fn without_the_second_place_vault_is_left_alone_and_the_way_on_is_told() {
    let lost = lost();
    let keys = lost.place.path().join("config/platflow/keys");
    let aside = lost.place.path().join("found-in-the-safe");
    std::fs::rename(&keys, &aside).expect("movable");
    let before = lost.place.world().shape();
    let stopped = lost
        .run(&["adopt", "aws-dev", "--from", &lost.uid, "--sandbox", "--workflow", "deploy-aws-dev"])
        .expect_code(6);
    assert!(stopped.stderr.contains(&folder(&keys)), "the place is named: {}", stopped.stderr);
    assert!(stopped.stderr.contains("PLATFLOW_SECOND_KEY_STORE"), "{}", stopped.stderr);
    assert_eq!(before, lost.place.world().shape(), "Vault's storage is as it was");
    let command = printed(&stopped.stderr, "adopt");
    assert_eq!(command, ["adopt", "aws-dev", "--from", &lost.uid]);
    let mut all = vec!["--state", lost.fresh.as_str()];
    all.extend(command.iter().map(String::as_str));
    let mut again = lost.place.command(&all);
    again.env("PLATFLOW_SECOND_KEY_STORE", &aside);
    let again = lost.place.finish(again, &all).expect_code(0);
    assert!(again.stderr.contains("recovered from"), "{}", again.stderr);
    assert_eq!(lost.shares[0], lost.run(&["secret", "show", "aws-dev", &share(1)]).expect_code(0).stdout);
}

fn folder(path: &Path) -> String {
    PathBuf::from(path).display().to_string()
}
