//! The engine's clock over the sandbox's virtual time: one time for both.

use async_trait::async_trait;
use jiff::Timestamp;
use platflow_engine::clock::Clock;
use platflow_sandbox::virtual_time::VirtualTime;
use std::sync::Arc;

tokio::task_local! {
    /// Set while a verb of a step works: time waits for it, unless it waits for time itself.
    static VERB: ();
}

/// Runs a verb of a step: time stands still meanwhile.
pub(crate) async fn at_work<F: Future>(time: &VirtualTime, verb: F) -> F::Output {
    let _busy = time.busy();
    VERB.scope((), verb).await
}

/// See the file.
#[derive(Debug, Clone)]
pub(crate) struct RehearsalClock(pub(crate) Arc<VirtualTime>);

#[async_trait]
impl Clock for RehearsalClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.now_ms()).unwrap_or(Timestamp::MAX)
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let _idle = VERB.try_with(|()| ()).is_ok().then(|| self.0.idle());
        // Deadlines are finer than this time: a moment early would be asked for again and again.
        self.0.sleep_until(deadline.as_millisecond().saturating_add(1)).await;
    }
}
