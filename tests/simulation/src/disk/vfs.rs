//! The disk as a virtual file system of SQLite: the one place with unsafe code, as SQLite calls it through C pointers.
//!
//! Each function only turns C arguments into Rust ones and asks the disk. It promises to SQLite what the file systems of
//! Unix promise: whole sectors are not needed, bytes around a write are safe.

#![expect(unsafe_code, reason = "SQLite calls a file system through C pointers; there is no safe way to be one")]

use crate::disk::{Failure, Operation, State, lock, locks};
use rusqlite::ffi;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

type Shared = Mutex<State>;

/// Makes names of disks and numbers of open files unique in this process.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The place on the platter that matters for tearing is chosen by the disk; SQLite is told the usual.
const SECTOR: c_int = 4096;

/// A disk that SQLite knows by name, until dropped.
#[derive(Debug)]
pub(super) struct Registration {
    name: CString,
    vfs: *mut ffi::sqlite3_vfs,
}

// SAFETY: the pointer is only used to unregister and free what it points to, by the one owner, once.
unsafe impl Send for Registration {}
// SAFETY: nothing is done through a shared reference but reading the name.
unsafe impl Sync for Registration {}

impl Registration {
    pub(super) fn name(&self) -> &CStr {
        &self.name
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: `vfs` was made by `register` out of boxes and nobody opens files on it any more: the stores that did
        // are gone before their disk, as they are told its name only.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.vfs);
            let vfs = Box::from_raw(self.vfs);
            drop(Arc::from_raw(vfs.pAppData.cast::<Shared>()));
        }
    }
}

