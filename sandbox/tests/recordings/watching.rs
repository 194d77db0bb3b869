//! Streams: what a watch has to show, and in which order.

use std::collections::BTreeMap;

use platflow_sandbox::kubernetes::Subscription;
use serde_json::Value;

use super::compare::Differences;
use super::known::Known;

/// An open watch of a replay, with the recorded one.
pub(crate) struct Watch {
    pub(crate) number: i64,
    pub(crate) response: Value,
    pub(crate) subscription: Box<Subscription>,
    pub(crate) events: Vec<Value>,
    pub(crate) over: bool,
    pub(crate) broken: bool,
}

/// So many changes of one object are a roll-out, whose steps vary from run to run.
const ROLL_OUT: usize = 4;

fn name_of(event: &Value) -> String {
    event.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn kind_of(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// Type and object of each event; what repeats counts once.
fn order(events: &[Value], only: Option<&str>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for event in events.iter().filter(|event| only.is_none_or(|name| name_of(event) == name)) {
        let each = (kind_of(event).to_owned(), name_of(event));
        if found.last() != Some(&each) {
            found.push(each);
        }
    }
    found
}

impl Watch {
    /// Whether the recorded watch was closed by its client, so that the server has nothing to end.
    pub(crate) fn closed_by_client(&self) -> bool {
        self.response["ended_by"].as_str().is_some_and(|text| text.starts_with("client"))
    }

    /// Where the stream differs from the recorded one.
    pub(crate) fn compare(&self, known: &Known) -> Vec<String> {
        let wanted = self.response["events"].as_array().cloned().unwrap_or_default();
        let mut differences = Differences::new(known);
        let names = |events: &[Value]| {
            let mut names: Vec<String> = events.iter().map(name_of).collect();
            names.sort();
            names.dedup();
            names
        };
        for name in names(&wanted) {
            self.compare_object(&name, &wanted, &mut differences);
        }
        let modified = wanted.iter().filter(|event| kind_of(event) == "MODIFIED").count();
        let (left, right) = (order(&wanted, None), order(&self.events, None));
        if modified < ROLL_OUT && left != right && differences.found.is_empty() {
            differences.found.push(format!("events in the order {right:?} instead of {left:?}"));
        }
        let ended = match self.response["ended_by"].as_str().unwrap_or_default() {
            text if text.starts_with("server") => self.over && !self.broken,
            "connection broken" => self.broken,
            _ => true,
        };
        if !ended {
            differences.found.push(format!("not {}", self.response["ended_by"]));
        }
        differences.found.iter().map(|each| format!("#{} watch {each}", self.number)).collect()
    }

    fn compare_object(&self, name: &str, wanted: &[Value], differences: &mut Differences<'_>) {
        let (left, right) = (order(wanted, Some(name)), order(&self.events, Some(name)));
        if left != right {
            differences.found.push(format!("{name}: {right:?} instead of {left:?}"));
            return;
        }
        let of = |events: &[Value]| -> Vec<Value> {
            events.iter().filter(|event| name_of(event) == name).map(|event| event["object"].clone()).collect()
        };
        let (left, right) = (of(wanted), of(&self.events));
        if let (Some(first_left), Some(first_right)) = (left.first(), right.first()) {
            differences.document(first_left, first_right, &format!("{name} first"), false);
        }
        if let (Some(last_left), Some(last_right)) = (left.last(), right.last()) {
            differences.document(last_left, last_right, &format!("{name} last"), false);
        }
        let (seen_left, seen_right) = (conditions(&left), conditions(&right));
        let mut reached = 0;
        for (condition, _) in ordered(&seen_left) {
            match seen_right.get(&condition) {
                None => differences.found.push(format!("{name} never has the condition {condition}")),
                Some(at) if *at < reached => {
                    differences.found.push(format!("{name} has {condition} too early"));
                }
                Some(at) => reached = *at,
            }
        }
        if left.iter().any(lags) && !right.iter().any(lags) {
            differences.found.push(format!("{name}: observedGeneration never lags"));
        }
    }
}

fn lags(object: &Value) -> bool {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    object.get("status").is_some() && number("/status/observedGeneration") < number("/metadata/generation")
}

/// Each condition with its state, and the event it was first seen in.
fn conditions(objects: &[Value]) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for (at, object) in objects.iter().enumerate() {
        for each in object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
            let field = |name: &str| each[name].as_str().unwrap_or_default();
            seen.entry(format!("{}={} {}", field("type"), field("status"), field("reason"))).or_insert(at);
        }
    }
    seen
}

fn ordered(seen: &BTreeMap<String, usize>) -> Vec<(String, usize)> {
    let mut list: Vec<(String, usize)> = seen.iter().map(|(condition, at)| (condition.clone(), *at)).collect();
    list.sort_by_key(|(_, at)| *at);
    list
}
