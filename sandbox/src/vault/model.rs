//! What exists: storages, the processes on them, and the clusters they form. Timers move it on; nothing here parses.

use super::acl::Rule;
use super::regain::Regain;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a joiner takes to unseal itself after its last share was accepted.
pub(super) const JOIN_UNSEAL: Duration = Duration::from_secs(1);
/// How long a new leader takes from winning to serving.
pub(super) const ACTIVATION: Duration = Duration::from_millis(200);
/// How long the others take to notice that a leader is gone and to elect another.
pub(super) const ELECTION: Duration = Duration::from_secs(2);
/// Raft's log is not modelled: the place in it that every server says it has reached.
pub(super) const RAFT_INDEX: u64 = 100;
/// How long a joined server stays a non-voter at least (autopilot's server stabilisation time is 10 s).
pub(super) const STABILISATION: Duration = Duration::from_secs(10);

/// Which of the two products runs: they parted in a few answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Product {
    /// HashiCorp Vault.
    #[default]
    Vault,
    /// OpenBao.
    OpenBao,
}

impl Product {
    /// By the name of the container image.
    #[must_use]
    pub fn of_image(image: &str) -> Self {
        if image.contains("openbao") { Self::OpenBao } else { Self::Vault }
    }

    pub(super) fn version(self) -> &'static str {
        match self {
            Self::Vault => "1.20.4",
            Self::OpenBao => "2.7.2",
        }
    }

    pub(super) fn plugin_version(self) -> &'static str {
        match self {
            Self::Vault => "v1.20.4+builtin.vault",
            Self::OpenBao => "v2.7.2+builtin.bao",
        }
    }
}

/// A server process: a pod on a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultPod {
    /// The pod's uid: the process's identity.
    pub uid: String,
    /// The pod's name; the first label of its address.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The volume it runs on (the PVC's uid, or the volume's id): the storage's identity.
    pub storage_id: String,
    /// What its image says it is.
    #[serde(default)]
    pub product: Product,
    /// Audit devices that its configuration declares: their names, and the files they write to.
    #[serde(default)]
    pub audits: BTreeMap<String, String>,
}

/// One cluster, as the world's listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterSummary {
    /// Cluster id (a uuid).
    pub id: String,
    /// Cluster name.
    pub name: String,
    /// Always true: a cluster exists once it is initialised.
    pub initialized: bool,
    /// True unless a server is unsealed.
    pub sealed: bool,
    /// How many servers of it run unsealed.
    pub unsealed: usize,
    /// Voting members.
    pub voters: usize,
    /// Storage ids of its members.
    pub storages: Vec<String>,
    /// The pod that leads it.
    pub leader: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SealState {
    Sealed,
    Opening { at: Timestamp },
    Open { since: Timestamp },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pod: VaultPod,
    /// The Kubernetes cluster it runs in: pod names are unique in one only.
    #[serde(default)]
    pub(super) site: String,
    pub(super) seal: SealState,
    /// Shares given so far. Never persisted.
    #[serde(skip)]
    pub(super) given: Vec<Vec<u8>>,
    pub(super) nonce: String,
    /// What the holders of the shares have begun here as long as it leads. Never persisted.
    #[serde(skip)]
    pub(super) regain: Regain,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Storage {
    pub(super) node_id: String,
    /// The cluster whose data it holds, or that it has asked to join.
    pub(super) cluster: Option<String>,
    /// Raft was bootstrapped but the barrier never was: uninitialised, and init is refused for good.
    pub(super) half_made: bool,
    /// The barrier was made and its seal's configuration never was: nothing but that can be said of it.
    #[serde(default)]
    pub(super) sealless: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) address: String,
    pub(super) voter_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Leader {
    pub(super) storage: String,
    pub(super) active_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) accessor: String,
    pub(super) policies: Vec<String>,
    pub(super) display_name: String,
    pub(super) path: String,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) parent: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Whom a login stands for.
    #[serde(default)]
    pub(super) entity_id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Policy {
    pub(super) text: String,
    /// How often it was written.
    #[serde(default)]
    pub(super) version: u64,
    #[serde(default)]
    pub(super) modified: Timestamp,
}

