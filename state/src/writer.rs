//! The one thread that owns the write connection: drains its queue into one transaction, acknowledges after the commit.
//!
//! There is no artificial delay: while one transaction syncs, the next group gathers by itself. Each job runs in a
//! savepoint of its own, so a refused append does not take its neighbours along.

use crate::failure::{Closed, NotCommitted, WriterStopped, is_fatal, sqlite, storage};
use crate::file::Patience;
use crate::settings::StoreSettings;
use platflow_engine::journal::JournalError;
use rusqlite::Connection;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// One piece of work inside a transaction.
trait Job: Send {
    /// Does it; false when its effects must be taken back.
    fn perform(&mut self, connection: &Connection) -> bool;
    /// Tells whoever waits; `Err` when the transaction as a whole was not committed.
    fn finish(self: Box<Self>, committed: Result<(), JournalError>);
}

struct Task<T, F> {
    work: Option<F>,
    result: Option<Result<T, JournalError>>,
    reply: oneshot::Sender<Result<T, JournalError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, JournalError> + Send,
{
    fn perform(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = work(connection);
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn finish(self: Box<Self>, committed: Result<(), JournalError>) {
        let told = match (self.result, committed) {
            // A refusal stands whatever became of the transaction.
            (Some(Err(refused)), _) => Err(refused),
            (_, Err(failed)) => Err(failed),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(storage("written", Closed)),
        };
        // Nobody waits any more: the write stands all the same.
        let _ = self.reply.send(told);
    }
}

enum Message {
    Job(Box<dyn Job>),
    /// Copies the WAL into the file and empties it, as far as readers allow.
    Checkpoint(oneshot::Sender<()>),
}

/// The queue of the writer thread. Cheap to clone; the thread ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Message>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(
        connection: Connection,
        settings: &StoreSettings,
    ) -> Result<(Self, std::thread::JoinHandle<()>), JournalError> {
        let (queue, messages) = mpsc::channel();
        let settings = settings.clone();
        let thread = std::thread::Builder::new()
            .name("platflow-writer".to_owned())
            .spawn(move || serve(&connection, &messages, &settings))
            .map_err(|error| storage("opened", error))?;
        Ok((Self { queue }, thread))
    }

    /// Queues work; the receiver hears once it is durable, or why it is not.
    pub(crate) fn submit<T, F>(&self, work: F) -> oneshot::Receiver<Result<T, JournalError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task { work: Some(work), result: None, reply };
        // A closed queue drops the task, and with it `reply`: the receiver sees that.
        let _ = self.queue.send(Message::Job(Box::new(task)));
        answer
    }

    /// Queues work and waits until it is durable.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    {
        self.submit(work).await.unwrap_or_else(|_| Err(storage("written", Closed)))
    }

    /// See [`Message::Checkpoint`].
    pub(crate) async fn checkpoint(&self) {
        let (reply, answer) = oneshot::channel();
        let _ = self.queue.send(Message::Checkpoint(reply));
        let _ = answer.await;
    }
}

fn serve(connection: &Connection, messages: &mpsc::Receiver<Message>, settings: &StoreSettings) {
    let mut stopped: Option<String> = None;
    while let Ok(first) = messages.recv() {
        let mut next = Some(first);
        let mut group: Vec<Box<dyn Job>> = Vec::new();
        let mut checkpoints = Vec::new();
        while let Some(message) = next.take() {
            match message {
                Message::Job(job) => group.push(job),
                Message::Checkpoint(reply) => checkpoints.push(reply),
            }
            if group.len() < settings.group {
                next = messages.try_recv().ok();
            }
        }
        if !group.is_empty() {
            commit(connection, group, settings, &mut stopped);
        }
        for reply in checkpoints {
            // Best effort: a reader may still need the old frames, then the next checkpoint gets them.
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            let _ = reply.send(());
        }
    }
}

