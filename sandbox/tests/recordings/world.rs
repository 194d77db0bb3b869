//! A fresh cluster on virtual time, asked through the same entry as the server asks it, with the watches that are open on it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use platflow_sandbox::kubernetes::{
    Caller, Clusters, KubeReply, KubeRequest, NewCluster, NodeSeed, Outside, Subscription, VaultPod, VaultRead,
    encoding,
};
use serde_json::Value;

/// A body with as many characters as the recording left out.
fn written_out(body: &Value) -> String {
    let text = body.to_string();
    let Some((before, rest)) = text.split_once('<') else { return text };
    let Some((count, after)) = rest.split_once(" characters left out>") else { return text };
    format!("{before}{}{after}", "x".repeat(count.parse().unwrap_or(0)))
}

struct Nothing;

impl Outside for Nothing {
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

const START: i64 = 1_795_395_600;

/// How finely time moves while watches are open.
const STEP_MS: i64 = 50;

/// The answer to one request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
    pub(crate) watch: Option<Box<Subscription>>,
    /// How long the server held the request, virtual milliseconds.
    pub(crate) held_ms: i64,
}

#[derive(Clone)]
pub(crate) struct World {
    clusters: Clusters,
    now: Timestamp,
    persisted: BTreeMap<String, Value>,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_second(START).unwrap();
        let mut clusters = Clusters::default();
        let own = |text: &str| text.to_owned();
        let new = NewCluster {
            name: own("c"),
            arn: own("arn:aws:eks:eu-central-1:111122223333:cluster/c"),
            version: own("1.36"),
            oidc_issuer: own("https://oidc.example.com/id/1"),
            account: own("111122223333"),
            region: own("eu-central-1"),
            control_plane: Vec::new(),
        };
        clusters.create(new, now).unwrap();
        clusters.addon_installed("c", "vpc-cni", "v1", None, now);
        let seed = |index: u32| NodeSeed {
            name: format!("fake-{index}"),
            instance_id: format!("i-{index}"),
            instance_type: own("m6i.large"),
            pool: own("system"),
            zone: own(if index == 0 { "zone-a" } else { "zone-b" }),
            // The nodes of the recording have none.
            region: String::new(),
            arch: own("amd64"),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            cpu: 16,
            memory_mib: 65_536,
            pods: 250,
        };
        clusters.join_nodes("c", (0..2).map(seed).collect(), now);
        let mut world = Self { clusters, now, persisted: BTreeMap::new() };
        world.pass(60_000, &mut []);
        // EKS brings a StorageClass; the cluster of the recording had none.
        let class = serde_json::json!({"method": "DELETE", "path": "/apis/storage.k8s.io/v1/storageclasses/gp2"});
        world.ask(&class, super::play::master(), &mut []);
        world
    }

    /// Lets time pass; the watches see what happens while it does.
    pub(crate) fn pass(&mut self, milliseconds: i64, watches: &mut [super::watching::Watch]) {
        let mut left = milliseconds.max(0);
        while left > 0 {
            let step = left.min(STEP_MS);
            left -= step;
            self.now = self.now.checked_add(SignedDuration::from_millis(step)).unwrap();
            self.clusters.advance(self.now, &mut Nothing);
            self.pump(watches);
        }
    }

    pub(crate) fn pump(&self, watches: &mut [super::watching::Watch]) {
        for watch in watches.iter_mut().filter(|watch| !watch.over) {
            let (events, over) = self.clusters.poll_watch(&mut watch.subscription, self.now);
            watch.events.extend(events);
            watch.over = over;
        }
    }

    /// The server process dies and comes up again on what was persisted: its history is gone, open watches break.
    pub(crate) fn restart(&mut self, watches: &mut [super::watching::Watch]) {
        self.pump(watches);
        for watch in watches.iter_mut().filter(|watch| !watch.over) {
            watch.over = true;
            watch.broken = true;
        }
        for (key, value) in self.clusters.take_dirty() {
            match value {
                Some(value) => self.persisted.insert(key, value),
                None => self.persisted.remove(&key),
            };
        }
        let mut clusters = Clusters::default();
        let (identities, objects): (Vec<_>, Vec<_>) =
            self.persisted.iter().partition(|(key, _)| key.ends_with("#identity"));
        for (key, value) in identities.into_iter().chain(objects) {
            assert!(clusters.restore(key, value.clone()), "{key} is not understood");
        }
        clusters.restored(self.now);
        self.clusters = clusters;
    }

    pub(crate) fn compact(&mut self) {
        self.clusters.compact("c");
    }

    pub(crate) fn object(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.clusters.object("c", group, resource, namespace, name)
    }

    pub(crate) fn ask(&mut self, request: &Value, caller: Caller, watches: &mut [super::watching::Watch]) -> Answer {
        let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let mut query = Vec::new();
        for (key, value) in request.get("query").and_then(Value::as_object).cloned().unwrap_or_default() {
            query.push((key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
        let body = match request.get("body") {
            None | Some(Value::Null) => Vec::new(),
            Some(body) if body.to_string().contains(" characters left out>") => written_out(body).into_bytes(),
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(other) => other.to_string().into_bytes(),
        };
        let mut kube = KubeRequest {
            method: text("/method").unwrap_or_default(),
            path: text("/path").unwrap_or_default(),
            query,
            content_type: text("/content_type"),
            accept: text("/accept").or_else(|| Some("application/json".to_owned())),
            if_none_match: text("/headers/If-None-Match"),
            user_agent: Some("platflow-recorder/0.1".to_owned()),
            body: body.into(),
            caller,
            wall: self.now,
            waited: false,
        };
        let mut held_ms = 0;
        loop {
            let json = "application/json".to_owned();
            let (status, content_type, mut headers, body, watch) =
                match self.clusters.handle("c", &kube, self.now, &mut Nothing) {
                    KubeReply::Json { status, headers, body } => (status, json, headers, body, None),
                    KubeReply::Text { status, content_type, headers, body } => {
                        let body = if content_type.starts_with("application/json") {
                            serde_json::from_str(&body).unwrap_or(Value::String(body))
                        } else {
                            Value::String(body)
                        };
                        (status, content_type, headers, body, None)
                    }
                    KubeReply::Later { after_ms } => {
                        held_ms += after_ms;
                        self.pass(after_ms, watches);
                        kube.waited = true;
                        continue;
                    }
                    KubeReply::Watch(watch) => (200, json, Vec::new(), Value::Null, Some(watch)),
                    KubeReply::Broken => panic!("the connection broke"),
                    KubeReply::Upgrade(_) => (101, String::new(), Vec::new(), Value::Null, None),
                };
            headers.push(("content-type".to_owned(), content_type));
            // As the listener sends it.
            if encoding::packed(text("/headers/Accept-Encoding").as_deref(), body.to_string().as_bytes()).is_some() {
                headers.extend(encoding::HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned())));
            }
            self.pump(watches);
            return Answer { status, headers, body, watch, held_ms };
        }
    }
}
