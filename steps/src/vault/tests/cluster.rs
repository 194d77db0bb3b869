//! A cluster of maps: enough of an API server for the Vault kinds, with a StatefulSet that makes pods and claims at once.

use super::notes::{Notes, Outcome};
use crate::kubernetes::ClusterAccess;
use crate::sealing::memory::Memory;
use crate::sealing::{Keystore, Sealer};
use crate::vault::{Duplex, Reach};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::client::Body;
use platflow_engine::clock::{Clock, after};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::kind::Catalog;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, KindName, RunId, StepName};
use platflow_engine::step::{Known, Observation, Progress, Step, UndoProgress};
use platflow_sandbox::vault::{Answer, Reviews, Servers, TlsIdentity, VaultBackend, VaultPod, VaultRequest, stream};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) const KINDS: [&str; 5] =
    ["vault.install", "vault.init", "vault.unseal", "vault.configure", "vault.own_access"];
const NAMESPACE: &str = "platform-system";

pub(super) struct World {
    objects: BTreeMap<String, Value>,
    servers: Servers,
    now: Timestamp,
    serial: u64,
    lose_init: bool,
    kill_in_init: bool,
}

#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

struct Jwt;

impl Reviews for Jwt {
    fn token_review(&self, jwt: &str) -> Option<(String, String)> {
        let (namespace, account) = jwt.strip_prefix("jwt:")?.split_once('/')?;
        Some((namespace.to_owned(), account.to_owned()))
    }
}

impl World {
    fn pass(&mut self, millis: u64) {
        self.now = after(self.now, Duration::from_millis(millis));
        self.servers.advance(self.now);
    }

    fn path(kind: &str, name: &str) -> String {
        format!("/api/v1/namespaces/{NAMESPACE}/{kind}/{name}")
    }

