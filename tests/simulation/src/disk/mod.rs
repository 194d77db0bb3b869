//! A disk in memory: what programs see now, what would survive a power cut, and the troubles it is told to have.
//!
//! SQLite reaches it through `vfs`; nothing here knows what the files mean.

mod locks;
mod settled;
mod vfs;

pub use settled::{Image, Kept, Settled, Survival};

use locks::{FileLocks, SharedMemory};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One change to the disk, in the order in which programs made them. Files are numbered as they are made: a file that is
/// made again under the same path is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A file came to be.
    Create { file: usize, path: String },
    /// A path was removed; `synced` when the folder was synced with it.
    Delete { path: String, synced: bool },
    /// Bytes were written.
    Write { file: usize, offset: usize, bytes: Arc<[u8]> },
    /// The file was given this length.
    Truncate { file: usize, length: usize },
    /// All of the file was asked to be durable.
    Sync { file: usize },
    /// Not of the disk: a note of the harness between two operations.
    Mark(usize),
}

/// What goes wrong with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The power goes before the operation: nothing after it happens.
    PowerCut,
    /// The disk is full.
    NoSpace,
    /// Half of the bytes are written, then the disk is full.
    ShortWrite,
    /// The device fails; a failed sync drops what it was to make durable (the kernel marks the pages clean).
    InputOutput,
    /// A sync reports success and makes nothing durable.
    Lie,
}

/// One open or removed file.
#[derive(Debug, Default)]
struct Node {
    bytes: Arc<Vec<u8>>,
    /// Without a name: gone when it is closed, of no interest after a power cut.
    nameless: bool,
    locks: FileLocks,
    memory: SharedMemory,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    folder: BTreeMap<String, usize>,
    settled: Settled,
    trace: Option<Vec<Operation>>,
    operations: u64,
    reads: u64,
    troubles: BTreeMap<u64, Trouble>,
    failing_reads: Vec<u64>,
    failed_reads: u64,
    met: Vec<(u64, Trouble)>,
    off: bool,
}

/// Why an operation failed, in the terms of SQLite's VFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Full,
    InputOutput,
}

/// A disk that SQLite can open files on, by [`Disk::vfs`].
#[derive(Debug)]
pub struct Disk {
    registration: vfs::Registration,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// A disk that holds these files, all of them durable.
    #[must_use]
    pub fn holding(image: &Image) -> Self {
        let mut state = State::default();
        for (path, bytes) in image.files() {
            let file = state.nodes.len();
            state.nodes.push(Node { bytes: Arc::clone(bytes), ..Node::default() });
            state.folder.insert(path.clone(), file);
            state.settled.hold(path, file, bytes);
        }
        let state = Arc::new(Mutex::new(state));
        Self { registration: vfs::register(&state), state }
    }

    /// The name under which SQLite knows this disk, for as long as it lives.
    #[must_use]
    pub fn vfs(&self) -> &str {
        self.name().to_str().expect("the name is made of ASCII")
    }

    fn name(&self) -> &CStr {
        self.registration.name()
    }

    /// From now on every operation is kept, to be looked at with [`Disk::take_trace`].
    pub fn record(&self) {
        lock(&self.state).trace = Some(Vec::new());
    }

    /// A note of the harness between two operations.
    pub fn mark(&self, note: usize) {
        let mut state = lock(&self.state);
        if let Some(trace) = &mut state.trace {
            trace.push(Operation::Mark(note));
        }
    }

    /// How many operations and notes were recorded so far.
    #[must_use]
    pub fn recorded(&self) -> usize {
        lock(&self.state).trace.as_ref().map_or(0, Vec::len)
    }

