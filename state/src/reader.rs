//! Threads that own the read connections: readers never wait for the writer, nor the writer for them.

use crate::failure::{Closed, sqlite, storage};
use crate::file;
use crate::settings::StoreSettings;
use platflow_engine::journal::JournalError;
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

type Query = Box<dyn FnOnce(&Connection) + Send>;

/// A queue served by a few threads, each with a connection of its own.
pub(crate) struct Readers {
    queue: Option<mpsc::Sender<Query>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn start(path: &Path, settings: &StoreSettings) -> Result<Self, JournalError> {
        let (queue, queries) = mpsc::channel::<Query>();
        let queries = Arc::new(Mutex::new(queries));
        let mut threads = Vec::with_capacity(settings.readers);
        for _ in 0..settings.readers.max(1) {
            let connection = file::open_reader(path, settings)?;
            let queries = Arc::clone(&queries);
            let thread = std::thread::Builder::new()
                .name("platflow-reader".to_owned())
                .spawn(move || {
                    loop {
                        let next = queries.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(query) = next else { return };
                        query(&connection);
                    }
                })
                .map_err(|error| storage("opened", error))?;
            threads.push(thread);
        }
        Ok(Self { queue: Some(queue), threads })
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
        match &self.queue {
            Some(queue) if queue.send(task).is_ok() => {}
            _ => return Err(storage("read", Closed)),
        }
        answer.await.unwrap_or_else(|_| Err(storage("read", Closed)))
    }
}

impl Drop for Readers {
    /// Waits for the connections to close, so that the writer's is the last and can fold the WAL into the file.
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
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
