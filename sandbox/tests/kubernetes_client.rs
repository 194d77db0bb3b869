//! The simulated API server under a real client: kube-rs over loopback TLS, from apply to a rolled-out StatefulSet, a watch and a port-forward.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test fail it by panicking"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use platflow_sandbox::kubernetes::{
    AccessGrant, Clusters, KubeBackend, KubeReply, KubeRequest, NewCluster, NodeSeed, Outside, PodStream, Subscription,
    VaultPod, VaultRead, serve_cluster, tls_config,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

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
        None
    }
}

/// A world of one cluster whose time moves ten simulated seconds with every request and every wait.
struct World {
    state: Mutex<(Clusters, Timestamp)>,
    changed: Notify,
}

impl World {
    fn step<T>(&self, milliseconds: i64, act: impl FnOnce(&mut Clusters, Timestamp) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        state.1 = state.1.checked_add(SignedDuration::from_millis(milliseconds)).unwrap();
        let now = state.1;
        state.0.advance(now, &mut Quiet);
        act(&mut state.0, now)
    }
}

#[async_trait::async_trait]
impl KubeBackend for World {
    fn handle(&self, cluster: &str, request: &KubeRequest) -> KubeReply {
        let reply = self.step(1_000, |clusters, now| clusters.handle(cluster, request, now, &mut Quiet));
        self.changed.notify_waiters();
        reply
    }
    fn poll_watch(&self, watch: &mut Subscription) -> (Vec<Value>, bool) {
        self.step(0, |clusters, now| clusters.poll_watch(watch, now))
    }
    async fn changed(&self, _: &str, _: Timestamp) {
        // A change between a poll and this wait is not told again: it is found by the next poll.
        tokio::time::timeout(Duration::from_millis(20), self.changed.notified()).await.unwrap_or_default();
    }
    async fn hold(&self, milliseconds: i64) {
        self.step(milliseconds, |_, _| ());
    }
    fn wall(&self) -> Timestamp {
        self.state.lock().unwrap().1
    }
    fn connect_pod(&self, _: &str, _: &str, _: &str, port: u16) -> Option<Box<dyn PodStream>> {
        if port != 8200 {
            return None;
        }
        let (near, mut far) = tokio::io::duplex(1_024);
        tokio::spawn(async move {
            let mut said = [0_u8; 4];
            if far.read_exact(&mut said).await.is_ok() {
                said.reverse();
                far.write_all(&said).await.unwrap_or_default();
            }
        });
        Some(Box::new(near))
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

async fn client() -> (kube::Client, Arc<World>, CancellationToken) {
    let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
    let mut clusters = Clusters::default();
    let own = |text: &str| text.to_owned();
    let new = NewCluster {
        name: own("c"),
        arn: own("arn:aws:eks:us-east-1:111122223333:cluster/c"),
        version: own("1.36"),
        oidc_issuer: own("https://oidc.example.com/id/1"),
        account: own("111122223333"),
        region: own("us-east-1"),
        control_plane: Vec::new(),
    };
    clusters.create(new, now).unwrap();
    clusters.addon_installed("c", "vpc-cni", "v1", None, now);
    clusters.join_nodes("c", (1..4).map(seed).collect(), now);
    clusters.set_access(
        "c",
        vec![AccessGrant { principal_arn: own("p"), username: own("u"), groups: Vec::new(), policies: Vec::new() }],
    );
    let authority = clusters.certificate_authority("c").unwrap();
    let data = clusters.certificate_authority_data("c").unwrap();
    let world = Arc::new(World { state: Mutex::new((clusters, now)), changed: Notify::new() });
    // A service account bound to cluster-admin is the test's way in: minted through the library, then used as a bearer token.
    let token = world.step(60_000, admin_token);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = tls_config(&authority, &[own("127.0.0.1"), own("localhost")]).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve_cluster(listener, tls, own("c"), Arc::<World>::clone(&world), stop.clone()));
    let config: Kubeconfig = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{address}"), "certificate-authority-data": data}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }))
    .unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    (kube::Client::try_from(config).unwrap(), world, stop)
}

fn admin_token(clusters: &mut Clusters, now: Timestamp) -> String {
    let admin = platflow_sandbox::kubernetes::Caller::User { name: "a".into(), groups: vec!["system:masters".into()] };
    let mut post = |path: &str, body: Value| {
        let request = KubeRequest {
            method: "POST".into(),
            path: path.into(),
            body: body.to_string().into_bytes().into(),
            caller: admin.clone(),
            wall: now,
            ..KubeRequest::default()
        };
        match clusters.handle("c", &request, now, &mut Quiet) {
            KubeReply::Json { body, .. } => body,
            other => panic!("{other:?}"),
        }
    };
    post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "root"}}));
    let binding = json!({
        "metadata": {"name": "root"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "root"}],
    });
    post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding);
    let token =
        post("/api/v1/namespaces/default/serviceaccounts/root/token", json!({"spec": {"expirationSeconds": 36_000}}));
    token["status"]["token"].as_str().unwrap().to_owned()
}