fn commit(
    connection: &Connection,
    mut group: Vec<Box<dyn Job>>,
    settings: &StoreSettings,
    stopped: &mut Option<String>,
) {
    if let Some(reason) = stopped {
        for job in group {
            job.finish(Err(storage("written", WriterStopped(reason.clone()))));
        }
        return;
    }
    let outcome = transact(connection, &mut group, settings);
    if let Err(error) = &outcome {
        tracing::error!(%error, "a transaction of the state file failed");
        if is_fatal(error) {
            *stopped = Some(error.to_string());
        }
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
    match outcome {
        Ok(()) => group.into_iter().for_each(|job| job.finish(Ok(()))),
        Err(error) => {
            let text = error.to_string();
            let mut first = Some(error);
            for job in group {
                let told = match first.take() {
                    Some(error) => sqlite("written")(error),
                    None => storage("written", NotCommitted(text.clone())),
                };
                job.finish(Err(told));
            }
        }
    }
}

fn transact(connection: &Connection, group: &mut [Box<dyn Job>], settings: &StoreSettings) -> rusqlite::Result<()> {
    // The write lock is taken first: nothing after this line meets a busy file, and nothing upgrades from a read.
    Patience::new(settings).ask(|| connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(|_| ()))?;
    for job in group {
        connection.prepare_cached("SAVEPOINT job")?.execute([])?;
        if !job.perform(connection) {
            if connection.is_autocommit() {
                // SQLite gave the whole transaction up (disk full, I/O error): so must we.
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
                    Some("the transaction was rolled back by SQLite".to_owned()),
                ));
            }
            connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
        }
        connection.prepare_cached("RELEASE job")?.execute([])?;
    }
    connection.prepare_cached("COMMIT")?.execute([]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::params;

    async fn insert(writer: &Writer, size: usize) -> Result<(), JournalError> {
        writer
            .write(move |connection| {
                connection
                    .execute("INSERT INTO things (body) VALUES (zeroblob(?1))", params![i64::try_from(size).unwrap()])
                    .map(|_| ())
                    .map_err(sqlite("written"))
            })
            .await
    }

    fn started(limit: Option<i64>) -> (tempfile::TempDir, Writer, std::thread::JoinHandle<()>) {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreSettings::default();
        let connection = crate::file::open_writer(&folder.path().join("state.db"), &settings).unwrap();
        connection.execute_batch("CREATE TABLE things (body)").unwrap();
        if let Some(more) = limit {
            let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
            connection.pragma_update_and_check(None, "max_page_count", pages + more, |_| Ok(())).unwrap();
        }
        let (writer, thread) = Writer::start(connection, &settings).unwrap();
        (folder, writer, thread)
    }

    async fn count(writer: &Writer) -> i64 {
        let counted = writer.write(|connection| {
            connection.query_row("SELECT count(*) FROM things", [], |row| row.get(0)).map_err(sqlite("written"))
        });
        counted.await.unwrap()
    }

    /// Proves that a full disk refuses what does not fit, keeps what was acknowledged, and does not stop the writer: what
    /// fits is still written.
    #[tokio::test]
    async fn a_full_disk_refuses_and_goes_on() {
        let (_folder, writer, _thread) = started(Some(8));
        insert(&writer, 1_000).await.unwrap();
        for _ in 0..3 {
            let refused = insert(&writer, 1_000_000).await.unwrap_err();
            assert!(matches!(refused, JournalError::Storage { .. }), "{refused}");
        }
        insert(&writer, 1_000).await.unwrap();
        assert_eq!(count(&writer).await, 2);
    }

    /// Proves that when SQLite gives up a whole transaction, nobody in the group is told that he was written.
    #[tokio::test]
    async fn a_lost_transaction_is_told_to_its_whole_group() {
        let (_folder, writer, _thread) = started(None);
        // Holds the thread until all the others are queued: they make one group.
        let (release, held) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel::<()>();
        let first = writer.submit(move |_| {
            let _ = begun.send(());
            let _ = held.recv();
            Ok(())
        });
        begins.recv().unwrap();
        let before = writer
            .submit(|connection| connection.execute("INSERT INTO things VALUES (1)", []).map_err(sqlite("written")));
        let culprit = writer.submit(|connection| -> Result<(), JournalError> {
            connection.execute_batch("ROLLBACK").map_err(sqlite("written"))?;
            Err(storage("written", Closed))
        });
        let after = writer
            .submit(|connection| connection.execute("INSERT INTO things VALUES (2)", []).map_err(sqlite("written")));
        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert!(before.await.unwrap().is_err());
        assert!(culprit.await.unwrap().is_err());
        assert!(after.await.unwrap().is_err());
        assert_eq!(count(&writer).await, 0);
        insert(&writer, 10).await.unwrap();
        assert_eq!(count(&writer).await, 1);
    }
}
