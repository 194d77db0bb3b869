//! The kinds against simulated Vault servers, over real TLS and HTTP, in a cluster that is a map of objects.

mod cluster;
mod least_privilege;
mod notes;

use super::intent;
use cluster::Bench;
use notes::Outcome;
use platflow_engine::failure::ErrorClass;
use platflow_engine::step::{Observation, UndoProgress};
use secrecy::{ExposeSecret, SecretString};

/// Proves the whole way: installed, initialised, unsealed with three voters, configured, root token revoked and
/// forgotten; then that a second look finds nothing to do, that no key is in clear in the second place or the store,
/// and that undoing it leaves neither object, volume nor key.
#[tokio::test]
async fn from_nothing_to_a_configured_vault_and_back() {
    let bench = Bench::new();
    let made = bench.build().await;
    assert_eq!(made["vault.unseal"]["voters"], 3);
    assert_eq!(made["vault.init"]["secret_names"].as_array().map(Vec::len), Some(5));
    for kind in cluster::KINDS {
        match bench.observe(kind).await.expect("observes") {
            Observation::Present { differences, outputs, .. } => {
                assert!(differences.is_empty(), "{kind}: {differences:?}");
                assert_eq!(outputs, made[kind], "{kind}");
            }
            other => panic!("{kind}: {other:?}"),
        }
    }
    let names = bench.keystore.list(&bench.environment(), None).await.expect("list");
    let wanted: Vec<String> = (1..=5).map(intent::share_name).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), wanted, "no root token, no raw reply");
    let shares = bench.shares().await;
    for bytes in bench.durable_bytes() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(shares.iter().all(|share| !text.contains(share.expose_secret())));
    }
    // Everything may be undone on its own; all of it ends with `vault.install`, the account for logins included.
    for kind in ["vault.unseal", "vault.init", "vault.install"] {
        assert!(matches!(bench.undo(kind).await, UndoProgress::Gone { .. }), "{kind}");
    }
    assert_eq!(bench.objects_left(), Vec::<String>::new());
    assert!(bench.keystore.list(&bench.environment(), None).await.expect("list").is_empty());
    assert!(bench.vault_clusters().is_empty());
}

/// Proves that a lost reply of init is healed by this very run: exactly the first server's volume is wiped, it is
/// initialised again, and the keys on record open the storage that lives.
#[tokio::test]
async fn a_lost_reply_of_init_is_healed_on_virgin_storage_only() {
    let bench = Bench::new();
    bench.run("vault.install").await.expect_done("vault.install");
    let before = bench.claims();
    bench.lose_next_init();
    let lost = bench.apply_once("vault.init").await.expect_err("the reply is lost");
    assert_eq!(lost.class, ErrorClass::Transient, "{lost}");
    bench.run("vault.init").await.expect_done("vault.init");
    let after = bench.claims();
    assert_ne!(before["data-vault-0"], after["data-vault-0"]);
    assert_eq!((&before["data-vault-1"], &before["data-vault-2"]), (&after["data-vault-1"], &after["data-vault-2"]));
    bench.run("vault.unseal").await.expect_done("vault.unseal");
    assert_eq!(bench.vault_clusters().len(), 1);
}

/// Proves the same for a server that was killed half-way through its first init.
#[tokio::test]
async fn a_half_made_server_is_wiped_by_the_run_that_found_it_virgin() {
    let bench = Bench::new();
    bench.run("vault.install").await.expect_done("vault.install");
    let before = bench.claims();
    bench.interrupt_bootstrap();
    // The refusal comes in the attempt that journaled the volume; its notes are on record at the next one.
    bench.run("vault.init").await.expect_done("vault.init");
    assert_ne!(before["data-vault-0"], bench.claims()["data-vault-0"]);
}

