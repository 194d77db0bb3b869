//! The background thread that keeps the leases of a store alive while the store lives.

use crate::failure::storage;
use crate::lease::{HeldLeases, Renewal, renew};
use crate::settings::StoreSettings;
use crate::time;
use crate::writer::Writer;
use platflow_engine::journal::JournalError;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Stops the thread when dropped; [`Renewer::join`] waits for its end.
pub(crate) struct Renewer {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewer {
    pub(crate) fn start(writer: Writer, held: Arc<HeldLeases>, settings: &StoreSettings) -> Result<Self, JournalError> {
        let (stop, stopped) = mpsc::channel();
        let (every, lease) = (settings.renew(), settings.lease());
        let thread = std::thread::Builder::new()
            .name("platflow-leases".to_owned())
            .spawn(move || {
                while matches!(stopped.recv_timeout(every), Err(mpsc::RecvTimeoutError::Timeout)) {
                    renew_all(&writer, &held, lease);
                }
            })
            .map_err(|error| storage("opened", error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn join(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn renew_all(writer: &Writer, held: &HeldLeases, lease_ms: i64) {
    let leases = held.renewable();
    if leases.is_empty() {
        return;
    }
    // Taken before the write: what we believe ends no later than what others read.
    let until_ms = time::boot_now_ms().saturating_add(lease_ms);
    let answer = writer.submit(move |connection| {
        leases
            .into_iter()
            .map(|(run, epoch)| renew(connection, &run, epoch, until_ms).map(|renewal| (run, epoch, renewal)))
            .collect::<Result<Vec<_>, _>>()
    });
    match answer.blocking_recv() {
        Ok(Ok(renewals)) => {
            for (run, epoch, renewal) in renewals {
                match renewal {
                    Renewal::Renewed => held.renewed(&run, epoch, until_ms),
                    Renewal::Lost { current } => {
                        tracing::warn!(%run, epoch, current, "the lease was lost");
                        held.lost(&run, epoch, current);
                    }
                }
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "leases could not be renewed; trying again"),
        Err(_) => {}
    }
}
