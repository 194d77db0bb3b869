//! Threads that own the read connections: readers never wait for the writer, nor the writer for them.

use crate::failure::{Closed, sqlite, storage};
use crate::file;
use crate::settings::StoreSettings;
use platflow_engine::journal::JournalError;
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

type Query = Box<dyn FnOnce(&Connection) + Send>;

/// How many reads may run at once.
const READERS: usize = 2;

/// A queue served by a few threads, each with a connection of its own.
pub(crate) struct Readers {
    queue: mpsc::Sender<Query>,
}

impl Readers {
    pub(crate) fn start(path: &Path, settings: &StoreSettings) -> Result<Self, JournalError> {
        let (queue, queries) = mpsc::channel::<Query>();
        let queries = Arc::new(Mutex::new(queries));
        for _ in 0..READERS {
            let connection = file::open_reader(path, settings)?;
            let queries = Arc::clone(&queries);
            std::thread::Builder::new()
                .name("platflow-reader".to_owned())
                .spawn(move || {
                    loop {
                        let next = queries.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(query) = next else { return };
                        query(&connection);
                    }
                })
                .map_err(|error| storage("opened", error))?;
        }
        Ok(Self { queue })
    }

    /// Runs `query` on one snapshot of the file.
    pub(crate) async fn read<T, F>(&self, query: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task: Query = Box::new(move |connection| {
            let _ = reply.send(snapshot(connection, query));
        });
        if self.queue.send(task).is_err() {
            return Err(storage("read", Closed));
        }
        answer.await.unwrap_or_else(|_| Err(storage("read", Closed)))
    }
}

fn snapshot<T>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> Result<T, JournalError>,
) -> Result<T, JournalError> {
    let transaction = connection.unchecked_transaction().map_err(sqlite("read"))?;
    let answer = query(&transaction)?;
    transaction.commit().map_err(sqlite("read"))?;
    Ok(answer)
}
