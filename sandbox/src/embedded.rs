//! A sandbox inside another process: the same fronts on loopback, on time that jumps, over a world that is kept nowhere
//! and can be taken out, copied and put back. Servers and ports stay while worlds come and go.
//!
//! What is done with the worlds is its user's business.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::listeners::reconcile;
use crate::server::{Endpoints, Inner, ServeError, Shared, connection};
use crate::virtual_time::VirtualTime;
use crate::world::World;

/// Sees every call to any front, under the world's lock.
pub trait Witness: Send + Sync + 'static {
    /// A call is about to be answered; `may_change` when it is none that only reads.
    fn before(&self, world: &World, now_ms: i64, may_change: bool);

    /// The call was answered; nobody has heard it yet.
    fn after(&self, world: &World, now_ms: i64);
}

/// A running sandbox of this process. It ends when it is dropped.
pub struct Embedded {
    shared: Arc<Shared>,
    time: Arc<VirtualTime>,
    endpoints: Endpoints,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Embedded").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.sever();
        for stop in self.shared.lock().listeners.values() {
            stop.cancel();
        }
    }
}

impl Embedded {
    /// Serves an empty world on ports of its own. Call it inside the runtime that is to serve.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(
        seed: u64,
        time: Arc<VirtualTime>,
        witness: Arc<dyn Witness>,
        version: &str,
    ) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Io { what: "a loopback port".to_owned(), source };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let url = format!("http://{}", listener.local_addr().map_err(failed)?);
        let world = World::new(seed);
        let endpoints = Endpoints {
            pid: std::process::id(),
            version: version.to_owned(),
            aws_url: url.clone(),
            control_url: format!("{url}/_sandbox"),
            world_id: world.meta.world_id.clone(),
            account: world.aws.account().to_owned(),
            speed: 0.0,
        };
        let inner = Inner {
            world,
            clock: Clock::jumping(Arc::clone(&time)),
            listeners: BTreeMap::new(),
            addresses: BTreeMap::new(),
            persistence: None,
        };
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            witness: Some(witness),
            connections: Mutex::default(),
            stop: CancellationToken::new(),
            changed: Notify::new(),
            endpoints: Mutex::new(Some(endpoints.clone())),
        });
        tokio::spawn(accept(Arc::clone(&shared), listener));
        Ok(Self { shared, time, endpoints })
    }

    /// Where it answers.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Looks at the world as it is now, everything that is due having happened.
    pub fn look<T>(&self, look: impl FnOnce(&mut World, i64) -> T) -> T {
        let mut inner = self.shared.lock();
        let now_ms = inner.clock.now_ms();
        inner.world.advance(now_ms);
        reconcile(&self.shared, &mut inner);
        look(&mut inner.world, now_ms)
    }

    /// Puts another world in the place of this one, and time where it stood in it. Connections that there are break: what
    /// was sent to the old world never reaches the new one.
    pub fn replace(&self, world: World, now_ms: i64) {
        self.sever();
        self.time.forget_work();
        self.time.set(now_ms);
        let mut inner = self.shared.lock();
        inner.world = world;
        reconcile(&self.shared, &mut inner);
    }

    /// Breaks every connection there is; what was sent and not taken in yet is lost.
    pub fn sever(&self) {
        let mut connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.cancel();
        *connections = CancellationToken::new();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                // Small answers must not wait for acknowledgements: here the network is all the time there is.
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(Arc::clone(&shared), stream, peer));
            }
        }
    }
}