    fn stamp(&mut self, path: &str, mut object: Value) -> Value {
        self.serial += 1;
        let uid = self.objects.get(path).and_then(|old| old["metadata"]["uid"].as_str().map(str::to_owned));
        object["metadata"]["uid"] = json!(uid.unwrap_or_else(|| format!("uid-{}", self.serial)));
        object["metadata"]["resourceVersion"] = json!(self.serial.to_string());
        if let Some(texts) = object.get("stringData").and_then(Value::as_object).cloned() {
            for (name, text) in texts {
                object["data"][name] = json!(STANDARD.encode(text.as_str().expect("text")));
            }
            object.as_object_mut().expect("object").remove("stringData");
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    /// What the StatefulSet controller and the volume provisioner would do.
    fn control(&mut self) {
        let set = self.objects.get(&format!("/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/vault")).cloned();
        for ordinal in 0..3 {
            let (pod, claim) = (format!("vault-{ordinal}"), format!("data-vault-{ordinal}"));
            let (pod_path, claim_path) = (Self::path("pods", &pod), Self::path("persistentvolumeclaims", &claim));
            let Some(set) = &set else {
                if let Some(old) = self.objects.remove(&pod_path) {
                    self.servers.pod_stopped(old["metadata"]["uid"].as_str().expect("uid"), self.now);
                }
                continue;
            };
            if !self.objects.contains_key(&claim_path) {
                let labels = set["spec"]["volumeClaimTemplates"][0]["metadata"]["labels"].clone();
                let made = json!({ "metadata": { "name": claim, "namespace": NAMESPACE, "labels": labels } });
                self.stamp(&claim_path, made);
                let volume = json!({
                    "metadata": { "name": format!("pv-{claim}") },
                    "spec": { "claimRef": { "namespace": NAMESPACE, "name": claim } }
                });
                self.stamp(&format!("/api/v1/persistentvolumes/pv-{claim}"), volume);
            }
            if !self.objects.contains_key(&pod_path) {
                let status = json!({ "containerStatuses": [
                    { "name": "vault", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                      "state": { "running": {} } }
                ] });
                let made = self.stamp(&pod_path, json!({ "metadata": { "name": pod }, "status": status }));
                self.start(&pod, made["metadata"]["uid"].as_str().expect("uid"));
            }
        }
    }

    fn storage(&self, pod: &str) -> Option<String> {
        let claim = self.objects.get(&Self::path("persistentvolumeclaims", &format!("data-{pod}")))?;
        claim["metadata"]["uid"].as_str().map(str::to_owned)
    }

    fn start(&mut self, pod: &str, uid: &str) {
        let storage_id = self.storage(pod).expect("claim");
        let pod = VaultPod {
            uid: uid.into(),
            name: pod.into(),
            namespace: NAMESPACE.into(),
            storage_id,
            ..VaultPod::default()
        };
        self.servers.pod_started(pod, self.now);
    }

    fn remove(&mut self, path: &str) {
        let Some(old) = self.objects.remove(path) else { return };
        let uid = old["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        if path.contains("/persistentvolumeclaims/") {
            let name = old["metadata"]["name"].as_str().unwrap_or_default();
            self.objects.remove(&format!("/api/v1/persistentvolumes/pv-{name}"));
            self.servers.storage_deleted(&uid, self.now);
        } else {
            self.servers.pod_stopped(&uid, self.now);
            // A deleted claim is only made anew together with its pod.
            self.control();
        }
    }

    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let refuse = |code: u16, reason: &str| {
            (code, json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason }))
        };
        match method {
            "GET" if path == "/api/v1/persistentvolumes" => {
                let volumes = self.objects.iter().filter(|(key, _)| key.starts_with("/api/v1/persistentvolumes/"));
                let items: Vec<&Value> = volumes.map(|(_, volume)| volume).collect();
                (200, json!({ "kind": "PersistentVolumeList", "apiVersion": "v1", "metadata": {}, "items": items }))
            }
            "GET" if path.ends_with("/serviceaccounts") => {
                let below = format!("{path}/");
                let items: Vec<&Value> = self
                    .objects
                    .iter()
                    .filter(|(key, _)| key.starts_with(&below))
                    .map(|(_, account)| account)
                    .collect();
                (200, json!({ "kind": "ServiceAccountList", "apiVersion": "v1", "metadata": {}, "items": items }))
            }
            "GET" => self.objects.get(path).map_or_else(|| refuse(404, "NotFound"), |found| (200, found.clone())),
            "POST" if path.ends_with("/token") => {
                let account = path.rsplit('/').nth(1).unwrap_or_default();
                if !self.objects.contains_key(path.trim_end_matches("/token")) {
                    return refuse(404, "NotFound");
                }
                let token = format!("jwt:{NAMESPACE}/{account}");
                (
                    201,
                    json!({ "metadata": {}, "spec": { "audiences": [] },
                    "status": { "token": token, "expirationTimestamp": "2030-01-01T00:00:00Z" } }),
                )
            }
            "POST" => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().expect("name"));
                if self.objects.contains_key(&path) {
                    return refuse(409, "AlreadyExists");
                }
                (201, self.stamp(&path, body.clone()))
            }
            "PUT" | "PATCH" => {
                let old = self.objects.get(path).map(|old| old["metadata"]["resourceVersion"].clone());
                if method == "PUT" && old != body["metadata"].get("resourceVersion").cloned() {
                    return refuse(409, "Conflict");
                }
                let object = self.stamp(path, body.clone());
                self.control();
                (200, object)
            }
            "DELETE" => {
                let Some(old) = self.objects.get(path) else { return refuse(404, "NotFound") };
                let wanted = body["preconditions"].get("uid");
                if wanted.is_some_and(|uid| *uid != old["metadata"]["uid"]) {
                    return refuse(409, "Conflict");
                }
                // A claim in use stays until its pod is gone: both deletions come together here.
                self.remove(path);
                (200, json!({ "kind": "Status", "status": "Success" }))
            }
            _ => refuse(405, "MethodNotAllowed"),
        }
    }
}