/// Makes a disk known to SQLite.
pub(super) fn register(state: &Arc<Shared>) -> Registration {
    let name = CString::new(format!("platflow-disk-{}", NEXT.fetch_add(1, Ordering::Relaxed))).expect("no zero in it");
    let vfs = Box::into_raw(Box::new(ffi::sqlite3_vfs {
        iVersion: 1,
        szOsFile: c_int::try_from(size_of::<Handle>()).expect("a few words"),
        mxPathname: 1024,
        pNext: std::ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: Arc::into_raw(Arc::clone(state)).cast_mut().cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(get_last_error),
        xCurrentTimeInt64: None,
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: `vfs` is whole and lives until it is unregistered; its name lives as long.
    let answer = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    assert_eq!(answer, ffi::SQLITE_OK, "SQLite takes another file system");
    Registration { name, vfs }
}

/// What SQLite allocates for an open file: its own header first.
#[repr(C)]
struct Handle {
    header: ffi::sqlite3_file,
    open: *mut Open,
}

/// An open file.
struct Open {
    disk: Arc<Shared>,
    file: usize,
    holder: u64,
    path: Option<String>,
    delete_on_close: bool,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(raise),
    xUnlock: Some(lower),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(map_memory),
    xShmLock: Some(lock_memory),
    xShmBarrier: Some(barrier),
    xShmUnmap: Some(unmap_memory),
    xFetch: None,
    xUnfetch: None,
};

/// The disk behind a file system.
///
/// # Safety
/// `vfs` was made by [`register`] and is still registered.
unsafe fn disk(vfs: *mut ffi::sqlite3_vfs) -> Arc<Shared> {
    // SAFETY: by contract; the count is raised first, so that the file system's own share stays.
    unsafe {
        let state = (*vfs).pAppData.cast::<Shared>().cast_const();
        Arc::increment_strong_count(state);
        Arc::from_raw(state)
    }
}

/// The open file behind a handle.
///
/// # Safety
/// `file` was opened by [`open`] and not closed.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a Open {
    // SAFETY: by contract `open` points to a box that lives until `close`.
    unsafe { &*(*file.cast::<Handle>()).open }
}

/// # Safety
/// `name` is a C string or null.
unsafe fn text(name: *const c_char) -> Option<String> {
    // SAFETY: by contract.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

fn code(outcome: Result<(), Failure>, input_output: c_int) -> c_int {
    match outcome {
        Ok(()) => ffi::SQLITE_OK,
        Err(Failure::Full) => ffi::SQLITE_FULL,
        Err(Failure::InputOutput) => input_output,
    }
}

fn index(value: impl TryInto<usize>) -> usize {
    value.try_into().unwrap_or_default()
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands over its own registered file system, a C string or null, and room for a `Handle`; a handle
    // without methods is never closed.
    unsafe {
        (*file).pMethods = std::ptr::null();
        let (disk, path) = (disk(vfs), text(name));
        let mut state = lock(&disk);
        let known = path.as_ref().and_then(|path| state.folder.get(path).copied());
        let number = match known {
            Some(number) if flags & ffi::SQLITE_OPEN_EXCLUSIVE == 0 => number,
            None if path.is_none() || flags & ffi::SQLITE_OPEN_CREATE != 0 => match state.create(path.as_deref()) {
                Ok(number) => number,
                Err(_) => return ffi::SQLITE_CANTOPEN,
            },
            _ => return ffi::SQLITE_CANTOPEN,
        };
        drop(state);
        let open = Open {
            disk,
            file: number,
            holder: NEXT.fetch_add(1, Ordering::Relaxed),
            path,
            delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        };
        (*file.cast::<Handle>()).open = Box::into_raw(Box::new(open));
        (*file).pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes what it opened, once.
    let open = unsafe { Box::from_raw((*file.cast::<Handle>()).open) };
    let mut state = lock(&open.disk);
    if let Some(node) = state.nodes.get_mut(open.file) {
        node.locks.lower(open.holder, locks::UNLOCKED);
        node.memory.leave(open.holder);
        if node.nameless {
            node.bytes = Arc::default();
        }
    }
    if let Some(path) = open.path.clone().filter(|_| open.delete_on_close) {
        let _ = state.perform(Operation::Delete { path, synced: false });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite hands over its own file system and a C string.
    let (disk, path) = unsafe { (disk(vfs), text(name)) };
    let mut state = lock(&disk);
    match path.filter(|path| state.folder.contains_key(path)) {
        None => ffi::SQLITE_IOERR_DELETE_NOENT,
        Some(path) => {
            code(state.perform(Operation::Delete { path, synced: sync_folder != 0 }), ffi::SQLITE_IOERR_DELETE)
        }
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    answer: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands over its own file system, a C string and room for the answer.
    unsafe {
        let disk = disk(vfs);
        let there = text(name).is_some_and(|path| lock(&disk).folder.contains_key(&path));
        *answer = c_int::from(there);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    answer: *mut c_char,
) -> c_int {
    // SAFETY: SQLite hands over a C string and `room` bytes for the answer.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > index(room) {
            return ffi::SQLITE_CANTOPEN;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), answer, bytes.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_vfs: *mut ffi::sqlite3_vfs, count: c_int, answer: *mut c_char) -> c_int {
    // SAFETY: SQLite hands over `count` bytes of room. Nothing secret is made of them.
    unsafe { std::ptr::write_bytes(answer, 0x5a, index(count)) };
    count
}

unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::yield_now();
    microseconds
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, answer: *mut f64) -> c_int {
    // SAFETY: SQLite hands over room for one number: a Julian day. The store asks SQLite for no time.
    unsafe { *answer = 2_461_000.5 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn get_last_error(_vfs: *mut ffi::sqlite3_vfs, _room: c_int, _answer: *mut c_char) -> c_int {
    0
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    answer: *mut c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite hands over an open file and `count` bytes of room.
    let (open, room) = unsafe { (opened(file), std::slice::from_raw_parts_mut(answer.cast::<u8>(), index(count))) };
    let mut state = lock(&open.disk);
    if state.may_read().is_err() {
        return ffi::SQLITE_IOERR_READ;
    }
    let bytes = state.nodes.get(open.file).map(|node| Arc::clone(&node.bytes)).unwrap_or_default();
    let found = bytes.get(index(offset)..).unwrap_or_default();
    let count = found.len().min(room.len());
    room[..count].copy_from_slice(&found[..count]);
    room[count..].fill(0);
    if count == room.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite hands over an open file and `count` bytes.
    let (open, bytes) = unsafe { (opened(file), std::slice::from_raw_parts(bytes.cast::<u8>(), index(count))) };
    let mut state = lock(&open.disk);
    if state.is_named(open.file) {
        let operation = Operation::Write { file: open.file, offset: index(offset), bytes: bytes.into() };
        return code(state.perform(operation), ffi::SQLITE_IOERR_WRITE);
    }
    if let Some(node) = state.nodes.get_mut(open.file) {
        super::settled::write(Arc::make_mut(&mut node.bytes), index(offset), bytes);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite hands over an open file.
    let open = unsafe { opened(file) };
    let mut state = lock(&open.disk);
    if state.is_named(open.file) {
        let operation = Operation::Truncate { file: open.file, length: index(size) };
        return code(state.perform(operation), ffi::SQLITE_IOERR_TRUNCATE);
    }
    if let Some(node) = state.nodes.get_mut(open.file) {
        Arc::make_mut(&mut node.bytes).resize(index(size), 0);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite hands over an open file.
    let open = unsafe { opened(file) };
    let mut state = lock(&open.disk);
    if !state.is_named(open.file) {
        return ffi::SQLITE_OK;
    }
    code(state.perform(Operation::Sync { file: open.file }), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, answer: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite hands over an open file and room for the answer.
    unsafe {
        let open = opened(file);
        let length = lock(&open.disk).nodes.get(open.file).map_or(0, |node| node.bytes.len());
        *answer = ffi::sqlite3_int64::try_from(length).unwrap_or(ffi::sqlite3_int64::MAX);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn raise(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite hands over an open file.
    let open = unsafe { opened(file) };
    let mut state = lock(&open.disk);
    let Some(node) = state.nodes.get_mut(open.file) else { return ffi::SQLITE_IOERR_LOCK };
    let taken = node.locks.level(open.holder) >= level || node.locks.raise(open.holder, level);
    if taken { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
}

unsafe extern "C" fn lower(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite hands over an open file.
    let open = unsafe { opened(file) };
    if let Some(node) = lock(&open.disk).nodes.get_mut(open.file) {
        node.locks.lower(open.holder, level);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved(file: *mut ffi::sqlite3_file, answer: *mut c_int) -> c_int {
    // SAFETY: SQLite hands over an open file and room for the answer.
    unsafe {
        let open = opened(file);
        let reserved = lock(&open.disk).nodes.get(open.file).is_some_and(|node| node.locks.is_reserved());
        *answer = c_int::from(reserved);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_file: *mut ffi::sqlite3_file, _operation: c_int, _argument: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    SECTOR
}

unsafe extern "C" fn characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn map_memory(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    answer: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite hands over an open file and room for the answer; the region lives until its last user unmaps it.
    unsafe {
        let open = opened(file);
        let mut state = lock(&open.disk);
        let node = state.nodes.get_mut(open.file);
        let found = node.and_then(|node| node.memory.map(open.holder, index(region), index(size), extend != 0));
        *answer = found.map_or(std::ptr::null_mut(), <*mut u8>::cast);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock_memory(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite hands over an open file.
    let open = unsafe { opened(file) };
    let mut state = lock(&open.disk);
    let Some(node) = state.nodes.get_mut(open.file) else { return ffi::SQLITE_IOERR_SHMLOCK };
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        node.memory.give_back(open.holder, index(first), index(count));
        return ffi::SQLITE_OK;
    }
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    if node.memory.take(open.holder, index(first), index(count), exclusive) { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
}

unsafe extern "C" fn barrier(_file: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

unsafe extern "C" fn unmap_memory(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: SQLite hands over an open file.
    let open = unsafe { opened(file) };
    if let Some(node) = lock(&open.disk).nodes.get_mut(open.file) {
        node.memory.leave(open.holder);
    }
    ffi::SQLITE_OK
}
