//! Facts on their way to the disk: one append at a time, while the loop goes on folding what comes in.
//!
//! What waits for facts to be durable (tasks that may begin, notes to be acknowledged, observers to be told) travels with
//! the append that carries them. The fold may be ahead of the disk; nothing that acts on the world ever is.

use super::{Cycle, Spawn};
use crate::drive::{DriveError, start};
use crate::event::Event;
use crate::journal::{JournalError, Sequence};
use futures::FutureExt;
use std::pin::Pin;
use tokio::sync::oneshot;

type Append<'a> = Pin<Box<dyn Future<Output = Result<Sequence, JournalError>> + Send + 'a>>;

/// One append under way.
pub(super) struct Writing<'a> {
    append: Append<'a>,
    /// What became of it, if that was known as soon as it was begun.
    at_once: Option<Result<Sequence, JournalError>>,
    events: Vec<Event>,
    first: Sequence,
    acknowledgements: Vec<oneshot::Sender<()>>,
    /// To be spawned once it is durable; they count as in flight.
    pub(super) spawns: Vec<Spawn>,
}

/// The end of the append under way; never, if there is none.
pub(super) async fn durable(writing: &mut Option<Writing<'_>>) -> Result<Sequence, JournalError> {
    match writing {
        Some(writing) => match writing.at_once.take() {
            Some(appended) => appended,
            None => writing.append.as_mut().await,
        },
        None => std::future::pending().await,
    }
}

impl Cycle<'_> {
    /// Hands over what was decided since the last append. If that one is still under way it all waits for the next, but
    /// for what needs no new fact: that waits for the facts which are on their way. True if an append was begun: there is
    /// room then to decide more while it is written.
    pub(super) fn hand_over(&mut self) -> Result<bool, DriveError> {
        if let Some(writing) = &mut self.writing {
            if self.builder.is_empty() {
                writing.spawns.append(&mut self.spawns);
            }
            return Ok(false);
        }
        if self.builder.is_empty() {
            self.release();
            return Ok(false);
        }
        let builder = std::mem::take(&mut self.builder);
        let (batch, events) = builder.finish(self.run)?;
        let expected = self.run.head - events.len() as u64;
        let (engine, lease) = (self.engine, self.lease);
        let mut append: Append<'_> = Box::pin(async move { engine.journal.append(lease, expected, batch).await });
        // Begun here, so that the disk is at work while the loop goes on.
        let at_once = append.as_mut().now_or_never();
        self.writing = Some(Writing {
            append,
            at_once,
            events,
            first: expected + 1,
            acknowledgements: std::mem::take(&mut self.acknowledgements),
            spawns: std::mem::take(&mut self.spawns),
        });
        Ok(true)
    }

    /// Everything decided is durable: what waited for that goes on.
    fn release(&mut self) {
        for spawn in std::mem::take(&mut self.spawns) {
            self.spawn(spawn);
        }
        self.survey();
    }

    /// The append under way came to an end.
    pub(super) fn written(&mut self, appended: Result<Sequence, JournalError>) -> Result<(), DriveError> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        appended?;
        // What gathered meanwhile first: the disk need not wait until the tasks are spawned.
        self.hand_over()?;
        start::tell(self.engine, &writing.events, writing.first);
        for acknowledge in writing.acknowledgements {
            // A task that no longer waits was cancelled; its fact is durable all the same.
            let _ = acknowledge.send(());
        }
        for spawn in writing.spawns {
            self.spawn(spawn);
        }
        Ok(())
    }

    /// Waits until everything decided is durable.
    pub(super) async fn flush(&mut self) -> Result<(), DriveError> {
        self.hand_over()?;
        while self.writing.is_some() {
            let appended = durable(&mut self.writing).await;
            self.written(appended)?;
            self.hand_over()?;
        }
        Ok(())
    }

    /// Calls that are running, or will be as soon as their intent is durable.
    pub(super) fn under_way(&self) -> usize {
        let waiting = self.writing.as_ref().map_or(0, |writing| writing.spawns.len());
        self.running.len() + self.spawns.len() + waiting
    }
}