#[async_trait]
impl VaultBackend for Shared {
    async fn handle(&self, storage_id: &str, request: VaultRequest) -> Answer {
        let mut world = self.0.lock().expect("lock");
        world.pass(50);
        let now = world.now;
        let inits = request.path == "/v1/sys/init" && request.method != "GET";
        if inits && std::mem::take(&mut world.kill_in_init) {
            world.servers.init_interrupted(storage_id);
            return Answer::Lost;
        }
        let reply = world.servers.handle(storage_id, &request, now, &Jwt);
        let init = request.path == "/v1/sys/init" && request.method != "GET" && reply.status == 200;
        if init && std::mem::take(&mut world.lose_init) { Answer::Lost } else { Answer::Reply(reply) }
    }
}

#[async_trait]
impl Reach for Shared {
    fn client(&self, _: &ClusterAccess) -> Result<kube::Client, StepError> {
        let world = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let world = world.clone();
            async move {
                let (head, body) = request.into_parts();
                let bytes = body.collect_bytes().await?;
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let (status, answer) =
                    world.0.lock().expect("lock").answer(head.method.as_str(), head.uri.path(), &body);
                let mut response = http::Response::new(Body::from(answer.to_string().into_bytes()));
                *response.status_mut() = http::StatusCode::from_u16(status).expect("status");
                Ok::<_, kube::Error>(response)
            }
        });
        Ok(kube::Client::new(service, "default"))
    }

    async fn dial(&self, _: &ClusterAccess, _: &str, pod: &str, _: u16) -> Result<Box<dyn Duplex>, StepError> {
        let (storage_id, certificate, key) = {
            let world = self.0.lock().expect("lock");
            let secret = world.objects.get(&World::path("secrets", "vault-tls")).expect("secret").clone();
            let part = |name: &str| STANDARD.decode(secret["data"][name].as_str().expect("part")).expect("base64");
            let missing = || StepError::transient("no such pod");
            (world.storage(pod).ok_or_else(missing)?, part("tls.crt"), part("tls.key"))
        };
        let identity = TlsIdentity::from_pem(&certificate, &key).expect("identity");
        let (near, far) = tokio::io::duplex(64 * 1024);
        let backend: Arc<dyn VaultBackend> = Arc::new(self.clone());
        tokio::spawn(async move { drop(stream(far, &identity, &storage_id, backend).await) });
        Ok(Box::new(near))
    }
}

#[async_trait]
impl Clock for Shared {
    fn now(&self) -> Timestamp {
        self.0.lock().expect("lock").now
    }
    async fn sleep_until(&self, deadline: Timestamp) {
        let mut world = self.0.lock().expect("lock");
        world.now = world.now.max(deadline);
        let now = world.now;
        world.servers.advance(now);
    }
}

/// The kinds, the cluster, and the smallest engine that drives them.
pub(super) struct Bench {
    pub(super) world: Shared,
    catalog: Catalog,
    notes: Arc<Notes>,
    store: Arc<Memory>,
    second: tempfile::TempDir,
    outputs: Mutex<BTreeMap<String, Value>>,
    pub(super) keystore: Arc<Keystore>,
    pub(super) run_id: String,
    /// Members that specs have besides the shared ones.
    pub(super) more: BTreeMap<&'static str, Value>,
}

