//! The places where an answer differs from the recorded one.

use serde_json::{Map, Value, json};

use super::known::{Known, alike, time_like};
use super::world::Answer;

/// Values that differ from run to run; they have to be there, and nothing more is asked of them.
const VARIES: &str = "uid resourceVersion clusterIP clusterIPs podIP podIPs hostIP hostIPs ip nodePort nodeName continue gitCommit buildDate \
    goVersion platform gitVersion serverRelativeURL serverAddress topology.kubernetes.io/zone zone";

fn varies(key: &str, wanted: &Value, got: &Value) -> bool {
    if wanted == "None" || got == "None" {
        return false;
    }
    VARIES.split_whitespace().any(|each| each == key)
        || wanted.as_str().is_some_and(time_like) && got.as_str().is_some_and(time_like)
}

fn omitted(value: &Value) -> bool {
    value.get("$omitted").is_some() && value.as_object().is_some_and(|map| map.len() == 1)
}

/// A text that stands for another: `<redacted>`, `<list of namespaces>`.
fn left_out(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with('<') && text.ends_with('>') && text != "<none>")
}

/// What only the server of the recording has, a downstream build: a projected source of its own, and the rule of a role of its own.
fn downstream(value: &Value) -> bool {
    value.pointer("/configMap/name").is_some_and(|name| name == "openshift-service-ca.crt")
        || value.pointer("/nonResourceURLs/0").is_some_and(|path| path == "/.well-known")
}

/// The kinds whose status others write at any moment: controllers, and the kubelet, which was a simulated one.
fn reported_on(kind: &Value) -> bool {
    ["Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"].iter().any(|each| kind == each)
}

/// Whether steps read the text of a refusal or cause, so that its wording counts: quotas, owners of fields, namespaces that go.
fn is_read(refusal: &Value) -> bool {
    let message = refusal["message"].as_str().unwrap_or_default();
    ["exceeded quota", "must specify", "conflict with", "because it is being terminated", "is being terminated"]
        .iter()
        .any(|each| message.contains(each))
}

/// Collects differences.
pub(crate) struct Differences<'k> {
    known: &'k Known,
    pub(crate) found: Vec<String>,
    /// Texts of refusals that are worded otherwise: information, unless steps read them.
    pub(crate) worded: usize,
    /// The answer to a write: the status that it carries is an old one, and how old varies.
    pub(crate) write: bool,
}

impl<'k> Differences<'k> {
    pub(crate) fn new(known: &'k Known) -> Self {
        Self { known, found: Vec::new(), worded: 0, write: false }
    }

    fn same(&self, wanted: &str, got: &str) -> bool {
        // How old something is, as tables show it.
        let age = |text: &str| {
            let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
            digits.len() + 1 == text.len() && digits.parse::<u32>().is_ok()
        };
        let node = |text: &str| text == "fake-0" || text == "fake-1";
        wanted == got
            || alike(wanted, got)
            || age(wanted) && age(got)
            || node(wanted) && node(got)
            || self.known.same_text(wanted, got)
    }

    fn say(&mut self, path: &str, what: impl std::fmt::Display) {
        self.found.push(format!("{path}: {what}"));
    }

    pub(crate) fn document(&mut self, wanted: &Value, got: &Value, path: &str, shortened: bool) {
        if omitted(wanted) || left_out(wanted) {
            return;
        }
        match (wanted, got) {
            (Value::Object(left), Value::Object(right)) => {
                let refusal = left.get("kind").is_some_and(|kind| kind == "Status") && wanted["status"] == "Failure";
                let (mut left, mut right) = (left.clone(), right.clone());
                if refusal && !is_read(wanted) {
                    let (was, is) = (left.remove("message"), right.remove("message"));
                    let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
                    match (text(&was), text(&is)) {
                        (Some(was), Some(is)) => self.worded += usize::from(!self.known.same_text(&was, &is)),
                        (was, is) if was != is => self.say(path, format!("message {is:?} instead of {was:?}")),
                        _ => {}
                    }
                }
                if left.get("kind").is_some_and(reported_on) && self.write {
                    self.old_status(wanted, got, path);
                    for each in [&mut left, &mut right] {
                        each.remove("status");
                        if let Some(notes) = each.get_mut("metadata").and_then(|data| data.get_mut("annotations"))
                            && let Some(notes) = notes.as_object_mut()
                        {
                            notes.remove("deployment.kubernetes.io/revision");
                        }
                        drop_empty_annotations(each);
                    }
                }
                if left.contains_key("addressType") {
                    // Counts how often the endpoints changed on the way.
                    for each in [&mut left, &mut right] {
                        each.get_mut("metadata").and_then(Value::as_object_mut).map(|data| data.remove("generation"));
                    }
                }
                if path.ends_with("/status") && left.contains_key("containerStatuses") {
                    self.kubelet_status(&left, &right, path);
                    return;
                }
                self.maps(&left, &right, path, shortened);
            }
            (Value::Array(wanted), Value::Array(got)) => self.lists(wanted, got, path, shortened),
            (Value::String(wanted), Value::String(got)) => {
                let documents = (wanted.starts_with('{') && got.starts_with('{'))
                    .then(|| (serde_json::from_str::<Value>(wanted), serde_json::from_str::<Value>(got)));
                if let Some((Ok(wanted), Ok(got))) = documents {
                    self.document(&wanted, &got, path, shortened);
                } else if !self.same(wanted, got) {
                    self.say(path, format!("wanted {wanted:?}, got {got:?}"));
                }
            }
            _ if wanted != got => self.say(path, format!("wanted {wanted}, got {got}")),
            _ => {}
        }
    }

