//! A loopback listener that forwards each connection to one pod's port, for as long as it is held.
//!
//! HTTP clients want an address; a port-forward is a stream. What passes is TLS from end to end, checked against the
//! pod's name, so the listener itself need not be trusted.

use super::reach::Reach;
use crate::kubernetes::ClusterAccess;
use platflow_engine::failure::{Residue, StepError};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Vault's API port.
pub(super) const PORT: u16 = 8200;

/// Forwards while it lives; dropping it ends the listener and every connection.
pub(super) struct VaultTunnel {
    address: SocketAddr,
    failure: Arc<Mutex<Option<StepError>>>,
    _task: AbortOnDropHandle<()>,
}

impl VaultTunnel {
    /// Listens on a free port of the loopback interface.
    pub(super) async fn open(
        reach: Arc<dyn Reach>,
        cluster: ClusterAccess,
        namespace: String,
        pod: String,
    ) -> Result<Self, StepError> {
        let failed = |error: std::io::Error| {
            StepError::transient(format!("no local port for the way to {pod}: {error}")).leaving(Residue::None)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let failure = Arc::new(Mutex::new(None));
        let to = Arc::new(Destination { reach, cluster, namespace, pod, failure: Arc::clone(&failure) });
        let task = tokio::spawn(accept(listener, to));
        Ok(Self { address, failure, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the last connection could not be forwarded, if it could not: then nothing reached the pod.
    pub(super) fn take_failure(&self) -> Option<StepError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Destination {
    reach: Arc<dyn Reach>,
    cluster: ClusterAccess,
    namespace: String,
    pod: String,
    failure: Arc<Mutex<Option<StepError>>>,
}

async fn accept(listener: TcpListener, to: Arc<Destination>) {
    // Connections end with this task: the set aborts what it holds when it is dropped.
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(forward(connection, Arc::clone(&to)));
    }
}

async fn forward(mut connection: TcpStream, to: Arc<Destination>) {
    match to.reach.dial(&to.cluster, &to.namespace, &to.pod, PORT).await {
        Ok(mut stream) => {
            // Either side may break off at any time; the HTTP client above reports what it misses.
            drop(tokio::io::copy_bidirectional(&mut connection, &mut stream).await);
        }
        Err(error) => *to.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
    }
}
