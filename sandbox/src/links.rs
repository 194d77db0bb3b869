//! How the parts of a world hear of each other: machines that join clusters, claims that become volumes, Services that become
//! load balancers, pods that are Vault servers, and tokens that IAM vouches for.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::aws::balancers::{self, NewBalancer};
use crate::aws::{Link, Record, State};
use crate::clock::timestamp;
use crate::kubernetes::presigned;
use crate::kubernetes::{
    AccessGrant, AddonHealth, Clusters, NewCluster, NodeSeed, Outside, Taint, VaultPod, VaultRead,
};
use crate::vault::{self, Reviews, Servers, VaultReply, VaultRequest};
use crate::world::World;

/// Vault pods that run, by storage.
pub type Pods = BTreeMap<String, VaultPod>;

/// Everything outside of Kubernetes, as its controllers reach it.
pub(crate) struct Beyond<'a> {
    pub(crate) aws: &'a mut State,
    pub(crate) vault: &'a mut Servers,
    pub(crate) pods: &'a mut Pods,
    pub(crate) now_ms: i64,
}

fn region_of(aws: &State, cluster: &str) -> String {
    aws.records()
        .find(|record| record.kind == "eks:cluster" && record.id == cluster)
        .map(|record| record.region.clone())
        .unwrap_or_default()
}

fn of_zone(zone: &str) -> String {
    zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase()).to_owned()
}

impl Outside for Beyond<'_> {
    fn create_volume(&mut self, cluster: &str, namespace: &str, claim: &str, size_gib: u64, zone: &str) -> String {
        let id = format!("vol-{}", self.aws.hex(17));
        let tags = [
            ("kubernetes.io/created-for/pvc/name", claim),
            ("kubernetes.io/created-for/pvc/namespace", namespace),
            ("ebs.csi.aws.com/cluster", "true"),
            ("KubernetesCluster", cluster),
        ];
        let mut tags: BTreeMap<String, String> =
            tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        tags.insert(format!("kubernetes.io/cluster/{cluster}"), "owned".to_owned());
        let body = crate::aws::volume_body(&id, size_gib, zone, self.now_ms);
        self.aws.put(Record {
            kind: "ec2:volume".to_owned(),
            id: id.clone(),
            region: of_zone(zone),
            created_ms: self.now_ms,
            body,
            tags,
            system: false,
            due_ms: None,
            next: String::new(),
        });
        id
    }

    fn delete_volume(&mut self, volume: &str) {
        let region = self
            .aws
            .records()
            .find(|record| record.kind == "ec2:volume" && record.id == volume)
            .map(|record| record.region.clone());
        if let Some(region) = region {
            self.aws.remove("ec2:volume", &region, volume);
        }
        self.vault.heard += 1;
        self.vault.storage_deleted(volume, timestamp(self.now_ms));
    }

    fn create_load_balancer(&mut self, cluster: &str, namespace: &str, service: &str) -> String {
        let region = region_of(self.aws, cluster);
        let vpc = self
            .aws
            .get("eks:cluster", &region, cluster)
            .map(|record| record.text("/resourcesVpcConfig/vpcId").to_owned())
            .unwrap_or_default();
        let tags = BTreeMap::from([
            (format!("kubernetes.io/cluster/{cluster}"), "owned".to_owned()),
            ("kubernetes.io/service-name".to_owned(), format!("{namespace}/{service}")),
        ]);
        let new = NewBalancer { region, vpc, kind: "network", name: String::new(), tags };
        balancers::raise(self.aws, self.now_ms, &new).0
    }

    fn delete_load_balancer(&mut self, cluster: &str, namespace: &str, service: &str) {
        balancers::lower_service(self.aws, self.now_ms, cluster, &format!("{namespace}/{service}"));
    }

    fn vault_pod_started(&mut self, pod: &VaultPod) {
        let server = vault::VaultPod {
            uid: pod.pod_uid.clone(),
            name: format!("{}-{}", pod.stateful_set, pod.ordinal),
            namespace: pod.namespace.clone(),
            storage_id: pod.storage_id.clone(),
            product: vault::Product::of_image(&pod.image),
            audits: vault::declared_audits(&pod.configuration),
        };
        self.vault.heard += 1;
        self.vault.pod_started(server, timestamp(self.now_ms));
        self.pods.insert(pod.storage_id.clone(), pod.clone());
    }

    fn vault_pod_stopped(&mut self, storage_id: &str) {
        if let Some(pod) = self.pods.remove(storage_id) {
            self.vault.heard += 1;
            self.vault.pod_stopped(&pod.pod_uid, timestamp(self.now_ms));
        }
    }

    fn vault_pod_ready(&mut self, storage_id: &str) -> bool {
        self.vault.pod_ready(storage_id)
    }

    fn vault_heard(&mut self) -> u64 {
        self.vault.heard
    }

    fn vault_read(&mut self, read: &VaultRead) -> Result<Value, String> {
        let pod = self.pods.values().find(|pod| {
            pod.cluster == read.cluster
                && pod.namespace == read.namespace
                && pod.services.contains(&read.service)
                && self.vault.pod_ready(&pod.storage_id)
        });
        let storage = pod
            .map(|pod| pod.storage_id.clone())
            .ok_or_else(|| format!("no ready server behind {}.{}", read.service, read.namespace))?;
        // The token was minted by this very cluster a moment ago: its own claims say whose it is.
        let owner = Claims(&read.token);
        let mut send = |method: &str, path: String, token: &str, body: Value| {
            let headers = BTreeMap::from([("x-vault-token".to_owned(), token.to_owned())]);
            let request = VaultRequest {
                method: method.to_owned(),
                path,
                query: BTreeMap::new(),
                headers,
                body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
            };
            let reply = self.vault.handle(&storage, &request, timestamp(self.now_ms), &owner);
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            if reply.status >= 300 {
                Err(format!("Code: {}. Errors: {text}", reply.status))
            } else {
                serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())
            }
        };
        let login = send(
            "POST",
            format!("/v1/auth/{}/login", read.auth_mount),
            "",
            json!({"role": read.role, "jwt": read.token}),
        )?;
        if read.mount.is_empty() {
            return Ok(Value::Null);
        }
        let token = login.pointer("/auth/client_token").and_then(Value::as_str).unwrap_or_default().to_owned();
        let answer = send("GET", format!("/v1/{}/data/{}", read.mount, read.key), &token, Value::Null)?;
        Ok(answer.pointer("/data/data").cloned().unwrap_or(Value::Null))
    }

    fn principal_of(&mut self, cluster: &str, token: &str) -> Option<String> {
        let presigned = presigned::read(token)?;
        let good = presigned.asks_who
            && !token.ends_with('=')
            && !presigned.key.is_empty()
            && !self.aws.refused_keys.contains_key(&presigned.key)
            && !cluster.is_empty();
        good.then(|| format!("arn:aws:iam::{}:user/platflow", self.aws.account()))
    }
}

