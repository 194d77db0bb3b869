//! The state directory and what lies in it: room, permissions, how long a sync takes; and for the doctor the file itself,
//! every chain, and every fold made anew.

use crate::settings::Settings;
use async_trait::async_trait;
use platflow_engine::fold::Run;
use platflow_engine::journal::{Journal, RunSummary};
use platflow_state::Store;
use platflow_steps::preflight::{Check, Examiner, Family, Finding, Subject};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

static WRITABLE: Check = Check::of_request("state.directory", Family::State, "The state directory can be written");
static SPACE: Check = Check::of_world("state.disk-space", Family::State, "The disk of the state file has room");
static INODES: Check = Check::of_world("state.inodes", Family::State, "The disk of the state file takes more files");
static SYNC: Check =
    Check::of_world("state.sync", Family::State, "The disk of the state file syncs in less than 100 ms");
static MODE: Check = Check::of_request("state.permissions", Family::State, "Nobody else reads the state directory");
static FILES: Check =
    Check::of_request("state.open-files", Family::State, "This process may open as many files as a run needs");
static DAMAGE: Check = Check::of_world("state.file", Family::State, "Every page and index of the state file is whole");
static CHAIN: Check = Check::of_world("state.chains", Family::State, "The chain of hashes of every run holds");
static FOLD: Check =
    Check::of_world("state.folds", Family::State, "The stored state of every run is the fold of its journal");

pub(super) static CHECKS: &[&Check] = &[&WRITABLE, &SPACE, &INODES, &SYNC, &MODE, &FILES, &DAMAGE, &CHAIN, &FOLD];

/// A deployment writes one or two megabytes, and keeps one back for the way out.
const LEAST_BYTES: u64 = 16 << 20;
const COMFORTABLE_BYTES: u64 = 256 << 20;
const LEAST_INODES: u64 = 100;
/// Each commit waits for one.
const SLOW_SYNC: Duration = Duration::from_millis(100);
const LEAST_FILES: u64 = 256;

/// Looks at the directory.
pub(super) struct Place {
    pub(super) settings: Settings,
}

/// Writes, syncs and takes away a small file; tells how long the sync took.
pub(super) fn try_write(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".platflow-preflight-{}", std::process::id()));
    let tried: std::io::Result<Duration> = (|| {
        let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&[0; 4_096])?;
        let began = Instant::now();
        file.sync_all()?;
        Ok(began.elapsed())
    })();
    let removed = std::fs::remove_file(&path);
    let took = tried?;
    removed.map(|()| took)
}

#[async_trait]
impl Examiner for Place {
    fn checks(&self) -> Vec<&'static Check> {
        vec![&WRITABLE, &SPACE, &INODES, &SYNC, &MODE, &FILES]
    }

    async fn examine(&self, _subject: &Subject) -> Vec<Finding> {
        let folder = self.settings.state_directory.as_path();
        let mut found = Vec::new();
        match std::fs::metadata(folder) {
            // It is made at first need.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return found,
            Err(error) => {
                found.push(unwritable(folder, &error));
                return found;
            }
            Ok(there) => {
                let mode = there.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    found.push(MODE.warning(
                        format!("{} has mode {mode:o}", folder.display()),
                        "other users of this machine can read what is built and how; secrets in it are sealed",
                        format!("chmod 700 {}", folder.display()),
                    ));
                }
            }
        }
        match try_write(folder) {
            Err(error) => found.push(unwritable(folder, &error)),
            Ok(took) if took > SLOW_SYNC => found.push(SYNC.warning(
                format!("a sync of {} took {} ms", folder.display(), took.as_millis()),
                "every step of a run waits for one or two of them",
                "put the state directory on a local disk that is not busy",
            )),
            Ok(_) => {}
        }
        found.extend(room(folder));
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        if let Some(files) = files.filter(|files| *files < LEAST_FILES) {
            found.push(FILES.warning(
                format!("this process may open {files} files"),
                "each call under way takes one: a run with many steps at once fails in odd places",
                format!("ulimit -n {LEAST_FILES}"),
            ));
        }
        found
    }
}

