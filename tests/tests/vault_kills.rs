//! Vault's init and unseal under kills at system calls, and four rivals that resume the same run at once.
//!
//! A platform is built up to the moment before Vault is initialised, stopped there by a gate, and copied for every case.
//! Killed is the process that initialises and unseals, at a write, sync, rename or send, in whichever thread comes to its
//! n-th call first; then four processes resume the run at the same moment. Without strace the kills are at events.

use platflow_report::Sweep;
use platflow_tests::durable::{journal, verified_events};
use platflow_tests::scale::scale;
use platflow_tests::strace::{self, Strike};
use platflow_tests::{Finished, TestEnvironment, copy_folder};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const RUNBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/vault-only.yaml");
const CALLS: &[&str] = &["pwrite64", "fsync", "rename", "renameat2", "write", "writev"];
const LIMIT: Duration = Duration::from_secs(60);
/// The first init succeeds and its reply, with the only copy of the keys, is lost.
const LOST_REPLY: &str = "vault:POST:sys/init=lose_reply*1";
const RIVALS: usize = 4;
const SHARES: usize = 5;
/// Steps of the journal between the gate and the end, for kills without strace.
const EVENTS: u64 = 10;

/// A platform right before Vault's init, at rest.
struct Prepared {
    place: TestEnvironment,
    run: String,
}

fn prepared() -> Prepared {
    let place = TestEnvironment::new();
    place.run(&["run", RUNBOOK, "--sandbox", "--speed", "600"]).expect_code(5);
    let run = place.newest_run().expect("a run");
    assert_eq!(place.world().count("vault:cluster"), 0, "nothing is initialised yet");
    place.run(&["sandbox", "stop"]).expect_code(0);
    std::fs::write(place.path().join("gate"), "").expect("the gate");
    Prepared { place, run }
}

impl Prepared {
    /// A copy whose sandbox runs, as nobody's child.
    fn case(&self) -> TestEnvironment {
        let place = self.place.copy();
        place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
        place
    }
}

/// Where a process is killed.
#[derive(Debug, Clone)]
enum Point {
    Call(String, u64),
    Event(u64),
}

fn points(template: &Prepared, limit: usize) -> Vec<Point> {
    if !strace::permitted("vault_kills (kills are at events instead of system calls)") {
        return (0..limit as u64).map(|index| Point::Event(1 + index % EVENTS)).collect();
    }
    let place = template.case();
    let counts = strace::count(&place, CALLS, &["resume", &template.run], 0);
    platflow_report::told(format_args!("calls of the busiest thread of init and unseal: {counts:?}"));
    let points: Vec<Point> =
        strace::points(&counts, limit).into_iter().map(|(call, at)| Point::Call(call, at)).collect();
    // More cases than calls: the same points again, at other moments of the sandbox.
    points.iter().cycle().take(limit).cloned().collect()
}

fn killed(place: &TestEnvironment, run: &str, point: &Point) -> Finished {
    let arguments = ["resume", run, "--output", "jsonl"];
    match point {
        Point::Call(call, at) => place.finish(strace::struck(place, Strike::Kill, call, *at, &arguments), &arguments),
        Point::Event(lines) => {
            let mut running = place.start(&arguments);
            running.kill_after_lines(*lines, LIMIT);
            running.wait()
        }
    }
}

/// Four at once, then one more for what they left to each other; all their words.
fn rivals(place: &TestEnvironment, run: &str, when: &str) -> String {
    let started: Vec<_> = (0..RIVALS).map(|_| place.start(&["resume", run, "--output", "jsonl"])).collect();
    let ended: Vec<Finished> = started.into_iter().map(platflow_tests::Running::wait).collect();
    for rival in &ended {
        assert!([0, 7].contains(&rival.code), "{when}: a rival ended with {}\n{}", rival.code, rival.stderr);
    }
    let last = place.run(&["resume", run]);
    assert_eq!(last.code, 0, "{when}\n{}", last.stderr);
    ended.iter().chain([&last]).map(|finished| format!("{}{}", finished.stdout, finished.stderr)).collect()
}

/// Accepted inits, as the sandbox counted them, against the storages that were found virgin: each at most once.
fn assert_one_init_per_storage(place: &TestEnvironment, run: &str, when: &str) -> usize {
    let counters = place.counters();
    let accepted = find(&counters, "vault:POST sys/init").unwrap_or(0);
    let virgin: BTreeSet<String> = journal(place, run)
        .iter()
        .filter(|event| event["event"] == "step-noted" && event["key"] == "virgin-claims")
        .map(|event| event["value"]["claims"].to_string())
        .collect();
    assert!(accepted >= 1 && accepted <= virgin.len() as u64, "{when}: {accepted} inits for {} storages", virgin.len());
    virgin.len()
}

/// The first number of that name, wherever it is.
fn find(value: &serde_json::Value, name: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(members) => members
            .get(name)
            .and_then(serde_json::Value::as_u64)
            .or_else(|| members.values().find_map(|member| find(member, name))),
        serde_json::Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        _ => None,
    }
}