/// Whom the claims of a service account's token name.
struct Claims<'a>(&'a str);

impl Reviews for Claims<'_> {
    fn token_review(&self, jwt: &str) -> Option<(String, String)> {
        if jwt != self.0 {
            return None;
        }
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?).ok()?;
        let mut subject = claims.get("sub")?.as_str()?.strip_prefix("system:serviceaccount:")?.split(':');
        Some((subject.next()?.to_owned(), subject.next()?.to_owned()))
    }
}

/// Asks the API server of the cluster in which a Vault runs.
struct Reviewer<'a> {
    clusters: &'a Clusters,
    cluster: String,
    beyond: RefCell<Beyond<'a>>,
}

impl Reviews for Reviewer<'_> {
    fn token_review(&self, jwt: &str) -> Option<(String, String)> {
        let mut beyond = self.beyond.borrow_mut();
        let now = timestamp(beyond.now_ms);
        let (user, _) = self.clusters.review_token(&self.cluster, jwt, now, &mut *beyond)?;
        let (namespace, account) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        Some((namespace.to_owned(), account.to_owned()))
    }
}

impl World {
    /// Answers one request to the Vault server on a storage.
    pub fn vault_call(&mut self, storage_id: &str, request: &VaultRequest, now_ms: i64) -> VaultReply {
        let pod = self.pods.get(storage_id).cloned();
        let mut cluster = pod.as_ref().map(|pod| pod.cluster.clone()).unwrap_or_default();
        if let Some(pod) = &pod {
            if let Err(why) = self.joins(pod, request) {
                let body =
                    json!({"errors": [format!("failed to join raft cluster: failed to get raft challenge: {why}")]});
                return VaultReply { status: 500, body: body.to_string().into_bytes() };
            }
            // Without a way to the API server nobody can be asked whose a token is.
            let name = format!("{}-{}", pod.stateful_set, pod.ordinal);
            if self.kubernetes.reaches_api(&cluster, &pod.namespace, &name).is_err() {
                cluster.clear();
            }
        }
        // A review asks IAM and the cluster, never a Vault: an empty one stands in while this one is busy.
        let mut vault = std::mem::replace(&mut self.vault, Servers::new(0));
        vault.heard += 1;
        let beyond = Beyond { aws: &mut self.aws, vault: &mut self.vault, pods: &mut self.pods, now_ms };
        let reviewer = Reviewer { clusters: &self.kubernetes, cluster, beyond: RefCell::new(beyond) };
        let reply = vault.handle(storage_id, request, timestamp(now_ms), &reviewer);
        drop(reviewer);
        self.vault = vault;
        self.counters.vault(request, (200..300).contains(&reply.status));
        reply
    }

