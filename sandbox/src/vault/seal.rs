//! Init, unseal, seal, and what a server says about itself without being asked for a token.

use super::message::{VaultReply, VaultRequest};
use super::model::{
    ACTIVATION, Cluster, JOIN_UNSEAL, Leader, Member, Policy, Product, RAFT_INDEX, SealState, Servers, Token, digest,
    later,
};
use super::regain::Regain;
use super::{raft, shamir};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MIN_SHARE: usize = 16;
const MAX_SHARE: usize = 33;

pub(super) const DEFAULT_POLICY: &str = r#"
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
"#;

impl Servers {
    pub(super) fn initialized(&self, storage_id: &str) -> bool {
        self.storages.get(storage_id).is_some_and(|storage| storage.cluster.is_some())
    }

    pub(super) fn sealed(&self, storage_id: &str) -> bool {
        !self.pod_ready(storage_id)
    }

    pub(super) fn init(&mut self, storage_id: &str, request: &VaultRequest, now: Timestamp) -> VaultReply {
        if self.initialized(storage_id) {
            return VaultReply::refuse(400, "Vault is already initialized");
        }
        if self.storages.get(storage_id).is_some_and(|storage| storage.half_made) {
            return VaultReply::refuse(
                400,
                "could not bootstrap clustered storage: error bootstrapping cluster: cluster already has state",
            );
        }
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let number = |name: &str| body.get(name).and_then(Value::as_u64).and_then(|value| u8::try_from(value).ok());
        let shares = number("secret_shares").unwrap_or(0);
        let threshold = number("secret_threshold").unwrap_or(0);
        if let Some(text) = invalid_split(shares, threshold) {
            return VaultReply::refuse(400, text);
        }
        let keys = body.get("pgp_keys").and_then(Value::as_array).filter(|keys| !keys.is_empty());
        if keys.is_some_and(|keys| keys.len() != usize::from(shares)) {
            return VaultReply::refuse(
                400,
                "invalid seal configuration: count mismatch between number of provided PGP keys and number of shares",
            );
        }
        for unsupported in ["pgp_keys", "root_token_pgp_key", "recovery_pgp_keys", "recovery_shares", "stored_shares"] {
            if body.get(unsupported).is_some_and(|value| !value.is_null() && *value != json!(0)) {
                return VaultReply::refuse(400, &format!("parameter {unsupported:?} is not supported by this server"));
            }
        }
        self.found(storage_id, shares, threshold, now)
    }

    fn found(&mut self, storage_id: &str, shares: u8, threshold: u8, now: Timestamp) -> VaultReply {
        let Some(process) = self.processes.get(storage_id) else { return VaultReply::missing() };
        let address = raft::cluster_address(process);
        let key = self.random_bytes(32);
        let coefficients = self.random_bytes(32 * usize::from(threshold));
        let mut coefficients = coefficients.into_iter();
        let parts = shamir::split(&key, shares, threshold, || coefficients.next().unwrap_or(1));
        let root = format!("s.{}", data_encoding::BASE64URL_NOPAD.encode(&self.random_bytes(18)));
        let id = self.uuid();
        let accessor = self.uuid();
        let token = root_token(accessor, now);
        let name = format!("vault-cluster-{}", id.get(..8).unwrap_or_default());
        let cluster = Cluster {
            id: id.clone(),
            name,
            key_digest: digest(&key),
            shares,
            threshold,
            members: BTreeMap::from([(storage_id.to_owned(), Member { address, voter_at: now })]),
            leader: None,
            election_at: now,
            tokens: BTreeMap::from([(digest(root.as_bytes()), token)]),
            policies: BTreeMap::from([("default".to_owned(), default_policy(now))]),
            mounts: BTreeMap::new(),
            auths: BTreeMap::new(),
            audits: BTreeMap::new(),
        };
        self.touch_cluster(&id);
        self.clusters.insert(id.clone(), cluster);
        self.mount_builtins(&id, now);
        if let Some(storage) = self.storages.get_mut(storage_id) {
            storage.cluster = Some(id);
        }
        self.touch_storage(storage_id);
        let keys: Vec<String> = parts.iter().map(hex::encode).collect();
        let keys_base64: Vec<String> = parts.iter().map(|part| STANDARD.encode(part)).collect();
        VaultReply::ok(&json!({ "keys": keys, "keys_base64": keys_base64, "root_token": root }))
    }