    /// A status in the answer to a write may not be ahead of the recorded one: it is from before.
    fn old_status(&mut self, wanted: &Value, got: &Value, path: &str) {
        let conditions = |object: &Value| {
            let rows = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
            rows.iter().map(|row| format!("{}={}", row["type"], row["status"])).collect::<Vec<_>>()
        };
        // A pod or Job that had come so far when the recorder wrote has to come so far here.
        let (was, is) = (wanted.pointer("/status/phase"), got.pointer("/status/phase"));
        if was != is {
            self.say(path, format!("phase {is:?} instead of {was:?}"));
        }
        if wanted["kind"] == "Job" && conditions(wanted) != conditions(got) {
            self.say(path, format!("{:?} instead of {:?}", conditions(got), conditions(wanted)));
        }
        let lags = |object: &Value| {
            let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
            number("/status/observedGeneration").is_none_or(|seen| Some(seen) < number("/metadata/generation"))
        };
        if wanted["kind"] != "Pod" && lags(wanted) && !lags(got) {
            self.say(path, "the status is the new one already");
        }
    }

    /// What a kubelet says of a pod that it runs: that of the recording was a simulated one and says less than a real one.
    fn kubelet_status(&mut self, wanted: &Map<String, Value>, got: &Map<String, Value>, path: &str) {
        let conditions = |status: &Map<String, Value>| {
            let rows = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut texts: Vec<String> = rows.iter().map(|row| format!("{}={}", row["type"], row["status"])).collect();
            texts.sort();
            texts
        };
        let containers = |status: &Map<String, Value>| {
            let rows = status.get("containerStatuses").and_then(Value::as_array).cloned().unwrap_or_default();
            rows.iter().map(|row| format!("{} ready {}", row["name"], row["ready"])).collect::<Vec<_>>()
        };
        for field in ["phase", "qosClass"] {
            if wanted.get(field) != got.get(field) {
                self.say(path, format!("{field} {:?} instead of {:?}", got.get(field), wanted.get(field)));
            }
        }
        for (left, right) in [(conditions(wanted), conditions(got)), (containers(wanted), containers(got))] {
            if left != right {
                self.say(path, format!("{right:?} instead of {left:?}"));
            }
        }
    }

    fn maps(&mut self, wanted: &Map<String, Value>, got: &Map<String, Value>, path: &str, shortened: bool) {
        let open = shortened || wanted.contains_key("$omitted");
        for (key, value) in wanted.iter().filter(|(key, _)| key.as_str() != "$omitted") {
            let here = format!("{path}/{key}");
            match got.get(key) {
                // A recording in extracts shows what was absent as null.
                None if open && value.is_null() => {}
                None => self.say(&here, format!("missing, wanted {}", short(value))),
                Some(found) if varies(key, value, found) => {}
                Some(found) => self.document(value, found, &here, open),
            }
        }
        for (key, value) in got.iter().filter(|(key, _)| !open && !wanted.contains_key(*key)) {
            self.say(&format!("{path}/{key}"), format!("too much: {}", short(value)));
        }
    }

    fn lists(&mut self, wanted: &[Value], got: &[Value], path: &str, shortened: bool) {
        if wanted.iter().any(omitted) {
            return;
        }
        let rules = path.ends_with("/nonResourceRules") || path.ends_with("/resourceRules");
        if path.ends_with("managedFields") || path.ends_with("causes") || rules {
            let read = wanted.iter().any(is_read);
            let (left, right) = (self.unordered(wanted, read), self.unordered(got, read));
            for each in left.iter().filter(|each| !right.contains(each)) {
                self.say(path, format!("without {each}"));
            }
            for each in right.iter().filter(|each| !left.contains(each)) {
                self.say(path, format!("too much: {each}"));
            }
            return;
        }
        let wanted: Vec<&Value> = wanted.iter().filter(|each| !downstream(each)).collect();
        let mut got: Vec<&Value> = got.iter().collect();
        if shortened && wanted.len() <= got.len() && !got.is_empty() {
            got = picked(&wanted, &got);
        } else if path.ends_with("/items") {
            got = self.paired(&wanted, &got, path);
        }
        if wanted.len() != got.len() {
            let names = |list: &[&Value]| list.iter().map(|each| short(each)).collect::<Vec<_>>().join(" ");
            self.say(
                path,
                format!(
                    "{} entries instead of {}: wanted {} got {}",
                    got.len(),
                    wanted.len(),
                    names(&wanted),
                    names(&got)
                ),
            );
            return;
        }
        for (at, (wanted, got)) in wanted.iter().zip(got).enumerate() {
            self.document(wanted, got, &format!("{path}/{at}"), shortened);
        }
    }

