//! Every check as a list of small cases, tried until the first that breaks: panics and hangs break as well.

use crate::checks;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Far above what any case takes.
const HANGS_AFTER: Duration = Duration::from_secs(20);

type Work = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// One case of one check.
pub struct Case {
    /// The check that it belongs to.
    pub check: &'static str,
    /// Does it; says what is broken.
    pub work: Work,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Case").field("check", &self.check).finish_non_exhaustive()
    }
}

impl Case {
    /// A case of a check.
    pub fn new(check: &'static str, work: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { check, work: Box::new(work) }
    }
}

/// What trying the cases came to.
#[derive(Debug)]
pub struct Verdict {
    /// The first case that broke: its check, and what it said.
    pub broken: Option<(&'static str, String)>,
    /// How many cases were tried.
    pub cases: usize,
    /// How long that took.
    pub took: Duration,
}

/// Every case, the quick ones first. What an undisturbed run shows is found out here: no defect may be switched on yet.
///
/// # Errors
/// When not even an undisturbed run works.
pub fn all() -> Result<Arc<Vec<Case>>, String> {
    let mut cases = checks::permits::cases();
    cases.extend(checks::promises::cases());
    cases.extend(checks::files::cases());
    cases.extend(checks::leases::cases());
    cases.extend(checks::stories::cases());
    cases.extend(checks::invisible::cases());
    cases.extend(checks::sweeps::cases()?);
    cases.extend(checks::power::cases()?);
    Ok(Arc::new(cases))
}

fn try_one(cases: &Arc<Vec<Case>>, number: usize) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    let cases = Arc::clone(cases);
    // A thread of its own: one that hangs is left behind.
    std::thread::spawn(move || {
        let outcome = cases.get(number).map_or(Ok(()), |case| {
            catch_unwind(AssertUnwindSafe(|| (case.work)())).unwrap_or_else(|payload| {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(format!("panicked: {}", text.unwrap_or_default()))
            })
        });
        // Nobody listens any more when it took too long.
        let _ = sender.send(outcome);
    });
    receiver.recv_timeout(HANGS_AFTER).unwrap_or_else(|_| Err("hangs".to_owned()))
}

/// Tries the cases in order, on every processor, and stops at the first that breaks.
#[must_use]
pub fn judge(cases: &Arc<Vec<Case>>) -> Verdict {
    let (next, tried, started) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let broken = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { break };
                    tried.fetch_add(1, Ordering::Relaxed);
                    if let Err(problem) = try_one(cases, number) {
                        next.store(cases.len(), Ordering::Relaxed);
                        let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                        broken.get_or_insert((case.check, problem));
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    Verdict { broken, cases: tried.load(Ordering::Relaxed), took: started.elapsed() }
}