impl Policy {
    pub(super) fn rules(&self) -> Vec<Rule> {
        super::acl::parse(&self.text).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mount {
    pub(super) kind: String,
    pub(super) description: String,
    pub(super) options: BTreeMap<String, String>,
    pub(super) accessor: String,
    pub(super) mounted_at: Timestamp,
    /// Secrets of a KV mount, by path.
    pub(super) secrets: BTreeMap<String, Secret>,
    /// Configuration of an auth method.
    pub(super) config: Option<Value>,
    /// Roles of an auth method.
    pub(super) roles: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Secret {
    pub(super) versions: BTreeMap<u64, Version>,
    pub(super) current: u64,
    pub(super) cas_required: bool,
    pub(super) created_at: Option<Timestamp>,
    pub(super) updated_at: Option<Timestamp>,
    pub(super) custom: Value,
    #[serde(default)]
    pub(super) metadata_writes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) data: Option<Value>,
    pub(super) created_at: Timestamp,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) destroyed: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cluster {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) key_digest: String,
    pub(super) shares: u8,
    pub(super) threshold: u8,
    pub(super) members: BTreeMap<String, Member>,
    pub(super) leader: Option<Leader>,
    pub(super) election_at: Timestamp,
    pub(super) tokens: BTreeMap<String, Token>,
    pub(super) policies: BTreeMap<String, Policy>,
    pub(super) mounts: BTreeMap<String, Mount>,
    pub(super) auths: BTreeMap<String, Mount>,
    pub(super) audits: BTreeMap<String, Value>,
}

impl Cluster {
    pub(super) fn voters(&self, now: Timestamp) -> impl Iterator<Item = &String> {
        self.members.iter().filter(move |(_, member)| member.voter_at <= now).map(|(storage, _)| storage)
    }
}

/// All simulated Vault servers of a world.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Servers {
    pub(super) random: u64,
    pub(super) storages: BTreeMap<String, Storage>,
    /// By storage id: a volume is mounted by one pod at a time.
    pub(super) processes: BTreeMap<String, Process>,
    pub(super) clusters: BTreeMap<String, Cluster>,
    #[serde(skip)]
    pub(super) dirty: BTreeSet<String>,
    /// How often anybody but the sandbox's own readers asked, or a server came or went.
    #[serde(skip)]
    pub(crate) heard: u64,
    /// How far the timers were run; unknown after a restore.
    #[serde(skip)]
    pub(super) seen: Option<Timestamp>,
}

pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

pub(super) fn digest(secret: &[u8]) -> String {
    hex::encode(Sha256::digest(secret))
}

