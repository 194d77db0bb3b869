//! The world: the account, the Vault servers, faults and counters as one pure state on simulated time, and how the parts
//! hear of each other. It does no input or output.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aws::{self, AwsRequest, AwsResponse, State};
use crate::clock::timestamp;
use crate::counting::Counters;
use crate::faults::{Effect, Faults};
use crate::kubernetes::{Clusters, KubeReply, KubeRequest};
use crate::links::{Beyond, Pods, pods_document, pods_restored};
use crate::vault::Servers;

/// Which world this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Identity of the world.
    pub world_id: String,
    /// Seed of every id in it.
    pub seed: u64,
}

/// Everything that is simulated. A copy is a world of its own.
#[derive(Debug, Clone)]
pub struct World {
    /// Which world this is.
    pub meta: Meta,
    /// The account.
    pub aws: State,
    /// Kubernetes clusters.
    pub kubernetes: Clusters,
    /// Vault pods that run.
    pub pods: Pods,
    /// Vault servers.
    pub vault: Servers,
    /// What is to go wrong.
    pub faults: Faults,
    /// What was called.
    pub counters: Counters,
}

/// What a call comes to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The answer.
    pub response: AwsResponse,
    /// What a fault does to the connection.
    pub effect: Option<Effect>,
}

impl World {
    /// An empty world. The same seed gives the same world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut aws = State::new(seed);
        let world_id = format!("world-{}", aws.hex(12));
        Self {
            meta: Meta { world_id, seed },
            aws,
            kubernetes: Clusters::default(),
            pods: Pods::new(),
            vault: Servers::new(seed),
            faults: Faults::default(),
            counters: Counters::default(),
        }
    }

    /// Lets everything happen that is due.
    pub fn advance(&mut self, now_ms: i64) {
        self.aws.set_now(now_ms);
        while let Some(due_ms) = aws::fire(&mut self.aws, now_ms) {
            self.deliver(due_ms);
        }
        self.aws.set_now(now_ms);
        self.deliver(now_ms);
        let mut beyond = Beyond { aws: &mut self.aws, vault: &mut self.vault, pods: &mut self.pods, now_ms };
        self.kubernetes.advance(timestamp(now_ms), &mut beyond);
        self.judge_addons(now_ms);
    }

    /// Answers a request to the API server of a cluster.
    pub fn kubernetes_call(&mut self, cluster: &str, request: &KubeRequest, now_ms: i64) -> KubeReply {
        let mut beyond = Beyond { aws: &mut self.aws, vault: &mut self.vault, pods: &mut self.pods, now_ms };
        let reply = self.kubernetes.handle(cluster, request, timestamp(now_ms), &mut beyond);
        let wrote = self.kubernetes.wrote();
        self.counters.kubernetes(request, wrote);
        reply
    }

    /// Answers a call to AWS.
    pub fn call(&mut self, request: &AwsRequest, now_ms: i64) -> Outcome {
        self.advance(now_ms);
        self.count(request);
        let effect = self.aws_effect(request);
        let refused = effect.as_ref().and_then(|effect| effect.refusal(&request.service));
        let response = match &effect {
            _ if refused.is_some() => {
                let refused = refused.map(|one| aws::Refusal::new(one.status, &one.code, one.message));
                aws::render(request, Err(refused.unwrap_or_else(|| aws::Refusal::bad("", ""))))
            }
            Some(Effect::CutBefore) => aws::render(request, Err(aws::Refusal::new(500, "InternalError", "cut"))),
            Some(Effect::ReadLag { lag_ms }) if !aws::mutates(&request.operation) => {
                self.aws.as_of(now_ms - lag_ms, |past| aws::call(past, request, now_ms, None))
            }
            Some(Effect::Duplicate) => {
                aws::call(&mut self.aws, request, now_ms, None);
                aws::call(&mut self.aws, request, now_ms, None)
            }
            _ => aws::call(&mut self.aws, request, now_ms, effect.as_ref()),
        };
        self.deliver(now_ms);
        Outcome { response, effect }
    }

    fn count(&mut self, request: &AwsRequest) {
        let name = format!("{}:{}", request.service, request.operation);
        let dry = request.input.get("DryRun").and_then(Value::as_str) == Some("true");
        let mutates = aws::mutates(&request.operation);
        let step = if mutates { step_tag(&request.input) } else { None };
        self.counters.aws(name, mutates, dry, step);
    }

    /// The listing of `sandbox world`.
    #[must_use]
    pub fn listing(&self, now_ms: i64) -> Value {
        let mut resources: Vec<Value> = self.aws.records().filter(|record| !matches!(record.kind.as_str(), "eks:update" | "eks:ended")).map(|record| {
            let state = ["/state", "/status", "/KeyState", "/instanceState/name", "/State/Code"].iter().map(|field| record.text(field)).find(|state| !state.is_empty()).unwrap_or("available");
            let name = record.tags.get("Name").map_or(record.id.as_str(), String::as_str);
            json!({"type": record.kind, "id": record.id, "name": name, "region": record.region, "tags": record.tags, "state": state, "system": made_by_the_cloud(record)})
        }).filter(|one| one.get("state") != Some(&json!("deleted"))).collect();
        resources.extend(self.vault.summary(timestamp(now_ms)).into_iter().map(|cluster| {
            let state = if cluster.sealed { "sealed".to_owned() } else { format!("unsealed, {} voters", cluster.voters) };
            json!({"type": "vault:cluster", "id": cluster.id, "name": cluster.name, "tags": {}, "state": state, "voters": cluster.voters, "unsealed": cluster.unsealed, "leader": cluster.leader})
        }));
        resources.extend(self.kubernetes.resources().into_iter().map(|one| {
            let name = if one.namespace.is_empty() { one.name.clone() } else { format!("{}/{}", one.namespace, one.name) };
            json!({"type": format!("kubernetes:{}", one.kind), "id": one.uid, "name": name, "cluster": one.cluster, "tags": one.labels, "state": one.state, "system": one.system})
        }));
        json!({"schema_version": 1, "resources": resources})
    }

    /// What changed since the last call.
    pub fn take_dirty(&mut self) -> Vec<(String, Option<Value>)> {
        let mut dirty: Vec<(String, Option<Value>)> =
            self.aws.take_dirty().into_iter().map(|(key, value)| (format!("aws/{key}"), value)).collect();
        dirty.extend(self.kubernetes.take_dirty().into_iter().map(|(key, value)| (format!("kubernetes/{key}"), value)));
        dirty.extend(self.vault.take_dirty().into_iter().map(|(key, value)| (format!("vault/{key}"), value)));
        for (key, value) in [
            ("meta", serde_json::to_value(&self.meta)),
            ("faults", serde_json::to_value(&self.faults)),
            ("pods", Ok(pods_document(&self.pods))),
            ("counters", serde_json::to_value(&self.counters)),
        ] {
            dirty.push((format!("world/{key}"), value.ok()));
        }
        dirty
    }

    /// Nobody keeps what changed since the last call.
    pub(crate) fn forget_changes(&mut self) {
        self.aws.forget_changes();
        self.kubernetes.forget_changes();
        self.vault.forget_changes();
    }

    /// Takes documents back, as [`Self::take_dirty`] gave them.
    ///
    /// # Errors
    /// A document that this version does not write.
    pub fn restore(documents: Vec<(String, Value)>, now_ms: i64) -> Result<Self, serde_json::Error> {
        let mut world = Self::new(0);
        let mut vault = Vec::new();
        for (key, value) in documents {
            match key.split_once('/') {
                Some(("aws", rest)) => world.aws.restore(rest, value)?,
                Some(("kubernetes", rest)) if world.kubernetes.restore(rest, value.clone()) => {}
                Some(("kubernetes", _)) => tracing::warn!(key, "not understood"),
                Some(("world", "pods")) => world.pods = pods_restored(&value),
                Some(("vault", rest)) => vault.push((rest.to_owned(), value)),
                Some(("world", "meta")) => world.meta = serde_json::from_value(value)?,
                Some(("world", "faults")) => world.faults = serde_json::from_value(value)?,
                Some(("world", "counters")) => world.counters = serde_json::from_value(value)?,
                _ => {}
            }
        }
        world.vault = Servers::restore(vault)?;
        world.kubernetes.restored(timestamp(now_ms));
        let _ = world.aws.take_dirty();
        Ok(world)
    }
}

/// What AWS, EKS or a controller made by itself: nobody asked for it by name, and it goes with what it was made for.
fn made_by_the_cloud(record: &aws::Record) -> bool {
    let owned = record.tags.keys().any(|tag| tag.starts_with("kubernetes.io/cluster/"));
    let ours = record.tags.contains_key("platflow:step");
    record.system
        || (owned && !ours)
        || (record.kind == "ec2:network-interface" && !ours)
        || record.tags.contains_key("aws:eks:cluster-name")
}

/// The step tag of a creating call, in any protocol's form.
pub(crate) fn step_tag(input: &Value) -> Option<String> {
    match input {
        Value::Object(fields) => {
            if let Some(step) = fields.get("platflow:step").and_then(Value::as_str) {
                return Some(step.to_owned());
            }
            let named =
                ["Key", "TagKey"].iter().any(|key| fields.get(*key).and_then(Value::as_str) == Some("platflow:step"));
            if named {
                return ["Value", "TagValue"].iter().find_map(|key| fields.get(*key)?.as_str()).map(str::to_owned);
            }
            fields.values().find_map(step_tag)
        }
        Value::Array(list) => list.iter().find_map(step_tag),
        _ => None,
    }
}