/// One cluster, unsealed, three voters, its five keys on record; returns them.
fn assert_keys(place: &TestEnvironment, when: &str) -> Vec<String> {
    let world = place.world();
    let vaults: Vec<_> = world.made().filter(|resource| resource.kind == "vault:cluster").collect();
    assert_eq!(vaults.len(), 1, "{when}: {vaults:#?}");
    assert!(vaults[0].state.contains("unsealed"), "{when}: {vaults:#?}");
    (1..=SHARES)
        .map(|share| {
            let name = format!("vault/share-{share}");
            let shown = place.run(&["secret", "show", "vault-only", &name]).expect_code(0).stdout.trim().to_owned();
            assert!(shown.len() >= 32, "{when}: {name}");
            shown
        })
        .collect()
}

/// A share as text, and as the bytes that its hexadecimal digits stand for.
fn forms(share: &str) -> Vec<Vec<u8>> {
    let digits: Option<Vec<u8>> = share
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    [Some(share.as_bytes().to_vec()), digits].into_iter().flatten().collect()
}

/// Files below a folder which hold any of these bytes.
fn holders(folder: &Path, needles: &[Vec<u8>], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            holders(&path, needles, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && needles.iter().any(|needle| contains(&bytes, needle))
        {
            found.push(path.display().to_string());
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// One kill, four rivals, and everything that must hold then. Whether the kill hit, and how many storages there were.
fn case(template: &Prepared, point: &Point, reply_lost: bool) -> (bool, usize) {
    let place = template.case();
    let when = format!("killed at {point:?}, first reply lost: {reply_lost}");
    if reply_lost {
        place.run(&["sandbox", "fault", LOST_REPLY]).expect_code(0);
    }
    let killed = killed(&place, &template.run, point);
    // What the killed process left on disk, before anybody mends it.
    copy_folder(&place.state(), &place.path().join("after-the-kill"));
    let words = killed.stdout.clone() + &killed.stderr + &rivals(&place, &template.run, &when);
    let storages = assert_one_init_per_storage(&place, &template.run, &when);
    let shares = assert_keys(&place, &when);
    // A Vault whose keys nobody heard is wiped and initialised again.
    assert!(!reply_lost || storages > 1, "{when}: the lost reply left {storages} storages");
    assert!(verified_events(&place, &template.run) > 0, "{when}");
    let needles: Vec<Vec<u8>> = shares.iter().flat_map(|share| forms(share)).collect();
    let mut found = Vec::new();
    holders(place.path(), &needles, &mut found);
    assert!(found.is_empty(), "{when}: a share lies in clear in {found:?}");
    assert!(!needles.iter().any(|needle| contains(words.as_bytes(), needle)), "{when}: a share was printed");
    (killed.code == -1, storages)
}

/// Proves that the search for shares finds one that lies in a file, as text or as bytes: the test above can fail.
#[test]
fn a_share_in_clear_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let share = "00ff10203040506070809aabbccddeeff00112233445566778899aabbccddeeff1";
    std::fs::write(folder.path().join("text"), format!("before {share} after")).expect("a file");
    std::fs::write(folder.path().join("bytes"), [&[0; 4][..], &forms(share)[1], &[0; 4]].concat()).expect("a file");
    std::fs::write(folder.path().join("clean"), "nothing here").expect("a file");
    let mut found = Vec::new();
    holders(folder.path(), &forms(share), &mut found);
    assert_eq!(found.len(), 2, "{found:?}");
}

/// Proves that, wherever the process is killed between the gate and the end of unseal, with four rivals that resume at
/// once, and in every third case with the reply to the first init lost as well: one accepted init per storage, one cluster in the end that is unsealed and whose five keys are on record, and no
/// share in clear in the state file, its log, the sandbox, the key folder or any output.
#[test]
fn kills_and_rivals_leave_one_vault_with_its_keys() {
    let sweep = Sweep::begin("kills over init and unseal of Vault, four rivals");
    let cases = scale().of(45, 2_000);
    let templates = [prepared(), prepared()];
    let points = points(&templates[0], cases);
    let (next, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let storages = std::sync::Mutex::new(BTreeMap::<usize, usize>::new());
    // One worker per template: the copies of one have the same ports on record.
    std::thread::scope(|scope| {
        for template in &templates {
            let (points, next, hits, storages) = (&points, &next, &hits, &storages);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(point) = points.get(index) else { break };
                    let (hit, virgin) = case(template, point, index % 3 == 2);
                    hits.fetch_add(usize::from(hit), Ordering::Relaxed);
                    *storages.lock().expect("no worker panicked").entry(virgin).or_insert(0) += 1;
                }
            });
        }
    });
    let hits = hits.into_inner();
    let counted = format!("{hits} hit; cases by storages that were initialised: {storages:?}");
    sweep.end(points.len(), "none, spread evenly", counted);
    assert!(hits * 4 >= points.len() * 3, "only {hits} of {} kills hit", points.len());
}
