//! What the simulated servers answer, held against what OpenBao 2.7 and Vault answer.

use super::{Reviews, Servers, VaultPod, VaultReply, VaultRequest};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

struct NoReviews;

impl Reviews for NoReviews {
    fn token_review(&self, jwt: &str) -> Option<(String, String)> {
        let (namespace, account) = jwt.strip_prefix("jwt:")?.split_once('/')?;
        Some((namespace.to_owned(), account.to_owned()))
    }
}

/// Three servers and a clock.
struct Bench {
    servers: Servers,
    now: Timestamp,
    keys: Vec<String>,
    root: String,
}

fn store(ordinal: usize) -> String {
    format!("pvc-{ordinal}")
}

impl Bench {
    fn new() -> Self {
        let mut bench =
            Self { servers: Servers::new(11), now: Timestamp::UNIX_EPOCH, keys: Vec::new(), root: String::new() };
        for ordinal in 0..3 {
            bench.start(ordinal, "a");
        }
        bench
    }

    fn start(&mut self, ordinal: usize, generation: &str) {
        let pod = VaultPod {
            uid: format!("pod-{ordinal}-{generation}"),
            name: format!("vault-{ordinal}"),
            namespace: "platform-system".into(),
            storage_id: store(ordinal),
            ..VaultPod::default()
        };
        self.servers.pod_started(pod, self.now);
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.checked_add(Duration::from_millis(millis)).expect("in range");
        self.servers.advance(self.now);
    }

