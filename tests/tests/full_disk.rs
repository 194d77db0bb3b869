//! A disk that is really full, and stays full: what was built can still be cancelled, rolled back and proven gone, on the
//! space that the store keeps back. It needs the right to mount a small file system; without it the test says that it was
//! skipped.

use platflow_tests::TestEnvironment;
use platflow_tests::durable::{assert_nothing_told_is_lost, verified_events};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const RUNBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");
const RUN: &[&str] = &["run", RUNBOOK, "--sandbox", "--speed", "200", "--output", "jsonl"];

/// A small file system of its own, until dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Nothing where this user may not mount.
    #[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
    fn at(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m,mode=0700", "platflow-test"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }

    /// Writes until nothing more goes in.
    fn fill(&self) {
        let mut filler = File::create(self.0.join("filler")).expect("a file");
        let chunks = [&[0_u8; 1 << 20][..], &[0_u8; 4_096][..]];
        for chunk in chunks {
            while filler.write_all(chunk).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    #[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A place whose state lies on a small disk; the sandbox's own world lies elsewhere, as an account does. The place comes
/// last, so that it goes first: its sandbox is stopped while its state is still there.
fn place() -> Option<(SmallDisk, TestEnvironment)> {
    let place = TestEnvironment::new();
    let disk = SmallDisk::at(&place.state())?;
    let sandbox = place.path().join("sandbox");
    std::fs::create_dir(&sandbox).expect("a folder");
    symlink(&sandbox, place.state().join("sandbox")).expect("a link");
    place.run(&["sandbox", "start", "--speed", "200"]).expect_code(0);
    Some((disk, place))
}

fn skipped(test: &str) {
    platflow_report::skipped(test, "this user may not mount a file system");
}

/// Proves that a run on a disk that fills up ends with an error that says so and loses nothing it told, and that its
/// rollback on the disk, still full, ends in an empty world with everything on record.
#[test]
fn a_rollback_is_recorded_on_a_full_disk() {
    let Some((disk, place)) = place() else { return skipped("a_rollback_is_recorded_on_a_full_disk") };
    let mut running = place.start(RUN);
    assert!(running.read_lines(12, Duration::from_secs(60)), "it ended too soon");
    disk.fill();
    let ended = running.wait();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("full") && ended.stderr.contains("rollback"), "{}", ended.stderr);
    let run = place.newest_run().expect("a run");
    assert!(!place.world().shape().is_empty(), "there is something to take away");
    let back = place.run(&["rollback", &run, "--confirm", "small", "--output", "jsonl"]).expect_code(0);
    assert!(place.world().shape().is_empty());
    assert!(verified_events(&place, &run) > 12);
    for told in [&ended.stdout, &back.stdout] {
        assert_nothing_told_is_lost(&place, &run, told, "on a full disk");
    }
    assert!(File::create(disk.0.join("state.db.probe")).is_ok_and(|mut file| file.write_all(&[0; 64]).is_ok()));
}

/// Proves that `cancel` gives the space to the process that it stops: the stop is recorded, and can be gone on from.
#[test]
fn a_cancel_is_recorded_on_a_full_disk() {
    let Some((disk, place)) = place() else { return skipped("a_cancel_is_recorded_on_a_full_disk") };
    let mut running = place.start(RUN);
    assert!(running.read_lines(8, Duration::from_secs(60)), "it ended too soon");
    let run = place.newest_run().expect("a run");
    running.signal("STOP");
    disk.fill();
    let cancelled = place.run(&["cancel", &run]);
    running.signal("CONT");
    assert_eq!(cancelled.code, 0, "{}", cancelled.stderr);
    let ended = running.wait();
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    place.run(&["rollback", &run, "--confirm", "small"]).expect_code(0);
    assert!(place.world().shape().is_empty());
}
