//! Opening the state file: its folder and permissions, what it may lie on, its pragmas (read back), its migrations.
//!
//! Nothing here knows what the tables mean.

use crate::failure::{is_busy, sqlite, storage};
use crate::reserve;
use crate::settings::StoreSettings;
use crate::time;
use platflow_engine::journal::JournalError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Forward-only; a file's `user_version` is the number of those it has seen.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_residue_and_forgetting.sql"),
    include_str!("migrations/0003_told_once.sql"),
    include_str!("migrations/0004_packed_plans.sql"),
];

/// How a file of an earlier schema is read without being changed: in the shape of today's tables.
const AS_TODAY: &[(u32, &str)] = &[(3, include_str!("migrations/as_3.sql")), (4, include_str!("migrations/as_4.sql"))];

/// "pfl1": marks the file as ours, so that another application's database is never written into.
const APPLICATION_ID: i64 = 0x7066_6c31;

/// Commits recycle a WAL of at most this many pages: a small, overwritten WAL is faster than one that grows.
const WAL_PAGES: i64 = 1_000;

/// A WAL that one large append made longer is cut to this again; a little more than it has otherwise.
const WAL_BYTES: i64 = 2 << 20;

/// A commit writes whole pages, and a step touches one of each table: small pages are fewer bytes at the same speed.
const PAGE_BYTES: i64 = 2_048;

/// SQLite's WAL needs shared memory and working locks: not there.
const NETWORK_FILE_SYSTEMS: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ncpfs",
    "afs",
    "ceph",
    "glusterfs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "lustre",
    "beegfs",
    "gpfs",
    "orangefs",
    "davfs",
    "fuse.davfs2",
    "fuse.rclone",
    "fuse.s3fs",
];

pub(crate) fn newest_schema() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// Creates folder and file as needed, then opens the one connection that writes.
pub(crate) fn open_writer(path: &Path, settings: &StoreSettings) -> Result<Connection, JournalError> {
    let opened = |error: io::Error| storage("opened", error);
    let folder = folder_of(path);
    make_folder(&folder).map_err(opened)?;
    if !settings.accept_network_file_system {
        refuse_network(&folder)?;
    }
    if settings.vfs.is_none() {
        if settings.spend_reserve {
            reserve::spend(path);
        }
        make_file(path, &folder).map_err(opened)?;
        if !settings.spend_reserve {
            reserve::keep(path);
        }
    }
    let mut connection = connect(path, settings).map_err(sqlite("opened"))?;
    let patience = Patience::new(settings);
    prepare(&mut connection, &patience)?;
    Ok(connection)
}

fn connect(path: &Path, settings: &StoreSettings) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match &settings.vfs {
        None => Connection::open_with_flags(path, flags),
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs.as_str()),
    }
}

/// Opens a connection that only reads.
pub(crate) fn open_reader(path: &Path, settings: &StoreSettings) -> Result<Connection, JournalError> {
    // Read-write at the level of the file (the WAL index is shared memory that readers register in), read-only in SQL.
    let connection = connect(path, settings).map_err(sqlite("opened"))?;
    connection.busy_timeout(Duration::from_millis(settings.busy_ms)).map_err(sqlite("opened"))?;
    let found = schema_version(&connection)?;
    if found == 0 {
        return Err(JournalError::Damaged(format!("{} holds no platflow state", path.display())));
    }
    check_application(&connection)?;
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(sqlite("opened"))?;
    for (_, views) in AS_TODAY.iter().filter(|(schema, _)| found < *schema) {
        connection.execute_batch(views).map_err(sqlite("opened"))?;
    }
    connection.pragma_update(None, "query_only", true).map_err(sqlite("opened"))?;
    Ok(connection)
}

/// How long opening and writing keep asking a busy file.
pub(crate) struct Patience {
    until: Instant,
}

impl Patience {
    pub(crate) fn new(settings: &StoreSettings) -> Self {
        Self { until: Instant::now() + Duration::from_millis(settings.busy_ms) }
    }

    /// Repeats `work` while the file is busy and patience lasts.
    pub(crate) fn ask<T>(&self, mut work: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut attempt = 0;
        loop {
            match work() {
                Err(error) if is_busy(&error) && Instant::now() < self.until => {
                    attempt += 1;
                    time::back_off(attempt);
                }
                other => return other,
            }
        }
    }
}

