//! Runs many independent cases on every processor and stops at the first that breaks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Judges `cases` in parallel; each worker makes its own `place` first.
///
/// # Panics
/// With the first case that breaks.
pub fn judge<C: Sync, P>(
    cases: &[C],
    place: impl Fn() -> P + Sync,
    judge: impl Fn(&mut P, &C) -> Result<(), String> + Sync,
) {
    let next = AtomicUsize::new(0);
    let broken = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut place = place();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(problem) = judge(&mut place, case) {
                        next.store(cases.len(), Ordering::Relaxed);
                        broken.lock().expect("no worker panics with it").get_or_insert(problem);
                    }
                }
            });
        }
    });
    if let Some(problem) = broken.into_inner().expect("no worker panics with it") {
        panic!("{problem}");
    }
}
