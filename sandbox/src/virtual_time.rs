//! Time that jumps: nobody waits for it, it goes on to the next moment that somebody waits for as soon as nothing else is
//! under way. One object stands behind the sandbox's clock and the clock of whoever works against it.
//!
//! It never looks at real time, and it decides nothing: what counts as work under way is said by those who do it.
//! All who sleep on it share one single-threaded runtime: a turn of its scheduler is what "nothing else happens" is
//! measured in.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many turns of the scheduler must pass without any work before time may jump: a report that was sent is taken in, and
/// what it releases begins, well within them.
const QUIET_TURNS: u32 = 12;

/// Simulated time under one world and everything that works against it.
#[derive(Debug)]
pub struct VirtualTime {
    now_ms: AtomicI64,
    /// Work under way. Below zero is possible for a moment, when a caller vanished whose call the server still holds.
    busy: AtomicI64,
    /// Changes with every jump and whenever work begins or ends.
    turn: AtomicU64,
    changed: Notify,
    sleepers: Mutex<BTreeSet<(i64, u64)>>,
    names: AtomicU64,
}

/// Time stands still while this lives.
#[derive(Debug)]
pub struct Busy<'a> {
    time: &'a VirtualTime,
    by: i64,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.time.count(-self.by);
    }
}

struct Sleeper<'a> {
    time: &'a VirtualTime,
    key: (i64, u64),
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.time.sleepers().remove(&self.key);
    }
}

impl VirtualTime {
    /// Time that stands at a moment, Unix milliseconds.
    #[must_use]
    pub fn starting_at(now_ms: i64) -> Self {
        Self {
            now_ms: AtomicI64::new(now_ms),
            busy: AtomicI64::new(0),
            turn: AtomicU64::new(0),
            changed: Notify::new(),
            sleepers: Mutex::new(BTreeSet::new()),
            names: AtomicU64::new(0),
        }
    }

    fn sleepers(&self) -> MutexGuard<'_, BTreeSet<(i64, u64)>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present moment, Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    /// Sets the moment, also back: a world that was kept is taken up again.
    pub fn set(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
        self.turn.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Jumps forward by hand.
    pub fn advance(&self, by_ms: i64) {
        self.set(self.now_ms().saturating_add(by_ms.max(0)));
    }

    fn count(&self, by: i64) {
        self.busy.fetch_add(by, Ordering::SeqCst);
        self.turn.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Work begins: a call, a commit.
    pub fn busy(&self) -> Busy<'_> {
        self.count(1);
        Busy { time: self, by: 1 }
    }

    /// Work that is under way waits for time itself.
    pub fn idle(&self) -> Busy<'_> {
        self.count(-1);
        Busy { time: self, by: -1 }
    }

    /// Whether work is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) > 0
    }

    /// Nothing is under way any more, whatever was: its callers are gone.
    pub fn forget_work(&self) {
        self.busy.store(0, Ordering::SeqCst);
        self.turn.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Returns once no work is under way and none begins by itself. Time does not move because of it.
    pub async fn quiet(&self) {
        let mut turns = 0;
        let mut seen = self.turn.load(Ordering::SeqCst);
        while turns < QUIET_TURNS {
            self.until_idle().await;
            tokio::task::yield_now().await;
            let now = self.turn.load(Ordering::SeqCst);
            turns = if now == seen { turns + 1 } else { 0 };
            seen = now;
        }
    }

    async fn until_idle(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_busy() {
                return;
            }
            changed.await;
        }
    }

    /// Returns when a moment has come; it comes at once when nobody has anything else to do. Cancel-safe.
    pub async fn sleep_until(&self, due_ms: i64) {
        let key = (due_ms, self.names.fetch_add(1, Ordering::SeqCst));
        self.sleepers().insert(key);
        let _sleeper = Sleeper { time: self, key };
        let (mut turns, mut seen) = (0, self.turn.load(Ordering::SeqCst));
        while self.now_ms() < due_ms {
            if self.is_busy() {
                let changed = self.changed.notified();
                if self.is_busy() && self.now_ms() < due_ms {
                    changed.await;
                }
                continue;
            }
            tokio::task::yield_now().await;
            let now = self.turn.load(Ordering::SeqCst);
            turns = if now == seen { turns + 1 } else { 0 };
            seen = now;
            if turns >= QUIET_TURNS {
                self.jump();
            }
        }
    }

    /// To the next moment that somebody waits for.
    fn jump(&self) {
        let next = self.sleepers().first().map(|(due_ms, _)| *due_ms);
        if let Some(due_ms) = next {
            self.now_ms.fetch_max(due_ms, Ordering::SeqCst);
            self.turn.fetch_add(1, Ordering::SeqCst);
            self.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    /// Sleepers wake in the order of their moments, each at its own, and a day takes no time.
    #[test]
    fn time_jumps_from_moment_to_moment() {
        let time = Arc::new(VirtualTime::starting_at(1_000));
        let woken = Arc::new(Mutex::new(Vec::new()));
        runtime().block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for due_ms in [86_400_000, 5_000, 7_000, 5_000] {
                let (time, woken) = (Arc::clone(&time), Arc::clone(&woken));
                tasks.spawn(async move {
                    time.sleep_until(due_ms).await;
                    woken.lock().unwrap().push((due_ms, time.now_ms()));
                });
            }
            while tasks.join_next().await.is_some() {}
        });
        let woken = woken.lock().unwrap().clone();
        assert_eq!(woken, [(5_000, 5_000), (5_000, 5_000), (7_000, 7_000), (86_400_000, 86_400_000)]);
        assert!(time.sleepers().is_empty());
    }

    /// Time stands still while work is under way, unless that work itself waits for time.
    #[test]
    fn work_holds_time() {
        let time = Arc::new(VirtualTime::starting_at(0));
        runtime().block_on(async {
            let busy = time.busy();
            let sleeper = {
                let time = Arc::clone(&time);
                tokio::spawn(async move { time.sleep_until(50).await })
            };
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            assert_eq!(time.now_ms(), 0);
            let idle = time.idle();
            sleeper.await.unwrap();
            assert_eq!(time.now_ms(), 50);
            drop((idle, busy));
            assert!(!time.is_busy());
        });
    }
}
