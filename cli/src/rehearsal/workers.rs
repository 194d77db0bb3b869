//! Workers: one thread with a runtime, a stage and an undisturbed run of its own for each processor; they take cases from
//! one queue until it is empty or the time is over.
//!
//! A sandbox's ports are part of what a run records, so a moment can only be gone on from on the stage that made it.

use crate::failure::{CommandError, ExitCode};
use crate::rehearsal::case::Case;
use crate::rehearsal::schedule::Extent;
use crate::rehearsal::stage::{Script, Stage};
use crate::rehearsal::trial::{self, Verdict};
use crate::settings::Settings;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What workers tell.
pub(crate) enum News {
    /// The undisturbed run ended; from each worker.
    Filmed(Extent),
    /// A case was held.
    Judged {
        case: Case,
        verdict: Verdict,
        /// What happened in it, for a replay.
        story: Vec<String>,
    },
    /// The rehearsal itself does not go on.
    Failed(CommandError),
}

#[derive(Default)]
struct Queue {
    cases: VecDeque<Case>,
    /// How many there were at first.
    all: usize,
    known: bool,
    closed: bool,
}

/// The cases to be held.
#[derive(Default)]
pub(crate) struct Jobs {
    queue: Mutex<Queue>,
    changed: Condvar,
    dropped: CancellationToken,
}

impl Jobs {
    /// Says what there is to do.
    pub(crate) fn fill(&self, cases: Vec<Case>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.all = cases.len();
        queue.cases = cases.into();
        queue.known = true;
        self.changed.notify_all();
    }

    /// Of what is not begun yet, nothing is to be begun but the first `most` of all cases; how many were struck off.
    pub(crate) fn cut(&self, most: usize) -> usize {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let left = queue.cases.len();
        let begun = queue.all.saturating_sub(left);
        queue.cases.truncate(most.saturating_sub(begun));
        left - queue.cases.len()
    }

    /// Nothing more is to be begun.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        self.changed.notify_all();
    }

    /// Nothing more is to be begun, and what is under way is dropped: nobody wants to hear of it.
    pub(crate) fn abandon(&self) {
        self.close();
        self.dropped.cancel();
    }

    fn take(&self) -> Option<Case> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while !queue.known && !queue.closed {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed { None } else { queue.cases.pop_front() }
    }
}

/// Starts a worker. Its thread ends with the queue, or when nobody listens any more.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn start(
    script: Arc<Script>,
    settings: Settings,
    folder: PathBuf,
    jobs: Arc<Jobs>,
    tells: bool,
    news: mpsc::UnboundedSender<News>,
) -> Result<std::thread::JoinHandle<()>, CommandError> {
    let work = move || {
        // One thread for a stage: the turns of its scheduler are what virtual time is measured by.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let failed = match runtime {
            Ok(runtime) => {
                let work = work(script, &settings, folder, &jobs, tells, &news);
                let result = runtime.block_on(jobs.dropped.run_until_cancelled(work)).unwrap_or(Ok(()));
                runtime.shutdown_background();
                result.err()
            }
            Err(error) => Some(CommandError::new(ExitCode::Internal, "a worker has no runtime").caused_by(error)),
        };
        if let Some(error) = failed {
            // Nobody listens any more when the rehearsal was interrupted.
            let _ = news.send(News::Failed(error));
        }
    };
    std::thread::Builder::new()
        .name("rehearsal".to_owned())
        .spawn(work)
        .map_err(|error| CommandError::new(ExitCode::Internal, "a worker could not be started").caused_by(error))
}

async fn work(
    script: Arc<Script>,
    settings: &Settings,
    folder: PathBuf,
    jobs: &Jobs,
    tells: bool,
    news: &mpsc::UnboundedSender<News>,
) -> Result<(), CommandError> {
    let stage = Stage::set_up(Arc::clone(&script), settings, folder).await?;
    let undisturbed = trial::undisturbed(&stage).await?;
    if news.send(News::Filmed(Extent::of(&undisturbed.film, &script.plan))).is_err() {
        return Ok(());
    }
    while let Some(case) = jobs.take() {
        if tells {
            stage.recorder.tell();
        }
        let verdict = trial::hold(&stage, &undisturbed, &case).await?;
        let story = if tells { stage.recorder.story() } else { Vec::new() };
        if news.send(News::Judged { case, verdict, story }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::schedule::{Extent, sampled};

    /// Proves that a cut takes away what is beyond the first cases, and never one of those, however many are begun.
    #[test]
    fn a_cut_leaves_the_first_cases() {
        for begun in 0..20 {
            let extent = Extent { boundaries: vec![false; 12], calls: 4, steps: Vec::new() };
            let cases = sampled(&extent);
            let (all, jobs) = (cases.len(), Jobs::default());
            jobs.fill(cases.clone());
            for wanted in cases.iter().take(begun) {
                assert_eq!(jobs.take().as_ref(), Some(wanted));
            }
            let gone = jobs.cut(12);
            assert_eq!(gone, all - begun.max(12));
            let rest: Vec<Case> = (begun..all - gone).filter_map(|_| jobs.take()).collect();
            assert_eq!(rest, cases.get(begun..all - gone).unwrap_or_default());
        }
    }
}
