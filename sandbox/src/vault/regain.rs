//! What whoever holds the key shares can do without a token: make a root token, and split the key anew.
//!
//! HashiCorp Vault answers these; OpenBao does only where its listener allows it, which is not the default.

use super::message::{VaultReply, VaultRequest};
use super::model::{Product, Servers, digest};
use super::seal::{invalid_split, root_token, share_of};
use super::shamir;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

/// So long is a root token, and so long must be what it is hidden with.
const TOKEN_LENGTH: usize = 26;
const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What has begun on a server; it remembers that as long as it leads.
#[derive(Debug, Clone, Default)]
pub(super) struct Regain {
    root: Option<Attempt>,
    rekey: Option<Attempt>,
}

#[derive(Debug, Clone, Default)]
struct Attempt {
    nonce: String,
    given: Vec<Vec<u8>>,
    /// What the root token is hidden with.
    otp: String,
    /// How the key is split anew.
    shares: u8,
    threshold: u8,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Root,
    Rekey,
}

impl What {
    fn operation(self) -> &'static str {
        match self {
            Self::Root => "root generation",
            Self::Rekey => "rekey",
        }
    }
}

impl Regain {
    fn of(&mut self, what: What) -> &mut Option<Attempt> {
        match what {
            What::Root => &mut self.root,
            What::Rekey => &mut self.rekey,
        }
    }
}

impl Servers {
    /// Answers these endpoints; nothing for any other.
    pub(super) fn regained(
        &mut self,
        storage_id: &str,
        path: &str,
        request: &VaultRequest,
        now: Timestamp,
    ) -> Option<VaultReply> {
        let (what, update) = match path {
            "sys/generate-root/attempt" => (What::Root, false),
            "sys/generate-root/update" => (What::Root, true),
            "sys/rekey/init" => (What::Rekey, false),
            "sys/rekey/update" => (What::Rekey, true),
            _ => return None,
        };
        if self.product(storage_id) == Product::OpenBao {
            return Some(VaultReply::refuse(405, "unsupported operation"));
        }
        if self.sealed(storage_id) {
            return Some(VaultReply::refuse(503, "Vault is sealed"));
        }
        // A standby passes it on to the leader.
        let Some(active) = self.active_of(storage_id, now) else {
            return Some(VaultReply::refuse(500, "local node not active but active cluster node not found"));
        };
        Some(match request.method.as_str() {
            _ if update && request.writes() => self.give(&active, what, request, now),
            "GET" if !update => VaultReply::ok(&self.attempt_status(&active, what)),
            "DELETE" if !update => {
                self.set_attempt(&active, what, None);
                VaultReply::empty()
            }
            _ if !update && request.writes() => self.begin(&active, what, request),
            _ => VaultReply::wrong_method(),
        })
    }

    fn attempt(&mut self, active: &str, what: What) -> Option<&mut Attempt> {
        self.processes.get_mut(active)?.regain.of(what).as_mut()
    }

    fn set_attempt(&mut self, active: &str, what: What, attempt: Option<Attempt>) {
        if let Some(process) = self.processes.get_mut(active) {
            *process.regain.of(what) = attempt;
        }
    }

    fn attempt_status(&mut self, active: &str, what: What) -> Value {
        let required = self.cluster_of(active).map_or(0, |cluster| cluster.threshold);
        let attempt = self.attempt(active, what).cloned();
        let started = attempt.is_some();
        let attempt = attempt.unwrap_or_default();
        let (nonce, progress) = (attempt.nonce, attempt.given.len());
        match what {
            What::Root => json!({
                "started": started, "nonce": nonce, "progress": progress, "required": required, "complete": false,
                "encoded_token": "", "encoded_root_token": "", "pgp_fingerprint": "", "otp": "",
                "otp_length": TOKEN_LENGTH
            }),
            What::Rekey => json!({
                "started": started, "nonce": nonce, "progress": progress, "required": required,
                "t": attempt.threshold, "n": attempt.shares, "pgp_fingerprints": null, "backup": false,
                "verification_required": false
            }),
        }
    }