    /// Whether a server that is told to join reaches the other on both its ports.
    fn joins(&self, pod: &VaultPod, request: &VaultRequest) -> Result<(), String> {
        if request.path.trim_start_matches("/v1/") != "sys/storage/raft/join" {
            return Ok(());
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let leader = body.get("leader_api_addr").and_then(Value::as_str).and_then(|url| url::Url::parse(url).ok());
        let leader = leader.as_ref().and_then(url::Url::host_str).unwrap_or_default();
        let (own, other) =
            (format!("{}-{}", pod.stateful_set, pod.ordinal), leader.split('.').next().unwrap_or_default());
        for (from, to, port) in [(own.as_str(), other, 8200), (own.as_str(), other, 8201), (other, own.as_str(), 8201)]
        {
            self.kubernetes.reaches(&pod.cluster, &pod.namespace, from, to, port)?;
        }
        Ok(())
    }

    /// Tells the clusters what happened on the AWS side.
    pub(crate) fn deliver(&mut self, now_ms: i64) {
        let now = timestamp(now_ms);
        for link in std::mem::take(&mut self.aws.links) {
            match link {
                Link::ClusterUp(name) => self.cluster_up(&name, now_ms),
                Link::ClusterGone(name) => {
                    self.pods.retain(|_, pod| pod.cluster != name);
                    self.kubernetes.remove(&name, now);
                }
                Link::NodesUp { cluster, group } => self.nodes_up(&cluster, &group, now_ms),
                Link::NodeGone { cluster, node } => self.kubernetes.remove_node(&cluster, &node, now),
                Link::AddonUp { cluster, addon } => {
                    let id = format!("{cluster}/{addon}");
                    let found = self.aws.get("eks:addon", &region_of(&self.aws, &cluster), &id).map(|record| {
                        (
                            record.text("/addonVersion").to_owned(),
                            serde_json::from_str(record.text("/configurationValues")).ok(),
                        )
                    });
                    if let Some((version, configuration)) = found {
                        self.kubernetes.addon_installed(&cluster, &addon, &version, configuration, now);
                    }
                }
                Link::AddonGone { cluster, addon } => self.kubernetes.addon_removed(&cluster, &addon, now),
                Link::Access(cluster) => self.access(&cluster),
            }
        }
    }

    fn cluster_up(&mut self, name: &str, now_ms: i64) {
        let region = region_of(&self.aws, name);
        let Some(record) = self.aws.get("eks:cluster", &region, name) else { return };
        let new = NewCluster {
            name: name.to_owned(),
            arn: record.text("/arn").to_owned(),
            version: record.text("/version").to_owned(),
            oidc_issuer: record.text("/_issuer").to_owned(),
            account: self.aws.account().to_owned(),
            region: region.clone(),
            control_plane: record.body["_interfaces"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|id| self.aws.get("ec2:network-interface", &region, id.as_str()?))
                .map(|one| one.text("/privateIpAddress").to_owned())
                .collect(),
        };
        if let Err(error) = self.kubernetes.create(new, timestamp(now_ms)) {
            tracing::error!(%error, name, "no control plane");
            return;
        }
        let authority = self.kubernetes.certificate_authority_data(name);
        let mut own = false;
        if let Some(record) = self.aws.get_mut("eks:cluster", &region, name) {
            record.set("certificateAuthority", json!({"data": authority}));
            own = record.body.get("_self_managed") == Some(&json!(true));
        }
        // What EKS installs by itself unless it was told not to; no add-on to EKS.
        for addon in ["vpc-cni", "kube-proxy", "coredns"].into_iter().filter(|_| own) {
            self.kubernetes.addon_installed(name, addon, "", None, timestamp(now_ms));
        }
    }

    fn nodes_up(&mut self, cluster: &str, group: &str, now_ms: i64) {
        let region = region_of(&self.aws, cluster);
        let Some(record) = self.aws.get("eks:nodegroup", &region, &format!("{cluster}/{group}")) else { return };
        let list = |pointer: &str| record.body.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = record.text("/instanceTypes/0");
        let Some((_, cpu, memory_mib, arch, pods)) = crate::aws::INSTANCE_TYPES.iter().find(|(name, ..)| *name == kind)
        else {
            return;
        };
        let labels: BTreeMap<String, String> = record.body["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        let taints: Vec<Taint> = list("/taints")
            .iter()
            .map(|taint| Taint {
                key: text(taint, "key"),
                value: text(taint, "value"),
                effect: match text(taint, "effect").as_str() {
                    "NO_EXECUTE" => "NoExecute",
                    "PREFER_NO_SCHEDULE" => "PreferNoSchedule",
                    _ => "NoSchedule",
                }
                .to_owned(),
            })
            .collect();
        let nodes = list("/_nodes")
            .iter()
            .map(|node| NodeSeed {
                name: text(node, "name"),
                instance_id: text(node, "instance"),
                instance_type: kind.to_owned(),
                pool: group.to_owned(),
                zone: text(node, "zone"),
                region: region.clone(),
                arch: if *arch == "x86_64" { "amd64" } else { "arm64" }.to_owned(),
                labels: labels.clone(),
                taints: taints.clone(),
                cpu: *cpu,
                memory_mib: *memory_mib,
                pods: *pods,
            })
            .collect();
        self.kubernetes.join_nodes(cluster, nodes, timestamp(now_ms));
    }

    fn access(&mut self, cluster: &str) {
        let texts = |value: &Value, name: &str| -> Vec<String> {
            value
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let grants = self
            .aws
            .records()
            .filter(|record| record.kind == "eks:access-entry" && record.text("/clusterName") == cluster)
            .map(|record| AccessGrant {
                principal_arn: record.text("/principalArn").to_owned(),
                username: record.text("/username").to_owned(),
                groups: texts(&record.body, "kubernetesGroups"),
                policies: record.body["_policies"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|one| one["policyArn"].as_str())
                    .map(str::to_owned)
                    .collect(),
            })
            .collect();
        self.kubernetes.set_access(cluster, grants);
    }

    /// Add-ons are as healthy as their workloads.
    pub(crate) fn judge_addons(&mut self, now_ms: i64) {
        let addons: Vec<(String, String, String, String, i64)> = self
            .aws
            .records()
            .filter(|record| record.kind == "eks:addon" && matches!(record.text("/status"), "ACTIVE" | "DEGRADED"))
            .map(|record| {
                (
                    record.region.clone(),
                    record.id.clone(),
                    record.text("/status").to_owned(),
                    record.text("/addonName").to_owned(),
                    record.body["_degraded_until_ms"].as_i64().unwrap_or(0),
                )
            })
            .collect();
        for (region, id, status, addon, degraded_until_ms) in addons {
            let cluster = id.split('/').next().unwrap_or_default();
            let (wanted, issues) = match self.kubernetes.addon_health(cluster, &addon) {
                _ if now_ms < degraded_until_ms => (
                    "DEGRADED",
                    json!([{"code": "InsufficientNumberOfReplicas", "message": "The add-on is unhealthy because it doesn't have the desired number of replicas."}]),
                ),
                AddonHealth::Healthy => ("ACTIVE", json!([])),
                AddonHealth::Degraded(reason) => {
                    ("DEGRADED", json!([{"code": "InsufficientNumberOfReplicas", "message": reason}]))
                }
            };
            if wanted != status
                && let Some(record) = self.aws.get_mut("eks:addon", &region, &id)
            {
                record.set("status", wanted);
                record.set("health", json!({"issues": issues}));
            }
        }
    }
}

/// Vault pods as a document.
pub(crate) fn pods_document(pods: &Pods) -> Value {
    pods.values().map(|pod| json!({
        "cluster": pod.cluster, "namespace": pod.namespace, "stateful_set": pod.stateful_set, "ordinal": pod.ordinal, "pod_uid": pod.pod_uid, "storage_id": pod.storage_id,
        "certificate": pod.certificate, "key": pod.key, "services": pod.services, "image": pod.image, "configuration": pod.configuration,
    })).collect()
}

/// Vault pods from a document.
pub(crate) fn pods_restored(document: &Value) -> Pods {
    let text = |pod: &Value, name: &str| pod.get(name).and_then(Value::as_str).map(str::to_owned);
    document
        .as_array()
        .into_iter()
        .flatten()
        .map(|pod| {
            let restored = VaultPod {
                cluster: text(pod, "cluster").unwrap_or_default(),
                namespace: text(pod, "namespace").unwrap_or_default(),
                stateful_set: text(pod, "stateful_set").unwrap_or_default(),
                ordinal: pod
                    .get("ordinal")
                    .and_then(Value::as_u64)
                    .and_then(|ordinal| u32::try_from(ordinal).ok())
                    .unwrap_or(0),
                pod_uid: text(pod, "pod_uid").unwrap_or_default(),
                storage_id: text(pod, "storage_id").unwrap_or_default(),
                certificate: text(pod, "certificate"),
                key: text(pod, "key"),
                services: pod
                    .get("services")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
                image: text(pod, "image").unwrap_or_default(),
                configuration: text(pod, "configuration").unwrap_or_default(),
            };
            (restored.storage_id.clone(), restored)
        })
        .collect()
}
