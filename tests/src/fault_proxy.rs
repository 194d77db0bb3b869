//! A TCP proxy that spoils chosen connections: slow, cut after n bytes of the answer, reset, refused. It knows no protocol,
//! so whatever lies behind it, TLS or not, meets what networks do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every piece of the answer comes this much later.
    Delay(Duration),
    /// The answer ends after so many bytes: what was asked was done, and nobody hears all of it.
    Cut(usize),
    /// The connection is reset once a request has gone out.
    Reset,
    /// For this long nobody listens, beginning with this connection.
    Refuse(Duration),
}

#[derive(Debug, Default)]
struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    plan: Mutex<BTreeMap<usize, Fault>>,
    accepted: AtomicUsize,
    hits: AtomicUsize,
}

/// A listener on a free loopback port; it ends when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for FaultProxy {
    fn default() -> Self {
        Self::new()
    }
}

impl FaultProxy {
    /// Listens; leads nowhere yet.
    #[must_use]
    pub fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        let (tell, told) = std::sync::mpsc::channel();
        let (of_thread, stopped) = (Arc::clone(&shared), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
                tell.send(listener.local_addr().expect("an address")).expect("somebody waits");
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = accept(listener, of_thread) => {}
                }
            });
        });
        let address = told.recv().expect("the listener's address");
        Self { address, shared, stop, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections lead there.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *locked(&self.shared.upstream) = Some(upstream);
    }

    /// Counts anew, and spoils these connections, counted from 0.
    pub fn spoil(&self, plan: impl IntoIterator<Item = (usize, Fault)>) {
        *locked(&self.shared.plan) = plan.into_iter().collect();
        self.shared.accepted.store(0, Ordering::SeqCst);
        self.shared.hits.store(0, Ordering::SeqCst);
    }

    /// Connections since then.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many of them were spoilt.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn accept(mut listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let fault = locked(&shared.plan).get(&number).copied();
        if let Some(Fault::Refuse(time)) = fault {
            shared.hits.fetch_add(1, Ordering::SeqCst);
            let address = listener.local_addr().expect("an address");
            drop(near.set_zero_linger());
            drop((near, listener));
            pass(time).await;
            listener = TcpListener::bind(address).await.expect("the same port again");
            continue;
        }
        tokio::spawn(serve(near, fault, Arc::clone(&shared)));
    }
}

async fn serve(near: TcpStream, fault: Option<Fault>, shared: Arc<Shared>) {
    let upstream = *locked(&shared.upstream);
    let Some(upstream) = upstream else { return };
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    if fault == Some(Fault::Reset) {
        drop(near.set_zero_linger());
    }
    let ((near_reads, near_writes), (far_reads, far_writes)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_reads, far_writes) => {}
        () = answer(far_reads, near_writes, fault, &shared) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    drop(tokio::io::copy(&mut from, &mut to).await);
    // The client has said all; its answer may still be under way.
    drop(to.shutdown().await);
    std::future::pending::<()>().await;
}

/// Passes the answer on, as far as the fault lets it.
async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: Option<Fault>, shared: &Shared) {
    let mut buffer = vec![0_u8; 16 * 1024];
    let mut passed = 0;
    let mut hit = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut piece = &buffer[..count];
        if !std::mem::replace(&mut hit, fault.is_some()) && fault.is_some() {
            shared.hits.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Some(Fault::Delay(time)) => pass(time).await,
            Some(Fault::Reset) => return,
            Some(Fault::Cut(after)) => piece = &piece[..count.min(after.saturating_sub(passed))],
            Some(Fault::Refuse(_)) | None => {}
        }
        passed += count;
        if to.write_all(piece).await.is_err() || matches!(fault, Some(Fault::Cut(after)) if passed >= after) {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the time a network takes is the fault itself; no test waits by it")]
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