    /// What was recorded.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Operation> {
        lock(&self.state).trace.take().unwrap_or_default()
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.state).operations
    }

    /// How many reads there were.
    #[must_use]
    pub fn reads(&self) -> u64 {
        lock(&self.state).reads
    }

    /// The operation of this number (the first is 1) meets trouble.
    pub fn trouble(&self, operation: u64, trouble: Trouble) {
        lock(&self.state).troubles.insert(operation, trouble);
    }

    /// The read of this number (the first is 1) fails.
    pub fn fail_read(&self, read: u64) {
        lock(&self.state).failing_reads.push(read);
    }

    /// The troubles that were met so far.
    #[must_use]
    pub fn met(&self) -> Vec<(u64, Trouble)> {
        lock(&self.state).met.clone()
    }

    /// Whether any operation or read met trouble so far.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let state = lock(&self.state);
        state.failed_reads > 0 || !state.met.is_empty()
    }

    /// No trouble that was not met yet is met any more.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        state.troubles.clear();
        state.failing_reads.clear();
    }

    /// Whoever has files open here can do nothing any more: the process, or the power, is gone.
    pub fn turn_off(&self) {
        lock(&self.state).off = true;
    }

    /// The power is back, or another process comes: what was written before is as it was.
    pub fn turn_on(&self) {
        lock(&self.state).off = false;
    }

    /// True once the power is gone.
    #[must_use]
    pub fn is_off(&self) -> bool {
        lock(&self.state).off
    }

    /// What another process sees: everything that was written, durable or not.
    #[must_use]
    pub fn seen(&self) -> Image {
        let state = lock(&self.state);
        let file = |(path, file): (&String, &usize)| Some((path.clone(), Arc::clone(&state.nodes.get(*file)?.bytes)));
        Image::new(state.folder.iter().filter_map(file).collect())
    }

    /// What may be found after a power cut: `keep` is asked about every operation that was not made durable.
    #[must_use]
    pub fn cut(&self, keep: impl FnMut(&Operation) -> Kept) -> Image {
        lock(&self.state).settled.cut(keep)
    }
}

impl State {
    /// Notes an operation, does it, and says how it went.
    fn perform(&mut self, operation: Operation) -> Result<(), Failure> {
        if self.off {
            return Err(Failure::InputOutput);
        }
        self.operations += 1;
        let number = self.operations;
        let Some(trouble) = self.troubles.remove(&number) else {
            self.carry_out(operation, true);
            return Ok(());
        };
        let writes = matches!(operation, Operation::Write { .. });
        let syncs = matches!(operation, Operation::Sync { .. });
        self.met.push((number, trouble));
        match trouble {
            Trouble::PowerCut => {
                self.off = true;
                Err(Failure::InputOutput)
            }
            Trouble::NoSpace if writes => Err(Failure::Full),
            Trouble::ShortWrite => {
                if let Operation::Write { file, offset, bytes } = operation {
                    let half: Arc<[u8]> = bytes.iter().take(bytes.len() / 2).copied().collect();
                    self.carry_out(Operation::Write { file, offset, bytes: half }, true);
                    return Err(Failure::Full);
                }
                self.carry_out(operation, true);
                Ok(())
            }
            Trouble::InputOutput => {
                if let Operation::Sync { file } = operation {
                    self.settled.forget(file);
                }
                Err(Failure::InputOutput)
            }
            Trouble::NoSpace | Trouble::Lie => {
                self.carry_out(operation, !(syncs && trouble == Trouble::Lie));
                Ok(())
            }
        }
    }

    fn carry_out(&mut self, operation: Operation, settles: bool) {
        match &operation {
            Operation::Create { file, path } => {
                self.folder.insert(path.clone(), *file);
            }
            Operation::Delete { path, .. } => {
                self.folder.remove(path);
            }
            Operation::Write { file, offset, bytes } => {
                if let Some(node) = self.nodes.get_mut(*file) {
                    settled::write(Arc::make_mut(&mut node.bytes), *offset, bytes);
                }
            }
            Operation::Truncate { file, length } => {
                if let Some(node) = self.nodes.get_mut(*file) {
                    Arc::make_mut(&mut node.bytes).resize(*length, 0);
                }
            }
            Operation::Sync { .. } | Operation::Mark(_) => {}
        }
        if settles {
            if let Some(trace) = &mut self.trace {
                trace.push(operation.clone());
            }
            self.settled.apply(operation);
        }
    }

    fn may_read(&mut self) -> Result<(), Failure> {
        self.reads += 1;
        let fails = self.failing_reads.contains(&self.reads);
        self.failed_reads += u64::from(fails);
        if self.off || fails { Err(Failure::InputOutput) } else { Ok(()) }
    }

    /// A new file; one without a path is nobody's business but its maker's.
    fn create(&mut self, path: Option<&str>) -> Result<usize, Failure> {
        let file = self.nodes.len();
        self.nodes.push(Node { nameless: path.is_none(), ..Node::default() });
        if let Some(path) = path {
            self.perform(Operation::Create { file, path: path.to_owned() })?;
        }
        Ok(file)
    }

    /// Whether changes to a file are the disk's business.
    fn is_named(&self, file: usize) -> bool {
        self.nodes.get(file).is_some_and(|node| !node.nameless)
    }
}