    pub(super) fn unseal(&mut self, storage_id: &str, request: &VaultRequest, now: Timestamp) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let Some(cluster) = self.cluster_of(storage_id) else {
            return VaultReply::refuse(400, "Vault is not initialized");
        };
        let (threshold, expected) = (usize::from(cluster.threshold), cluster.key_digest.clone());
        if !self.sealed(storage_id) {
            return self.seal_status(storage_id);
        }
        if body.get("reset").and_then(Value::as_bool) == Some(true) {
            self.reset_progress(storage_id);
            return self.seal_status(storage_id);
        }
        let Some(text) = body.get("key").and_then(Value::as_str).filter(|text| !text.is_empty()) else {
            return VaultReply::refuse(400, "'key' must be specified in request body as JSON, or 'reset' set to true");
        };
        let share = match share_of(text) {
            Ok(share) => share,
            Err(reply) => return reply,
        };
        let nonce = self.uuid();
        let Some(process) = self.processes.get_mut(storage_id) else { return VaultReply::missing() };
        if matches!(process.seal, SealState::Opening { .. }) {
            return self.seal_status(storage_id);
        }
        if process.given.is_empty() {
            process.nonce = nonce;
        }
        if !process.given.contains(&share) {
            process.given.push(share);
        }
        if process.given.len() < threshold {
            return self.seal_status(storage_id);
        }
        let given = std::mem::take(&mut process.given);
        process.nonce.clear();
        let right = shamir::combine(&given).is_some_and(|key| digest(&key) == expected);
        if !right {
            return VaultReply::refuse(
                400,
                "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: cipher: message \
                 authentication failed",
            );
        }
        self.open(storage_id, now);
        self.seal_status(storage_id)
    }

    /// The right shares were given: a member opens at once, a joiner only after it has answered the leader's challenge.
    fn open(&mut self, storage_id: &str, now: Timestamp) {
        let Some(cluster) = self.cluster_of(storage_id) else { return };
        let id = cluster.id.clone();
        let member = cluster.members.contains_key(storage_id);
        let alone = cluster.members.len() == 1;
        let led = self.active_of(storage_id, now).is_some();
        let Some(process) = self.processes.get_mut(storage_id) else { return };
        if member {
            process.seal = SealState::Open { since: now };
        } else if led {
            process.seal = SealState::Opening { at: later(now, JOIN_UNSEAL) };
        }
        if member
            && alone
            && let Some(cluster) = self.clusters.get_mut(&id)
        {
            let storage = storage_id.to_owned();
            cluster.leader = Some(Leader { storage, active_at: later(now, ACTIVATION) });
        }
        self.touch_storage(storage_id);
        self.touch_cluster(&id);
        self.advance(now);
    }

    fn reset_progress(&mut self, storage_id: &str) {
        if let Some(process) = self.processes.get_mut(storage_id) {
            process.given.clear();
            process.nonce.clear();
        }
    }

    pub(super) fn seal_now(&mut self, storage_id: &str, now: Timestamp) -> VaultReply {
        self.reset_progress(storage_id);
        if let Some(process) = self.processes.get_mut(storage_id) {
            process.seal = SealState::Sealed;
            process.regain = Regain::default();
        }
        self.touch_storage(storage_id);
        self.advance(now);
        VaultReply::empty()
    }

    pub(super) fn seal_status(&self, storage_id: &str) -> VaultReply {
        let cluster = self.cluster_of(storage_id);
        let process = self.processes.get(storage_id);
        let sealed = self.sealed(storage_id);
        let product = self.product(storage_id);
        let mut status = json!({
            "type": "shamir", "initialized": cluster.is_some(), "sealed": sealed,
            "t": cluster.map_or(0, |cluster| cluster.threshold),
            "n": cluster.map_or(0, |cluster| cluster.shares),
            "progress": process.map_or(0, |process| process.given.len()),
            "nonce": process.map_or("", |process| process.nonce.as_str()),
            "version": product.version(), "migration": false, "recovery_seal": false, "storage_type": "raft"
        });
        let built = match product {
            Product::Vault => "build_date",
            Product::OpenBao => "commit_date",
        };
        if let Some(status) = status.as_object_mut() {
            status.insert(built.into(), json!("2026-09-01T00:00:00Z"));
        }
        if let (false, Some(cluster), Some(status)) = (sealed, cluster, status.as_object_mut()) {
            status.insert("cluster_name".into(), json!(cluster.name));
            status.insert("cluster_id".into(), json!(cluster.id));
        }
        VaultReply::ok(&status)
    }

    pub(super) fn health(&self, storage_id: &str, request: &VaultRequest, now: Timestamp) -> VaultReply {
        let initialized = self.initialized(storage_id);
        let sealed = self.sealed(storage_id);
        let active = self.is_active(storage_id, now);
        let flag = |name: &str| request.query.get(name).is_some_and(|value| value != "false");
        let (parameter, usual) = match (initialized, sealed, active) {
            (false, _, _) => ("uninitcode", 501),
            (true, true, _) => ("sealedcode", 503),
            (true, false, true) => ("activecode", 200),
            (true, false, false) if flag("standbyok") => ("activecode", 200),
            (true, false, false) => ("standbycode", 429),
        };
        let asked = request.query.get(parameter).and_then(|code| code.parse::<u16>().ok());
        let status = asked.filter(|code| (100..600).contains(code)).unwrap_or(usual);
        let product = self.product(storage_id);
        let (performance, disaster) = match (product, sealed, active) {
            (_, true, _) | (Product::OpenBao, false, false) => ("unknown", "unknown"),
            (Product::OpenBao, false, true) => ("primary", "disabled"),
            (Product::Vault, false, _) => ("disabled", "disabled"),
        };
        let mut body = json!({
            "initialized": initialized, "sealed": sealed, "standby": !active,
            "replication_performance_mode": performance, "replication_dr_mode": disaster,
            "server_time_utc": now.as_second(), "version": product.version()
        });
        if let (Product::Vault, Some(body)) = (product, body.as_object_mut()) {
            body.insert("performance_standby".into(), json!(false));
        }
        if let (false, Some(cluster), Some(body)) = (sealed, self.cluster_of(storage_id), body.as_object_mut()) {
            body.insert("cluster_name".into(), json!(cluster.name));
            body.insert("cluster_id".into(), json!(cluster.id));
        }
        if request.method == "HEAD" { VaultReply { status, body: Vec::new() } } else { VaultReply::with(status, &body) }
    }

    pub(super) fn leader(&self, storage_id: &str, now: Timestamp) -> VaultReply {
        let leader = self.active_of(storage_id, now).and_then(|leader| self.processes.get(&leader));
        let active = self.is_active(storage_id, now);
        let mut body = json!({
            "ha_enabled": true, "is_self": active,
            "leader_address": leader.map(raft::api_address).unwrap_or_default(),
            "leader_cluster_address": leader.map(|leader| format!("https://{}", raft::cluster_address(leader)))
                .unwrap_or_default(),
            "raft_committed_index": RAFT_INDEX, "raft_applied_index": RAFT_INDEX
        });
        if let Some(body) = body.as_object_mut() {
            if self.product(storage_id) == Product::Vault {
                body.insert("performance_standby".into(), json!(false));
                body.insert("performance_standby_last_remote_wal".into(), json!(0));
            }
            let since = self.cluster_of(storage_id).and_then(|cluster| cluster.leader.as_ref()).filter(|_| active);
            if let Some(leader) = since {
                body.insert("active_time".into(), json!(leader.active_at));
            }
        }
        VaultReply::ok(&body)
    }
}

