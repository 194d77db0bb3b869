//! The listeners that come and go with the world: a TLS port per cluster, and byte streams into Vault pods. What requests
//! mean is the world's.

use std::net::{SocketAddr, TcpListener as Bound};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::{timestamp, wall_ms};
use crate::kubernetes::{
    Doors, KubeBackend, KubeReply, KubeRequest, PodStream, Subscription, serve_through, tls_config,
};
use crate::server::{Inner, Shared};
use crate::vault::{Answer, TlsIdentity, VaultBackend, VaultReply, VaultRequest, stream};

/// Every control plane gets its port, and its port ends with it. To be called under the world's lock, before an answer
/// can name the endpoint.
pub(crate) fn reconcile(shared: &Arc<Shared>, inner: &mut Inner) {
    let names = inner.world.kubernetes.names();
    // Where a world takes another's place, a cluster of the same name answers where the last one did.
    let kept = inner.persistence.is_none();
    inner.listeners.retain(|name, stop| {
        let stays = kept || names.contains(name);
        if !stays {
            stop.cancel();
        }
        stays
    });
    for name in names {
        if kept {
            tell_address(inner, &name);
        }
        if !inner.listeners.contains_key(&name)
            && let Err(error) = listen(shared, inner, &name)
        {
            tracing::error!(%error, name, "no listener for the cluster");
        }
    }
}

fn listen(shared: &Arc<Shared>, inner: &mut Inner, name: &str) -> Result<(), std::io::Error> {
    let found = inner.world.aws.records().find(|record| record.kind == "eks:cluster" && record.id == name);
    let Some((region, last)) = found.map(|record| (record.region.clone(), record.text("/endpoint").to_owned())) else {
        return Ok(());
    };
    let port = url::Url::parse(&last).ok().and_then(|url| url.port()).unwrap_or(0);
    let bound = Bound::bind(("127.0.0.1", port)).or_else(|_| Bound::bind(("127.0.0.1", 0)))?;
    bound.set_nonblocking(true)?;
    let address: SocketAddr = bound.local_addr()?;
    let listener = TcpListener::from_std(bound)?;
    if inner.world.kubernetes.certificate_authority(name).is_none() {
        return Err(std::io::Error::other("the cluster has no certificate authority"));
    }
    if let Some(record) = inner.world.aws.get_mut("eks:cluster", &region, name) {
        record.set("endpoint", format!("https://{address}"));
    }
    let stop = CancellationToken::new();
    inner.listeners.insert(name.to_owned(), stop.clone());
    inner.addresses.insert(name.to_owned(), address);
    let backend = Arc::new(Backend(Arc::clone(shared)));
    let doors =
        ClusterDoors { shared: Arc::clone(shared), name: name.to_owned(), last: Mutex::new(None), stop: stop.clone() };
    tokio::spawn(serve_through(listener, Arc::new(doors), name.to_owned(), backend, stop));
    Ok(())
}

/// A cluster that came again behind a listener that stayed learns where it answers.
fn tell_address(inner: &mut Inner, name: &str) {
    let Some(endpoint) = inner.addresses.get(name).map(|address| format!("https://{address}")) else { return };
    let stale = inner
        .world
        .aws
        .records()
        .find(|record| record.kind == "eks:cluster" && record.id == name && record.text("/endpoint") != endpoint)
        .map(|record| record.region.clone());
    if let Some(region) = stale
        && let Some(record) = inner.world.aws.get_mut("eks:cluster", &region, name)
    {
        record.set("endpoint", endpoint);
    }
}

/// The doors of whatever cluster of a name there is: another world brings another authority.
struct ClusterDoors {
    shared: Arc<Shared>,
    name: String,
    last: Mutex<Option<(String, Arc<rustls::ServerConfig>)>>,
    stop: CancellationToken,
}

impl Doors for ClusterDoors {
    fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        let authority = self.shared.lock().world.kubernetes.certificate_authority(&self.name)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((certificate, tls)) = &*last
            && *certificate == authority.0
        {
            return Some(Arc::clone(tls));
        }
        let inside =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
        let names: Vec<String> =
            ["127.0.0.1", "localhost"].iter().chain(&inside).map(|&name| name.to_owned()).collect();
        let tls = match tls_config(&authority, &names) {
            Ok(tls) => tls,
            Err(error) => {
                tracing::error!(%error, name = self.name, "no certificate for the cluster");
                return None;
            }
        };
        *last = Some((authority.0, Arc::clone(&tls)));
        Some(tls)
    }

    fn stop(&self) -> CancellationToken {
        let both = self.shared.connections().child_token();
        let (stop, ended) = (self.stop.clone(), both.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => ended.cancel(),
                () = ended.cancelled() => {}
            }
        });
        both
    }
}