impl Servers {
    /// No server yet. The same seed gives the same ids, keys and tokens.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: seed, ..Self::default() }
    }

    /// A pod's Vault container runs. Starting the same pod twice changes nothing; another pod on the same volume takes
    /// it over, sealed.
    pub fn pod_started(&mut self, pod: VaultPod, now: Timestamp) {
        self.pod_started_in("", pod, now);
    }

    /// The same in a named Kubernetes cluster, where a world has several.
    pub fn pod_started_in(&mut self, site: &str, pod: VaultPod, now: Timestamp) {
        self.advance(now);
        if self.processes.get(&pod.storage_id).is_some_and(|process| process.pod.uid == pod.uid) {
            return;
        }
        if let Some(uid) = self.processes.get(&pod.storage_id).map(|process| process.pod.uid.clone()) {
            self.pod_stopped(&uid, now);
        }
        let node_id = pod.name.clone();
        self.storages.entry(pod.storage_id.clone()).or_insert_with(|| Storage { node_id, ..Storage::default() });
        self.touch_storage(&pod.storage_id);
        let storage_id = pod.storage_id.clone();
        let site = site.to_owned();
        let process = Process {
            pod,
            site,
            seal: SealState::Sealed,
            given: Vec::new(),
            nonce: String::new(),
            regain: Regain::default(),
        };
        self.processes.insert(storage_id, process);
        self.advance(now);
    }

    /// A pod's Vault container is gone, whatever the cause: its memory, and with it the unsealed key, is lost.
    pub fn pod_stopped(&mut self, pod_uid: &str, now: Timestamp) {
        self.advance(now);
        let found = self.processes.iter().find(|(_, process)| process.pod.uid == pod_uid);
        let Some(storage_id) = found.map(|(storage_id, _)| storage_id.clone()) else { return };
        self.processes.remove(&storage_id);
        // A join that was never completed lived in memory only.
        let joined = self.storages.get(&storage_id).and_then(|storage| storage.cluster.clone());
        if let Some(cluster) = joined.and_then(|id| self.clusters.get(&id))
            && !cluster.members.contains_key(&storage_id)
            && let Some(storage) = self.storages.get_mut(&storage_id)
        {
            storage.cluster = None;
        }
        self.touch_storage(&storage_id);
        self.advance(now);
    }

    /// The same, for a caller that knows the volume only.
    pub fn stopped_on(&mut self, storage_id: &str, now: Timestamp) {
        if let Some(uid) = self.processes.get(storage_id).map(|process| process.pod.uid.clone()) {
            self.pod_stopped(&uid, now);
        }
    }

    /// What a readiness probe sees: the server is unsealed.
    #[must_use]
    pub fn pod_ready(&self, storage_id: &str) -> bool {
        self.processes.get(storage_id).is_some_and(|process| matches!(process.seal, SealState::Open { .. }))
    }

    /// The volume is deleted, with all that was on it. A cluster without volumes is gone.
    pub fn storage_deleted(&mut self, storage_id: &str, now: Timestamp) {
        self.advance(now);
        self.processes.remove(storage_id);
        self.touch_storage(storage_id);
        let Some(storage) = self.storages.remove(storage_id) else { return };
        let Some(cluster) = storage.cluster else { return };
        let holds = |storage: &Storage| storage.cluster.as_ref() == Some(&cluster);
        if !self.storages.values().any(holds) {
            self.clusters.remove(&cluster);
            self.dirty.insert(format!("cluster/{cluster}"));
        }
        self.advance(now);
    }

    /// The state a server is left in when it is killed between bootstrapping Raft and writing its keys: it says
    /// `initialized: false`, and refuses every init.
    pub fn bootstrap_interrupted(&mut self, storage_id: &str) {
        if let Some(storage) = self.storages.get_mut(storage_id).filter(|storage| storage.cluster.is_none()) {
            storage.half_made = true;
            self.touch_storage(storage_id);
        }
    }

    /// The state a server is left in when it is killed a moment later, between its keyring and its seal's configuration.
    pub fn init_interrupted(&mut self, storage_id: &str) {
        if let Some(storage) = self.storages.get_mut(storage_id).filter(|storage| storage.cluster.is_none()) {
            storage.sealless = true;
            self.touch_storage(storage_id);
        }
    }

    /// Every cluster, for the world's listing.
    #[must_use]
    pub fn summary(&self, now: Timestamp) -> Vec<ClusterSummary> {
        self.clusters
            .values()
            .map(|cluster| {
                let unsealed = cluster.members.keys().filter(|storage| self.pod_ready(storage)).count();
                ClusterSummary {
                    id: cluster.id.clone(),
                    name: cluster.name.clone(),
                    initialized: true,
                    sealed: unsealed == 0,
                    unsealed,
                    voters: cluster.voters(now).count(),
                    storages: cluster.members.keys().cloned().collect(),
                    leader: cluster
                        .leader
                        .as_ref()
                        .and_then(|leader| self.processes.get(&leader.storage))
                        .map(|process| process.pod.name.clone()),
                }
            })
            .collect()
    }

    /// The running pod at an address such as `https://vault-0.vault-internal.platform-system.svc:8200`.
    ///
    /// As seen from the server on `storage_id`: names mean nothing in another cluster.
    pub(super) fn at_address(&self, storage_id: &str, address: &str) -> Option<&Process> {
        let site = self.processes.get(storage_id).map(|process| process.site.as_str());
        let url = url::Url::parse(address).ok()?;
        let mut labels = url.host_str()?.split('.');
        let name = labels.next()?;
        let namespace = labels.nth(1);
        self.processes.values().find(|process| {
            Some(process.site.as_str()) == site
                && process.pod.name == name
                && namespace.is_none_or(|namespace| process.pod.namespace == namespace)
        })
    }

    /// The storage of an unsealed server behind the Service of a StatefulSet: what a client inside the cluster reaches.
    #[must_use]
    pub fn behind_service(&self, site: &str, namespace: &str, stateful_set: &str) -> Option<String> {
        let found = self.processes.iter().find(|(storage_id, process)| {
            let ordinal = process.pod.name.strip_prefix(stateful_set).and_then(|rest| rest.strip_prefix('-'));
            process.site == site
                && process.pod.namespace == namespace
                && ordinal.is_some_and(|ordinal| ordinal.parse::<u32>().is_ok())
                && self.pod_ready(storage_id)
        });
        found.map(|(storage_id, _)| storage_id.clone())
    }

    /// What the server on a storage is.
    pub(super) fn product(&self, storage_id: &str) -> Product {
        self.processes.get(storage_id).map(|process| process.pod.product).unwrap_or_default()
    }

    /// The cluster a storage holds data of.
    pub(super) fn cluster_of(&self, storage_id: &str) -> Option<&Cluster> {
        self.storages.get(storage_id)?.cluster.as_ref().and_then(|id| self.clusters.get(id))
    }

    pub(super) fn touch_storage(&mut self, storage_id: &str) {
        self.dirty.insert(format!("storage/{storage_id}"));
    }

    pub(super) fn touch_cluster(&mut self, cluster: &str) {
        self.dirty.insert(format!("cluster/{cluster}"));
    }

    /// SplitMix64: small, seeded, serialisable. Not for real keys.
    pub(super) fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.dirty.insert("random".into());
        mixed ^ (mixed >> 31)
    }

    pub(super) fn random_bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next_random().to_le_bytes().first().copied().unwrap_or_default()).collect()
    }

    pub(super) fn uuid(&mut self) -> String {
        let text = hex::encode(self.random_bytes(16));
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
    }
}