fn prepare(connection: &mut Connection, patience: &Patience) -> Result<(), JournalError> {
    let failed = sqlite("opened");
    connection.busy_timeout(Duration::from_millis(100)).map_err(&failed)?;
    // Refused before anything is changed: a newer file, another application's file.
    patience
        .ask(|| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)))
        .map_err(&failed)?;
    let found = schema_version(connection)?;
    check_application(connection)?;
    // Means something only as long as the file is empty.
    connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(&failed)?;
    let mode: String = patience
        .ask(|| connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)))
        .map_err(&failed)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(unsafe_setting("journal_mode", &mode, "wal"));
    }
    for (pragma, value) in
        [("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1), ("wal_autocheckpoint", WAL_PAGES)]
    {
        connection
            .pragma_update_and_check(None, pragma, value, |_| Ok(()))
            .or_else(|error| match error {
                rusqlite::Error::QueryReturnedNoRows => Ok(()),
                error => Err(error),
            })
            .map_err(&failed)?;
        // Read back: SQLite ignores a value it does not know, and a journal that only believes it is durable is worse
        // than none.
        let found: i64 = connection.pragma_query_value(None, pragma, |row| row.get(0)).map_err(&failed)?;
        if found != value {
            return Err(unsafe_setting(pragma, &found.to_string(), &value.to_string()));
        }
    }
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES, |_| Ok(())).map_err(&failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    if found == newest_schema() {
        // No write lock: a process that is stopped in the middle of a write must not keep `cancel` from opening the file.
        return Ok(());
    }
    patience.ask(|| migrate(connection)).map_err(&failed)
}

fn unsafe_setting(pragma: &str, found: &str, wanted: &str) -> JournalError {
    storage(
        "opened",
        io::Error::other(format!("SQLite refused {pragma}={wanted} and reports {found}: not durable enough to run on")),
    )
}

fn check_application(connection: &Connection) -> Result<(), JournalError> {
    let failed = sqlite("opened");
    // Both as of one moment: another process may just be making the file.
    let moment = connection.unchecked_transaction().map_err(&failed)?;
    let tables: i64 = moment.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(&failed)?;
    let found: i64 = moment.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(&failed)?;
    drop(moment);
    if found == APPLICATION_ID || (found == 0 && tables == 0) {
        Ok(())
    } else {
        Err(JournalError::Damaged("it is a SQLite database, but not one of platflow's".to_owned()))
    }
}

fn schema_version(connection: &Connection) -> Result<u32, JournalError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite("opened"))?;
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    if found > newest_schema() {
        return Err(JournalError::Newer { found, known: newest_schema() });
    }
    Ok(found)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read again inside the transaction: another process may have migrated meanwhile.
    let seen: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let seen = usize::try_from(seen).unwrap_or(usize::MAX);
    if seen >= MIGRATIONS.len() {
        return Ok(());
    }
    for migration in MIGRATIONS.iter().skip(seen) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", newest_schema())?;
    transaction.commit()
}

pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes a folder for its owner's eyes only; each new directory entry is synced.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(&folder_of(folder))
}

fn make_file(path: &Path, folder: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            file.sync_all()?;
            sync_folder(folder)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn refuse_network(folder: &Path) -> Result<(), JournalError> {
    let Ok(table) = fs::read_to_string("/proc/mounts") else { return Ok(()) };
    let Ok(folder) = folder.canonicalize() else { return Ok(()) };
    match file_system_of(&table, &folder) {
        Some(kind) if NETWORK_FILE_SYSTEMS.contains(&kind) => Err(storage(
            "opened",
            io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{} lies on {kind}, a network file system, where SQLite's locks cannot be trusted; choose a local folder",
                    folder.display()
                ),
            ),
        )),
        _ => Ok(()),
    }
}

/// The type of the file system that `folder` lies on: the last mount whose point is the longest prefix of it.
fn file_system_of<'a>(table: &'a str, folder: &Path) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for line in table.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let point = point.replace("\\040", " ");
        if folder.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that the connection which writes is really as durable as promised, by its own account.
    #[test]
    fn the_writer_is_durable() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_writer(&folder.path().join("state.db"), &StoreSettings::default()).unwrap();
        let pragma = |name: &str| {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
        for (name, wanted) in [
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("secure_delete", 1),
            ("user_version", i64::from(newest_schema())),
        ] {
            assert_eq!(pragma(name), wanted.into(), "{name}");
        }
        assert!(matches!(pragma("wal_autocheckpoint"), rusqlite::types::Value::Integer(1..=1_000)));
    }

    /// Proves that opening twice migrates once, and that a half-made file (created, never migrated) is taken as new.
    #[test]
    fn opening_again_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        fs::write(&path, b"").unwrap();
        for _ in 0..2 {
            let connection = open_writer(&path, &StoreSettings::default()).unwrap();
            assert_eq!(schema_version(&connection).unwrap(), newest_schema());
        }
    }

    /// Proves that the deepest mount decides, by path component and not by text prefix, and that a later mount on the
    /// same point hides the earlier one.
    #[test]
    fn the_deepest_mount_decides() {
        let table = "a / ext4 rw 0 0\nb /home nfs4 rw 0 0\nc /home/local xfs rw 0 0\nd /mnt/with\\040space cifs rw 0 0\ne /over nfs rw 0 0\nf /over ext4 rw 0 0\n";
        let kind = |path: &str| file_system_of(table, Path::new(path));
        assert_eq!(kind("/var/lib"), Some("ext4"));
        assert_eq!(kind("/home/me/.local/state"), Some("nfs4"));
        assert_eq!(kind("/home/local/x"), Some("xfs"));
        assert_eq!(kind("/homely"), Some("ext4"));
        assert_eq!(kind("/mnt/with space/x"), Some("cifs"));
        assert_eq!(kind("/over/x"), Some("ext4"));
    }
}
