//! Replays recorded requests of a real API server against the simulated one and compares the answers. Generated values (uids, versions,
//! times, addresses) are never compared; what varies between runs is listed in `varies`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of a test fail it by panicking"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use platflow_report::told;
use platflow_sandbox::kubernetes::{
    Caller, Clusters, KubeReply, KubeRequest, NewCluster, NodeSeed, Outside, VaultPod, VaultRead,
};
use serde_json::{Map, Value, json};

/// Scenarios that must hold from first to last interaction; raised as more are covered.
const LEAST: usize = 6;

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

struct World {
    clusters: Clusters,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
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
            name: format!("node-{index}"),
            instance_id: format!("i-{index}"),
            instance_type: own("m6i.large"),
            pool: own("system"),
            zone: own("eu-central-1a"),
            region: own("eu-central-1"),
            arch: own("amd64"),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            cpu: 4,
            memory_mib: 16_384,
            pods: 110,
        };
        clusters.join_nodes("c", (0..2).map(seed).collect(), now);
        let mut world = Self { clusters, now };
        world.pass(30_000);
        world
    }

    fn pass(&mut self, milliseconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_millis(milliseconds)).unwrap();
        self.clusters.advance(self.now, &mut Nothing);
    }

    fn ask(&mut self, request: &Value) -> (u16, Vec<(String, String)>, Value) {
        let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let mut query = Vec::new();
        for (key, value) in request.get("query").and_then(Value::as_object).cloned().unwrap_or_default() {
            query.push((key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
        let body = match request.get("body") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(other) => other.to_string().into_bytes(),
        };
        let mut kube = KubeRequest {
            method: text("/method").unwrap_or_default(),
            path: text("/path").unwrap_or_default(),
            query,
            content_type: text("/content_type"),
            accept: text("/accept"),
            if_none_match: text("/headers/If-None-Match"),
            user_agent: Some("platflow-recorder/0.1".to_owned()),
            body: body.into(),
            caller: Caller::User { name: "admin".to_owned(), groups: vec!["system:masters".to_owned()] },
            wall: self.now,
            waited: false,
        };
        loop {
            match self.clusters.handle("c", &kube, self.now, &mut Nothing) {
                KubeReply::Json { status, headers, body } => return (status, headers, body),
                KubeReply::Text { status, headers, body, .. } => {
                    return (status, headers, serde_json::from_str(&body).unwrap_or(Value::String(body)));
                }
                KubeReply::Later { after_ms } => {
                    self.pass(after_ms);
                    kube.waited = true;
                }
                KubeReply::Watch(_) => return (200, Vec::new(), Value::Null),
                KubeReply::Broken => panic!("the connection broke"),
                KubeReply::Upgrade(_) => return (101, Vec::new(), Value::Null),
            }
        }
    }
}

/// Values that differ from run to run.
fn varies(key: &str) -> bool {
    const KEYS: &str = "uid resourceVersion creationTimestamp deletionTimestamp time lastTransitionTime lastUpdateTime lastProbeTime \
        lastHeartbeatTime startTime completionTime clusterIP clusterIPs podIP podIPs nodePort nodeName continue gitCommit buildDate \
        goVersion platform gitVersion token expirationTimestamp remainingItemCount message storageVersionHash caBundle";
    KEYS.split_whitespace().any(|each| each == key)
}

fn omitted(value: &Value) -> bool {
    value.get("$omitted").is_some_and(|flag| flag == true) && value.as_object().is_some_and(|map| map.len() == 1)
}

fn unordered(list: &[Value]) -> Vec<String> {
    let plain = |each: &Value| -> String {
        let kept = each.as_object().into_iter().flatten().filter(|(key, _)| !varies(key));
        Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>()).to_string()
    };
    let mut texts: Vec<String> = list.iter().map(plain).collect();
    texts.sort();
    texts
}

/// The first place where an answer differs from the recording.
fn difference(wanted: &Value, got: &Value, path: &str, shortened: bool) -> Option<String> {
    let generated = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("kube-api-access-"));
    if wanted == "<redacted>" || omitted(wanted) || generated(wanted) && generated(got) {
        return None;
    }
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            let open = shortened || wanted.contains_key("$omitted");
            for (key, value) in wanted.iter().filter(|(key, _)| key.as_str() != "$omitted") {
                let here = format!("{path}/{key}");
                match got.get(key) {
                    None => return Some(format!("{here} is missing")),
                    Some(_) if varies(key) => {}
                    Some(found) => {
                        if let Some(found) = difference(value, found, &here, open) {
                            return Some(found);
                        }
                    }
                }
            }
            let more = got.keys().find(|key| !open && !wanted.contains_key(*key));
            more.map(|key| format!("{path}/{key} is too much"))
        }
        (Value::Array(wanted), Value::Array(got)) => {
            if wanted.iter().any(omitted) {
                return None;
            }
            if path.ends_with("managedFields") || path.ends_with("causes") {
                return (unordered(wanted) != unordered(got))
                    .then(|| format!("{path}: wanted {}, got {}", json!(wanted), json!(got)));
            }
            if wanted.len() != got.len() {
                return Some(format!("{path} has {} entries instead of {}", got.len(), wanted.len()));
            }
            let mut pairs = wanted.iter().zip(got).enumerate();
            pairs.find_map(|(at, (wanted, got))| difference(wanted, got, &format!("{path}/{at}"), shortened))
        }
        _ => (wanted != got).then(|| format!("{path}: wanted {wanted}, got {got}")),
    }
}

