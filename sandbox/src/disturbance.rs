//! How faults act on the calls of each front, and by which lasting name a call is known: a world numbers its resources
//! in the order in which they come, so decisions must not hang on their ids.

use serde_json::{Value, json};

use crate::aws::{self, AwsRequest, State};
use crate::faults::{Called, Effect};
use crate::kubernetes::{KubeReply, KubeRequest};
use crate::vault::{VaultReply, VaultRequest};
use crate::world::{World, step_tag};

/// Parameters that differ from run to run and say nothing about what is meant.
const PASSING: [&str; 9] =
    ["ClientToken", "clientRequestToken", "Action", "Version", "NextToken", "nextToken", "MaxResults", "Tags", "tags"];

/// Filters whose values differ from run to run.
fn is_passing_tag(name: &str) -> bool {
    ["platflow:environment-uid", "platflow:run", "platflow:op"].iter().any(|tag| name.ends_with(tag))
}

/// What a call to AWS is about, in names that last.
fn resource(state: &State, request: &AwsRequest) -> String {
    if let Some(step) = step_tag(&request.input).filter(|_| aws::mutates(&request.operation)) {
        return step;
    }
    let mut words = Vec::new();
    describe(state, "", &request.input, &mut words);
    words.join(",")
}

fn describe(state: &State, name: &str, value: &Value, words: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let of_tag = ["Name", "Key"].iter().filter_map(|key| fields.get(*key)?.as_str()).any(is_passing_tag);
            for (name, inner) in fields.iter().filter(|(name, _)| !of_tag && !PASSING.contains(&name.as_str())) {
                describe(state, name, inner, words);
            }
        }
        Value::Array(list) => list.iter().for_each(|one| describe(state, name, one, words)),
        Value::String(text) => words.push(format!("{name}={}", lasting(state, text))),
        Value::Null => {}
        other => words.push(format!("{name}={other}")),
    }
}

/// The step or name of the resource with this id; anything else as it is.
fn lasting(state: &State, text: &str) -> String {
    let numbered = text.len() > 12 && text.contains('-') && text.bytes().any(|byte| byte.is_ascii_digit());
    if !numbered {
        return text.to_owned();
    }
    let found = state.records().find(|record| record.id == text);
    found
        .and_then(|record| record.tags.get("platflow:step").or_else(|| record.tags.get("Name")))
        .cloned()
        .unwrap_or_else(|| text.split('-').next().unwrap_or_default().to_owned())
}

/// A path in which names that are made up anew each time are masked.
fn lasting_path(path: &str) -> String {
    let masked = |part: &str| match part.find("platflow-smoke-") {
        Some(at) => part.get(..at + "platflow-smoke".len()).unwrap_or_default().to_owned(),
        None => part.to_owned(),
    };
    path.split('/').map(masked).collect::<Vec<_>>().join("/")
}

fn writes(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "LIST")
}

impl World {
    /// What goes wrong with a call to AWS.
    pub(crate) fn aws_effect(&mut self, request: &AwsRequest) -> Option<Effect> {
        let called = Called {
            service: &request.service,
            operation: &request.operation,
            mutates: aws::mutates(&request.operation),
        };
        // A dry run is not the call: what is to happen to calls passes it by.
        if request.input.get("DryRun").and_then(Value::as_str) == Some("true") {
            return None;
        }
        let state = &self.aws;
        self.faults.hit(called, || request.input.to_string(), || resource(state, request))
    }

