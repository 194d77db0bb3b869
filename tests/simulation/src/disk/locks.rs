//! The locks and the shared memory of one file, as the operating system would keep them for its processes.
//!
//! They die with the power, and the shared memory with the last that has it mapped: SQLite builds it anew.

use std::cell::UnsafeCell;

/// Levels of a file lock, in the numbers of SQLite.
pub(super) const UNLOCKED: i32 = 0;
pub(super) const SHARED: i32 = 1;
pub(super) const RESERVED: i32 = 2;
pub(super) const PENDING: i32 = 3;
pub(super) const EXCLUSIVE: i32 = 4;

/// How many locks the shared memory has.
const SLOTS: usize = 8;

/// Who holds what on a file; holders are numbered.
#[derive(Debug, Default)]
pub(super) struct FileLocks {
    shared: Vec<u64>,
    reserved: Option<u64>,
    pending: Option<u64>,
    exclusive: Option<u64>,
}

impl FileLocks {
    /// Raises what `holder` has; false when somebody else is in the way.
    pub(super) fn raise(&mut self, holder: u64, level: i32) -> bool {
        let others = |slot: Option<u64>| slot.is_some_and(|other| other != holder);
        if level >= SHARED && !self.shared.contains(&holder) {
            if others(self.pending) || others(self.exclusive) {
                return false;
            }
            self.shared.push(holder);
        }
        if level >= RESERVED {
            if others(self.reserved) {
                return false;
            }
            self.reserved = Some(holder);
        }
        if level >= EXCLUSIVE {
            if others(self.pending) {
                return false;
            }
            self.pending = Some(holder);
            if self.shared.iter().any(|other| *other != holder) {
                return false;
            }
            self.exclusive = Some(holder);
        }
        true
    }

    /// Lowers it to `SHARED` or `UNLOCKED`.
    pub(super) fn lower(&mut self, holder: u64, level: i32) {
        for slot in [&mut self.reserved, &mut self.pending, &mut self.exclusive] {
            if *slot == Some(holder) {
                *slot = None;
            }
        }
        if level == UNLOCKED {
            self.shared.retain(|other| *other != holder);
        }
    }

    pub(super) fn level(&self, holder: u64) -> i32 {
        let ours = |slot: Option<u64>| slot == Some(holder);
        if ours(self.exclusive) {
            EXCLUSIVE
        } else if ours(self.pending) {
            PENDING
        } else if ours(self.reserved) {
            RESERVED
        } else if self.shared.contains(&holder) {
            SHARED
        } else {
            UNLOCKED
        }
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.reserved.is_some() || self.exclusive.is_some()
    }
}

/// One piece of shared memory. SQLite itself orders what its threads do to it.
struct Region(Box<[UnsafeCell<u64>]>);

// SAFETY: the bytes are only touched through the pointers that SQLite gets, under SQLite's own locks and barriers.
#[expect(unsafe_code, reason = "shared memory of SQLite")]
unsafe impl Send for Region {}

/// The shared memory of a file with its locks.
#[derive(Default)]
pub(super) struct SharedMemory {
    regions: Vec<Region>,
    users: Vec<u64>,
    slots: [Slot; SLOTS],
}

#[derive(Debug, Default)]
struct Slot {
    shared: Vec<u64>,
    exclusive: Option<u64>,
}

impl std::fmt::Debug for SharedMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedMemory").field("users", &self.users).finish_non_exhaustive()
    }
}

impl SharedMemory {
    /// The region of this number, made if `extend`; `size` in bytes.
    pub(super) fn map(&mut self, holder: u64, region: usize, size: usize, extend: bool) -> Option<*mut u8> {
        if !self.users.contains(&holder) {
            self.users.push(holder);
        }
        while self.regions.len() <= region && extend {
            self.regions.push(Region((0..size.div_ceil(8)).map(|_| UnsafeCell::new(0)).collect()));
        }
        let region = self.regions.get(region)?;
        Some(region.0.as_ptr().cast_mut().cast())
    }

    /// Takes `count` slots from `first` on, all or none.
    pub(super) fn take(&mut self, holder: u64, first: usize, count: usize, exclusive: bool) -> bool {
        let others = |slot: &Slot| {
            slot.exclusive.is_some_and(|other| other != holder)
                || (exclusive && slot.shared.iter().any(|other| *other != holder))
        };
        let wanted = self.slots.get_mut(first..first + count).unwrap_or_default();
        if wanted.iter().any(others) {
            return false;
        }
        for slot in wanted {
            if exclusive {
                slot.exclusive = Some(holder);
            } else if !slot.shared.contains(&holder) {
                slot.shared.push(holder);
            }
        }
        true
    }

    /// Gives slots back.
    pub(super) fn give_back(&mut self, holder: u64, first: usize, count: usize) {
        for slot in self.slots.get_mut(first..first + count).unwrap_or_default() {
            slot.shared.retain(|other| *other != holder);
            if slot.exclusive == Some(holder) {
                slot.exclusive = None;
            }
        }
    }

    /// Lets go of everything; the last one takes the memory with it.
    pub(super) fn leave(&mut self, holder: u64) {
        self.give_back(holder, 0, SLOTS);
        self.users.retain(|other| *other != holder);
        if self.users.is_empty() {
            self.regions.clear();
        }
    }
}