impl Bench {
    pub(super) fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let world = World {
            objects: BTreeMap::new(),
            servers: Servers::new(5),
            now,
            serial: 0,
            lose_init: false,
            kill_in_init: false,
        };
        let world = Shared(Arc::new(Mutex::new(world)));
        let second = tempfile::tempdir().expect("folder");
        let store = Arc::new(Memory::default());
        let sealer = Sealer::new(age::x25519::Identity::generate(), &[]).expect("sealer");
        let keystore = Arc::new(Keystore::new(store.clone(), Some(second.path().to_owned()), sealer));
        let mut catalog = Catalog::default();
        crate::vault::register(&mut catalog, Arc::new(world.clone()), Arc::clone(&keystore)).expect("registers");
        let (notes, outputs) = (Arc::default(), Mutex::default());
        let readers = json!([{ "name": "external-secrets", "namespace": NAMESPACE }]);
        let more = BTreeMap::from([("threshold", json!(3)), ("readers", readers)]);
        Self { world, catalog, notes, store, second, outputs, keystore, run_id: "r1".into(), more }
    }

    pub(super) fn environment(&self) -> EnvironmentUid {
        EnvironmentUid::new("env1").expect("uid")
    }

    fn step(&self, kind: &str) -> Arc<dyn Step> {
        self.catalog.step(&KindName::new(kind).expect("name")).expect("kind")
    }

    fn context(&self, kind: &str) -> Context {
        Context {
            step: StepName::new(kind).expect("name"),
            run: RunId::new(&self.run_id).expect("run"),
            environment: EnvironmentName::new("dev").expect("name"),
            environment_uid: self.environment(),
            attempt: 1,
            generation: 0,
            clock: Arc::new(self.world.clone()),
            cancelled: tokio_util::sync::CancellationToken::new(),
            guard: self.notes.clone(),
        }
    }

    fn known(&self, kind: &str) -> Known {
        let notes = self.notes.0.lock().expect("lock");
        let own = notes.iter().filter(|((step, _), _)| step == kind);
        let notes = own.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        let outputs = self.outputs.lock().expect("lock").get(kind).cloned();
        Known { outputs, notes, uncertain: false, intended_at: None }
    }

    pub(super) fn spec(&self, kind: &str) -> Value {
        let cluster = json!({ "name": "c", "endpoint": "https://c", "certificate_authority_data": "" });
        if kind == "vault.install" {
            return json!({ "cluster": cluster, "namespace": NAMESPACE, "image": "hashicorp/vault:1.20", "storage_gib": 10 });
        }
        let installed = self.outputs.lock().expect("lock").get("vault.install").cloned().expect("installed first");
        let mut spec = json!({
            "cluster": cluster, "namespace": NAMESPACE, "name": "vault", "pods": installed["pods"],
            "ca_certificate": installed["ca_certificate"]
        });
        let members = match kind {
            "vault.unseal" => "threshold",
            "vault.configure" => "audit",
            "vault.own_access" => "readers",
            _ => "",
        };
        if let Some(value) = self.more.get(members) {
            spec[members] = value.clone();
        }
        spec
    }

    pub(super) async fn observe(&self, kind: &str) -> Result<Observation, StepError> {
        self.step(kind).observe(&self.spec(kind), &self.known(kind), &self.context(kind)).await
    }

    pub(super) async fn apply_once(&self, kind: &str) -> Result<Progress, StepError> {
        let seen = self.observe(kind).await?;
        self.step(kind).apply(&self.spec(kind), &seen, &self.known(kind), &self.context(kind)).await
    }

    /// Observes and applies until it is done and seen to be, as the engine does; a bounded number of times.
    pub(super) async fn run(&self, kind: &str) -> Outcome {
        let mut last = String::new();
        for _ in 0..60 {
            let again = match self.observe(kind).await {
                Ok(Observation::Present { outputs, differences, .. }) if differences.is_empty() => {
                    self.outputs.lock().expect("lock").insert(kind.to_owned(), outputs.clone());
                    return Outcome::Done(outputs);
                }
                Ok(Observation::Changing { reason, .. } | Observation::Unknown { reason }) => reason,
                Ok(_) => match self.apply_once(kind).await {
                    Ok(progress) => format!("{progress:?}"),
                    Err(error) if retries(&error) => error.to_string(),
                    Err(error) => return Outcome::Failed(error),
                },
                Err(error) if retries(&error) => error.to_string(),
                Err(error) => return Outcome::Failed(error),
            };
            last = again;
            self.world.0.lock().expect("lock").pass(2_000);
        }
        Outcome::Failed(StepError::transient(format!("never done: {last}")))
    }

    pub(super) async fn build(&self) -> BTreeMap<String, Value> {
        let mut made = BTreeMap::new();
        for kind in KINDS {
            made.insert(kind.to_owned(), self.run(kind).await.expect_done(kind));
        }
        made
    }

    pub(super) async fn undo(&self, kind: &str) -> UndoProgress {
        let mut last = None;
        for _ in 0..20 {
            let undone = self.step(kind).undo(&self.spec(kind), &self.known(kind), &self.context(kind)).await;
            match undone.expect("undoes") {
                UndoProgress::Waiting { reason, .. } => last = Some(reason),
                ended => return ended,
            }
            self.world.0.lock().expect("lock").pass(2_000);
        }
        panic!("{kind} is never undone: {last:?}");
    }

    pub(super) async fn secret(&self, name: &str) -> SecretString {
        self.keystore.get(&self.environment(), name, None).await.expect("read").expect("on record")
    }

    pub(super) async fn shares(&self) -> Vec<SecretString> {
        let mut shares = Vec::new();
        for number in 1..=5 {
            shares.push(self.secret(&crate::vault::intent::share_name(number)).await);
        }
        shares
    }

    /// All that is durable on platflow's side.
    pub(super) fn durable_bytes(&self) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = self.store.0.lock().expect("lock").values().cloned().collect();
        let folder = self.second.path().join("env1");
        for entry in std::fs::read_dir(folder).expect("second place") {
            all.push(std::fs::read(entry.expect("entry").path()).expect("file"));
        }
        assert_eq!(all.len(), 10, "five shares in two places");
        all
    }

    /// A service account that some manifest brings.
    pub(super) fn add_account(&self, name: &str) {
        let account = json!({ "metadata": { "name": name, "namespace": NAMESPACE } });
        self.world.0.lock().expect("lock").stamp(&World::path("serviceaccounts", name), account);
    }

    pub(super) fn claims(&self) -> BTreeMap<String, String> {
        let world = self.world.0.lock().expect("lock");
        let claims = world.objects.iter().filter(|(path, _)| path.contains("/persistentvolumeclaims/"));
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        claims.map(|(_, claim)| (text(&claim["metadata"]["name"]), text(&claim["metadata"]["uid"]))).collect()
    }

    pub(super) fn objects_left(&self) -> Vec<String> {
        self.world.0.lock().expect("lock").objects.keys().cloned().collect()
    }

    pub(super) fn vault_clusters(&self) -> Vec<String> {
        let world = self.world.0.lock().expect("lock");
        world.servers.summary(world.now).into_iter().map(|cluster| cluster.id).collect()
    }

    pub(super) fn lose_next_init(&self) {
        self.world.0.lock().expect("lock").lose_init = true;
    }

    /// The first server is killed in the middle of its next init.
    pub(super) fn lose_request_of_next_init(&self) {
        self.world.0.lock().expect("lock").kill_in_init = true;
    }

    pub(super) fn interrupt_bootstrap(&self) {
        let mut world = self.world.0.lock().expect("lock");
        let storage = world.storage("vault-0").expect("storage");
        world.servers.bootstrap_interrupted(&storage);
    }

    pub(super) fn interrupt_init(&self) {
        let mut world = self.world.0.lock().expect("lock");
        let storage = world.storage("vault-0").expect("storage");
        world.servers.init_interrupted(&storage);
    }

    /// The pod is deleted and comes back on the same volume, sealed.
    pub(super) fn restart(&self, pod: &str) {
        self.world.0.lock().expect("lock").remove(&World::path("pods", pod));
    }

    /// Somebody deletes the volume under a server.
    pub(super) fn replace_storage(&self, pod: &str) {
        let mut world = self.world.0.lock().expect("lock");
        world.remove(&World::path("persistentvolumeclaims", &format!("data-{pod}")));
        world.remove(&World::path("pods", pod));
    }

    pub(super) fn give_share(&self, pod: &str, share: &str) {
        let mut world = self.world.0.lock().expect("lock");
        let (storage, now) = (world.storage(pod).expect("storage"), world.now);
        let request = VaultRequest {
            method: "PUT".into(),
            path: "/v1/sys/unseal".into(),
            body: json!({ "key": share }).to_string().into_bytes(),
            ..VaultRequest::default()
        };
        assert_eq!(world.servers.handle(&storage, &request, now, &Jwt).status, 200);
    }
}

fn retries(error: &StepError) -> bool {
    use platflow_engine::failure::ErrorClass::{Conflict, Propagation, Throttled, Transient};
    matches!(error.class, Conflict | Propagation | Throttled | Transient)
}