    /// Items with generated names have no order of their own: each is put where one like it is wanted.
    fn paired<'g>(&self, wanted: &[&Value], got: &[&'g Value], path: &str) -> Vec<&'g Value> {
        let name = |each: &Value| each.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if wanted.len() != got.len() || wanted.iter().zip(got).all(|(left, right)| name(left) == name(right)) {
            return got.to_vec();
        }
        let mut left = got.to_vec();
        let mut found = Vec::new();
        for each in wanted {
            let fits = |candidate: &&Value| {
                let mut inner = Differences::new(self.known);
                inner.document(each, candidate, path, false);
                alike(&name(each), &name(candidate)) && inner.found.is_empty()
            };
            let at = left.iter().position(fits).unwrap_or(0);
            found.push(left.remove(at));
        }
        found
    }

    /// The entries of a list whose order says nothing.
    fn unordered(&self, list: &[Value], read: bool) -> Vec<String> {
        let plain = |each: &Value| -> String {
            let mut copy = each.clone();
            if let Value::Object(map) = &mut copy {
                map.remove("time");
                if !read && map.contains_key("reason") {
                    map.remove("message");
                }
                if let Some(Value::String(message)) = map.get_mut("message") {
                    *message = self.known.replace(message);
                }
            }
            copy.to_string()
        };
        let mut texts: Vec<String> = list.iter().filter(|each| !downstream(each)).map(plain).collect();
        texts.sort();
        texts.dedup();
        texts
    }

    /// Status, headers and body of one answer.
    pub(crate) fn answer(&mut self, response: &Value, answer: &Answer) {
        let wanted = response["status"].as_i64().unwrap_or(0);
        if i64::from(answer.status) != wanted {
            self.say(
                "status",
                format!(
                    "wanted {wanted}, got {}: {} instead of {}",
                    answer.status,
                    short(&answer.body),
                    short(&response["body"])
                ),
            );
            return;
        }
        self.headers(&response["headers"], &answer.headers);
        self.document(&response["body"], &answer.body, "", false);
    }

    fn headers(&mut self, recorded: &Value, headers: &[(String, String)]) {
        let of = |name: &str| -> Vec<&str> {
            headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
        };
        let wanted: Vec<&str> = match &recorded["warning"] {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            Value::String(one) => vec![one],
            _ => Vec::new(),
        };
        let got = of("warning");
        // The replay sends the fields of a body in the order of the alphabet, and the server names unknown ones in the order it meets them.
        let sorted = |mut list: Vec<&str>| {
            if list.iter().all(|text| text.contains("unknown field")) {
                list.sort_unstable();
            }
            list.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let (wanted, got) = (sorted(wanted), sorted(got));
        let same =
            wanted.len() == got.len() && wanted.iter().zip(&got).all(|(wanted, got)| self.known.same_text(wanted, got));
        if !same {
            self.say("warning", format!("wanted {wanted:?}, got {got:?}"));
        }
        for name in ["content-type", "content-encoding", "retry-after"] {
            let (wanted, got) = (recorded[name].as_str(), of(name));
            if wanted != got.first().copied().filter(|text| !text.is_empty()) {
                self.say(name, format!("wanted {wanted:?}, got {got:?}"));
            }
        }
        for name in ["etag", "vary", "cache-control"] {
            if recorded.get(name).is_some() && of(name).is_empty() {
                self.say(name, "missing");
            }
        }
    }
}

fn drop_empty_annotations(object: &mut Map<String, Value>) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty)
    {
        metadata.remove("annotations");
    }
}

/// Of a list that was recorded in part: the entries that stand for the recorded ones.
fn picked<'g>(wanted: &[&Value], got: &[&'g Value]) -> Vec<&'g Value> {
    let mut found = Vec::new();
    for each in wanted {
        let pointer = ["/metadata/name", "/name", "/resource", "/involvedObject/kind", "/type", "/reason"]
            .into_iter()
            .find(|pointer| each.pointer(pointer).is_some());
        let Some(pointer) = pointer else { return got.to_vec() };
        let text = |value: &Value| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let stands = |candidate: &&&Value| text(candidate) == text(each) || alike(&text(each), &text(candidate));
        found.extend(got.iter().find(stands));
    }
    found
}

/// A value in a few words.
pub(crate) fn short(value: &Value) -> String {
    let named = value.pointer("/metadata/name").or_else(|| value.get("name"));
    let text = match (named, value.get("kind")) {
        (Some(name), Some(kind)) => json!([kind, name]).to_string(),
        (Some(name), None) => name.to_string(),
        _ => value.to_string(),
    };
    text.chars().take(240).collect()
}
