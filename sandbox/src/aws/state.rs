//! What the simulated account holds: records with a kind, an id, tags, a body in the service's own field names, and at most
//! one pending transition. It knows no operation of any service.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::shape::Shape;

/// One resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Such as `ec2:vpc`.
    pub kind: String,
    /// Identity within its kind.
    pub id: String,
    /// Region, or `global`.
    pub region: String,
    /// When it was made, simulated Unix milliseconds.
    pub created_ms: i64,
    /// Fields as the service names them; those that begin with `_` are never sent.
    pub body: Value,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Made by AWS on its own, together with something else.
    #[serde(default)]
    pub system: bool,
    /// When its next transition is due.
    #[serde(default)]
    pub due_ms: Option<i64>,
    /// The transition.
    #[serde(default)]
    pub next: String,
}

impl Record {
    /// A text of the body by JSON pointer, or nothing.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets a field of the body.
    pub fn set(&mut self, field: &str, value: impl Into<Value>) {
        if let Some(fields) = self.body.as_object_mut() {
            fields.insert(field.to_owned(), value.into());
        }
    }

    /// Plans the next transition.
    pub fn then(&mut self, due_ms: i64, next: &str) {
        self.due_ms = Some(due_ms);
        next.clone_into(&mut self.next);
    }
}

/// An answer that a client token stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) digest: String,
    pub(super) answer: Value,
}

/// What the Kubernetes side has to hear of.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    /// A control plane is up.
    ClusterUp(String),
    /// A control plane is gone.
    ClusterGone(String),
    /// Machines of a node group came up.
    NodesUp {
        /// Cluster name.
        cluster: String,
        /// Node group name.
        group: String,
    },
    /// A machine is gone.
    NodeGone {
        /// Cluster name.
        cluster: String,
        /// Node name.
        node: String,
    },
    /// An add-on was installed or updated.
    AddonUp {
        /// Cluster name.
        cluster: String,
        /// Add-on name.
        addon: String,
    },
    /// An add-on is gone.
    AddonGone {
        /// Cluster name.
        cluster: String,
        /// Add-on name.
        addon: String,
    },
    /// Access entries changed.
    Access(String),
}

/// The simulated account.
#[derive(Debug, Clone, Default)]
pub struct State {
    seed: u64,
    counter: u64,
    account: String,
    /// How it differs from an ordinary account.
    shape: Shape,
    /// Shared between the copies of a world until one of them changes.
    records: BTreeMap<String, Arc<Record>>,
    tokens: BTreeMap<String, Token>,
    dirty: BTreeSet<String>,
    /// Messages to the Kubernetes side, oldest first.
    pub links: Vec<Link>,
    /// Access keys that are refused: `expired` or `unknown`.
    pub refused_keys: BTreeMap<String, String>,
    /// Simulated time of what is being done.
    now_ms: i64,
    /// What records were before their latest changes, oldest first; forgotten after [`MEMORY_MS`].
    former: VecDeque<Arc<Former>>,
}

/// A record as it was until a change; nothing if it was not there.
#[derive(Debug, Clone)]
struct Former {
    until_ms: i64,
    key: String,
    record: Option<Arc<Record>>,
}

/// How long the past is remembered for reads that lag.
const MEMORY_MS: i64 = 120_000;

fn key(kind: &str, region: &str, id: &str) -> String {
    format!("record|{kind}|{region}|{id}")
}