struct Backend(Arc<Shared>);

impl Backend {
    /// Runs one request against the world, and keeps what it changed before it is answered.
    fn run<T>(
        &self,
        method: &str,
        work: impl FnOnce(&mut Inner, i64) -> T,
    ) -> Result<T, crate::persistence::PersistenceError> {
        let mut inner = self.0.lock();
        let now_ms = inner.clock.now_ms();
        inner.world.advance(now_ms);
        let witness = self.0.witness.as_deref();
        if let Some(witness) = witness {
            witness.before(&inner.world, now_ms, !matches!(method, "GET" | "HEAD" | "LIST"));
        }
        let answer = work(&mut inner, now_ms);
        reconcile(&self.0, &mut inner);
        if let Some(witness) = witness {
            witness.after(&inner.world, now_ms);
        }
        inner.flush()?;
        drop(inner);
        self.0.changed.notify_waiters();
        Ok(answer)
    }

    fn real(&self, simulated_ms: i64) -> Duration {
        let speed = self.0.lock().clock.speed();
        // A clock that stands still is looked at again, as somebody may have moved it.
        let seconds = if speed > 0.0 {
            Duration::from_millis(simulated_ms.max(0).unsigned_abs()).as_secs_f64() / speed
        } else {
            0.1
        };
        Duration::from_secs_f64(seconds.clamp(0.001, 1.0))
    }
}

#[async_trait::async_trait]
impl KubeBackend for Backend {
    fn handle(&self, cluster: &str, request: &KubeRequest) -> KubeReply {
        let failed = |error: &dyn std::fmt::Display| KubeReply::Json {
            status: 500,
            headers: Vec::new(),
            body: json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": error.to_string(), "reason": "InternalError", "code": 500}),
        };
        let answer =
            self.run(&request.method, |inner, now_ms| inner.world.kubernetes_exchange(cluster, request, now_ms));
        answer.unwrap_or_else(|error| failed(&error))
    }

    fn poll_watch(&self, watch: &mut Subscription) -> (Vec<Value>, bool) {
        let inner = self.0.lock();
        let now = timestamp(inner.clock.now_ms());
        inner.world.kubernetes.poll_watch(watch, now)
    }

    async fn changed(&self, _cluster: &str, until: Timestamp) {
        let left_ms = until.as_millisecond() - self.0.lock().clock.now_ms();
        let _ = tokio::time::timeout(self.real(left_ms), self.0.changed.notified()).await;
    }

    async fn hold(&self, milliseconds: i64) {
        let (due_ms, jumping) = {
            let inner = self.0.lock();
            (inner.clock.now_ms() + milliseconds, inner.clock.virtual_time())
        };
        if let Some(time) = jumping {
            let _held = time.idle();
            time.sleep_until(due_ms).await;
            return;
        }
        loop {
            let left_ms = due_ms - self.0.lock().clock.now_ms();
            if left_ms <= 0 {
                return;
            }
            let _ = tokio::time::timeout(self.real(left_ms), self.0.stop.cancelled()).await;
            if self.0.stop.is_cancelled() {
                return;
            }
        }
    }

    fn wall(&self) -> Timestamp {
        timestamp(wall_ms())
    }

    fn connect_pod(&self, cluster: &str, namespace: &str, pod: &str, port: u16) -> Option<Box<dyn PodStream>> {
        let (storage, certificate, key) = {
            let inner = self.0.lock();
            let found = inner.world.pods.values().find(|one| {
                one.cluster == cluster
                    && one.namespace == namespace
                    && format!("{}-{}", one.stateful_set, one.ordinal) == pod
            })?;
            (found.storage_id.clone(), found.certificate.clone()?, found.key.clone()?)
        };
        if port != 8200 {
            return None;
        }
        let identity = TlsIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).ok()?;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let backend: Arc<dyn VaultBackend> = Arc::new(Backend(Arc::clone(&self.0)));
        let broken = self.0.connections();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = broken.cancelled() => {}
                ended = stream(far, &identity, &storage, backend) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a stream into a pod ended");
                    }
                }
            }
        });
        Some(Box::new(near))
    }
}

#[async_trait::async_trait]
impl VaultBackend for Backend {
    async fn handle(&self, storage_id: &str, request: VaultRequest) -> Answer {
        let refused =
            |status: u16, text: &str| VaultReply { status, body: json!({"errors": [text]}).to_string().into_bytes() };
        let answer =
            self.run(&request.method, |inner, now_ms| match inner.world.vault_exchange(storage_id, &request, now_ms) {
                Some(reply) => Answer::Reply(reply),
                None => Answer::Lost,
            });
        answer.unwrap_or_else(|error| Answer::Reply(refused(500, &error.to_string())))
    }
}