    fn begin(&mut self, active: &str, what: What, request: &VaultRequest) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        if self.attempt(active, what).is_some() {
            let text =
                if what == What::Root { "root generation already in progress" } else { "rekey already in progress" };
            return VaultReply::refuse(400, text);
        }
        let number = |name: &str| body.get(name).and_then(Value::as_u64).and_then(|value| u8::try_from(value).ok());
        let mut attempt = Attempt { nonce: self.uuid(), ..Attempt::default() };
        let mut made_up = false;
        if what == What::Root {
            let given = body.get("otp").and_then(Value::as_str).unwrap_or_default();
            if body.get("pgp_key").is_some_and(|key| !key.is_null()) {
                return VaultReply::refuse(400, "parameter \"pgp_key\" is not supported by this server");
            }
            if !given.is_empty() && given.len() != TOKEN_LENGTH {
                return VaultReply::refuse(400, "OTP string has incorrect length");
            }
            given.clone_into(&mut attempt.otp);
            if given.is_empty() {
                let picks = self.random_bytes(TOKEN_LENGTH);
                let letter = |pick: u8| LETTERS.get(usize::from(pick) % LETTERS.len()).copied().map_or('0', char::from);
                attempt.otp = picks.into_iter().map(letter).collect();
                made_up = true;
            }
        } else {
            attempt.shares = number("secret_shares").unwrap_or(0);
            attempt.threshold = number("secret_threshold").unwrap_or(0);
            if let Some(text) = invalid_split(attempt.shares, attempt.threshold) {
                return VaultReply::refuse(500, &text.replace("invalid seal", "invalid rekey seal"));
            }
        }
        let otp = attempt.otp.clone();
        self.set_attempt(active, what, Some(attempt));
        let mut status = self.attempt_status(active, what);
        // Only now, and only if the server made it up, is it told.
        if let (true, Some(status)) = (made_up, status.as_object_mut()) {
            status.insert("otp".into(), json!(otp));
        }
        VaultReply::ok(&status)
    }

    fn give(&mut self, active: &str, what: What, request: &VaultRequest, now: Timestamp) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(cluster) = self.cluster_of(active) else { return VaultReply::missing() };
        let (required, expected) = (usize::from(cluster.threshold), cluster.key_digest.clone());
        if text("key").is_empty() {
            return VaultReply::refuse(400, "'key' must be specified in request body as JSON");
        }
        let share = match share_of(&text("key")) {
            Ok(share) => share,
            Err(reply) => return reply,
        };
        let Some(attempt) = self.attempt(active, what) else {
            let none =
                if what == What::Root { "no root generation in progress" } else { "no barrier rekey in progress" };
            return VaultReply::refuse(400, none);
        };
        if attempt.nonce != text("nonce") {
            let (name, wanted) = (what.operation(), &attempt.nonce);
            let text = format!("incorrect nonce supplied; nonce for this {name} operation is {wanted}");
            return VaultReply::refuse(400, &text);
        }
        if attempt.given.contains(&share) {
            let name = if what == What::Root { "generation" } else { "rekey" };
            let text = format!("given key has already been provided during this {name} operation");
            return VaultReply::refuse(400, &text);
        }
        attempt.given.push(share);
        if attempt.given.len() < required {
            let mut status = self.attempt_status(active, what);
            if let Some(length) = status.get_mut("otp_length") {
                *length = json!(0);
            }
            return VaultReply::ok(&status);
        }
        let given = std::mem::take(&mut attempt.given);
        if shamir::combine(&given).is_none_or(|key| digest(&key) != expected) {
            let text = format!(
                "{} aborted: unable to authenticate: unable to retrieve stored keys: invalid key: failed to decrypt keys \
                 from storage: cipher: message authentication failed",
                what.operation()
            );
            return VaultReply::refuse(400, &text);
        }
        let attempt = attempt.clone();
        self.set_attempt(active, what, None);
        match what {
            What::Root => self.make_root(active, &attempt, required, now),
            What::Rekey => self.split_anew(active, &attempt),
        }
    }

    fn make_root(&mut self, active: &str, attempt: &Attempt, required: usize, now: Timestamp) -> VaultReply {
        let root = format!("s.{}", data_encoding::BASE64URL_NOPAD.encode(&self.random_bytes(18)));
        let token = root_token(self.uuid(), now);
        let Some(id) = self.cluster_of(active).map(|cluster| cluster.id.clone()) else { return VaultReply::missing() };
        if let Some(cluster) = self.clusters.get_mut(&id) {
            cluster.tokens.insert(digest(root.as_bytes()), token);
        }
        self.touch_cluster(&id);
        let hidden: Vec<u8> = root.bytes().zip(attempt.otp.bytes()).map(|(one, other)| one ^ other).collect();
        let encoded = STANDARD_NO_PAD.encode(hidden);
        VaultReply::ok(&json!({
            "started": true, "nonce": attempt.nonce, "progress": required, "required": required, "complete": true,
            "encoded_token": encoded, "encoded_root_token": encoded, "pgp_fingerprint": "", "otp": "", "otp_length": 0
        }))
    }

    fn split_anew(&mut self, active: &str, attempt: &Attempt) -> VaultReply {
        let key = self.random_bytes(32);
        let mut coefficients = self.random_bytes(32 * usize::from(attempt.threshold)).into_iter();
        let parts = shamir::split(&key, attempt.shares, attempt.threshold, || coefficients.next().unwrap_or(1));
        let Some(id) = self.cluster_of(active).map(|cluster| cluster.id.clone()) else { return VaultReply::missing() };
        if let Some(cluster) = self.clusters.get_mut(&id) {
            cluster.key_digest = digest(&key);
            (cluster.shares, cluster.threshold) = (attempt.shares, attempt.threshold);
        }
        self.touch_cluster(&id);
        let keys: Vec<String> = parts.iter().map(hex::encode).collect();
        let keys_base64: Vec<String> = parts.iter().map(|part| STANDARD.encode(part)).collect();
        VaultReply::ok(&json!({
            "nonce": attempt.nonce, "complete": true, "keys": keys, "keys_base64": keys_base64,
            "pgp_fingerprints": null, "backup": false, "verification_required": false
        }))
    }
}
