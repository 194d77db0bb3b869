//! The private folder of a rehearsal: made, locked while it lives, removed with it, and swept if its rehearsal was killed.

use crate::failure::{CommandError, ExitCode};
use crate::rehearsal::moment::make_folder;
use crate::settings::Settings;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const PREFIX: &str = "platflow-rehearsal-";
const LOCK: &str = "lock";

pub(crate) fn failed(what: &str) -> impl Fn(io::Error) -> CommandError + '_ {
    move |error| CommandError::new(ExitCode::Internal, format!("the rehearsal could not {what}")).caused_by(error)
}

/// A private folder for a rehearsal, in memory where the system has such a place; gone when this is dropped.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    // Held while the folder is in use: one whose lock is free belongs to a rehearsal that was killed.
    _lock: File,
}

impl Folder {
    /// Makes one, after removing what killed rehearsals of the same user left beside it.
    ///
    /// # Errors
    /// A place where nothing can be written.
    pub(crate) fn make(settings: &Settings) -> Result<Self, CommandError> {
        let name = format!("{PREFIX}{}", crate::identifiers::run_id()?);
        let in_memory = Path::new("/dev/shm");
        sweep(in_memory);
        let shared = in_memory.join(&name);
        let path = if std::fs::create_dir(&shared).is_ok() {
            std::fs::set_permissions(&shared, Permissions::from_mode(0o700)).map_err(failed("make its folder"))?;
            shared
        } else {
            sweep(&settings.state_directory);
            let path = settings.state_directory.join(name);
            make_folder(&path).map_err(failed("make its folder"))?;
            path
        };
        // Locked before it has its name: no sweep sees it unlocked.
        let unnamed = path.join("lock.new");
        let lock = File::create(&unnamed).map_err(failed("lock its folder"))?;
        lock.lock().map_err(failed("lock its folder"))?;
        std::fs::rename(&unnamed, path.join(LOCK)).map_err(failed("lock its folder"))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left-over files harm nobody; the next rehearsal sweeps them.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of rehearsals that are dead. Best effort: what cannot be removed stays.
fn sweep(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else { return };
    let user = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user);
        // One without a lock is just being made.
        if ours && File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
