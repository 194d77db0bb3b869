//! Several processes on one file: death is proven at once, a stopped owner is fenced out, nobody sees a locked database.
//!
//! The children are this test binary itself, started at the role [`played_by_a_child`].

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod fixture;

use fixture::{new_run, note, owner, run};
use platflow_engine::journal::{Journal, JournalError, Lease};
use platflow_state::{Store, StoreSettings};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A child that never outlives its test.
struct Role {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Role {
    #[expect(clippy::disallowed_methods, reason = "the test plays other owners with real processes")]
    fn start(role: &str, path: &Path, id: &str, lease_ms: u64) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "--quiet", "played_by_a_child"])
            .args([format!("@{role}"), format!("@{}", path.display()), format!("@{id}"), format!("@{lease_ms}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that the role itself wrote.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Some(told) = line.trim_end().strip_prefix("told: ") {
                return Some(told.to_owned());
            }
            line.clear();
        }
        None
    }

    /// Lets a `stepwise` owner append once more.
    fn step(&mut self) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "go").unwrap();
        input.flush().unwrap();
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
}

fn tell(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "told: {text}").unwrap();
    out.flush().unwrap();
}

fn open(path: &Path, lease_ms: u64) -> Arc<Store> {
    let settings = StoreSettings { lease_ms, renew_ms: lease_ms / 4, ..StoreSettings::default() };
    Store::open(path, settings).unwrap()
}

/// What a child does: `owner` takes the run and appends until it is refused, `stepwise` does so once per
/// line on its input; `fleet` creates a run and appends 60 batches.
#[tokio::test]
#[ignore = "started by the other tests of this file in processes of its own"]
async fn played_by_a_child() {
    let given: Vec<_> = std::env::args().filter_map(|argument| argument.strip_prefix('@').map(str::to_owned)).collect();
    let [role, path, id, lease_ms] = given.as_slice() else { panic!("started without a role") };
    let store = open(Path::new(path), lease_ms.parse().unwrap());
    match role.as_str() {
        "owner" => {
            let lease = store.acquire(&run(id), &owner()).await.unwrap();
            append_until_refused(&store, &lease, false).await;
        }
        "stepwise" => {
            let lease = store.acquire(&run(id), &owner()).await.unwrap();
            append_until_refused(&store, &lease, true).await;
        }
        "fleet" => {
            let lease = store.create_run(new_run(id, id)).await.unwrap();
            let mut head = lease.head;
            for turn in 0..60 {
                head = store.append(&lease, head, note(&format!("{turn}"))).await.unwrap();
                assert!(!store.list(None, 100).await.unwrap().is_empty());
            }
            store.release(&lease).await.unwrap();
            tell("finished");
        }
        other => panic!("no such role: {other}"),
    }
}