    /// Answers a request to the API server of a cluster, with what goes wrong on the way.
    pub fn kubernetes_exchange(&mut self, cluster: &str, request: &KubeRequest, now_ms: i64) -> KubeReply {
        if self.faults.is_down(cluster, now_ms) {
            return KubeReply::Broken;
        }
        // A request that was held is the same one still.
        let effect = if request.waited { None } else { self.kubernetes_effect(request) };
        let Some(effect) = effect else { return self.kubernetes_call(cluster, request, now_ms) };
        if let Some(refused) = effect.refusal("kubernetes") {
            let retry =
                if refused.status == 429 { vec![("Retry-After".to_owned(), "1".to_owned())] } else { Vec::new() };
            return KubeReply::Json {
                status: refused.status,
                headers: retry,
                body: json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": refused.message, "reason": refused.code, "code": refused.status}),
            };
        }
        match effect {
            Effect::CutBefore => return KubeReply::Broken,
            Effect::ApiServerRestarts { seconds } => {
                self.faults.take_down(cluster, now_ms + seconds * 1_000);
                return KubeReply::Broken;
            }
            Effect::Delay { delay_ms } => {
                return KubeReply::Later { after_ms: i64::try_from(delay_ms).unwrap_or(i64::MAX) };
            }
            Effect::StuckFinalizer { seconds } => {
                let namespace = request.path.rsplit('/').next().unwrap_or_default();
                let until_ms = if seconds == 0 { None } else { Some(now_ms + seconds * 1_000) };
                self.kubernetes.hold_namespace(cluster, namespace, until_ms, crate::clock::timestamp(now_ms));
            }
            Effect::Duplicate => drop(self.kubernetes_call(cluster, request, now_ms)),
            _ => {}
        }
        let reply = self.kubernetes_call(cluster, request, now_ms);
        if effect == Effect::LoseReply { KubeReply::Broken } else { reply }
    }

    fn kubernetes_effect(&mut self, request: &KubeRequest) -> Option<Effect> {
        let review = request.path.contains("reviews");
        let called = Called {
            service: "kubernetes",
            operation: &request.method,
            mutates: writes(&request.method) && !review && request.query("dryRun").is_none(),
        };
        self.faults.hit(called, || request.path.clone(), || lasting_path(&request.path))
    }

    /// Answers a request to the Vault server on a storage; nothing when the connection breaks.
    pub fn vault_exchange(&mut self, storage_id: &str, request: &VaultRequest, now_ms: i64) -> Option<VaultReply> {
        let pod = self.pods.get(storage_id).cloned();
        let name = pod.as_ref().map(|pod| format!("{}-{}", pod.stateful_set, pod.ordinal)).unwrap_or_default();
        let called = Called { service: "vault", operation: &request.method, mutates: writes(&request.method) };
        let effect =
            self.faults.hit(called, || request.path.clone(), || format!("{name}{}", lasting_path(&request.path)));
        if let Some(refused) = effect.as_ref().and_then(|effect| effect.refusal("vault")) {
            let body = json!({"errors": [refused.message]}).to_string().into_bytes();
            return Some(VaultReply { status: refused.status, body });
        }
        if effect == Some(Effect::CutBefore) {
            return None;
        }
        if effect == Some(Effect::Duplicate) {
            self.vault_call(storage_id, request, now_ms);
        }
        let reply = self.vault_call(storage_id, request, now_ms);
        if let (Some(Effect::PodRestarts), Some(pod)) = (&effect, pod) {
            self.kubernetes.kill_pod(&pod.cluster, &pod.namespace, &name, crate::clock::timestamp(now_ms));
        }
        (effect != Some(Effect::LoseReply)).then_some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(operation: &str, input: Value) -> AwsRequest {
        AwsRequest {
            service: "ec2".to_owned(),
            operation: operation.to_owned(),
            input,
            region: "us-east-1".to_owned(),
            access_key: "A".to_owned(),
            principal: String::new(),
        }
    }

    /// Proves that what a call is known by holds neither ids, nor tokens, nor an environment's uid.
    #[test]
    fn names_last() {
        let state = State::new(1);
        let of = |uid: &str, token: &str| {
            let input = json!({
                "ClientToken": token,
                "Filter": [{"Name": "tag:platflow:environment-uid", "Value": [uid]}, {"Name": "tag:platflow:step", "Value": ["network.vpc"]}],
            });
            resource(&state, &request("DescribeVpcs", input))
        };
        assert_eq!(of("one", "a"), of("two", "b"));
        assert!(of("one", "a").contains("network.vpc"));
        let create = json!({"TagSpecification": [{"Tag": [{"Key": "platflow:step", "Value": "network.vpc"}]}]});
        assert_eq!(resource(&state, &request("CreateVpc", create)), "network.vpc");
        assert_eq!(lasting_path("/api/v1/namespaces/platflow-smoke-x7/pods"), "/api/v1/namespaces/platflow-smoke/pods");
    }
}
