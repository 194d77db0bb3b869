//! One cluster: its identity, objects, access grants, add-ons and the queue of what its controllers have to look at.
//! Requests are in `verbs`, controllers in `controllers`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::apply::{self, Writer};
use super::lists::Place as Walk;
use super::model::{AccessGrant, NewCluster};
use super::object;
use super::queue::{Beyond, Poll, Queue, Seen};
use super::resources::{self, Resource};
use super::store::{Key, Store};

/// An installed EKS add-on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Addon {
    /// Version.
    pub(crate) version: String,
    /// Configuration values.
    pub(crate) configuration: Option<Value>,
}

/// What a cluster keeps beside its objects.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// As the EKS side created it.
    pub(crate) info: NewCluster,
    /// Certificate authority, PEM.
    pub(crate) ca_certificate: String,
    /// Key of the certificate authority, PEM.
    pub(crate) ca_key: String,
    /// Access entries.
    pub(crate) access: Vec<AccessGrant>,
    /// Add-ons.
    pub(crate) addons: BTreeMap<String, Addon>,
    /// Newest resourceVersion.
    pub(crate) version: u64,
    /// Counter behind uids, addresses and generated names.
    pub(crate) counter: u64,
}

/// The kinds whose status shows its owner: those that a client writes and a controller reports on. Pods and nodes change too often.
fn controlled(key: &Key) -> bool {
    matches!(
        (key.group.as_str(), key.resource.as_str()),
        ("apps", "deployments") | ("batch", "jobs") | ("", "resourcequotas")
    )
}

/// One cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// Identity and settings.
    pub(crate) identity: Identity,
    /// Objects.
    pub(crate) store: Store,
    /// Work for the controllers.
    pub(crate) queue: Queue,
    /// Resources that CRDs add.
    pub(crate) custom: Vec<Arc<Resource>>,
    /// The definitions that those were read from.
    pub(crate) definitions: BTreeMap<Key, (Arc<Value>, Vec<Arc<Resource>>)>,
    /// Vault storage ids with the pod that holds each now.
    pub(crate) vault_pods: BTreeMap<String, String>,
    /// How often add-ons changed: what they configure is in no object.
    pub(crate) settings: u64,
    /// Whether the identity changed since it was last taken.
    pub(crate) identity_dirty: bool,
    /// Simulated time of the last look or request.
    pub(crate) clock: Timestamp,
    /// Namespaces on their way out that had pods when their emptying began, with the time until which they stay.
    pub(crate) emptied_of_pods: BTreeMap<String, Option<Timestamp>>,
}

impl Cluster {
    /// A cluster without any object.
    pub(crate) fn empty(identity: Identity) -> Self {
        let mut store = Store::default();
        store.restore_version(identity.version);
        Self {
            identity,
            store,
            queue: Queue::default(),
            custom: Vec::new(),
            definitions: BTreeMap::new(),
            vault_pods: BTreeMap::new(),
            settings: 0,
            identity_dirty: true,
            clock: Timestamp::UNIX_EPOCH,
            emptied_of_pods: BTreeMap::new(),
        }
    }

    /// Cluster name.
    pub(crate) fn name(&self) -> String {
        self.identity.info.name.clone()
    }

    fn next_count(&mut self) -> u64 {
        self.identity.counter += 1;
        self.identity_dirty = true;
        self.identity.counter
    }

    fn digest(&mut self, purpose: &str) -> [u8; 32] {
        let count = self.next_count();
        Sha256::digest(format!("{}|{purpose}|{count}", self.identity.info.arn)).into()
    }

    /// A fresh uid: the same world gives the same ones.
    pub(crate) fn new_uid(&mut self) -> String {
        let digest = hex::encode(self.digest("uid"));
        let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default().to_owned();
        format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
    }

    /// A random-looking suffix in the alphabet of generated names.
    pub(crate) fn new_suffix(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        self.digest("suffix")
            .iter()
            .take(length)
            .map(|byte| char::from(*LETTERS.get(usize::from(*byte) % LETTERS.len()).unwrap_or(&b'x')))
            .collect()
    }

    /// A fresh address below a prefix of two octets.
    pub(crate) fn new_address(&mut self, prefix: &str) -> String {
        let count = self.next_count();
        format!("{prefix}.{}.{}", (count / 250) % 250, count % 250 + 4)
    }

