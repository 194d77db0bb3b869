//! The guard with real processes: nothing outlives the engine, the time-out, or the command itself.
//!
//! Guards and engines are this test binary, started at [`played_by_the_guard`] and [`played_by_an_engine`].

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod core_fixture;

use core_fixture::{launcher, until};
use platflow_steps::guard_process::{self, Ended, GuardError, Job, guard_main, is_busy};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
#[ignore = "started by the other tests of this file in a process of its own"]
fn played_by_the_guard() {
    assert_eq!(guard_main(&[]), 0);
}

fn folder_given() -> PathBuf {
    let given = std::env::args().find_map(|argument| argument.strip_prefix('@').map(PathBuf::from));
    given.unwrap_or_else(|| panic!("started without a folder"))
}

#[tokio::test]
#[ignore = "started by the other tests of this file in a process of its own"]
async fn played_by_an_engine() {
    let _ = guard_process::run(&launcher(), &brood(&folder_given()), || true).await;
}

fn job(folder: &Path, script: &str) -> Job {
    Job {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        directory: Some(folder.to_owned()),
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]),
        stdin: String::new(),
        timeout_ms: 60_000,
        grace_ms: 300,
        lock: folder.join("guards/a.lock"),
    }
}

/// A command that does not want to end: it ignores SIGTERM, has a child in its group, an orphaned grandchild, and one that
/// left the group and the session. Each writes its pid to `pids`; the first line is the guard's.
fn brood(folder: &Path) -> Job {
    job(
        folder,
        "trap '' TERM; echo $PPID >> pids; echo $$ >> pids; sleep 1000 & echo $! >> pids; \
         (sleep 1000 & echo $! >> pids); setsid sh -c 'echo $$ >> pids; sleep 1000' & \
         while :; do sleep 1000; done",
    )
}

fn pids(folder: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(folder.join("pids")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().next().map(str::to_owned));
    !matches!(state.as_deref(), None | Some("Z" | "X"))
}

fn running(folder: &Path) -> Vec<u32> {
    pids(folder).into_iter().filter(|pid| runs(*pid)).collect()
}

/// Whatever a failed test left behind.
struct Sweep(PathBuf);

impl Drop for Sweep {
    fn drop(&mut self) {
        for pid in running(&self.0) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// A folder for one test; its processes do not outlive it.
fn folder() -> (Sweep, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Sweep(folder.path().to_owned()), folder)
}

/// Proves that a time-out ends the whole brood: the stubborn shell, its group, the orphan, and what left the session.
#[tokio::test]
async fn a_time_out_ends_everything() {
    let (_sweep, folder) = folder();
    let mut brood = brood(folder.path());
    brood.timeout_ms = 3_000;
    let ended = guard_process::run(&launcher(), &brood, || true).await.unwrap();
    assert!(matches!(ended, Ended::TimedOut { .. }), "{ended:?}");
    assert_eq!(pids(folder.path()).len(), 5);
    // The first pid is the guard's: the answer came, so it is about to end, and everything else has ended.
    let left = running(folder.path());
    assert!(left.iter().all(|pid| pid == pids(folder.path()).first().unwrap()), "{left:?}");
    assert!(!is_busy(&brood.lock));
}

/// Proves that the engine's word ends everything, and that the answer still comes.
#[tokio::test]
async fn letting_go_ends_everything() {
    let (_sweep, folder) = folder();
    let job = brood(folder.path());
    let go_on = || pids(folder.path()).len() < 5;
    assert_eq!(guard_process::run(&launcher(), &job, go_on).await.unwrap(), Ended::Abandoned);
    until("the brood is gone", || running(folder.path()).is_empty()).await;
}

/// Proves that dropping the future of a run (an engine that stops at once) ends everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_run_ends_everything() {
    let (_sweep, folder) = folder();
    let job = brood(folder.path());
    let launcher = launcher();
    let running_job = job.clone();
    let task = tokio::spawn(async move { guard_process::run(&launcher, &running_job, || true).await });
    until("the brood runs", || pids(folder.path()).len() == 5).await;
    task.abort();
    until("the brood is gone", || running(folder.path()).is_empty() && !is_busy(&job.lock)).await;
}

struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the test plays an engine with a real process")]
fn engine(folder: &Path) -> Engine {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "--quiet", "played_by_an_engine"])
        .arg(format!("@{}", folder.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Engine(child)
}

/// Proves that SIGKILL of the engine ends the brood, and that the lock says so: busy before, free only when all are gone.
#[tokio::test]
async fn a_killed_engine_takes_everything_along() {
    let (_sweep, folder) = folder();
    let mut engine = engine(folder.path());
    let lock = folder.path().join("guards/a.lock");
    until("the brood runs", || pids(folder.path()).len() == 5).await;
    assert!(is_busy(&lock));
    assert_eq!(running(folder.path()).len(), 5);
    engine.0.kill().unwrap();
    engine.0.wait().unwrap();
    let guard = *pids(folder.path()).first().unwrap();
    until("the lock is free", || !is_busy(&lock)).await;
    let left = running(folder.path());
    assert!(left.iter().all(|pid| *pid == guard), "the lock was free while {left:?} still ran");
    until("the guard is gone", || !runs(guard)).await;
}

/// Proves that even without its guard (killed for good) a running command keeps the lock: nobody starts beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_outlives_a_killed_guard() {
    let (_sweep, folder) = folder();
    let job = brood(folder.path());
    let (launched, running_job) = (launcher(), job.clone());
    let task = tokio::spawn(async move { guard_process::run(&launched, &running_job, || true).await });
    until("the brood runs", || pids(folder.path()).len() == 5).await;
    let kill = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    };
    kill(*pids(folder.path()).first().unwrap());
    let outcome = task.await.unwrap();
    assert!(matches!(outcome, Err(GuardError::NoAnswer)), "{outcome:?}");
    assert!(is_busy(&job.lock));
    assert_eq!(guard_process::run(&launcher(), &job, || true).await.unwrap(), Ended::Busy);
    assert_eq!(pids(folder.path()).len(), 5, "a second brood was started");
    until("everything is gone", || {
        running(folder.path()).into_iter().for_each(kill);
        // The shells' own sleeps have no pid on file: their group is the shell's.
        for pid in pids(folder.path()).into_iter().skip(1) {
            let group = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        !is_busy(&job.lock)
    })
    .await;
}

/// Proves that of two runs under one lock the second starts nothing while the first lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_is_refused() {
    let (_sweep, folder) = folder();
    let first = brood(folder.path());
    let second = job(folder.path(), "touch second");
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let (launched, stopped) = (launcher(), std::sync::Arc::clone(&stop));
    let task =
        tokio::spawn(async move { guard_process::run(&launched, &first, || !stopped.load(Ordering::SeqCst)).await });
    until("the brood runs", || pids(folder.path()).len() == 5).await;
    assert_eq!(guard_process::run(&launcher(), &second, || true).await.unwrap(), Ended::Busy);
    assert!(!folder.path().join("second").exists());
    stop.store(true, Ordering::SeqCst);
    assert_eq!(task.await.unwrap().unwrap(), Ended::Abandoned);
    let ended = guard_process::run(&launcher(), &second, || true).await.unwrap();
    assert!(matches!(ended, Ended::Exited { code: 0, .. }), "{ended:?}");
}

/// Proves that what a command leaves running when it ends by itself is ended too, and does not hold up its answer.
#[tokio::test]
async fn what_is_left_behind_is_ended() {
    let (_sweep, folder) = folder();
    let leaves =
        "sleep 1000 & echo $! >> pids; setsid sleep 1000 & echo $! >> pids; echo out; echo complaint >&2; exit 3";
    let ended = guard_process::run(&launcher(), &job(folder.path(), leaves), || true).await.unwrap();
    assert_eq!(ended, Ended::Exited { code: 3, stdout: "out\n".to_owned(), stderr: "complaint\n".to_owned() });
    assert!(running(folder.path()).is_empty());
}

/// Proves that neither unread input nor endless output blocks, that output is bounded (its beginning, the end of the
/// complaints), that a signal's death is told, and that a missing program or folder is no start.
#[tokio::test]
async fn pipes_and_endings() {
    let (_sweep, folder) = folder();
    let mut unread = job(folder.path(), "exit 0");
    unread.stdin = "x".repeat(3_000_000);
    assert!(matches!(guard_process::run(&launcher(), &unread, || true).await.unwrap(), Ended::Exited { code: 0, .. }));
    let mut echoed = job(folder.path(), "cat");
    echoed.stdin = "line\n".repeat(200_000);
    let ended = guard_process::run(&launcher(), &echoed, || true).await.unwrap();
    assert!(matches!(&ended, Ended::Exited { stdout, .. } if *stdout == echoed.stdin));
    let much = job(folder.path(), "yes out | head -c 9000000; yes err | head -c 100000 >&2; echo last >&2; kill -9 $$");
    let Ended::Exited { code, stdout, stderr } = guard_process::run(&launcher(), &much, || true).await.unwrap() else {
        panic!("it did not end by itself")
    };
    assert_eq!((code, stdout.len()), (128 + 9, 4 * 1024 * 1024));
    assert!(stderr.len() <= 16 * 1024 && stderr.ends_with("last\n"), "{}", stderr.len());

    let mut missing = job(folder.path(), "");
    missing.command = vec!["/does/not/exist".to_owned()];
    assert!(matches!(guard_process::run(&launcher(), &missing, || true).await.unwrap(), Ended::NotStarted { .. }));
    let mut nowhere = job(folder.path(), "true");
    nowhere.directory = Some(folder.path().join("nowhere"));
    assert!(matches!(guard_process::run(&launcher(), &nowhere, || true).await.unwrap(), Ended::NotStarted { .. }));
    assert!(!is_busy(&nowhere.lock));
}
