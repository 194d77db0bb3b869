//! What callers did: calls that changed stored state, told apart from looks, dry runs and logins, and the smoke tests'
//! apart from everything else.
//!
//! Mutating means that stored state changed or was asked to: dry runs, reviews, token requests, logins and applies that
//! change nothing are not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kubernetes::KubeRequest;
use crate::vault::VaultRequest;

/// Calls answered so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Calls that changed something, by `service:operation`.
    pub mutations: BTreeMap<String, u64>,
    /// Those of smoke tests.
    #[serde(default)]
    pub smoke: BTreeMap<String, u64>,
    /// Calls that only read, and logins.
    pub reads: BTreeMap<String, u64>,
    /// Dry runs.
    pub dry_runs: BTreeMap<String, u64>,
    /// Creating calls, by the step tag they carry.
    pub steps: BTreeMap<String, u64>,
}

fn one_more(book: &mut BTreeMap<String, u64>, name: String) {
    *book.entry(name).or_default() += 1;
}

impl Counters {
    /// A call to AWS.
    pub(crate) fn aws(&mut self, name: String, mutates: bool, dry_run: bool, step: Option<String>) {
        if dry_run {
            one_more(&mut self.dry_runs, name);
        } else if mutates {
            if let Some(step) = step {
                one_more(&mut self.steps, format!("{step} {name}"));
            }
            one_more(&mut self.mutations, name);
        } else {
            one_more(&mut self.reads, name);
        }
    }

    /// A request to an API server; `wrote` tells whether the request itself changed the store.
    pub(crate) fn kubernetes(&mut self, request: &KubeRequest, wrote: bool) {
        let place = request.path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let resource = match place.iter().position(|part| *part == "namespaces") {
            Some(at) if place.len() > at + 2 => place.get(at + 2).copied(),
            Some(_) => Some("namespaces"),
            None => place.get(if place.first() == Some(&"apis") { 3 } else { 2 }).copied(),
        };
        let name = format!("kubernetes:{} {}", request.method, resource.unwrap_or("-"));
        if request.query.iter().any(|(key, _)| key == "dryRun") {
            one_more(&mut self.dry_runs, name);
        } else if !wrote {
            one_more(&mut self.reads, name);
        } else if request.path.contains("/platflow-smoke-") || is_smoke_namespace(request) {
            one_more(&mut self.smoke, name);
        } else {
            one_more(&mut self.mutations, name);
        }
    }

    /// A request to a Vault server.
    pub(crate) fn vault(&mut self, request: &VaultRequest, succeeded: bool) {
        let path = request.path.trim_start_matches("/v1/");
        let verb = matches!(request.method.as_str(), "PUT" | "POST" | "PATCH" | "DELETE");
        // Logins and the tokens they give are how one looks; unsealing changes nothing that is stored.
        let session =
            path.ends_with("/login") || path.starts_with("auth/token/") || path.starts_with("sys/capabilities");
        let root = if path.starts_with("sys/") { path } else { path.split('/').next().unwrap_or_default() };
        let name = format!("vault:{} {root}", request.method);
        if !verb || session || !succeeded {
            one_more(&mut self.reads, name);
        } else if path.contains("/platflow/smoke-") {
            one_more(&mut self.smoke, name);
        } else {
            one_more(&mut self.mutations, name);
        }
    }

    /// The answer of `sandbox counters`.
    #[must_use]
    pub fn summary(&self) -> Value {
        let outside: u64 = self.mutations.values().sum();
        let smoke: u64 = self.smoke.values().sum();
        json!({
            "schema_version": 1,
            "mutating": {
                "total": outside + smoke,
                "outside_smoke": outside,
                "smoke": smoke,
                "by_operation": self.mutations,
                "smoke_by_operation": self.smoke,
                "by_step": self.steps,
            },
            "reads": {"total": self.reads.values().sum::<u64>(), "by_operation": self.reads},
            "dry_runs": {"total": self.dry_runs.values().sum::<u64>(), "by_operation": self.dry_runs},
        })
    }
}

/// The creation of a smoke test's namespace names it in the body only.
fn is_smoke_namespace(request: &KubeRequest) -> bool {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    body.pointer("/metadata/name").and_then(Value::as_str).is_some_and(|name| name.starts_with("platflow-smoke-"))
}