fn compare(each: &Value, status: u16, headers: &[(String, String)], body: &Value) -> Result<(), String> {
    let number = each["n"].as_i64().unwrap_or(0);
    let wanted = each["response"]["status"].as_i64().unwrap_or(0);
    if i64::from(status) != wanted {
        let shown = body.to_string().chars().take(300).collect::<String>();
        return Err(format!("#{number}: wanted {wanted}, got {status}: {shown}"));
    }
    let warnings = headers.iter().filter(|(name, _)| name == "warning").count();
    let recorded = match &each["response"]["headers"]["warning"] {
        Value::Array(list) => list.len(),
        Value::String(_) => 1,
        _ => 0,
    };
    if warnings != recorded {
        return Err(format!("#{number}: wanted {recorded} warnings, got {headers:?}"));
    }
    match difference(&each["response"]["body"], body, "", false) {
        Some(found) => Err(format!("#{number}: {found}")),
        None => Ok(()),
    }
}

/// Learns which generated value stands for which recorded one.
fn learn(wanted: &Value, got: &Value, known: &mut BTreeMap<String, String>) {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            for (key, value) in wanted {
                let Some(found) = got.get(key) else { continue };
                match (value.as_str(), found.as_str()) {
                    (Some(was), Some(is))
                        if matches!(key.as_str(), "uid" | "resourceVersion" | "continue") && was != is =>
                    {
                        known.insert(was.to_owned(), is.to_owned());
                    }
                    _ => learn(value, found, known),
                }
            }
        }
        (Value::Array(wanted), Value::Array(got)) => {
            wanted.iter().zip(got).for_each(|(wanted, got)| learn(wanted, got, known));
        }
        _ => {}
    }
}

/// Puts the generated values into a recorded request.
fn translate(value: &mut Value, known: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(is) = known.get(text) {
                text.clone_from(is);
            }
        }
        Value::Object(map) => {
            for (key, below) in map.iter_mut() {
                // A short version may equal other text: only where it is one.
                if below.is_string() && !matches!(key.as_str(), "uid" | "resourceVersion" | "continue") {
                    continue;
                }
                translate(below, known);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| translate(item, known)),
        _ => {}
    }
}

/// Replays one scenario; the first difference ends it.
fn replay(scenario: &Value) -> Result<usize, String> {
    let mut world = World::new();
    let mut compared = 0;
    let mut clock = 0_i64;
    let mut known = BTreeMap::new();
    for each in scenario["interactions"].as_array().unwrap() {
        let at = each["at_ms"].as_i64().unwrap_or(0);
        world.pass((at - clock).max(1));
        clock = clock.max(at);
        let number = each["n"].as_i64().unwrap_or(0);
        if each["response"].get("events").is_some() {
            return Err(format!("#{number}: watches are not replayed yet"));
        }
        if each["request"].get("auth").is_some_and(|auth| !auth.is_null()) {
            return Err(format!("#{number}: credentials are not replayed yet"));
        }
        let mut request = each["request"].clone();
        translate(&mut request, &known);
        let (status, headers, body) = world.ask(&request);
        learn(&each["response"]["body"], &body, &mut known);
        if each["setup"] == true {
            if status >= 400 {
                return Err(format!("#{number}: setup answered {status} {body}"));
            }
            // The recorder waited for the state that the next request presupposes.
            world.pass(10_000);
            continue;
        }
        compare(each, status, &headers, &body)?;
        compared += 1;
    }
    Ok(compared)
}

/// The simulated API server answers recorded requests as the real one did.
#[test]
fn answers_as_the_real_api_server_did() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/kubernetes");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    files.sort();
    let mut held = Vec::new();
    for path in &files {
        let scenario: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let name = scenario["scenario"].as_str().unwrap_or_default().to_owned();
        match replay(&scenario) {
            Ok(compared) => {
                told(format_args!("ok   {name} ({compared} compared)"));
                held.push(name);
            }
            Err(why) => told(format_args!("open {name}: {}", why.chars().take(420).collect::<String>())),
        }
    }
    told(format_args!("recorded scenarios that hold: {} of {}", held.len(), files.len()));
    assert!(held.len() >= LEAST, "only {} scenarios hold", held.len());
}