/// A real client applies, lists, watches, rolls out a Deployment, mints a token and speaks through a port-forward.
#[tokio::test]
async fn a_real_client_works_against_it() {
    rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
    let (client, world, stop) = client().await;
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
    let apply = PatchParams::apply("platflow");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "apps"}});
    Api::<Namespace>::all(client.clone()).patch("apps", &apply, &Patch::Apply(&namespace)).await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "apps");
    let map =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": value}});
    let first = maps.patch("m", &apply, &Patch::Apply(&map("1"))).await.unwrap();
    let same = maps.patch("m", &apply, &Patch::Apply(&map("1"))).await.unwrap();
    assert_eq!(first.metadata.resource_version, same.metadata.resource_version, "no change keeps the version");
    let refused = maps.patch("m", &PatchParams::apply("other"), &Patch::Apply(&map("2"))).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(ref status) if status.code == 409), "{refused}");

    let from = first.metadata.resource_version.clone().unwrap();
    let mut events = Box::pin(maps.watch(&WatchParams::default(), &from).await.unwrap());
    maps.patch("m", &apply, &Patch::Apply(&map("3"))).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), futures::StreamExt::next(&mut events)).await.unwrap();
    assert!(
        matches!(event, Some(Ok(WatchEvent::Modified(ref seen))) if seen.data.as_ref().unwrap()["k"] == "3"),
        "{event:?}"
    );

    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "app:1.0"}]}},
    }});
    let deployments = Api::<Deployment>::namespaced(client.clone(), "apps");
    deployments.patch("web", &apply, &Patch::Apply(&deployment)).await.unwrap();
    let mut ready = 0;
    for _ in 0..200 {
        ready = deployments.get("web").await.unwrap().status.and_then(|status| status.ready_replicas).unwrap_or(0);
        if ready == 3 {
            break;
        }
    }
    assert_eq!(ready, 3, "the Deployment rolls out");

    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "apps");
    let minted =
        accounts.create_token_request("default", &PostParams::default(), &TokenRequest::default()).await.unwrap();
    assert!(minted.status.is_some());

    let pods = Api::<Pod>::namespaced(client.clone(), "apps");
    let pod = pods.list(&ListParams::default().labels("app=web")).await.unwrap().items.remove(0);
    let mut forward = pods.portforward(&pod.metadata.name.unwrap(), &[8200]).await.unwrap();
    let mut stream = forward.take_stream(8200).unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut heard = [0_u8; 4];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"gnip");
    drop(world);
    stop.cancel();
}

type Watched = std::pin::Pin<Box<dyn futures::Stream<Item = Result<watcher::Event<ConfigMap>, watcher::Error>> + Send>>;

/// The next event of a watcher, in a word.
async fn next(events: &mut Watched) -> String {
    let event = tokio::time::timeout(Duration::from_secs(20), futures::StreamExt::next(events)).await.unwrap().unwrap();
    let name = |map: &ConfigMap| map.metadata.name.clone().unwrap_or_default();
    match event {
        Ok(watcher::Event::Init) => "init".to_owned(),
        Ok(watcher::Event::InitApply(map)) => format!("there {}", name(&map)),
        Ok(watcher::Event::InitDone) => "done".to_owned(),
        Ok(watcher::Event::Apply(map)) => format!("applied {}", name(&map)),
        Ok(watcher::Event::Delete(map)) => format!("deleted {}", name(&map)),
        Err(watcher::Error::WatchError(status)) => format!("error {}", status.code),
        Err(error) => panic!("{error}"),
    }
}

fn map_named(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": "v"}})).unwrap()
}