    fn send(&mut self, ordinal: usize, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = VaultRequest {
            method: method.into(),
            path: format!("/v1/{path}"),
            query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers: [("x-vault-token".to_owned(), token.to_owned())].into(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let VaultReply { status, body } = self.servers.handle(&store(ordinal), &request, self.now, &NoReviews);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn get(&mut self, ordinal: usize, path: &str) -> (u16, Value) {
        self.send(ordinal, "GET", path, "", &Value::Null)
    }

    fn put(&mut self, ordinal: usize, path: &str, body: &Value) -> (u16, Value) {
        self.send(ordinal, "PUT", path, "", body)
    }

    fn with_root(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let root = self.root.clone();
        self.send(0, method, path, &root, body)
    }

    fn init(&mut self) {
        let (status, reply) = self.put(0, "sys/init", &json!({ "secret_shares": 5, "secret_threshold": 3 }));
        assert_eq!(status, 200, "{reply}");
        self.keys = serde_json::from_value(reply["keys"].clone()).expect("keys");
        self.root = reply["root_token"].as_str().expect("root").into();
    }

    fn unseal(&mut self, ordinal: usize, shares: &[usize]) -> (u16, Value) {
        let mut last = (0, Value::Null);
        for share in shares {
            let key = self.keys[*share].clone();
            last = self.put(ordinal, "sys/unseal", &json!({ "key": key }));
        }
        last
    }

    fn join(&mut self, ordinal: usize) -> (u16, Value) {
        let address = "https://vault-0.vault-internal.platform-system.svc:8200";
        self.put(ordinal, "sys/storage/raft/join", &json!({ "leader_api_addr": address, "leader_ca_cert": "pem" }))
    }

    fn ready() -> Self {
        let mut bench = Self::new();
        bench.init();
        bench.unseal(0, &[0, 1, 2]);
        bench.pass(300);
        for ordinal in [1, 2] {
            assert_eq!(bench.join(ordinal).0, 200);
            bench.unseal(ordinal, &[2, 3, 4]);
        }
        bench.pass(20_000);
        bench
    }
}

/// Proves the answers to bad and repeated inits.
#[test]
fn init_answers_as_the_real_one() {
    let mut bench = Bench::new();
    for bad in [
        json!({}),
        json!({ "secret_shares": 3, "secret_threshold": 5 }),
        json!({ "secret_shares": 5, "secret_threshold": 1 }),
        json!({ "secret_shares": 5, "secret_threshold": 3, "pgp_keys": ["a", "b", "c", "d", "e"] }),
    ] {
        assert_eq!(bench.put(0, "sys/init", &bad).0, 400, "{bad}");
    }
    assert_eq!(bench.get(0, "sys/init").1, json!({ "initialized": false }));
    assert_eq!(bench.put(0, "sys/unseal", &json!({ "key": "00" })).0, 400);
    bench.init();
    assert_eq!(bench.get(0, "sys/init").1, json!({ "initialized": true }));
    assert_eq!(bench.get(1, "sys/init").1, json!({ "initialized": false }));
    let (status, reply) = bench.put(0, "sys/init", &json!({ "secret_shares": 5, "secret_threshold": 3 }));
    assert_eq!((status, reply["errors"][0].as_str()), (400, Some("Vault is already initialized")));
}

/// Proves the state a server killed in the middle of its init is left in: uninitialised, and init refused for good,
/// until its storage is new.
#[test]
fn an_interrupted_bootstrap_refuses_every_init() {
    let mut bench = Bench::new();
    bench.servers.bootstrap_interrupted(&store(0));
    let (status, reply) = bench.put(0, "sys/init", &json!({ "secret_shares": 5, "secret_threshold": 3 }));
    assert_eq!(status, 400);
    assert!(reply["errors"][0].as_str().is_some_and(|text| text.contains("cluster already has state")));
    assert_eq!(bench.get(0, "sys/init").1, json!({ "initialized": false }));
    bench.servers.storage_deleted(&store(0), bench.now);
    bench.start(0, "b");
    bench.init();
}

/// Proves what a server says that was killed between its keyring and its seal's configuration.
#[test]
fn an_init_interrupted_later_leaves_no_seal() {
    let mut bench = Bench::new();
    bench.servers.init_interrupted(&store(0));
    let init = json!({ "secret_shares": 5, "secret_threshold": 3 });
    for (method, path, wanted) in [
        ("GET", "sys/init", 500),
        ("GET", "sys/seal-status", 500),
        ("GET", "sys/health", 500),
        ("PUT", "sys/init", 400),
    ] {
        assert_eq!(bench.send(0, method, path, "", &init).0, wanted, "{method} {path}");
    }
}

/// Proves every health code and the query parameters that change it.
#[test]
fn health_tells_the_state_by_its_code() {
    let mut bench = Bench::new();
    assert_eq!(bench.get(0, "sys/health").0, 501);
    assert_eq!(bench.get(0, "sys/health?uninitcode=200").0, 200);
    bench.init();
    assert_eq!(bench.get(0, "sys/health").0, 503);
    assert_eq!(bench.get(0, "sys/health?sealedcode=204").0, 204);
    bench.unseal(0, &[0, 1, 2]);
    assert_eq!(bench.get(0, "sys/health").0, 429, "elected, not serving yet");
    bench.pass(300);
    assert_eq!(bench.get(0, "sys/health").0, 200);
    bench.join(1);
    bench.unseal(1, &[0, 1, 2]);
    bench.pass(1_100);
    assert_eq!(bench.get(1, "sys/health").0, 429);
    assert_eq!(bench.get(1, "sys/health?standbyok=true").0, 200);
}

/// Proves how unsealing counts shares: junk of the right form counts, a repeated one does not, a bad round fails on
/// its last share and starts again, and a reset clears it.
#[test]
fn unsealing_counts_and_only_the_last_share_tells() {
    let mut bench = Bench::new();
    bench.init();
    let progress = |reply: &Value| reply["progress"].as_u64();
    assert_eq!(bench.put(0, "sys/unseal", &json!({ "key": "!!" })).0, 400);
    assert_eq!(bench.put(0, "sys/unseal", &json!({ "key": "aabb" })).0, 400);
    assert_eq!(progress(&bench.unseal(0, &[0]).1), Some(1));
    assert_eq!(progress(&bench.unseal(0, &[0]).1), Some(1));
    let reset = bench.put(0, "sys/unseal", &json!({ "reset": true }));
    assert_eq!((reset.0, progress(&reset.1), reset.1["nonce"].as_str()), (200, Some(0), Some("")));
    let junk = json!({ "key": format!("{}07", "5a".repeat(32)) });
    assert_eq!(progress(&bench.put(0, "sys/unseal", &junk).1), Some(1));
    let (status, reply) = bench.unseal(0, &[0, 1]);
    assert_eq!(status, 400);
    assert!(reply["errors"][0].as_str().is_some_and(|text| text.contains("message authentication failed")));
    assert_eq!(progress(&bench.get(0, "sys/seal-status").1), Some(0));
    let (status, reply) = bench.unseal(0, &[4, 0, 2]);
    assert_eq!((status, reply["sealed"].as_bool()), (200, Some(false)));
    assert_eq!(bench.unseal(0, &[1]).0, 200, "a share after unsealing changes nothing");
}

/// Proves join-then-unseal, the joiner's sealed last reply, and that three voters need the stabilisation time.
#[test]
fn joiners_unseal_themselves_and_vote_later() {
    let mut bench = Bench::new();
    assert_eq!(bench.join(1).0, 500, "no leader yet");
    bench.init();
    assert_eq!(bench.join(1).0, 500, "the leader is sealed");
    bench.unseal(0, &[0, 1, 2]);
    bench.pass(300);
    assert_eq!(bench.put(1, "sys/unseal", &json!({ "key": bench.keys[0].clone() })).0, 400, "not joined");
    for ordinal in [1, 2] {
        assert_eq!(bench.join(ordinal), (200, json!({ "joined": true })));
        assert_eq!(bench.join(ordinal).0, 200, "joining again is fine");
        let (status, reply) = bench.unseal(ordinal, &[1, 3, 4]);
        assert_eq!((status, reply["sealed"].as_bool(), reply["progress"].as_u64()), (200, Some(true), Some(0)));
    }
    bench.pass(1_000);
    assert_eq!(bench.get(1, "sys/seal-status").1["sealed"], json!(false));
    let voters = |bench: &mut Bench| {
        let reply = bench.with_root("GET", "sys/storage/raft/configuration", &Value::Null).1;
        let servers = reply["data"]["config"]["servers"].as_array().expect("servers").clone();
        servers.iter().filter(|server| server["voter"] == json!(true)).count()
    };
    assert_eq!(voters(&mut bench), 1);
    bench.pass(9_000);
    assert_eq!(voters(&mut bench), 1);
    bench.pass(6_100);
    assert_eq!(voters(&mut bench), 3);
}

/// Proves failover with a quorum, none without, and that a restarted server comes back sealed and unseals again.
#[test]
fn a_lost_leader_is_replaced_and_a_lost_quorum_is_not() {
    let mut bench = Bench::ready();
    let root = bench.root.clone();
    bench.servers.pod_stopped("pod-0-a", bench.now);
    assert_eq!(bench.send(1, "GET", "sys/mounts", &root, &Value::Null).0, 500);
    bench.pass(2_300);
    let actives = [1, 2].map(|ordinal| bench.get(ordinal, "sys/health").0);
    assert!(actives.contains(&200) && actives.contains(&429), "{actives:?}");
    assert_eq!(bench.send(1, "GET", "sys/mounts", &root, &Value::Null).0, 200);
    bench.start(0, "b");
    assert_eq!(bench.get(0, "sys/health").0, 503);
    assert_eq!(bench.unseal(0, &[0, 1, 2]).1["sealed"], json!(false));
    assert_eq!(bench.get(0, "sys/health").0, 429);
    for uid in ["pod-1-a", "pod-2-a"] {
        bench.servers.pod_stopped(uid, bench.now);
    }
    bench.pass(10_000);
    assert_eq!(bench.get(0, "sys/health").0, 429);
    assert_eq!(bench.with_root("GET", "sys/mounts", &Value::Null).0, 500);
}

/// Proves what is refused while sealed, and that sealing answers 204.
#[test]
fn a_sealed_server_answers_503() {
    let mut bench = Bench::ready();
    assert_eq!(bench.with_root("PUT", "sys/seal", &Value::Null).0, 204);
    for path in ["sys/leader", "sys/mounts", "secret/data/x"] {
        assert_eq!(bench.with_root("GET", path, &Value::Null).0, 503, "{path}");
    }
    assert_eq!(bench.put(0, "sys/generate-root/attempt", &json!({})).0, 503);
    assert_eq!(bench.put(0, "sys/rekey/init", &json!({})).0, 503);
}

/// Proves that the holders of the shares can make a root token and split the key anew, and nobody else.
#[test]
fn shares_make_a_root_token_and_new_shares() {
    let mut bench = Bench::ready();
    let (_, started) = bench.put(0, "sys/generate-root/attempt", &json!({}));
    let (nonce, otp) = (started["nonce"].clone(), started["otp"].as_str().unwrap_or_default().to_owned());
    assert_eq!((started["started"].clone(), otp.len()), (json!(true), 26));
    assert_eq!(bench.put(0, "sys/generate-root/attempt", &json!({})).0, 400, "one at a time");
    let give = |bench: &mut Bench, path: &str, share: usize, nonce: &Value| {
        let key = bench.keys[share].clone();
        bench.put(0, path, &json!({"key": key, "nonce": nonce}))
    };
    assert_eq!(give(&mut bench, "sys/generate-root/update", 0, &json!("another")).0, 400);
    assert_eq!(give(&mut bench, "sys/generate-root/update", 0, &nonce).1["progress"], json!(1));
    assert_eq!(give(&mut bench, "sys/generate-root/update", 0, &nonce).0, 400, "the same one again");
    give(&mut bench, "sys/generate-root/update", 1, &nonce);
    let (_, done) = give(&mut bench, "sys/generate-root/update", 2, &nonce);
    let encoded = done["encoded_token"].as_str().unwrap_or_default();
    let hidden = data_encoding::BASE64_NOPAD.decode(encoded.as_bytes()).unwrap();
    let token: String = hidden.iter().zip(otp.bytes()).map(|(one, other)| char::from(one ^ other)).collect();
    let (status, found) = bench.send(0, "GET", "auth/token/lookup-self", &token, &Value::Null);
    assert_eq!((status, found["data"]["policies"].clone()), (200, json!(["root"])));

    assert_eq!(bench.put(0, "sys/rekey/init", &json!({"secret_shares": 3, "secret_threshold": 4})).0, 500);
    let (_, started) = bench.put(0, "sys/rekey/init", &json!({"secret_shares": 3, "secret_threshold": 2}));
    let nonce = started["nonce"].clone();
    give(&mut bench, "sys/rekey/update", 3, &nonce);
    give(&mut bench, "sys/rekey/update", 4, &nonce);
    let (_, done) = give(&mut bench, "sys/rekey/update", 0, &nonce);
    assert_eq!((done["complete"].clone(), done["keys"].as_array().map(Vec::len)), (json!(true), Some(3)));
    assert_eq!(bench.with_root("PUT", "sys/seal", &Value::Null).0, 204);
    for key in done["keys"].as_array().unwrap().iter().take(2) {
        bench.put(0, "sys/unseal", &json!({ "key": key }));
    }
    assert_eq!(bench.get(0, "sys/seal-status").1["sealed"], json!(false));
}

/// Proves mounts, KV v2 with check-and-set, audit, policies, and their refusals.
#[test]
fn secrets_mounts_policies_and_audit() {
    let mut bench = Bench::ready();
    let kv = json!({ "type": "kv", "options": { "version": "2" } });
    assert_eq!(bench.with_root("POST", "sys/mounts/secret", &kv).0, 204);
    let (status, reply) = bench.with_root("POST", "sys/mounts/secret", &kv);
    assert_eq!((status, reply["errors"][0].as_str()), (400, Some("path is already in use at secret/")));
    let root = bench.root.clone();
    let body = json!({ "data": { "a": "b" } });
    let (status, reply) = bench.send(1, "POST", "secret/data/app", &root, &body);
    assert!(status == 400 && reply.to_string().contains("Waiting for the primary to upgrade"), "{status} {reply}");
    bench.pass(600);
    assert_eq!(bench.send(1, "POST", "secret/data/app", &root, &body).0, 200, "a standby forwards");
    let stale = json!({ "data": {}, "options": { "cas": 0 } });
    assert_eq!(bench.with_root("POST", "secret/data/app", &stale).0, 400);
    assert_eq!(bench.with_root("GET", "secret/data/app", &Value::Null).1["data"]["data"], json!({ "a": "b" }));
    assert_eq!(bench.with_root("GET", "secret/data/none", &Value::Null), (404, json!({ "errors": [] })));
    assert_eq!(bench.with_root("GET", "secret/metadata?list=true", &Value::Null).1["data"]["keys"], json!(["app"]));
    assert_eq!(bench.with_root("PUT", "sys/policies/acl/bad", &json!({ "policy": "nonsense" })).0, 400);
    let file = json!({ "type": "file", "options": { "file_path": "stdout" } });
    assert_eq!(bench.with_root("PUT", "sys/audit/file", &file).0, 204);
    assert_eq!(bench.with_root("PUT", "sys/audit/file", &file).0, 400);
}

/// Proves that a login is checked against the role and the review, that its policies are enforced on every path, and
/// that a revoked root token is refused afterwards.
#[test]
fn logins_carry_their_policies_and_no_more() {
    let mut bench = Bench::ready();
    let kv = json!({ "type": "kv-v2" });
    bench.with_root("POST", "sys/mounts/secret", &kv);
    bench.with_root("POST", "sys/auth/kubernetes", &json!({ "type": "kubernetes" }));
    let config = "auth/kubernetes/config";
    assert_eq!(
        bench.with_root("POST", config, &json!({ "kubernetes_host": "h", "disable_local_ca_jwt": true })).0,
        400
    );
    assert_eq!(bench.with_root("POST", config, &json!({ "kubernetes_host": "https://kubernetes.default" })).0, 204);
    let text =
        "path \"secret/data/app/*\" { capabilities = [\"read\"] }\npath \"sys/audit\" { capabilities = [\"read\"] }";
    assert_eq!(bench.with_root("PUT", "sys/policies/acl/app", &json!({ "policy": text })).0, 204);
    let role = json!({
        "bound_service_account_names": ["platflow"], "bound_service_account_namespaces": "platform-system",
        "token_policies": ["app"], "token_ttl": "10m"
    });
    assert_eq!(bench.with_root("POST", "auth/kubernetes/role/app", &role).0, 204);
    bench.with_root("POST", "secret/data/app/one", &json!({ "data": { "a": 1 } }));
    let login = |bench: &mut Bench, role: &str, jwt: &str| {
        bench.put(0, "auth/kubernetes/login", &json!({ "role": role, "jwt": jwt }))
    };
    assert_eq!(login(&mut bench, "none", "jwt:platform-system/platflow").0, 400);
    assert_eq!(login(&mut bench, "app", "forged").0, 403);
    assert_eq!(login(&mut bench, "app", "jwt:other/platflow").0, 403);
    let (status, reply) = login(&mut bench, "app", "jwt:platform-system/platflow");
    assert_eq!(status, 200);
    let token = reply["auth"]["client_token"].as_str().expect("token").to_owned();
    let cases = [
        ("GET", "secret/data/app/one", 200),
        ("POST", "secret/data/app/one", 403),
        ("GET", "secret/data/other", 403),
        ("GET", "sys/audit", 403), // read without sudo
        ("GET", "auth/token/lookup-self", 200),
    ];
    for (method, path, wanted) in cases {
        let body = if method == "POST" { json!({ "data": {} }) } else { Value::Null };
        assert_eq!(bench.send(0, method, path, &token, &body).0, wanted, "{method} {path}");
    }
    bench.pass(10 * 60 * 1_000 + 1);
    assert_eq!(bench.send(0, "GET", "auth/token/lookup-self", &token, &Value::Null).0, 403, "expired");
    assert_eq!(bench.with_root("POST", "auth/token/revoke-self", &Value::Null).0, 204);
    assert_eq!(bench.with_root("GET", "sys/mounts", &Value::Null).0, 403);
}

/// Proves that the documents bring the same world back, and that no share, key or token is in them.
#[test]
fn the_world_survives_as_documents_without_a_secret() {
    let mut bench = Bench::ready();
    bench.put(1, "sys/unseal", &json!({ "key": bench.keys[0].clone() }));
    let documents: Vec<(String, Value)> =
        bench.servers.take_dirty().into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let text = serde_json::to_string(&documents).expect("json");
    for secret in bench.keys.iter().chain([&bench.root]) {
        assert!(!text.contains(secret.as_str()));
    }
    let before = bench.servers.summary(bench.now);
    bench.servers = Servers::restore(documents).expect("restores");
    assert_eq!(bench.servers.summary(bench.now), before);
    assert_eq!((before[0].voters, before[0].sealed, before[0].unsealed), (3, false, 3));
    assert_eq!(bench.with_root("GET", "sys/mounts", &Value::Null).0, 200);
    for ordinal in 0..3 {
        bench.servers.storage_deleted(&store(ordinal), bench.now);
    }
    assert!(bench.servers.summary(bench.now).is_empty());
}
