//! The objects of one cluster: keyed storage with one resourceVersion counter and the history that watches and old lists read.
//! It knows nothing of kinds, admission or controllers; a change only leaves a note for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::object;

/// How many changes a watch can look back on.
const HISTORY: usize = 8_192;

/// Where an object is stored. The version is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// API group.
    pub(crate) group: String,
    /// Plural resource name.
    pub(crate) resource: String,
    /// Namespace, empty for cluster-wide kinds.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    /// A key from its parts.
    pub(crate) fn new(group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// A key in the core group.
    pub(crate) fn core(resource: &str, namespace: &str, name: &str) -> Self {
        Self::new("", resource, namespace, name)
    }

    /// Whether it is of a resource.
    pub(crate) fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    /// The text form used for persistence.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}/{}/{}", self.group, self.resource, self.namespace, self.name)
    }

    /// Reads the text form.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.splitn(4, '/');
        Some(Self::new(parts.next()?, parts.next()?, parts.next()?, parts.next()?))
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// New.
    Added,
    /// Changed.
    Modified,
    /// Gone.
    Deleted,
}

/// One entry of the history.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Version of the change.
    pub(crate) version: u64,
    /// Kind of change.
    pub(crate) kind: ChangeKind,
    /// Which object.
    pub(crate) key: Key,
    /// The object after it (for a deletion: its last state under the version of the deletion).
    pub(crate) object: Arc<Value>,
    /// The object before it.
    pub(crate) before: Option<Arc<Value>>,
}

/// Objects, counter, history.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    version: u64,
    /// Shared between the copies of a world: it is what makes most of one.
    history: VecDeque<Arc<Change>>,
    /// Highest version that fell out of the history.
    forgotten: u64,
    dirty: BTreeSet<Key>,
    changed: Vec<Change>,
}

impl Store {
    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Sets the counter after a restore; older history is gone.
    pub(crate) fn restore_version(&mut self, version: u64) {
        self.version = self.version.max(version);
        self.forgotten = self.version;
    }

    /// Puts an object back without history.
    pub(crate) fn restore_object(&mut self, key: Key, object: Value) {
        let version = object::text(&object, "/metadata/resourceVersion").parse().unwrap_or(0);
        self.restore_version(version);
        self.objects.insert(key, Arc::new(object));
    }

    /// Highest version that no watch can start from any more.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Drops all history, as a compaction does.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.forgotten = self.version;
    }

    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// All objects with their keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Objects of a resource, in one namespace or in all, in key order.
    pub(crate) fn list<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let from = Key::new(group, resource, namespace.unwrap_or_default(), "");
        self.objects.range(from..).take_while(move |(key, _)| {
            key.is(group, resource) && namespace.is_none_or(|wanted| key.namespace == wanted)
        })
    }

    /// Stores an object under the next version, which it writes into it.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object::set(&mut object, &["metadata", "resourceVersion"], json!(self.version.to_string()));
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.record(Change { version: self.version, kind, key, object: Arc::clone(&object), before });
        object
    }

    /// Removes an object; its last state gets the version of the deletion.
    pub(crate) fn delete(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        let mut last = (*before).clone();
        object::set(&mut last, &["metadata", "resourceVersion"], json!(self.version.to_string()));
        let last = Arc::new(last);
        self.record(Change {
            version: self.version,
            kind: ChangeKind::Deleted,
            key: key.clone(),
            object: Arc::clone(&last),
            before: Some(before),
        });
        Some(last)
    }

    fn record(&mut self, change: Change) {
        self.dirty.insert(change.key.clone());
        self.changed.push(change.clone());
        self.history.push_back(Arc::new(change));
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.version;
        }
    }

    /// Changes after a version, oldest first.
    pub(crate) fn since(&self, version: u64) -> impl Iterator<Item = &Change> {
        let start = self.history.partition_point(|change| change.version <= version);
        self.history.range(start..).map(|change| &**change)
    }

    /// The objects of a resource as they were at a version, if the history reaches back.
    pub(crate) fn at(
        &self,
        version: u64,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
    ) -> Option<BTreeMap<Key, Arc<Value>>> {
        if version < self.forgotten {
            return None;
        }
        let mut objects: BTreeMap<Key, Arc<Value>> =
            self.list(group, resource, namespace).map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        let later: Vec<&Change> = self
            .since(version)
            .filter(|change| {
                change.key.is(group, resource) && namespace.is_none_or(|wanted| change.key.namespace == wanted)
            })
            .collect();
        for change in later.into_iter().rev() {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), Arc::clone(before)),
                None => objects.remove(&change.key),
            };
        }
        Some(objects)
    }

    /// Keys changed since the last call, for persistence.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.dirty)
    }

    /// Changes since the last call, for the controllers.
    pub(crate) fn take_changed(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changed)
    }
}
