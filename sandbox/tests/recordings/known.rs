//! What stands for what: generated names, uids, versions and tokens of the recording, and those of the replay in their place.

use std::collections::BTreeMap;

use serde_json::Value;

/// Recorded value → value of this replay.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    values: BTreeMap<String, String>,
    /// Tokens by `namespace:account`.
    tokens: BTreeMap<String, String>,
    /// Last version of an object by its recorded uid: recorded and replayed.
    versions: BTreeMap<String, (u64, u64)>,
}

impl Known {
    /// What stands for a recorded text.
    pub(crate) fn of(&self, recorded: &str) -> Option<&str> {
        self.values.get(recorded).map(String::as_str)
    }

    pub(crate) fn learn_token(&mut self, request: &Value, body: &Value) {
        let path = request["path"].as_str().unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        if let ["", "api", "v1", "namespaces", namespace, "serviceaccounts", account, "token"] = parts.as_slice()
            && request.pointer("/body/spec/audiences").is_none()
            && let Some(token) = body.pointer("/status/token").and_then(Value::as_str)
        {
            self.tokens.insert(format!("{namespace}:{account}"), token.to_owned());
        }
    }

    /// The token of an account; the recorder had one of each that it used.
    pub(crate) fn token(&self, account: &str) -> Option<&str> {
        self.tokens.get(account).map(String::as_str)
    }

    /// The one token of a scenario that has one.
    pub(crate) fn any_token(&self) -> Option<&str> {
        self.tokens.values().next().map(String::as_str)
    }

    /// Learns from an answer which generated value stands for which recorded one.
    pub(crate) fn learn(&mut self, wanted: &Value, got: &Value) {
        match (wanted, got) {
            (Value::Object(wanted), Value::Object(got)) => {
                for (key, value) in wanted {
                    let Some(found) = got.get(key) else { continue };
                    match (value.as_str(), found.as_str()) {
                        (Some(was), Some(is)) if was != is => {
                            if matches!(key.as_str(), "uid" | "resourceVersion" | "continue") || alike(was, is) {
                                self.values.insert(was.to_owned(), is.to_owned());
                            }
                        }
                        _ => self.learn(value, found),
                    }
                }
            }
            (Value::Array(wanted), Value::Array(got)) => {
                wanted.iter().zip(got).for_each(|(wanted, got)| self.learn(wanted, got));
            }
            _ => {}
        }
    }

    /// Checks that versions relate as they did: an object that kept its version keeps it, one that got a new one gets one.
    pub(crate) fn check_versions(&mut self, wanted: &Value, got: &Value, found: &mut Vec<String>) {
        match (wanted, got) {
            (Value::Object(map), Value::Object(other)) => {
                if let (Some(was), Some(is)) = (map.get("metadata"), other.get("metadata")) {
                    self.check_version(was, is, found);
                }
                for (key, value) in map.iter().filter(|(key, _)| key.as_str() != "metadata") {
                    if let Some(below) = other.get(key) {
                        self.check_versions(value, below, found);
                    }
                }
            }
            (Value::Array(wanted), Value::Array(got)) => {
                wanted.iter().zip(got).for_each(|(wanted, got)| self.check_versions(wanted, got, found));
            }
            _ => {}
        }
    }

