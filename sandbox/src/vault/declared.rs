//! What a server's configuration declares: of all of it, the audit devices, which OpenBao takes from nowhere else.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Audit devices of a configuration in HCL, `audit "file" "<name>" { … file_path = "<path>" … }`, by name.
#[must_use]
pub fn declared_audits(configuration: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut inside = None;
    for line in configuration.lines().map(str::trim) {
        let mut quoted = line.split('"').skip(1).step_by(2);
        if line.starts_with("audit ") {
            inside = quoted.nth(1).map(str::to_owned);
        } else if line.starts_with("file_path")
            && let (Some(name), Some(path)) = (inside.take(), quoted.next())
        {
            found.insert(name, path.to_owned());
        }
    }
    found
}

/// The devices as they are listed.
pub(super) fn devices(audits: &BTreeMap<String, String>) -> Map<String, Value> {
    let listed = |(name, path): (&String, &String)| {
        let key = format!("{name}/");
        let options = json!({ "file_path": path });
        let device = json!({ "type": "file", "path": key, "description": "", "local": false, "options": options });
        (key, device)
    };
    audits.iter().map(listed).collect()
}