async fn append_until_refused(store: &Store, lease: &Lease, stepwise: bool) {
    let mut head = lease.head;
    loop {
        if stepwise {
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        match store.append(lease, head, note(&format!("after {head}"))).await {
            Ok(next) => {
                head = next;
                tell(&head.to_string());
            }
            Err(JournalError::Stale { .. }) => {
                let left = store.lease_left(lease);
                tell(if left.is_err() { "stale" } else { "stale, but its lease says otherwise" });
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn released_run(path: &Path) -> Arc<Store> {
    let store = open(path, 60_000);
    let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
    store.release(&lease).await.unwrap();
    store
}

/// Proves that after SIGKILL in the middle of appending every acknowledged event is there with an unbroken chain, and that
/// the run is taken over at once though its lease would last a minute. Twelve times, at moments spread over the work.
#[tokio::test]
async fn a_killed_writer_loses_nothing_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = released_run(&path).await;
    for round in 0..12_u64 {
        let mut child = Role::start("owner", &path, "r1", 60_000);
        let mut told = 0;
        for _ in 0..=round * 7 {
            told = child.line().expect("the child goes on until it is killed").parse::<u64>().unwrap();
        }
        let refused = store.acquire(&run("r1"), &owner()).await.unwrap_err();
        let JournalError::Owned { owner: named, .. } = &refused else { panic!("{refused}") };
        assert_eq!(named.pid, child.child.id());
        assert!(store.list(None, 1).await.unwrap()[0].owner_live);
        child.child.kill().unwrap();
        child.child.wait().unwrap();
        while let Some(line) = child.line() {
            told = line.parse().unwrap();
        }
        assert!(!store.list(None, 1).await.unwrap()[0].owner_live);
        let begun = Instant::now();
        let lease = store.acquire(&run("r1"), &owner()).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "takeover took {:?}", begun.elapsed());
        assert!(lease.head >= told, "told {told}, found {}", lease.head);
        assert_eq!(store.verify(&run("r1")).await.unwrap(), lease.head);
        store.release(&lease).await.unwrap();
    }
}

/// Proves that an owner which stands still (SIGSTOP) longer than its lease is taken over only when the lease ended, and
/// that it learns on waking: its next append is refused and its lease says so.
#[tokio::test]
async fn a_stopped_owner_is_fenced_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = released_run(&path).await;
    drop(store);
    let impatient = StoreSettings { busy_ms: 3_000, ..StoreSettings::default() };
    let store = Store::open(&path, impatient).unwrap();
    let mut child = Role::start("stepwise", &path, "r1", 1_500);
    child.step();
    child.line().unwrap();
    child.signal(rustix::process::Signal::STOP);
    let mut begun = Instant::now();
    let lease = loop {
        match store.acquire(&run("r1"), &owner()).await {
            Ok(lease) => break lease,
            Err(JournalError::Owned { .. }) => assert!(begun.elapsed() < Duration::from_secs(30), "never taken over"),
            Err(JournalError::Busy) => {
                // It was stopped in the middle of renewing its lease and keeps SQLite's write lock: stop it elsewhere.
                child.signal(rustix::process::Signal::CONT);
                child.step();
                child.line().unwrap();
                child.signal(rustix::process::Signal::STOP);
                begun = Instant::now();
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(begun.elapsed() > Duration::from_millis(700), "taken over after {:?}", begun.elapsed());
    let head = store.append(&lease, lease.head, note("taken over")).await.unwrap();
    child.signal(rustix::process::Signal::CONT);
    child.step();
    let mut last = String::new();
    while let Some(line) = child.line() {
        last = line;
    }
    assert_eq!(last, "stale");
    assert_eq!(store.load(&run("r1")).await.unwrap().summary.head, head);
    store.verify(&run("r1")).await.unwrap();
}

/// Proves that eight processes that write one file at once, as fast as they can, all finish: no "database is locked", no
/// lost append.
#[tokio::test]
async fn eight_processes_share_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    // Nobody made the file before: they also race for its creation and migration.
    let mut children: Vec<_> =
        (0..8).map(|number| Role::start("fleet", &path, &format!("r{number}"), 10_000)).collect();
    for child in &mut children {
        assert_eq!(child.line().as_deref(), Some("finished"));
        assert!(child.child.wait().unwrap().success());
    }
    let store = open(&path, 10_000);
    for number in 0..8 {
        assert_eq!(store.verify(&run(&format!("r{number}"))).await.unwrap(), 61);
    }
    store.check_file().await.unwrap();
}

/// Proves that a deadline of another boot means nothing: on the same host the run is free at once, of another host it is
/// taken only after it was watched for a whole lease without a renewal, and not at all while it is renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_another_boot_is_void() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let first = open(&path, 60_000);
    first.create_run(new_run("r1", "aws-dev")).await.unwrap();
    let by_hand = rusqlite::Connection::open(&path).unwrap();
    by_hand.busy_timeout(Duration::from_secs(10)).unwrap();
    by_hand.execute("UPDATE runs SET lease_boot = 'an-earlier-boot', lease_until_ms = 9000000000000", []).unwrap();
    let second = open(&path, 400);
    let lease = second.acquire(&run("r1"), &owner()).await.unwrap();
    assert_eq!(lease.epoch, 2);
    drop(second);

    let elsewhere = "UPDATE runs SET lease_boot = 'boot', lease_until_ms = 9000000000000, owner = json_set(owner, '$.host', 'elsewhere')";
    by_hand.execute(elsewhere, []).unwrap();
    let third = open(&path, 400);
    let begun = Instant::now();
    let lease = third.acquire(&run("r1"), &owner()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(lease.epoch, 3);
    drop(third);

    by_hand.execute(elsewhere, []).unwrap();
    let fourth = open(&path, 400);
    let watching = tokio::spawn(async move { fourth.acquire(&run("r1"), &owner()).await });
    while !watching.is_finished() {
        by_hand.execute("UPDATE runs SET lease_until_ms = lease_until_ms + 1", []).unwrap();
    }
    let watched = watching.await.unwrap().unwrap_err();
    assert!(matches!(&watched, JournalError::Owned { owner, .. } if owner.host == "elsewhere"), "{watched}");
}

/// Proves that a held lease is renewed in the background beyond its first deadline, and that one which ended (nobody
/// renewed it in time) is not revived: its owner must acquire anew.
#[tokio::test]
async fn a_lease_is_renewed_while_its_store_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path, 1_000);
    let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
    let by_hand = rusqlite::Connection::open(&path).unwrap();
    by_hand.busy_timeout(Duration::from_secs(10)).unwrap();
    let until = || by_hand.query_row("SELECT lease_until_ms FROM runs", [], |row| row.get::<_, i64>(0)).unwrap();
    let first = until();
    while until() < first + 1_500 {
        assert!(store.lease_left(&lease).unwrap() <= Duration::from_millis(1_000));
        std::thread::yield_now();
    }
    by_hand.execute("UPDATE runs SET lease_until_ms = 1", []).unwrap();
    while store.lease_left(&lease).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(until(), 1, "an ended lease was revived");
    let again = store.acquire(&run("r1"), &owner()).await.unwrap();
    assert_eq!(again.epoch, 2);
    assert!(store.lease_left(&again).unwrap() > Duration::ZERO);
}
