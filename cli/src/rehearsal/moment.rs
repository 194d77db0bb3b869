//! Everything there is at one moment of a rehearsal: world, time, state file, the files of programs, simulated steps.
//! A crash is rehearsed by starting over from one.

use platflow_engine::name::StepName;
use platflow_sandbox::world::World;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What simulated steps made: kind and outputs, by step.
pub(crate) type Things = BTreeMap<StepName, (String, Value)>;

/// Ids of what was ever made in the account, by type and step.
pub(crate) type Made = BTreeMap<(String, String), BTreeSet<String>>;

/// See the file. Copies share what is large.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) world: Arc<World>,
    /// Simulated time, Unix milliseconds.
    pub(crate) now_ms: i64,
    /// A copy of the state file.
    pub(crate) state: PathBuf,
    pub(crate) files: Arc<Files>,
    pub(crate) things: Things,
    pub(crate) made: Made,
}

impl Moment {
    /// True when nothing outside of the sandbox differs.
    pub(crate) fn same_files(&self, other: &Self) -> bool {
        self.files == other.files && self.things == other.things
    }
}

/// The files below a folder, with their permission bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(pub(crate) BTreeMap<PathBuf, (u32, Vec<u8>)>);

impl Files {
    /// Reads a folder; one that is not there is empty.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        files.add(folder, Path::new(""))?;
        Ok(files)
    }

    fn add(&mut self, folder: &Path, below: &Path) -> io::Result<()> {
        let entries = match std::fs::read_dir(folder.join(below)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.add(folder, &path)?;
            } else if kind.is_file() {
                let mode = entry.metadata()?.permissions().mode();
                self.0.insert(path, (mode, std::fs::read(entry.path())?));
            }
        }
        Ok(())
    }

    /// Writes them into an empty folder.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        for (path, (mode, content)) in &self.0 {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                make_folder(parent)?;
            }
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(*mode).open(path)?;
            io::Write::write_all(&mut file, content)?;
        }
        Ok(())
    }
}

/// Makes a folder, and those above it, for its owner's eyes only.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
