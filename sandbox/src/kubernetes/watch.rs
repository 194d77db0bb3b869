//! Watches: where one begins, which changes it sees, bookmarks, and how it ends. Polled; the server turns polls into a stream.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::model::KubeReply;
use super::object;
use super::resources::Resource;
use super::route::Place;
use super::status::Refusal;
use super::store::{Change, ChangeKind};
use super::table;
use super::verbs::read::{Selection, check_options, wait_for_version};
use super::verbs::{Answer, Call, shown};

/// How often an idle watch sends a bookmark.
const BOOKMARK_EVERY_S: i64 = 60;

/// What form the objects of a watch have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Object,
    Partial,
    Table,
}

/// An open watch.
pub struct Subscription {
    cluster: String,
    resource: Resource,
    namespace: Option<String>,
    selection: Selection,
    version: u64,
    initial: VecDeque<Value>,
    bookmarks: bool,
    shape: Shape,
    columns_sent: bool,
    ends: Timestamp,
    next_bookmark: Timestamp,
    last_bookmark: u64,
    future: bool,
    over: bool,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Subscription")
            .field("cluster", &self.cluster)
            .field("resource", &self.resource.plural)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// The cluster that is watched.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// When the watch has something to do without any change: a bookmark, or its end.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        if self.bookmarks { self.ends.min(self.next_bookmark) } else { self.ends }
    }
}

/// Begins a watch.
pub(crate) fn open(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    check_options(call, true)?;
    wait_for_version(call, "watch")?;
    let request = call.request;
    let selection = Selection::of(call, resource)?;
    let wanted: Option<u64> =
        request.query("resourceVersion").filter(|text| !text.is_empty()).and_then(|text| text.parse().ok());
    let current = call.cluster.store.version();
    let send_initial =
        request.query("sendInitialEvents").map(|value| value == "true" || value == "1" || value.is_empty());
    let bookmarks = request.flag("allowWatchBookmarks");
    let seconds: i64 = request
        .query("timeoutSeconds")
        .and_then(|text| text.parse().ok())
        .filter(|seconds| *seconds > 0)
        .unwrap_or(1_800);
    let from_start = send_initial.unwrap_or(matches!(wanted, None | Some(0)));
    let mut subscription = Subscription {
        cluster: call.cluster.name(),
        resource: resource.clone(),
        namespace: place.namespace.clone(),
        selection,
        version: if from_start { current } else { wanted.filter(|version| *version > 0).unwrap_or(current) },
        initial: VecDeque::new(),
        bookmarks,
        shape: shape(request.accept.as_deref()),
        columns_sent: false,
        ends: call.now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(call.now),
        next_bookmark: first_bookmark(call.now, seconds),
        last_bookmark: 0,
        future: wanted.is_some_and(|version| version > current),
        over: false,
    };
    if from_start {
        let present: Vec<Value> = call
            .cluster
            .store
            .list(&resource.group, &resource.plural, place.namespace.as_deref())
            .filter(|(_, object)| subscription.selection.selects(object))
            .map(|(_, object)| shown(resource, object))
            .collect();
        for object in present {
            let event = subscription.event("ADDED", object, call.now);
            subscription.initial.push_back(event);
        }
        if send_initial == Some(true) && bookmarks {
            let end = json!({"type": "BOOKMARK", "object": {"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": {"resourceVersion": current.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}});
            subscription.initial.push_back(end);
        }
    } else if subscription.version < call.cluster.store.forgotten() {
        let forgotten = call.cluster.store.forgotten();
        let status = Refusal::new(
            410,
            Some("Expired"),
            format!("too old resource version: {} ({forgotten})", subscription.version),
        )
        .status();
        subscription.initial.push_back(json!({"type": "ERROR", "object": status}));
        subscription.over = true;
    }
    Ok(Answer::Reply(KubeReply::Watch(Box::new(subscription))))
}

fn first_bookmark(now: Timestamp, seconds: i64) -> Timestamp {
    let after = if seconds <= BOOKMARK_EVERY_S { (seconds - 2).max(1) } else { BOOKMARK_EVERY_S };
    now.checked_add(SignedDuration::from_secs(after)).unwrap_or(now)
}

fn shape(accept: Option<&str>) -> Shape {
    let first = accept.unwrap_or_default().split(',').next().unwrap_or_default();
    if first.contains("as=Table") {
        Shape::Table
    } else if first.contains("as=PartialObjectMetadata") {
        Shape::Partial
    } else {
        Shape::Object
    }
}

impl Subscription {
    fn event(&mut self, kind: &str, object: Value, now: Timestamp) -> Value {
        let object = match self.shape {
            Shape::Object => object,
            Shape::Partial => table::partial(&object),
            Shape::Table => {
                let mut table = table::table(&self.resource, &object, None, now);
                if self.columns_sent {
                    object::set(&mut table, &["columnDefinitions"], json!([]));
                }
                self.columns_sent = true;
                table
            }
        };
        json!({"type": kind, "object": object})
    }

    fn covers(&self, change: &Change) -> bool {
        change.key.is(&self.resource.group, &self.resource.plural)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == change.key.namespace)
    }
}

/// What a change is for a watch with a selector: objects enter and leave its view.
fn seen(change: &Change, selection: &Selection) -> Option<&'static str> {
    let now = change.kind != ChangeKind::Deleted && selection.selects(&change.object);
    let before = change.before.as_ref().is_some_and(|before| selection.selects(before));
    match (before, now) {
        (false, true) => Some("ADDED"),
        (true, true) => Some("MODIFIED"),
        (true, false) => Some("DELETED"),
        (false, false) => None,
    }
}

/// The events since the last poll, and whether the watch is over.
pub(crate) fn poll(cluster: Option<&Cluster>, watch: &mut Subscription, now: Timestamp) -> (Vec<Value>, bool) {
    let mut events: Vec<Value> = watch.initial.drain(..).collect();
    if watch.over {
        return (events, true);
    }
    let Some(cluster) = cluster else { return (events, true) };
    if watch.version < cluster.store.forgotten()
        && !watch.future
        && cluster.store.since(watch.version).next().is_some_and(|change| change.version > watch.version + 1)
    {
        let status = Refusal::new(
            410,
            Some("Expired"),
            format!("too old resource version: {} ({})", watch.version, cluster.store.forgotten()),
        )
        .status();
        events.push(json!({"type": "ERROR", "object": status}));
        watch.over = true;
        return (events, true);
    }
    let from = watch.version;
    let changes: Vec<&Change> = cluster.store.since(from).collect();
    for change in changes {
        watch.version = watch.version.max(change.version);
        if !watch.covers(change) {
            continue;
        }
        if let Some(kind) = seen(change, &watch.selection) {
            let object = shown(&watch.resource, &change.object);
            let event = watch.event(kind, object, now);
            events.push(event);
        }
    }
    if watch.bookmarks && now >= watch.next_bookmark {
        watch.next_bookmark = now.checked_add(SignedDuration::from_secs(BOOKMARK_EVERY_S)).unwrap_or(now);
        watch.last_bookmark = watch.version.max(cluster.store.version());
        events.push(json!({"type": "BOOKMARK", "object": {"kind": watch.resource.kind, "apiVersion": watch.resource.api_version(), "metadata": {"resourceVersion": watch.last_bookmark.to_string()}}}));
    }
    watch.over = now >= watch.ends;
    (events, watch.over)
}