impl State {
    /// An empty account. The same seed gives the same ids to the same calls.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = Self { seed, ..Self::default() };
        let number = u64::from_str_radix(&state.hex(12), 16).unwrap_or(0);
        state.account = format!("{:012}", 100_000_000_000 + number % 900_000_000_000);
        state
    }

    /// The account's number.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// How it differs from an ordinary account.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Makes it differ.
    pub fn set_shape(&mut self, shape: Shape) {
        self.shape = shape;
        self.dirty.insert("meta".to_owned());
    }

    /// Fresh hexadecimal digits (at most 64).
    pub fn hex(&mut self, digits: usize) -> String {
        self.counter += 1;
        self.dirty.insert("meta".to_owned());
        let digest = Sha256::digest(format!("{}/{}", self.seed, self.counter).as_bytes());
        hex::encode(digest).chars().take(digits).collect()
    }

    /// Digits that follow from a name alone.
    #[must_use]
    pub fn seeded_suffix(&self, name: &str) -> String {
        hex::encode(Sha256::digest(format!("{}/{name}", self.seed).as_bytes())).chars().take(16).collect()
    }

    /// A fresh UUID.
    pub fn uuid(&mut self) -> String {
        let hex = self.hex(32);
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
        format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
    }

    /// A record.
    #[must_use]
    pub fn get(&self, kind: &str, region: &str, id: &str) -> Option<&Record> {
        self.records.get(&key(kind, region, id)).map(AsRef::as_ref)
    }

    /// A record, to change it.
    pub fn get_mut(&mut self, kind: &str, region: &str, id: &str) -> Option<&mut Record> {
        let key = key(kind, region, id);
        let former = Arc::clone(self.records.get(&key)?);
        self.remember(&key, Some(former));
        self.dirty.insert(key.clone());
        self.records.get_mut(&key).map(Arc::make_mut)
    }

    /// Keeps a record.
    pub fn put(&mut self, record: Record) {
        let key = key(&record.kind, &record.region, &record.id);
        self.dirty.insert(key.clone());
        let former = self.records.insert(key.clone(), Arc::new(record));
        self.remember(&key, former);
    }

    /// Takes a record away.
    pub fn remove(&mut self, kind: &str, region: &str, id: &str) -> Option<Record> {
        let key = key(kind, region, id);
        self.dirty.insert(key.clone());
        let former = self.records.remove(&key)?;
        self.remember(&key, Some(Arc::clone(&former)));
        Some(Arc::unwrap_or_clone(former))
    }

    /// Says what time it is, for everything that changes from now on.
    pub fn set_now(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        while self.former.front().is_some_and(|former| former.until_ms < now_ms - MEMORY_MS) {
            self.former.pop_front();
        }
    }

    fn remember(&mut self, key: &str, record: Option<Arc<Record>>) {
        self.former.push_back(Arc::new(Former { until_ms: self.now_ms, key: key.to_owned(), record }));
    }

    /// Looks at the account as it was at a time: what changed since is not seen.
    pub fn as_of<T>(&mut self, then_ms: i64, look: impl FnOnce(&mut Self) -> T) -> T {
        let mut then: BTreeMap<String, Option<Arc<Record>>> = BTreeMap::new();
        for former in self.former.iter().filter(|former| former.until_ms > then_ms) {
            then.entry(former.key.clone()).or_insert_with(|| former.record.clone());
        }
        let mut now = Vec::new();
        for (key, record) in then {
            let present = match record {
                Some(record) => self.records.insert(key.clone(), record),
                None => self.records.remove(&key),
            };
            now.push((key, present));
        }
        let memories = self.former.len();
        let seen = look(self);
        self.former.truncate(memories);
        for (key, record) in now {
            match record {
                Some(record) => self.records.insert(key, record),
                None => self.records.remove(&key),
            };
        }
        seen
    }

    /// All records of a kind in a region, by id.
    pub fn all<'a>(&'a self, kind: &str, region: &str) -> impl Iterator<Item = &'a Record> + use<'a> {
        let prefix = key(kind, region, "");
        let end = prefix.clone();
        self.records
            .range(prefix..)
            .take_while(move |(key, _)| key.starts_with(&end))
            .map(|(_, record)| record.as_ref())
    }

    /// Everything.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(AsRef::as_ref)
    }

    /// The record whose transition is due first.
    #[must_use]
    pub fn next_due(&self) -> Option<(i64, &Record)> {
        self.records().filter_map(|record| Some((record.due_ms?, record))).min_by_key(|(due, _)| *due)
    }

    pub(super) fn token(&self, name: &str) -> Option<&Token> {
        self.tokens.get(name)
    }

    pub(super) fn keep_token(&mut self, name: String, token: Token) {
        self.dirty.insert(format!("token|{name}"));
        self.tokens.insert(name, token);
    }

    /// What changed since the last call; nothing for what is gone.
    pub fn take_dirty(&mut self) -> Vec<(String, Option<Value>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|key| {
            let value = if key == "meta" {
                Some(json!({"seed": self.seed, "counter": self.counter, "account": self.account, "refused_keys": self.refused_keys, "shape": self.shape}))
            } else if let Some(name) = key.strip_prefix("token|") {
                self.tokens.get(name).and_then(|token| serde_json::to_value(token).ok())
            } else {
                self.records.get(&key).and_then(|record| serde_json::to_value(record.as_ref()).ok())
            };
            (key, value)
        }).collect()
    }

    /// See [`crate::world::World::forget_changes`].
    pub(crate) fn forget_changes(&mut self) {
        self.dirty.clear();
    }

    /// Refuses an access key from now on, or no longer.
    pub fn refuse_key(&mut self, access_key: &str, how: Option<&str>) {
        match how {
            Some(how) => self.refused_keys.insert(access_key.to_owned(), how.to_owned()),
            None => self.refused_keys.remove(access_key),
        };
        self.dirty.insert("meta".to_owned());
    }

    /// Takes back what [`Self::take_dirty`] gave.
    ///
    /// # Errors
    /// A document that this version does not write.
    pub fn restore(&mut self, name: &str, value: Value) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Meta {
            seed: u64,
            counter: u64,
            account: String,
            refused_keys: BTreeMap<String, String>,
            #[serde(default)]
            shape: Shape,
        }
        if name == "meta" {
            let meta: Meta = serde_json::from_value(value)?;
            (self.seed, self.counter, self.account, self.refused_keys) =
                (meta.seed, meta.counter, meta.account, meta.refused_keys);
            self.shape = meta.shape;
        } else if let Some(token) = name.strip_prefix("token|") {
            self.tokens.insert(token.to_owned(), serde_json::from_value(value)?);
        } else {
            self.records.insert(name.to_owned(), Arc::new(serde_json::from_value(value)?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, state: &str) -> Record {
        Record {
            kind: "ec2:vpc".to_owned(),
            id: id.to_owned(),
            region: "r".to_owned(),
            created_ms: 0,
            body: json!({"state": state}),
            tags: BTreeMap::new(),
            system: false,
            due_ms: None,
            next: String::new(),
        }
    }

    fn seen(state: &State) -> Vec<String> {
        state.all("ec2:vpc", "r").map(|one| format!("{} {}", one.id, one.text("/state"))).collect()
    }

    /// Proves that a look into the past shows what was there then (the created not yet, the deleted still, the changed
    /// as it was), and changes nothing.
    #[test]
    fn the_past_is_seen_and_left_alone() {
        let mut state = State::new(1);
        state.set_now(1_000);
        state.put(record("a", "one"));
        state.put(record("b", "one"));
        state.set_now(2_000);
        state.remove("ec2:vpc", "r", "a");
        state.get_mut("ec2:vpc", "r", "b").unwrap().set("state", "two");
        state.set_now(3_000);
        state.put(record("c", "one"));
        let present = seen(&state);
        assert_eq!(present, ["b two", "c one"]);
        assert_eq!(state.as_of(2_500, |state| seen(state)), ["b two"]);
        assert_eq!(state.as_of(1_500, |state| seen(state)), ["a one", "b one"]);
        assert!(state.as_of(500, |state| seen(state)).is_empty());
        assert_eq!(seen(&state), present);
    }
}
