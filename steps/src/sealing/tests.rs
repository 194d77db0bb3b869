//! Sealing, and the two places, on a real disk and a store in memory.

use super::memory::Memory;
use super::*;
use platflow_engine::name::EnvironmentUid;
use std::sync::Arc;

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

fn environment() -> EnvironmentUid {
    EnvironmentUid::new("e1").expect("uid")
}

/// Proves that the identity is created once, private, and refused when others can read it.
#[tokio::test]
async fn the_identity_is_created_once_and_private() {
    let folder = tempfile::tempdir().expect("folder");
    let source = IdentitySource::File(folder.path().join("deep/identity.txt"));
    let first = Sealer::open(&source, &[]).await.expect("opens");
    assert_eq!(first.created, Some(folder.path().join("deep/identity.txt")));
    let second = Sealer::open(&source, &[]).await.expect("opens");
    assert_eq!(second.created, None);
    assert_eq!(first.sealer.recipients(), second.sealer.recipients());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join("deep/identity.txt");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        let refused = Sealer::open(&source, &[]).await.expect_err("exposed");
        assert!(matches!(refused, SealingError::IdentityExposed { mode: 0o644, .. }), "{refused}");
    }
}

/// Proves that an identity command works, and that its failures and other text are refused.
#[tokio::test]
async fn an_identity_comes_from_a_command_too() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("identity.txt");
    let made = Sealer::open(&IdentitySource::File(path.clone()), &[]).await.expect("opens").sealer;
    let command = |words: &[&str]| IdentitySource::Command(words.iter().map(|word| (*word).to_owned()).collect());
    let text = path.to_str().expect("utf-8");
    let read = Sealer::open(&command(&["cat", text]), &[]).await.expect("opens").sealer;
    assert_eq!(read.recipients(), made.recipients());
    assert!(Sealer::open(&command(&["false"]), &[]).await.is_err());
    assert!(Sealer::open(&command(&["echo", "nothing"]), &[]).await.is_err());
    assert!(Sealer::open(&command(&[]), &[]).await.is_err());
}

/// Proves that a further recipient opens what was sealed, that a stranger does not, and that damage is noticed.
#[tokio::test]
async fn only_recipients_open_and_damage_is_noticed() {
    let further = age::x25519::Identity::generate();
    let recipient = further.to_public().to_string();
    let sealer = Sealer::new(age::x25519::Identity::generate(), &[recipient]).expect("sealer");
    let secret = SecretString::from("s.0123456789".to_owned());
    let mut ciphertext = sealer.seal(&secret).expect("seals");
    for identity in [further, age::x25519::Identity::generate()].into_iter().zip([true, false]) {
        let other = Sealer::new(identity.0, &[]).expect("sealer");
        assert_eq!(other.open_sealed(&ciphertext).is_ok(), identity.1);
    }
    assert_eq!(sealer.open_sealed(&ciphertext).expect("opens").expose_secret(), secret.expose_secret());
    let last = ciphertext.len() - 1;
    ciphertext[last] ^= 1;
    assert!(sealer.open_sealed(&ciphertext).is_err());
    assert!(!format!("{sealer:?} {secret:?}").contains("0123456789"));
}

/// Proves that a secret reaches both places sealed only, survives the loss of either, is never replaced by another,
/// and that the probe leaves nothing.
#[tokio::test]
async fn two_places_hold_it_and_nothing_is_in_clear() {
    let folder = tempfile::tempdir().expect("folder");
    let second = folder.path().join("second");
    let store = Arc::new(Memory::default());
    let sealer = Sealer::new(age::x25519::Identity::generate(), &[]).expect("sealer");
    let keystore = Keystore::new(store.clone(), Some(second.clone()), sealer);
    let environment = environment();
    keystore.probe(&environment, None).await.expect("probe");
    assert!(files_below(&second).is_empty() && store.0.lock().expect("lock").is_empty());

    let secret = SecretString::from("share-in-clear-0123456789".to_owned());
    for _ in 0..2 {
        keystore.put_twice(&environment, "vault/share-1", &secret, None).await.expect("kept");
    }
    let files = files_below(&second);
    assert_eq!(files.len(), 1);
    let stored: Vec<u8> = store.0.lock().expect("lock").get("vault/share-1").cloned().expect("stored");
    for bytes in [std::fs::read(&files[0]).expect("file"), stored] {
        assert!(!bytes.windows(14).any(|window| window == b"share-in-clear"));
    }
    let other = SecretString::from("another".to_owned());
    assert!(keystore.put_twice(&environment, "vault/share-1", &other, None).await.is_err());
    assert_eq!(keystore.list(&environment, None).await.expect("list").len(), 1);

    store.0.lock().expect("lock").clear();
    let back = keystore.get(&environment, "vault/share-1", None).await.expect("read").expect("second place");
    assert_eq!(back.expose_secret(), secret.expose_secret());
    assert!(keystore.put_twice(&environment, "vault/share-1", &other, None).await.is_err());
    keystore.remove(&environment, "vault/share-1", None).await.expect("removed");
    assert!(keystore.list(&environment, None).await.expect("list").is_empty());
}

/// Proves that without a second place nothing irreplaceable is taken, and that names cannot leave their folder.
#[tokio::test]
async fn without_a_second_place_it_refuses() {
    let sealer = Sealer::new(age::x25519::Identity::generate(), &[]).expect("sealer");
    let keystore = Keystore::new(Arc::new(Memory::default()), None, sealer);
    let secret = SecretString::from("x".to_owned());
    let refused = keystore.put_twice(&environment(), "vault/share-1", &secret, None).await;
    assert!(matches!(refused, Err(KeystoreError::NoSecondPlace)));
    for bad in ["../x", "a/../b", "", "a//b", "A"] {
        assert!(matches!(keystore.put(&environment(), bad, &secret).await, Err(KeystoreError::Name(_))), "{bad}");
    }
}

/// Proves that what only the second place holds comes back into a new store, once, and opened first: what was sealed for
/// somebody else is refused and what is there already stays.
#[tokio::test]
async fn a_new_store_recovers_from_the_second_place() {
    let folder = tempfile::tempdir().expect("folder");
    let identity = age::x25519::Identity::generate();
    let keystore = |identity: age::x25519::Identity| {
        let sealer = Sealer::new(identity, &[]).expect("sealer");
        Keystore::new(Arc::new(Memory::default()), Some(folder.path().to_owned()), sealer)
    };
    let text = |text: &str| SecretString::from(text.to_owned());
    let lost = keystore(identity.clone());
    for name in ["vault/share-1", "vault/share-2"] {
        lost.put_twice(&environment(), name, &text(name), None).await.expect("kept");
    }
    lost.put(&environment(), "argocd/admin-password", &text("once")).await.expect("kept");

    let fresh = keystore(identity);
    assert_eq!(fresh.recover(&environment(), None).await.expect("recovers"), ["vault/share-1", "vault/share-2"]);
    assert!(fresh.recover(&environment(), None).await.expect("recovers").is_empty(), "nothing is left to do");
    std::fs::remove_dir_all(folder.path().join("e1")).expect("removable");
    let found = fresh.get(&environment(), "vault/share-2", None).await.expect("reads").expect("it is in the store");
    assert_eq!(found.expose_secret(), "vault/share-2");

    lost.put_twice(&environment(), "vault/share-3", &text("three"), None).await.expect("kept");
    let stranger = keystore(age::x25519::Identity::generate());
    assert!(stranger.recover(&environment(), None).await.is_err());
}