    /// A resource by group, version and plural.
    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources().find(|each| each.group == group && each.version == version && each.plural == plural).cloned()
    }

    /// A resource by group and plural, whatever version.
    pub(crate) fn resource_of(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources().find(|each| each.group == group && each.plural == plural).cloned()
    }

    /// A resource by apiVersion and kind.
    pub(crate) fn resource_of_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.resources().find(|each| each.group == group && each.kind == kind).cloned()
    }

    /// Every served resource.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        resources::built_in().iter().chain(self.custom.iter())
    }

    /// Reads the CRDs again: those that say something else than before. Schemas are large, and most writes are not to them.
    pub(crate) fn refresh_definitions(&mut self) {
        let mut read = BTreeMap::new();
        for (key, crd) in self
            .store
            .list("apiextensions.k8s.io", "customresourcedefinitions", None)
            .filter(|(_, crd)| object::condition_true(crd, "Established"))
        {
            let resources = match self.definitions.get(key) {
                Some((old, resources)) if Arc::ptr_eq(old, crd) || old.get("spec") == crd.get("spec") => {
                    resources.clone()
                }
                _ => resources::of_definition(crd).into_iter().map(Arc::new).collect(),
            };
            read.insert(key.clone(), (Arc::clone(crd), resources));
        }
        self.custom = read.values().flat_map(|(_, resources)| resources.iter().cloned()).collect();
        self.definitions = read;
    }

    /// Asks the controllers to look at a key after some milliseconds.
    pub(crate) fn ask(&mut self, key: Key, now: Timestamp, after_ms: i64) {
        let at = now.checked_add(SignedDuration::from_millis(after_ms)).unwrap_or(now);
        self.queue.ask(key, at);
    }

    /// What a look that waits may depend on, as it is now.
    pub(crate) fn seen(&self) -> Seen {
        Seen { version: self.store.version(), settings: self.settings }
    }

    /// Asks the controllers to look at a key every so many milliseconds, but only where it may find anything new: what
    /// it waits for is an object, a setting, or what a Vault does, and not the time.
    pub(crate) fn poll(&mut self, key: Key, now: Timestamp, every_ms: i64, beyond: Beyond) {
        let at = now.checked_add(SignedDuration::from_millis(every_ms)).unwrap_or(now);
        let poll = Poll { every_ms, seen: self.seen(), beyond };
        self.queue.poll(key, at, poll);
    }

    /// Stores an object by its key, as controllers do: without admission, and only if it differs.
    pub(crate) fn write(&mut self, key: &Key, object: Value) -> bool {
        if self.store.get(key).is_some_and(|old| **old == object) {
            return false;
        }
        self.store.put(key.clone(), object);
        true
    }

    /// Changes an object in place, as controllers do. Answers whether it changed.
    pub(crate) fn change(&mut self, key: &Key, edit: impl FnOnce(&mut Value)) -> bool {
        let Some(old) = self.store.get(key) else { return false };
        let mut new = (**old).clone();
        edit(&mut new);
        if new == **old {
            return false;
        }
        if controlled(key) {
            let old = Arc::clone(old);
            self.sign(key, Some(old.as_ref()), &mut new, "status");
        }
        self.write(key, new)
    }

    /// Changes an object in place as a part of a request: nobody becomes the owner of what changes.
    pub(crate) fn mark(&mut self, key: &Key, edit: impl FnOnce(&mut Value)) -> bool {
        let Some(old) = self.store.get(key) else { return false };
        let mut new = (**old).clone();
        edit(&mut new);
        self.write(key, new)
    }

    /// Marks what a controller wrote as its own, as every writer's fields are marked.
    fn sign(&self, key: &Key, old: Option<&Value>, new: &mut Value, sub: &str) {
        let Some(resource) = self.resource_of(&key.group, &key.resource) else { return };
        let now = object::stamp(self.clock);
        let version = resource.api_version();
        let manager = if key.is("", "nodes") { "kubelet" } else { "kube-controller-manager" };
        let who = Writer { manager, api_version: &version, subresource: sub, now: &now };
        apply::record_update(old, new, who, &Walk::root(None, false).of_kind(&resource.kind));
    }

    /// An object, shared.
    pub(crate) fn object(&self, key: &Key) -> Option<Arc<Value>> {
        self.store.get(key).cloned()
    }

    /// Fills in what every stored object has, and stores it: for objects that controllers make.
    pub(crate) fn make(&mut self, resource: &str, group: &str, mut new: Value, now: Timestamp) -> Option<Arc<Value>> {
        let key = Key::new(group, resource, object::namespace(&new), object::name(&new));
        if self.store.get(&key).is_some() {
            return None;
        }
        let uid = self.new_uid();
        object::set(&mut new, &["metadata", "uid"], Value::String(uid));
        object::set(&mut new, &["metadata", "creationTimestamp"], Value::String(object::stamp(now)));
        super::defaults::fill(group, resource, &mut new);
        super::defaults::generate(group, resource, &mut new);
        if super::verbs::has_generation(group, resource) {
            object::set(&mut new, &["metadata", "generation"], Value::from(1));
        }
        // The fields of what a fresh control plane comes with are of no interest to anybody.
        if self.clock > Timestamp::UNIX_EPOCH {
            self.sign(&key, None, &mut new, "");
        }
        Some(self.store.put(key, new))
    }

    /// Begins the deletion of an object as a controller asks for it: finalizers hold it, pods get their grace.
    pub(crate) fn delete(&mut self, key: &Key, now: Timestamp) {
        super::verbs::delete::begin(self, key, now, None);
    }

    /// Whether an add-on is installed.
    pub(crate) fn has_addon(&self, name: &str) -> bool {
        self.identity.addons.contains_key(name)
    }
}