fn unwritable(folder: &Path, error: &std::io::Error) -> Finding {
    WRITABLE.blocker(
        format!("{} cannot be written: {error}", folder.display()),
        "nothing can be recorded, so nothing is begun",
        "make it writable, or name another with --state",
    )
}

fn room(folder: &Path) -> Vec<Finding> {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Vec::new() };
    let mut found = Vec::new();
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let evidence = format!("{} MiB are free in {}", free >> 20, folder.display());
    let remedy = "make room, or name another directory with --state";
    if free < LEAST_BYTES {
        found.push(SPACE.blocker(evidence, "the run would stop when the disk is full, with resources left", remedy));
    } else if free < COMFORTABLE_BYTES {
        found.push(SPACE.warning(
            evidence,
            "a run writes one or two of them; logs of others may take the rest",
            remedy,
        ));
    }
    if disk.f_files > 0 && disk.f_favail < LEAST_INODES {
        found.push(INODES.warning(
            format!("{} more files fit on the disk", disk.f_favail),
            "locks and the journal's log cannot be made",
            remedy,
        ));
    }
    found
}

/// Looks at what is in the state file.
pub(super) struct Contents {
    pub(super) store: Arc<Store>,
}

/// As many runs as are looked at, and as many events of each.
const MOST: usize = 100_000;

#[async_trait]
impl Examiner for Contents {
    fn checks(&self) -> Vec<&'static Check> {
        vec![&DAMAGE, &CHAIN, &FOLD]
    }

    async fn examine(&self, _subject: &Subject) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Err(error) = self.store.check_file().await {
            found.push(damaged(&DAMAGE, "the state file".to_owned(), &error.to_string()));
        }
        let runs = match self.store.list(None, MOST).await {
            Ok(runs) => runs,
            Err(error) => {
                found.push(damaged(&CHAIN, "the list of runs".to_owned(), &error.to_string()));
                return found;
            }
        };
        for run in runs {
            if let Err(error) = self.store.verify(&run.id).await {
                found.push(damaged(&CHAIN, format!("run {}", run.id), &error.to_string()));
            } else if let Err(why) = self.refold(&run).await {
                found.push(damaged(&FOLD, format!("run {}", run.id), &why));
            }
        }
        found
    }
}

impl Contents {
    /// Folds a whole journal and holds it against what is stored. A run that goes on meanwhile is compared up to where it
    /// was when it was read.
    async fn refold(&self, run: &RunSummary) -> Result<(), String> {
        let loaded = self.store.load(&run.id).await.map_err(|error| error.to_string())?;
        let (plan, head) = (Arc::new(loaded.plan.clone()), loaded.summary.head);
        let mut events = self.store.events(&run.id, 0, MOST).await.map_err(|error| error.to_string())?;
        events.retain(|event| event.sequence <= head);
        let cached = Run::load(loaded).map_err(|error| error.to_string())?;
        let folded = Run::refold(run.id.clone(), plan, &events).map_err(|error| error.to_string())?;
        let steps = |run: &Run| -> Vec<Value> {
            run.steps().filter_map(|(_, state)| serde_json::to_value(state).ok()).collect()
        };
        if cached.state != folded.state || cached.head != folded.head {
            return Err("the stored state of the run is not the fold of its journal".to_owned());
        }
        if steps(&cached) != steps(&folded) {
            return Err("the stored states of its steps are not the fold of its journal".to_owned());
        }
        Ok(())
    }
}

fn damaged(check: &'static Check, what: String, why: &str) -> Finding {
    check.blocker(
        format!("{what}: {why}"),
        "what is on record cannot be trusted: nothing should be resumed or undone by it",
        "keep the file as it is, restore it from a backup, or rebuild the record: platflow adopt",
    )
}
