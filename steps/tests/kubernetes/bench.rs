//! A simulated cluster behind real TLS and real presigned tokens, and the smallest engine that drives the kinds on it.

use jiff::{SignedDuration, Timestamp};
use platflow_engine::clock::Clock;
use platflow_engine::context::{Context, StepGuard};
use platflow_engine::failure::{ErrorClass, StepError};
use platflow_engine::kind::Catalog;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, KindName, RunId, StepName};
use platflow_engine::secret::{SealedSecret, SecretError, SecretStore};
use platflow_engine::step::{Known, Observation, Ownership, Progress, UndoProgress};
use platflow_sandbox::kubernetes::{
    AccessGrant, Caller, Clusters, KubeBackend, KubeReply, KubeRequest, NewCluster, NodeSeed, Outside, PodStream,
    Subscription, VaultPod, VaultRead, serve_cluster, tls_config,
};
use platflow_steps::aws::TokenSource;
use platflow_steps::kubernetes::Clients;
use platflow_steps::sealing::{Keystore, Sealer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

const CLUSTER: &str = "c";
const PRINCIPAL: &str = "arn:aws:iam::111122223333:role/deployer";

/// Everything but Kubernetes.
struct Quiet;

impl Outside for Quiet {
    fn create_volume(&mut self, _: &str, _: &str, claim: &str, _: u64, _: &str) -> String {
        format!("vol-{claim}")
    }
    fn delete_volume(&mut self, _: &str) {}
    fn create_load_balancer(&mut self, _: &str, _: &str, service: &str) -> String {
        format!("{service}.elb.example.com")
    }
    fn delete_load_balancer(&mut self, _: &str, _: &str, _: &str) {}
    fn vault_pod_started(&mut self, _: &VaultPod) {}
    fn vault_pod_stopped(&mut self, _: &str) {}
    fn vault_pod_ready(&mut self, _: &str) -> bool {
        true
    }
    fn vault_read(&mut self, _: &VaultRead) -> Result<Value, String> {
        Err("no Vault here".to_owned())
    }
    fn principal_of(&mut self, _: &str, _: &str) -> Option<String> {
        Some(PRINCIPAL.to_owned())
    }
}

/// One cluster whose time moves a quarter of a second with every request.
pub(crate) struct World {
    state: Mutex<(Clusters, Timestamp)>,
    changed: Notify,
    mutations: AtomicUsize,
}

impl World {
    fn step<T>(&self, milliseconds: i64, act: impl FnOnce(&mut Clusters, Timestamp) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        state.1 = state.1.checked_add(SignedDuration::from_millis(milliseconds)).unwrap();
        let now = state.1;
        state.0.advance(now, &mut Quiet);
        act(&mut state.0, now)
    }

    /// What the world holds that a step of ours, or whatever it runs, put there.
    pub(crate) fn listing(&self) -> Vec<String> {
        self.step(0, |clusters, _| {
            let all = clusters.resources().into_iter();
            let own = all.filter(|found| found.labels.keys().any(|label| label.starts_with("platflow.io/")));
            own.map(|found| format!("{} {}/{}", found.kind, found.namespace, found.name)).collect()
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "presigned tokens are checked against real time")]
fn real_now() -> Timestamp {
    Timestamp::now()
}

#[async_trait::async_trait]
impl KubeBackend for World {
    fn handle(&self, cluster: &str, request: &KubeRequest) -> KubeReply {
        let review = request.path.contains("reviews");
        if request.method != "GET" && !review && !format!("{request:?}").contains("dryRun") {
            self.mutations.fetch_add(1, Ordering::SeqCst);
        }
        let reply = self.step(250, |clusters, now| clusters.handle(cluster, request, now, &mut Quiet));
        self.changed.notify_waiters();
        reply
    }
    fn poll_watch(&self, watch: &mut Subscription) -> (Vec<Value>, bool) {
        self.step(0, |clusters, now| clusters.poll_watch(watch, now))
    }
    async fn changed(&self, _: &str, _: Timestamp) {
        self.changed.notified().await;
    }
    async fn hold(&self, milliseconds: i64) {
        self.step(milliseconds, |_, _| ());
    }
    fn wall(&self) -> Timestamp {
        real_now()
    }
    fn connect_pod(&self, _: &str, _: &str, _: &str, _: u16) -> Option<Box<dyn PodStream>> {
        None
    }
}

#[async_trait::async_trait]
impl Clock for World {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap().1
    }
    async fn sleep_until(&self, deadline: Timestamp) {
        let left = deadline.duration_since(self.now()).as_millis();
        self.step(i64::try_from(left).unwrap().max(0), |_, _| ());
    }
}

/// Notes of all steps, and a lease that can end after a number of mutating calls.
struct Guard {
    notes: Mutex<BTreeMap<(String, String), Value>>,
    permits: AtomicUsize,
}

#[async_trait::async_trait]
impl StepGuard for Guard {
    async fn note(&self, step: &StepName, key: &str, value: Value) -> Result<(), StepError> {
        self.notes.lock().unwrap().insert((step.to_string(), key.to_owned()), value);
        Ok(())
    }
    fn lease_left(&self) -> Result<Duration, StepError> {
        let left = self.permits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| Duration::from_secs(60))
            .map_err(|_| StepError::new(ErrorClass::Transient, "killed").with_code("Killed"))
    }
}

#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait::async_trait]
impl SecretStore for Memory {
    async fn put_secret(
        &self,
        _: &EnvironmentUid,
        name: &str,
        text: &[u8],
        overwrite: bool,
    ) -> Result<(), SecretError> {
        let mut held = self.0.lock().unwrap();
        if !overwrite && held.get(name).is_some_and(|held| held != text) {
            return Err(SecretError::Exists(name.to_owned()));
        }
        held.insert(name.to_owned(), text.to_vec());
        Ok(())
    }
    async fn get_secret(&self, _: &EnvironmentUid, name: &str) -> Result<Option<SealedSecret>, SecretError> {
        let held = self.0.lock().unwrap();
        let found = held.get(name).map(|ciphertext| (name.to_owned(), ciphertext.clone()));
        Ok(found.map(|(name, ciphertext)| SealedSecret { name, ciphertext, created_at: Timestamp::UNIX_EPOCH }))
    }
    async fn list_secrets(&self, _: &EnvironmentUid) -> Result<Vec<SealedSecret>, SecretError> {
        Ok(Vec::new())
    }
    async fn remove_secret(&self, _: &EnvironmentUid, name: &str) -> Result<(), SecretError> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
    async fn record_access(&self, _: &EnvironmentUid, _: &str, _: &str) -> Result<(), SecretError> {
        Ok(())
    }
}

fn seed(index: u32) -> NodeSeed {
    let own = |text: &str| text.to_owned();
    NodeSeed {
        name: format!("ip-10-0-0-{index}.ec2.internal"),
        instance_id: format!("i-{index}"),
        instance_type: own("t3.large"),
        pool: own("system"),
        zone: own("us-east-1a"),
        region: own("us-east-1"),
        arch: own("amd64"),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        cpu: 2,
        memory_mib: 8_192,
        pods: 35,
    }
}

fn catalog(clients: &Arc<Clients>, keystore: &Arc<Keystore>) -> Catalog {
    let mut catalog = Catalog::default();
    platflow_steps::kubernetes::register(&mut catalog, clients).unwrap();
    platflow_steps::argocd::register(&mut catalog, clients, keystore).unwrap();
    platflow_steps::external_secrets::register(&mut catalog, clients, keystore).unwrap();
    platflow_steps::smoke::register(&mut catalog, clients, keystore).unwrap();
    catalog
}

/// A cluster, the kinds, and who drives them.
pub(crate) struct Bench {
    pub(crate) world: Arc<World>,
    pub(crate) access: Value,
    pub(crate) keystore: Arc<Keystore>,
    clients: Arc<Clients>,
    catalog: Catalog,
    guard: Arc<Guard>,
    outputs: Mutex<BTreeMap<String, Value>>,
    run: &'static str,
    _stop: DropGuard,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
        let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        let own = |text: &str| text.to_owned();
        let mut clusters = Clusters::default();
        let arn = own("arn:aws:eks:us-east-1:111122223333:cluster/c");
        let (account, region, oidc_issuer) =
            (own("111122223333"), own("us-east-1"), own("https://oidc.example.com/id/1"));
        clusters
            .create(
                NewCluster {
                    name: own(CLUSTER),
                    arn,
                    version: own("1.36"),
                    oidc_issuer,
                    account,
                    region,
                    control_plane: Vec::new(),
                },
                now,
            )
            .unwrap();
        for addon in ["vpc-cni", "coredns"] {
            clusters.addon_installed(CLUSTER, addon, "v1", None, now);
        }
        clusters.join_nodes(CLUSTER, (1..5).map(seed).collect(), now);
        let policies = vec![own("arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy")];
        let grant = AccessGrant { principal_arn: own(PRINCIPAL), username: own(""), groups: Vec::new(), policies };
        clusters.set_access(CLUSTER, vec![grant]);
        let authority = clusters.certificate_authority(CLUSTER).unwrap();
        let ca = clusters.certificate_authority_data(CLUSTER).unwrap();
        let state = Mutex::new((clusters, now));
        let world = Arc::new(World { state, changed: Notify::new(), mutations: AtomicUsize::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let tls = tls_config(&authority, &[own("127.0.0.1")]).unwrap();
        tokio::spawn(serve_cluster(listener, tls, own(CLUSTER), Arc::<World>::clone(&world), stop.clone()));
        let credentials = aws_credential_types::Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let credentials = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
        let tokens = TokenSource::new(credentials, own("us-east-1"), own("https://sts.us-east-1.amazonaws.com/"));
        let clients = Arc::new(Clients::new(Arc::new(tokens)));
        let sealer = Sealer::new(age::x25519::Identity::generate(), &[]).unwrap();
        let keystore = Arc::new(Keystore::new(Arc::new(Memory::default()), None, sealer));
        let catalog = catalog(&clients, &keystore);
        Self {
            world,
            access: json!({"name": CLUSTER, "endpoint": endpoint, "certificate_authority_data": ca}),
            keystore,
            clients,
            catalog,
            guard: Arc::new(Guard { notes: Mutex::default(), permits: AtomicUsize::new(usize::MAX) }),
            outputs: Mutex::default(),
            run: "run1",
            _stop: stop.drop_guard(),
        }
    }

    /// Later verbs belong to another run.
    pub(crate) fn next_run(&mut self) {
        self.run = "run2";
    }

    /// Later verbs are those of another process, which has read no manifest yet.
    pub(crate) fn next_process(&mut self) {
        self.catalog = catalog(&self.clients, &self.keystore);
        self.die_after(usize::MAX);
    }

    /// The process dies before its next mutating call after this many.
    pub(crate) fn die_after(&self, calls: usize) {
        self.guard.permits.store(calls, Ordering::SeqCst);
    }

    /// Mutating requests since the last question; dry runs and reviews do not count.
    pub(crate) fn mutations(&self) -> usize {
        self.world.mutations.swap(0, Ordering::SeqCst)
    }

    fn context(&self, step: &str) -> Context {
        Context {
            step: StepName::new(step).unwrap(),
            run: RunId::new(self.run).unwrap(),
            environment: EnvironmentName::new("test").unwrap(),
            environment_uid: EnvironmentUid::new("uid-1").unwrap(),
            attempt: 1,
            generation: 0,
            clock: Arc::<World>::clone(&self.world),
            cancelled: CancellationToken::new(),
            guard: Arc::<Guard>::clone(&self.guard),
        }
    }

    fn known(&self, step: &str) -> Known {
        let notes = self.guard.notes.lock().unwrap();
        let own = notes.iter().filter(|((owner, _), _)| owner == step);
        Known {
            outputs: self.outputs.lock().unwrap().get(step).cloned(),
            notes: own.map(|((_, key), value)| (key.clone(), value.clone())).collect(),
            uncertain: false,
            intended_at: None,
        }
    }

    fn spec(&self, mut spec: Value) -> Value {
        spec["cluster"] = self.access.clone();
        spec
    }

    /// One look.
    pub(crate) async fn observe(&self, step: &str, kind: &str, spec: Value) -> Result<Observation, StepError> {
        let runner = self.catalog.step(&KindName::new(kind).unwrap()).unwrap();
        runner.observe(&self.spec(spec), &self.known(step), &self.context(step)).await
    }

    /// Observes and applies until the step is verified.
    pub(crate) async fn run(&self, step: &str, kind: &str, spec: Value) -> Result<Value, StepError> {
        let runner = self.catalog.step(&KindName::new(kind).unwrap()).unwrap();
        let (spec, context) = (self.spec(spec), self.context(step));
        let mut last = String::new();
        for _ in 0..400 {
            let observed = runner.observe(&spec, &self.known(step), &context).await?;
            match &observed {
                Observation::Present { outputs, ownership: Ownership::Ours, differences } if differences.is_empty() => {
                    self.outputs.lock().unwrap().insert(step.to_owned(), outputs.clone());
                    return Ok(outputs.clone());
                }
                Observation::Changing { reason, poll_in } => {
                    last.clone_from(reason);
                    let until = platflow_engine::clock::after(self.world.now(), *poll_in);
                    self.world.sleep_until(until).await;
                    continue;
                }
                _ => {}
            }
            match runner.apply(&spec, &observed, &self.known(step), &context).await? {
                Progress::Done { outputs } => {
                    self.outputs.lock().unwrap().insert(step.to_owned(), outputs);
                    last = format!("done, but then {observed:?}");
                }
                Progress::Waiting { reason, poll_in, .. } => {
                    last = reason;
                    let until = platflow_engine::clock::after(self.world.now(), poll_in);
                    self.world.sleep_until(until).await;
                }
            }
        }
        panic!("{step} never settles: {last}");
    }

    /// Undoes until nothing is left.
    pub(crate) async fn undo(&self, step: &str, kind: &str, spec: Value) -> Result<String, StepError> {
        let runner = self.catalog.step(&KindName::new(kind).unwrap()).unwrap();
        let (spec, context) = (self.spec(spec), self.context(step));
        let mut last = String::new();
        for _ in 0..400 {
            match runner.undo(&spec, &self.known(step), &context).await? {
                UndoProgress::Gone { evidence } => {
                    self.outputs.lock().unwrap().remove(step);
                    return Ok(evidence);
                }
                UndoProgress::Waiting { reason, poll_in, .. } => {
                    last = reason;
                    let until = platflow_engine::clock::after(self.world.now(), poll_in);
                    self.world.sleep_until(until).await;
                }
                UndoProgress::Blocked { owner, .. } => panic!("{step} is blocked by {owner}"),
            }
        }
        panic!("{step} is never gone: {last}");
    }

    /// Somebody else asks the API server, as cluster admin.
    pub(crate) fn as_admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let caller = Caller::User { name: "admin".into(), groups: vec!["system:masters".into()] };
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.world.step(250, |clusters, now| {
            let request = KubeRequest {
                method: method.into(),
                path: path.into(),
                content_type: Some(content_type.into()),
                body: body.to_string().into_bytes().into(),
                caller,
                wall: real_now(),
                ..KubeRequest::default()
            };
            match clusters.handle(CLUSTER, &request, now, &mut Quiet) {
                KubeReply::Json { body, .. } => body,
                other => panic!("{other:?}"),
            }
        })
    }
}
