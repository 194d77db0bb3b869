//! A TCP proxy that spoils chosen connections: slow, cut after n bytes of the answer, reset, refused. It knows no protocol,
//! so whatever lies behind it, TLS or not, meets what networks do.
//!
//! Which are chosen is said by their number, or turn by turn: a turn is what a client says up to the first byte of what it
//! is answered, so that connections are spoilt too which are kept for many requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
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

/// What happens to a turn: asked with the bytes that the client has said.
type Chooser = Box<dyn FnMut(&[u8]) -> Option<Fault> + Send>;

/// So much of what a client says is kept for the one who chooses.
const HEARD: usize = 4 * 1024;

/// A turn of one connection.
#[derive(Debug, Default)]
struct Turn {
    said: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    plan: Mutex<BTreeMap<usize, Fault>>,
    chooser: Mutex<Option<Chooser>>,
    /// For how long nobody is to listen.
    away: Mutex<Option<Duration>>,
    leave: Notify,
    accepted: AtomicUsize,
    hits: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("upstream", &self.upstream)
            .field("hits", &self.hits)
            .finish_non_exhaustive()
    }
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

    /// From now on every turn of every connection is shown to this, and spoilt as it says.
    pub fn choose(&self, chooser: impl FnMut(&[u8]) -> Option<Fault> + Send + 'static) {
        *locked(&self.shared.chooser) = Some(Box::new(chooser));
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
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.leave.notified() => {
                let time = locked(&shared.away).take();
                if let Some(time) = time {
                    listener = away(listener, time).await;
                }
                continue;
            }
        };
        let Ok((near, _)) = accepted else { continue };
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let fault = locked(&shared.plan).get(&number).copied();
        if let Some(Fault::Refuse(time)) = fault {
            shared.hits.fetch_add(1, Ordering::SeqCst);
            drop(near.set_zero_linger());
            drop(near);
            listener = away(listener, time).await;
            continue;
        }
        tokio::spawn(serve(near, fault, Arc::clone(&shared)));
    }
}

/// Nobody listens for so long.
async fn away(listener: TcpListener, time: Duration) -> TcpListener {
    let address = listener.local_addr().expect("an address");
    drop(listener);
    pass(time).await;
    TcpListener::bind(address).await.expect("the same port again")
}

async fn serve(near: TcpStream, fault: Option<Fault>, shared: Arc<Shared>) {
    let upstream = *locked(&shared.upstream);
    let Some(upstream) = upstream else { return };
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    if fault == Some(Fault::Reset) {
        drop(near.set_zero_linger());
    }
    let ((near_reads, near_writes), (far_reads, far_writes)) = (near.into_split(), far.into_split());
    let turn = Mutex::new(Turn::default());
    tokio::select! {
        () = copy(near_reads, far_writes, &turn) => {}
        () = answer(far_reads, near_writes, fault, &turn, &shared) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, turn: &Mutex<Turn>) {
    let mut buffer = vec![0_u8; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        {
            let mut turn = locked(turn);
            let room = HEARD.saturating_sub(turn.said.len()).min(count);
            turn.said.extend_from_slice(&buffer[..room]);
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    // The client has said all; its answer may still be under way.
    drop(to.shutdown().await);
    std::future::pending::<()>().await;
}

/// Whether the answer that begins now is spoilt, as its turn is chosen; nothing while a turn goes on, or nobody chooses.
fn chosen(turn: &Mutex<Turn>, shared: &Shared) -> Option<Option<Fault>> {
    let said = std::mem::take(&mut locked(turn).said);
    if said.is_empty() {
        return None;
    }
    locked(&shared.chooser).as_mut().map(|choose| choose(&said))
}

/// Passes the answer on, as far as the fault lets it.
async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: Option<Fault>,
    turn: &Mutex<Turn>,
    shared: &Shared,
) {
    let mut buffer = vec![0_u8; 16 * 1024];
    let mut passed = 0;
    let mut hit = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if let Some(chosen) = chosen(turn, shared) {
            (fault, passed, hit) = (chosen, 0, false);
        }
        let mut piece = &buffer[..count];
        if !std::mem::replace(&mut hit, fault.is_some()) && fault.is_some() {
            shared.hits.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Some(Fault::Delay(time)) => pass(time).await,
            Some(Fault::Reset) => {
                drop(to.as_ref().set_zero_linger());
                return;
            }
            Some(Fault::Cut(after)) => piece = &piece[..count.min(after.saturating_sub(passed))],
            Some(Fault::Refuse(time)) => {
                *locked(&shared.away) = Some(time);
                shared.leave.notify_one();
                drop(to.as_ref().set_zero_linger());
                return;
            }
            None => {}
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
