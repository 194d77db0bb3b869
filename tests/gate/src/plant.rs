//! Plants every defect, switched off, into a copy of the sources: one compilation serves them all, and what is shipped
//! never contains a switch.

use crate::mutants::{Mutant, all};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the copy consists of: the crates under test, and the crate that judges them.
const COPIED: [&str; 6] = ["engine", "state", "tests/report", "tests/simulation", "tests/gate", "Cargo.lock"];

/// The switch, as a module of the copied engine.
const SWITCH: &str = r"//! Which deliberate defect is switched on; none at first.

use std::sync::atomic::{AtomicUsize, Ordering};

static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Switches one defect on, and every other off; 0 is none.
pub fn set(number: usize) {
    ACTIVE.store(number, Ordering::SeqCst);
}

/// Whether a defect is switched on.
#[must_use]
pub fn active(number: usize) -> bool {
    ACTIVE.load(Ordering::Relaxed) == number
}
";

/// Why nothing could be planted.
#[derive(Debug)]
pub enum PlantError {
    /// A file could not be read or written.
    Io(PathBuf, io::Error),
    /// The text of an edit is not there, or more than once: the defect must follow the code.
    Lost { mutant: &'static str, file: &'static str, find: &'static str, times: usize },
}

impl std::fmt::Display for PlantError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(formatter, "{}: {error}", path.display()),
            Self::Lost { mutant, file, find, times } => {
                write!(formatter, "{mutant}: {file} has this {times} times instead of once:\n{find}")
            }
        }
    }
}

impl std::error::Error for PlantError {}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PlantError + '_ {
    |error| PlantError::Io(path.to_owned(), error)
}

fn condition(file: &str, number: usize) -> String {
    let home = if file.starts_with("engine/") { "crate" } else { "platflow_engine" };
    format!("{home}::mutant::active({number})")
}

fn plant(
    mutant: &Mutant,
    number: usize,
    root: &Path,
    files: &mut BTreeMap<&'static str, String>,
) -> Result<(), PlantError> {
    for edit in mutant.edits {
        let path = root.join(edit.file);
        let text = match files.get(edit.file) {
            Some(text) => text.clone(),
            None => fs::read_to_string(&path).map_err(at(&path))?,
        };
        let times = text.matches(edit.find).count();
        if times != 1 {
            return Err(PlantError::Lost { mutant: mutant.name, file: edit.file, find: edit.find, times });
        }
        let replace = edit.replace.replace("@on@", &condition(edit.file, number));
        files.insert(edit.file, text.replacen(edit.find, &replace, 1));
    }
    Ok(())
}

/// Every file that any defect changes, changed by all of them.
///
/// # Errors
/// An edit whose text is not there exactly once.
pub fn planted(root: &Path) -> Result<BTreeMap<&'static str, String>, PlantError> {
    let mut files = BTreeMap::new();
    for (before, mutant) in all().iter().enumerate() {
        plant(mutant, before + 1, root, &mut files)?;
    }
    Ok(files)
}

fn write(path: &Path, text: &[u8]) -> Result<(), PlantError> {
    // What is as it was keeps its time: cargo builds only what changed.
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    fs::write(path, text).map_err(at(path))
}

fn copy(from: &Path, to: &Path, root: &Path, planted: &BTreeMap<&'static str, String>) -> Result<(), PlantError> {
    if from.is_dir() {
        for entry in fs::read_dir(from).map_err(at(from))? {
            let name = entry.map_err(at(from))?.file_name();
            copy(&from.join(&name), &to.join(&name), root, planted)?;
        }
        return Ok(());
    }
    let name = from.strip_prefix(root).unwrap_or(from).to_string_lossy().into_owned();
    match planted.get(name.as_str()) {
        Some(text) => write(to, text.as_bytes()),
        None => write(to, &fs::read(from).map_err(at(from))?),
    }
}

/// Makes, or brings up to date, the copy of the repository at `root` in the folder `tree`.
///
/// # Errors
/// Files that cannot be read or written, edits that no longer fit.
pub fn tree(root: &Path, tree: &Path) -> Result<(), PlantError> {
    let mut planted = planted(root)?;
    let library = root.join("engine/src/lib.rs");
    let text = fs::read_to_string(&library).map_err(at(&library))?;
    planted.insert("engine/src/lib.rs", format!("{text}\npub mod mutant;\n"));
    for copied in COPIED {
        copy(&root.join(copied), &tree.join(copied), root, &planted)?;
    }
    write(&tree.join("engine/src/mutant.rs"), SWITCH.as_bytes())?;
    let manifest = root.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(at(&manifest))?;
    let lines = text.lines().map(|line| match line.split(" = ").next() {
        Some("members") => "members = [\"engine\", \"state\", \"tests/report\", \"tests/simulation\", \"tests/gate\"]",
        Some("default-members") => "default-members = [\"tests/gate\"]",
        _ => line,
    });
    write(&tree.join("Cargo.toml"), lines.collect::<Vec<_>>().join("\n").as_bytes())
}