/// A watcher in one of its modes sees what is there, what comes, changes and goes. A server that forgot its history makes it begin anew,
/// unless bookmarks kept what it knows young enough.
async fn watches(config: watcher::Config, bookmarks: bool) {
    rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
    let (client, world, stop) = client().await;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let post = PostParams::default();
    maps.create(&post, &map_named("a")).await.unwrap();
    let mut events: Watched = Box::pin(watcher(maps.clone(), config.timeout(30)));
    for wanted in ["init", "there a", "there kube-root-ca.crt", "done"] {
        assert_eq!(next(&mut events).await, wanted);
    }
    maps.create(&post, &map_named("b")).await.unwrap();
    assert_eq!(next(&mut events).await, "applied b");
    let merge = Patch::Merge(json!({"data": {"k": "w"}}));
    maps.patch("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(next(&mut events).await, "applied a");
    maps.delete("b", &Default::default()).await.unwrap();
    assert_eq!(next(&mut events).await, "deleted b");

    // Others write, the history is forgotten, and the watch runs into its timeout: without bookmarks, what it knows is too old by then.
    let elsewhere = Api::<ConfigMap>::namespaced(client.clone(), "kube-public");
    for name in ["x", "y"] {
        elsewhere.create(&post, &map_named(name)).await.unwrap();
    }
    world.step(0, |clusters, _| clusters.compact("c"));
    for _ in 0..40 {
        client.apiserver_version().await.unwrap();
    }
    let anew: &[&str] =
        if bookmarks { &[] } else { &["error 410", "init", "there a", "there kube-root-ca.crt", "done"] };
    for wanted in anew {
        assert_eq!(next(&mut events).await, *wanted);
    }
    maps.create(&post, &map_named("c")).await.unwrap();
    assert_eq!(next(&mut events).await, "applied c");
    stop.cancel();
}

/// List, then watch: what every controller did until streaming lists came.
#[tokio::test]
async fn a_watcher_lists_then_watches() {
    watches(watcher::Config::default().disable_bookmarks(), false).await;
}

/// The list comes as the first part of the watch.
#[tokio::test]
async fn a_watcher_streams_its_list() {
    watches(watcher::Config::default().streaming_lists(), true).await;
}

/// The stream itself: initial events end with an annotated bookmark, later bookmarks carry the newest version, and a version that is
/// too old is an error within a stream that began with 200.
#[tokio::test]
async fn streams_carry_bookmarks_and_their_own_errors() {
    rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
    let (client, world, stop) = client().await;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let mut events = Box::pin(maps.watch(&WatchParams::default().initial_events(), "0").await.unwrap());
    let mut seen = Vec::new();
    let newest = loop {
        let event = tokio::time::timeout(Duration::from_secs(20), futures::StreamExt::next(&mut events)).await.unwrap();
        match event.unwrap().unwrap() {
            WatchEvent::Added(map) => seen.push(map.metadata.name.unwrap()),
            WatchEvent::Bookmark(mark) => {
                assert_eq!(
                    mark.metadata.annotations.get("k8s.io/initial-events-end").map(String::as_str),
                    Some("true")
                );
                break mark.metadata.resource_version;
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(seen, ["kube-root-ca.crt"]);
    let elsewhere = Api::<ConfigMap>::namespaced(client.clone(), "kube-public");
    for name in ["x", "y"] {
        elsewhere.create(&PostParams::default(), &map_named(name)).await.unwrap();
    }
    for _ in 0..60 {
        client.apiserver_version().await.unwrap();
    }
    let event = tokio::time::timeout(Duration::from_secs(20), futures::StreamExt::next(&mut events)).await.unwrap();
    let Some(Ok(WatchEvent::Bookmark(mark))) = event else { panic!("{event:?}") };
    let number = |text: &str| text.parse::<u64>().unwrap();
    assert!(number(&mark.metadata.resource_version) > number(&newest), "a bookmark moves on with what others write");
    world.step(0, |clusters, _| clusters.compact("c"));
    let mut late = Box::pin(maps.watch(&WatchParams::default(), &newest).await.unwrap());
    let event = tokio::time::timeout(Duration::from_secs(20), futures::StreamExt::next(&mut late)).await.unwrap();
    assert!(
        matches!(event, Some(Ok(WatchEvent::Error(ref status))) if status.code == 410 && status.reason == "Expired"),
        "{event:?}"
    );
    stop.cancel();
}