/// A key share as it is given.
pub(super) fn share_of(text: &str) -> Result<Vec<u8>, VaultReply> {
    let Some(share) = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok()) else {
        return Err(VaultReply::refuse(400, "'key' must be a valid hex or base64 string"));
    };
    match share.len() {
        0..MIN_SHARE => Err(VaultReply::refuse(400, "invalid key: key is shorter than minimum 16 bytes")),
        MIN_SHARE..=MAX_SHARE => Ok(share),
        _ => Err(VaultReply::refuse(400, "invalid key: key is longer than maximum 33 bytes")),
    }
}

/// What a root token is allowed: everything, for ever.
pub(super) fn root_token(accessor: String, now: Timestamp) -> Token {
    Token {
        accessor,
        policies: vec!["root".into()],
        display_name: "root".into(),
        path: "auth/token/root".into(),
        created_at: now,
        expires_at: None,
        parent: None,
        metadata: BTreeMap::new(),
        entity_id: String::new(),
    }
}

fn default_policy(now: Timestamp) -> Policy {
    Policy { text: DEFAULT_POLICY.into(), version: 1, modified: now }
}

pub(super) fn invalid_split(shares: u8, threshold: u8) -> Option<&'static str> {
    match (shares, threshold) {
        (0, _) => Some("invalid seal configuration: shares must be at least one"),
        (_, 0) => Some("invalid seal configuration: threshold must be at least one"),
        (shares, 1) if shares > 1 => {
            Some("invalid seal configuration: threshold must be greater than one for multiple shares")
        }
        (shares, threshold) if threshold > shares => {
            Some("invalid seal configuration: threshold cannot be larger than shares")
        }
        _ => None,
    }
}
