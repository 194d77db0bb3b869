//! What is durable, what is still on its way, and what a power cut can leave of it.
//!
//! A disk may write what was not synced in any order, in part, and torn at the borders of its sectors. Bytes around a
//! write are never damaged (SQLite counts on that, as does every file system with a sector that is written whole). A
//! folder's entries are durable once it was synced, which SQLite does with the first sync of a journal that it made.

use crate::disk::Operation;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The files of a disk after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Image(BTreeMap<String, Arc<Vec<u8>>>);

impl Image {
    /// These files.
    #[must_use]
    pub fn new(files: BTreeMap<String, Arc<Vec<u8>>>) -> Self {
        Self(files)
    }

    /// One empty file.
    #[must_use]
    pub fn with_empty(path: &str) -> Self {
        Self(BTreeMap::from([(path.to_owned(), Arc::default())]))
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&String, &Arc<Vec<u8>>)> {
        self.0.iter()
    }

    /// The same files in another folder.
    #[must_use]
    pub fn moved(&self, from: &str, to: &str) -> Self {
        let place = |path: &String| path.strip_prefix(from).map_or_else(|| path.clone(), |rest| format!("{to}{rest}"));
        Self(self.0.iter().map(|(path, bytes)| (place(path), Arc::clone(bytes))).collect())
    }

    /// The length of a file in bytes, if it is there.
    #[must_use]
    pub fn length(&self, path: &str) -> Option<usize> {
        self.0.get(path).map(|bytes| bytes.len())
    }

    /// Flips one bit of a file.
    pub fn flip(&mut self, path: &str, offset: usize, bit: u8) {
        if let Some(byte) = self.0.get_mut(path).and_then(|bytes| Arc::make_mut(bytes).get_mut(offset)) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Tells images apart.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// What a power cut leaves of an operation that was not made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// All of it.
    All,
    /// Of a write, some sectors of this many bytes, drawn by the seed; all of anything else.
    Sectors { bytes: usize, seed: u64 },
}

/// How a power cut treats what was on its way, drawn by a seed.
#[derive(Debug)]
pub struct Survival {
    random: StdRng,
    style: u32,
}

impl Survival {
    /// The same seed, the same loss.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let style = random.random_range(0..6);
        Self { random, style }
    }

    /// What is kept of one operation.
    pub fn of(&mut self, _operation: &Operation) -> Kept {
        let torn = |random: &mut StdRng, bytes| Kept::Sectors { bytes, seed: random.random() };
        match self.style {
            0 => Kept::Nothing,
            1 => Kept::All,
            2 => torn(&mut self.random, 512),
            3 => torn(&mut self.random, 4096),
            _ if self.random.random_bool(0.5) => Kept::All,
            4 => Kept::Nothing,
            _ => torn(&mut self.random, 512),
        }
    }
}

/// What survives a power cut for certain, and what may.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    durable: BTreeMap<usize, Arc<Vec<u8>>>,
    folder: BTreeMap<String, usize>,
    /// Files whose entry was never synced: their first sync syncs the folder.
    fresh: BTreeSet<usize>,
    pending: Vec<Operation>,
}

/// Writes bytes into a file, with zeros in a gap before them.
pub(super) fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

fn change_folder(folder: &mut BTreeMap<String, usize>, operation: &Operation) {
    match operation {
        Operation::Create { file, path } => {
            folder.insert(path.clone(), *file);
        }
        Operation::Delete { path, .. } => {
            folder.remove(path);
        }
        _ => {}
    }
}

fn change_file(files: &mut BTreeMap<usize, Arc<Vec<u8>>>, operation: &Operation, kept: &Kept) {
    match operation {
        Operation::Write { file, offset, bytes } => {
            let content = Arc::make_mut(files.entry(*file).or_default());
            let Kept::Sectors { bytes: size, seed } = kept else { return write(content, *offset, bytes) };
            let mut random = StdRng::seed_from_u64(*seed);
            let mut at = *offset;
            while at < offset + bytes.len() {
                let end = ((at / size + 1) * size).min(offset + bytes.len());
                if random.random_bool(0.5) {
                    write(content, at, &bytes[at - offset..end - offset]);
                }
                at = end;
            }
        }
        Operation::Truncate { file, length } => Arc::make_mut(files.entry(*file).or_default()).resize(*length, 0),
        _ => {}
    }
}

impl Settled {
    pub(super) fn hold(&mut self, path: &str, file: usize, bytes: &Arc<Vec<u8>>) {
        self.folder.insert(path.to_owned(), file);
        self.durable.insert(file, Arc::clone(bytes));
    }

    /// Of a disk that holds these files under these numbers, all durable.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let mut settled = Self::default();
        for (file, (path, bytes)) in image.files().enumerate() {
            settled.hold(path, file, bytes);
        }
        settled
    }

    /// How many operations are still on their way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The next operation.
    pub fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Mark(_) => {}
            Operation::Sync { file } => self.sync(file),
            Operation::Delete { synced: true, .. } => {
                self.sync_folder();
                change_folder(&mut self.folder, &operation);
            }
            Operation::Create { file, .. } => {
                self.fresh.insert(file);
                self.pending.push(operation);
            }
            other => self.pending.push(other),
        }
    }

    fn sync(&mut self, synced: usize) {
        let durable = &mut self.durable;
        self.pending.retain(|operation| {
            let ours = matches!(operation, Operation::Write { file, .. } | Operation::Truncate { file, .. } if *file == synced);
            if ours {
                change_file(durable, operation, &Kept::All);
            }
            !ours
        });
        if self.fresh.remove(&synced) {
            self.sync_folder();
        }
    }

    fn sync_folder(&mut self) {
        let folder = &mut self.folder;
        self.pending.retain(|operation| {
            let entry = matches!(operation, Operation::Create { .. } | Operation::Delete { .. });
            if entry {
                change_folder(folder, operation);
            }
            !entry
        });
    }

    /// The kernel gave up on what was to be written to a file: it will never be.
    pub(super) fn forget(&mut self, failed: usize) {
        self.pending.retain(|operation| {
            !matches!(operation, Operation::Write { file, .. } | Operation::Truncate { file, .. } if *file == failed)
        });
    }

    /// What a power cut leaves; `keep` is asked about every pending operation, oldest first.
    pub fn cut(&self, mut keep: impl FnMut(&Operation) -> Kept) -> Image {
        let (mut files, mut folder) = (self.durable.clone(), self.folder.clone());
        for operation in &self.pending {
            let kept = keep(operation);
            if kept != Kept::Nothing {
                change_folder(&mut folder, operation);
                change_file(&mut files, operation, &kept);
            }
        }
        Image(folder.into_iter().map(|(path, file)| (path, files.get(&file).cloned().unwrap_or_default())).collect())
    }
}
