//! Lists in place of many reads, for a command that looks at a whole environment once and is gone.
//!
//! What a list does not show is read by itself: an object may have lost the label that the list goes by. Nothing is ever
//! read anew, so a run, which looks again after it acted, must not use one.

use super::api::ObjectKey;
use super::clients::ClusterAccess;
use super::objects::UID_LABEL;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// The objects of one list by namespace and name.
pub(super) type Listed = HashMap<(Option<String>, String), Value>;

/// Which list an object would be on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct List {
    access: ClusterAccess,
    pub(super) api_version: String,
    pub(super) kind: String,
    /// All namespaces without one.
    pub(super) namespace: Option<String>,
    /// A label selector, or "".
    pub(super) selector: String,
}

/// Every list that was asked for.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The label value of what is ours.
    uid: String,
    lists: Mutex<HashMap<List, Arc<OnceCell<Listed>>>>,
}

impl Snapshot {
    /// Of the environment whose objects carry this label value.
    pub(super) fn new(uid: String) -> Self {
        Self { uid, lists: Mutex::default() }
    }

    /// The list that should show the object. Pods are made by controllers and carry no label of ours.
    pub(super) fn list(&self, access: &ClusterAccess, key: &ObjectKey) -> List {
        let pods = key.kind == "Pod";
        List {
            access: access.clone(),
            api_version: key.api_version.clone(),
            kind: key.kind.clone(),
            namespace: if pods { key.namespace.clone() } else { None },
            selector: if pods { String::new() } else { format!("{UID_LABEL}={}", self.uid) },
        }
    }

    /// The place of a list, filled or not.
    pub(super) fn place(&self, list: &List) -> Arc<OnceCell<Listed>> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lists.entry(list.clone()).or_default())
    }
}

/// Items of a list as a read of each would show them: a list leaves out what all have in common.
pub(super) fn listed(list: &List, items: Vec<Value>) -> Listed {
    let part = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    items
        .into_iter()
        .filter_map(|mut object| {
            let name = part(&object, "/metadata/name")?;
            let namespace = part(&object, "/metadata/namespace");
            let fields = object.as_object_mut()?;
            fields.insert("apiVersion".to_owned(), list.api_version.clone().into());
            fields.insert("kind".to_owned(), list.kind.clone().into());
            Some(((namespace, name), object))
        })
        .collect()
}