    fn check_version(&mut self, was: &Value, is: &Value, found: &mut Vec<String>) {
        let number = |value: &Value| value["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
        let (Some(uid), Some(was_now), Some(is_now)) = (was["uid"].as_str(), number(was), number(is)) else { return };
        if let Some((was_before, is_before)) = self.versions.insert(uid.to_owned(), (was_now, is_now)) {
            let (recorded, replayed) = (was_now.cmp(&was_before), is_now.cmp(&is_before));
            if recorded != replayed {
                let name = was["name"].as_str().unwrap_or_default();
                found.push(format!("the version of {name} moved {replayed:?} where it moved {recorded:?}"));
            }
        }
    }

    /// One generated value stands for another from here on.
    pub(crate) fn stands_for(&mut self, recorded: &str, replayed: &str) {
        self.values.insert(recorded.to_owned(), replayed.to_owned());
    }

    /// Whether a value of this replay stands for a recorded one already.
    pub(crate) fn is_taken(&self, replayed: &str) -> bool {
        self.values.values().any(|each| each == replayed)
    }

    /// Puts the values of this replay into a recorded request.
    pub(crate) fn translate(&self, request: &mut Value, current_version: &str) {
        if let Some(path) = request.get("path").and_then(Value::as_str) {
            let parts: Vec<&str> = path.split('/').map(|part| self.of(part).unwrap_or(part)).collect();
            let path = parts.join("/");
            request["path"] = Value::String(path);
        }
        if let Some(Value::Object(query)) = request.get_mut("query") {
            for (key, value) in query.iter_mut() {
                let Some(text) = value.as_str() else { continue };
                let new = match (key.as_str(), self.of(text)) {
                    ("resourceVersion" | "continue", Some(is)) => is.to_owned(),
                    // From a read that was not recorded: it was the newest then. The extremes are meant as they are.
                    ("resourceVersion", None) if text.parse::<u64>().is_ok_and(|it| (2..900_000_000).contains(&it)) => {
                        current_version.to_owned()
                    }
                    _ => self.replace(text),
                };
                *value = Value::String(new);
            }
        }
        if let Some(Value::Object(headers)) = request.get_mut("headers") {
            for value in headers.values_mut() {
                if let Some(is) = value.as_str().and_then(|text| self.of(text)) {
                    *value = Value::String(is.to_owned());
                }
            }
        }
        if let Some(body) = request.get_mut("body") {
            self.translate_body(body);
        }
    }

    fn translate_body(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, below) in map.iter_mut() {
                    // A short version may equal other text: only where it is one.
                    let version = matches!(key.as_str(), "uid" | "resourceVersion" | "continue");
                    match below.as_str() {
                        Some(text) if version => *below = Value::String(self.of(text).unwrap_or(text).to_owned()),
                        Some(text) => *below = Value::String(self.replace(text)),
                        None => self.translate_body(below),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| match item.as_str() {
                Some(text) => *item = Value::String(self.replace(text)),
                None => self.translate_body(item),
            }),
            _ => {}
        }
    }

    /// A recorded text with every long generated value in it replaced.
    pub(crate) fn replace(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (was, is) in self.values.iter().filter(|(was, _)| was.len() >= 8) {
            if text.contains(was.as_str()) {
                text = text.replace(was.as_str(), is);
            }
        }
        text
    }

    /// Whether two texts are the same but for what varies.
    pub(crate) fn same_text(&self, wanted: &str, got: &str) -> bool {
        let replaced = self.replace(wanted);
        if replaced == got {
            return true;
        }
        let (left, right) = (tokens(&replaced), tokens(got));
        let version = wanted.to_lowercase().contains("resource version") || wanted.contains("esourceVersion");
        left.len() == right.len()
            && left.iter().zip(&right).all(|(left, right)| {
                left == right
                    || self.of(left) == Some(right)
                    || alike(left, right)
                    || version && numeric(left) && numeric(right)
                    || time_like(left) && time_like(right)
                    || address_like(left) && address_like(right)
                    || node_like(left) && node_like(right)
            })
    }
}

fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, letter) in text.char_indices() {
        let inner = letter.is_ascii_alphanumeric() || "-.:".contains(letter);
        match (inner, start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                found.push(&text[from..at]);
                start = None;
            }
            _ => {}
        }
        if !inner {
            found.push(&text[at..at + letter.len_utf8()]);
        }
    }
    if let Some(from) = start {
        found.push(&text[from..]);
    }
    found
}

fn numeric(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit())
}

pub(crate) fn time_like(text: &str) -> bool {
    text.parse::<jiff::Timestamp>().is_ok()
}

fn address_like(text: &str) -> bool {
    text.trim_end_matches('.').parse::<std::net::IpAddr>().is_ok()
}

/// One of the nodes: which one a pod gets varies.
fn node_like(text: &str) -> bool {
    text == "fake-0" || text == "fake-1"
}

fn uid_like(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && text.chars().all(|letter| letter == '-' || letter.is_ascii_hexdigit())
}

/// Whether two texts are the same but for generated parts: uids, and name segments in the alphabet of generated names.
pub(crate) fn alike(wanted: &str, got: &str) -> bool {
    if uid_like(wanted) && uid_like(got) {
        return true;
    }
    let generated =
        |part: &str| part.len() >= 5 && part.chars().all(|letter| "bcdfghjklmnpqrstvwxz2456789".contains(letter));
    let (left, right): (Vec<&str>, Vec<&str>) = (wanted.split('-').collect(), got.split('-').collect());
    left.len() == right.len()
        && left.iter().zip(&right).all(|(left, right)| left == right || generated(left) && generated(right))
}
