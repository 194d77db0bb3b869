//! Which request means what: open endpoints first, then the seal, then forwarding to the leader, then the token.

use super::access::Caller;
use super::message::{Reviews, VaultReply, VaultRequest};
use super::model::{Servers, digest, later};
use jiff::Timestamp;
use std::time::Duration;

/// How long a standby still refuses a KV v2 mount after it was made.
const KV_UPGRADE: Duration = Duration::from_millis(500);

impl Servers {
    /// Answers one request to the server that runs on `storage_id`.
    pub fn handle(
        &mut self,
        storage_id: &str,
        request: &VaultRequest,
        now: Timestamp,
        reviews: &dyn Reviews,
    ) -> VaultReply {
        // Told apart by moment and path: a read must not move the world's random numbers on.
        let id = uuid_of(&format!("{storage_id} {now} {} {}", request.method, request.path));
        self.route(storage_id, request, now, reviews).identified(&id)
    }

    fn route(&mut self, storage_id: &str, request: &VaultRequest, now: Timestamp, reviews: &dyn Reviews) -> VaultReply {
        self.advance(now);
        if !self.processes.contains_key(storage_id) {
            return VaultReply::refuse(503, "no server runs on this storage");
        }
        let Some(path) = request.path.strip_prefix("/v1/") else { return VaultReply::missing() };
        let path = path.trim_end_matches('/').to_owned();
        if let Some(reply) = self.open_endpoint(storage_id, &path, request, now) {
            return reply;
        }
        if self.sealed(storage_id) {
            return VaultReply::refuse(503, "Vault is sealed");
        }
        if path == "sys/leader" {
            return self.leader(storage_id, now);
        }
        let Some(active) = self.active_of(storage_id, now) else {
            return VaultReply::refuse(500, "local node not active but active cluster node not found");
        };
        if active != storage_id && self.still_upgrading(storage_id, &path, now) {
            let text = "Waiting for the primary to upgrade from non-versioned to versioned data. This backend will be \
                        unavailable for a brief period and will resume service when the primary is finished.";
            return VaultReply::refuse(400, text);
        }
        if let Some(mount) = self.login_mount(storage_id, &path) {
            return self.kubernetes_login(storage_id, &mount, request, now, reviews);
        }
        let caller = match self.caller(storage_id, request, now) {
            Ok(caller) => caller,
            Err(reply) => return reply,
        };
        self.authorised(storage_id, &path, request, &caller, now)
    }

    /// Endpoints that want no token and work whatever the seal.
    fn open_endpoint(
        &mut self,
        storage_id: &str,
        path: &str,
        request: &VaultRequest,
        now: Timestamp,
    ) -> Option<VaultReply> {
        let write = request.writes();
        if self.storages.get(storage_id).is_some_and(|storage| storage.sealless) {
            let text = "core: barrier reports initialized but no seal configuration found";
            let status = if path == "sys/init" && write { 400 } else { 500 };
            return Some(match path {
                "sys/health" => VaultReply::with(500, &serde_json::json!({ "errors": [] })),
                _ => VaultReply::refuse(status, text),
            });
        }
        Some(match (path, request.method.as_str()) {
            ("sys/init", "GET") => VaultReply::ok(&serde_json::json!({ "initialized": self.initialized(storage_id) })),
            ("sys/init", _) if write => self.init(storage_id, request, now),
            ("sys/seal-status", "GET") => self.seal_status(storage_id),
            ("sys/health", "GET" | "HEAD") => self.health(storage_id, request, now),
            ("sys/unseal", _) if write => self.unseal(storage_id, request, now),
            ("sys/storage/raft/join", _) if write => self.join(storage_id, request, now),
            ("sys/init" | "sys/seal-status" | "sys/health" | "sys/unseal" | "sys/storage/raft/join", _) => {
                VaultReply::wrong_method()
            }
            _ => return self.regained(storage_id, path, request, now),
        })
    }

    fn still_upgrading(&self, storage_id: &str, path: &str, now: Timestamp) -> bool {
        self.cluster_of(storage_id).is_some_and(|cluster| {
            cluster.mounts.iter().any(|(mount, entry)| {
                path.starts_with(mount.as_str())
                    && entry.options.get("version").is_some_and(|version| version == "2")
                    && now < later(entry.mounted_at, KV_UPGRADE)
            })
        })
    }

    fn authorised(
        &mut self,
        storage_id: &str,
        path: &str,
        request: &VaultRequest,
        caller: &Caller,
        now: Timestamp,
    ) -> VaultReply {
        if let Err(reply) = self.allowed(storage_id, path, request, caller) {
            return reply;
        }
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["sys", rest @ ..] => self.system(storage_id, rest, request, caller, now),
            ["auth", "token", rest @ ..] => self.token_store(storage_id, rest, request, caller, now),
            ["auth", ..] => self.auth_method(storage_id, path, request, now),
            _ => self.secrets(storage_id, path, request, now),
        }
    }
}

/// The same id for the same seed, without a random number.
pub(super) fn uuid_of(seed: &str) -> String {
    let seed = digest(seed.as_bytes());
    let part = |from: usize, to: usize| seed.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}