/// Proves the same for a server that was killed after it had written its keyring: its first call found it virgin, and
/// what it says then is no seal status at all.
#[tokio::test]
async fn a_server_without_its_seal_is_wiped_by_the_run_that_found_it_virgin() {
    let bench = Bench::new();
    bench.run("vault.install").await.expect_done("vault.install");
    let before = bench.claims();
    bench.lose_next_init();
    bench.apply_once("vault.init").await.expect_err("the reply is lost");
    bench.replace_storage("vault-0");
    bench.interrupt_init();
    let Outcome::Failed(error) = bench.run("vault.init").await else { panic!("another volume than it found virgin") };
    assert_eq!((error.class, error.code.as_deref()), (ErrorClass::NeedsHuman, Some("LostKeys")));

    let bench = Bench::new();
    bench.run("vault.install").await.expect_done("vault.install");
    bench.lose_request_of_next_init();
    bench.apply_once("vault.init").await.expect_err("the server dies");
    bench.run("vault.init").await.expect_done("vault.init");
    assert_ne!(before["data-vault-0"], bench.claims()["data-vault-0"]);
}

/// Proves that another run never wipes what an earlier one initialised and lost: it stops for a human, and every
/// volume is still there.
#[tokio::test]
async fn another_run_never_wipes() {
    let mut bench = Bench::new();
    bench.run("vault.install").await.expect_done("vault.install");
    let before = bench.claims();
    bench.lose_next_init();
    bench.apply_once("vault.init").await.expect_err("the reply is lost");
    bench.run_id = "r2".into();
    let Outcome::Failed(error) = bench.run("vault.init").await else { panic!("must not go on") };
    assert_eq!((error.class, error.code.as_deref()), (ErrorClass::NeedsHuman, Some("LostKeys")));
    assert_eq!(before, bench.claims());
}

/// Proves that keys on record stop every new init when the storage was lost under them.
#[tokio::test]
async fn keys_on_record_forbid_another_init() {
    let bench = Bench::new();
    bench.run("vault.install").await.expect_done("vault.install");
    bench.run("vault.init").await.expect_done("vault.init");
    let shares = bench.shares().await;
    bench.replace_storage("vault-0");
    let Outcome::Failed(error) = bench.run("vault.init").await else { panic!("must not go on") };
    assert_eq!(error.class, ErrorClass::NeedsHuman, "{error}");
    let still = bench.shares().await;
    assert!(shares.iter().zip(&still).all(|(old, new)| old.expose_secret() == new.expose_secret()));
}

/// Proves that a crash between the sealed reply and its shares is finished from the reply.
#[tokio::test]
async fn shares_are_derived_from_a_kept_reply() {
    let bench = Bench::new();
    bench.run("vault.install").await.expect_done("vault.install");
    bench.run("vault.init").await.expect_done("vault.init");
    let shares = bench.shares().await;
    let root = bench.secret("vault/root-token").await;
    let keys: Vec<&str> = shares.iter().map(ExposeSecret::expose_secret).collect();
    let reply = serde_json::json!({ "keys": keys, "keys_base64": [], "root_token": root.expose_secret() });
    let environment = bench.environment();
    let reply = SecretString::from(reply.to_string());
    bench.keystore.put_twice(&environment, intent::INIT_REPLY, &reply, None).await.expect("kept");
    for number in 2..=5 {
        bench.keystore.remove(&environment, &intent::share_name(number), None).await.expect("removed");
    }
    assert_eq!(bench.observe("vault.init").await.expect("observes"), Observation::Absent);
    bench.run("vault.init").await.expect_done("vault.init");
    assert_eq!(bench.shares().await.len(), 5);
    assert!(bench.keystore.get(&environment, intent::INIT_REPLY, None).await.expect("read").is_none());
}

/// Proves that restarted servers show as differences, and that unsealing heals them although one share is damaged and
/// somebody's unfinished round is in the way.
#[tokio::test]
async fn restarted_servers_heal_with_a_bad_share_and_a_foreign_round() {
    let bench = Bench::new();
    bench.build().await;
    let environment = bench.environment();
    let junk = SecretString::from(format!("{}01", "5a".repeat(32)));
    bench.keystore.remove(&environment, "vault/share-1", None).await.expect("removed");
    bench.keystore.put_twice(&environment, "vault/share-1", &junk, None).await.expect("kept");
    for pod in ["vault-0", "vault-1", "vault-2"] {
        bench.restart(pod);
    }
    bench.give_share("vault-1", junk.expose_secret());
    let Observation::Present { differences, .. } = bench.observe("vault.unseal").await.expect("observes") else {
        panic!("sealed servers are there, and differ");
    };
    assert_eq!(differences.len(), 3, "{differences:?}");
    bench.run("vault.unseal").await.expect_done("vault.unseal");
}
