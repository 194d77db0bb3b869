//! Space kept back for the way out: a file of allocated, unused blocks beside the state file.
//!
//! A disk fills up while a run builds. What is built must still be cancelled or rolled back, and that must be recorded. So
//! every writer keeps the reserve, and only the commands that stop or take away give it to the disk, when it is needed. A
//! reserve that cannot be had (too little space, a file system that cannot allocate ahead) is no error: then there is none.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A WAL at its full size (1,000 pages of 4 KiB, which one big commit may exceed) and some thousand events in the file.
pub(crate) const RESERVE_BYTES: u64 = 8 << 20;

fn beside(state: &Path) -> PathBuf {
    let mut name = state.file_name().unwrap_or_default().to_os_string();
    name.push(".reserve");
    state.with_file_name(name)
}

/// Bytes that this user may still write to the file system of a folder.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Makes the reserve if it is not there and takes no more than a quarter of what is free.
pub(crate) fn keep(state: &Path) {
    if let Err(error) = make(&beside(state), RESERVE_BYTES) {
        tracing::debug!(%error, "no space is kept back");
    }
}

fn make(file: &Path, bytes: u64) -> io::Result<()> {
    match fs::metadata(file) {
        // What is allocated counts, not the length.
        Ok(present) if present.blocks().saturating_mul(512) >= bytes => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    if free_bytes(folder)? < bytes.saturating_mul(4) {
        return Ok(());
    }
    let reserve = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
    let allocated = rustix::fs::fallocate(&reserve, rustix::fs::FallocateFlags::empty(), 0, bytes);
    allocated.map_err(|error| {
        let _ = fs::remove_file(file);
        error.into()
    })
}

/// Gives the reserve to the disk when less than its size is free. True when there was one and it was needed.
pub(crate) fn spend(state: &Path) -> bool {
    let file = beside(state);
    let folder = file.parent().unwrap_or(Path::new("."));
    let needed = free_bytes(folder).is_ok_and(|free| free < RESERVE_BYTES);
    let spent = needed && fs::remove_file(&file).is_ok();
    if spent {
        tracing::warn!(file = %file.display(), "the disk is full: the space kept back for the way out is used now");
    }
    spent
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that the reserve is really allocated, made once, and left alone as long as the disk has room.
    #[test]
    fn the_reserve_is_allocated_and_kept_while_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.db");
        make(&beside(&state), 1 << 20).unwrap();
        let first = fs::metadata(beside(&state)).unwrap();
        assert!(first.blocks() * 512 >= 1 << 20);
        assert_eq!(first.mode() & 0o777, 0o600);
        make(&beside(&state), 1 << 20).unwrap();
        assert_eq!(fs::metadata(beside(&state)).unwrap().mtime_nsec(), first.mtime_nsec());
        assert!(!spend(&state), "this disk is not full");
        assert!(beside(&state).exists());
    }

    /// Proves that no reserve is made where it would take more than a quarter of what is free, and that this is no error.
    #[test]
    fn a_reserve_never_fills_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.db.reserve");
        make(&file, free_bytes(folder.path()).unwrap() / 2).unwrap();
        assert!(!file.exists());
    }
}
