//! What platflow's own login may not do, asked for over real TLS and HTTP, and what its readers may.

use super::cluster::Bench;
use super::notes::Outcome;
use crate::kubernetes::ClusterAccess;
use crate::vault::{LoginAs, Session, VaultPlace, Vaults};
use platflow_engine::failure::ErrorClass;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const ALL: &str =
    "path \"*\" {\n  capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\", \"sudo\"]\n}\n";

async fn login(bench: &Bench, account: &str, role: &str) -> Session {
    let spec = bench.spec("vault.configure");
    let text = |name: &str| spec[name].as_str().expect("text").to_owned();
    let place = VaultPlace {
        cluster: serde_json::from_value::<ClusterAccess>(spec["cluster"].clone()).expect("access"),
        namespace: text("namespace"),
        name: text("name"),
        pods: serde_json::from_value(spec["pods"].clone()).expect("pods"),
        ca_certificate: text("ca_certificate"),
    };
    let vaults = Vaults::new(Arc::new(bench.world.clone()), Arc::clone(&bench.keystore));
    let server = vaults.active(&place).await.expect("asked").expect("leads");
    let login = LoginAs { service_account: account.into(), role: role.into(), mount: "kubernetes".into() };
    vaults.login(&place, server, &login).await.expect("logs in")
}

/// What would make a login root, in as many ways as there are.
fn escalations() -> Vec<(&'static str, &'static str, Value)> {
    let policy = || json!({ "policy": ALL });
    let role = |policy: &str| {
        json!({ "bound_service_account_names": ["platflow"], "bound_service_account_namespaces": ["platform-system"],
            "token_policies": [policy], "token_ttl": 600 })
    };
    let host = json!({ "kubernetes_host": "https://elsewhere.example.com" });
    vec![
        ("PUT", "sys/policies/acl/external-secrets-x", policy()),
        ("PUT", "sys/policy/external-secrets-x", policy()),
        ("PUT", "sys/policies/acl/external-secrets", policy()),
        ("PUT", "sys/policies/acl/platflow", policy()),
        ("PUT", "sys/policy/platflow", policy()),
        ("DELETE", "sys/policies/acl/external-secrets", Value::Null),
        ("PUT", "auth/kubernetes/role/external-secrets-x", role("root")),
        ("PUT", "auth/kubernetes/role/external-secrets", role("root")),
        ("PUT", "auth/kubernetes/role/platflow", role("root")),
        ("DELETE", "auth/kubernetes/role/external-secrets", Value::Null),
        ("PUT", "auth/kubernetes/config", host),
        ("PUT", "sys/auth/kubernetes", json!({ "type": "kubernetes" })),
        ("PUT", "sys/auth/other", json!({ "type": "kubernetes" })),
        ("DELETE", "sys/auth/kubernetes", Value::Null),
        ("PUT", "sys/mounts/other", json!({ "type": "kv", "options": { "version": "2" } })),
        ("DELETE", "sys/mounts/secret", Value::Null),
        ("PUT", "sys/audit/other", json!({ "type": "file", "options": { "file_path": "/tmp/a" } })),
        ("DELETE", "sys/audit/platflow", Value::Null),
        ("PUT", "auth/token/create", json!({ "policies": ["root"] })),
        ("PUT", "auth/token/create-orphan", json!({ "policies": ["root"] })),
        ("GET", "secret/data/somebody-elses", Value::Null),
        ("PUT", "secret/data/somebody-elses", json!({ "data": { "value": "x" } })),
        ("PUT", "sys/seal", json!({})),
    ]
}

/// Proves that platflow's login cannot give itself or anybody more than it has: no policy, role, auth method, mount,
/// audit device or token comes of it; that nothing changed by trying; and that its own canaries work.
#[tokio::test]
async fn platflows_own_login_cannot_widen_itself() {
    let bench = Bench::new();
    bench.build().await;
    let session = login(&bench, "platflow", "platflow").await;
    for (method, path, body) in escalations() {
        let reply = match method {
            "GET" => session.server.get(path).await,
            "DELETE" => session.server.delete(path, TIMEOUT).await,
            _ => session.server.put(path, &body, TIMEOUT).await,
        };
        assert_eq!(reply.expect("answers").status, 403, "{method} {path}");
    }
    for (path, status) in [("secret/data/platflow/canary", 200), ("secret/metadata/platflow/canary", 200)] {
        if path.contains("/data/") {
            let written = session.server.put(path, &json!({ "data": { "value": "x" } }), TIMEOUT).await;
            assert!(written.expect("answers").ok(), "{path}");
        }
        assert_eq!(session.server.get(path).await.expect("answers").status, status, "{path}");
    }
    session.close().await;
    for kind in ["vault.configure", "vault.own_access"] {
        bench.run(kind).await.expect_done(kind);
    }
}

/// Proves that a reader is let in before the root token goes: its account logs in, reads, and writes nothing.
#[tokio::test]
async fn a_reader_reads_and_no_more() {
    let bench = Bench::new();
    bench.build().await;
    let own = login(&bench, "platflow", "platflow").await;
    let canary = json!({ "data": { "value": "x" } });
    assert!(own.server.put("secret/data/platflow/canary", &canary, TIMEOUT).await.expect("answers").ok());
    bench.add_account("external-secrets");
    let reader = login(&bench, "external-secrets", "external-secrets").await;
    let read = reader.server.get("secret/data/platflow/canary").await.expect("answers");
    assert_eq!(read.text("/data/data/value"), Some("x"));
    for path in ["secret/data/platflow/canary", "sys/policies/acl/external-secrets", "auth/kubernetes/role/platflow"] {
        assert_eq!(reader.server.put(path, &canary, TIMEOUT).await.expect("answers").status, 403, "{path}");
    }
}

/// Proves that a later change that needs the root token stops for a human, who is told the very commands, and that
/// nothing was attempted.
#[tokio::test]
async fn what_needs_the_root_token_says_so() {
    let mut bench = Bench::new();
    bench.build().await;
    bench.run_id = "r2".into();
    let more =
        json!([{ "name": "external-secrets", "namespace": "platform-system" }, { "name": "app", "namespace": "a" }]);
    let before = bench.more.insert("readers", more).expect("readers");
    let Outcome::Failed(error) = bench.run("vault.own_access").await else { panic!("must not go on") };
    assert_eq!(error.class, ErrorClass::NeedsHuman, "{error}");
    let remedy = error.remedy.expect("remedy");
    assert!(remedy.contains("vault policy write app -") && remedy.contains("auth/kubernetes/role/app"), "{remedy}");
    bench.more.insert("readers", before);
    bench.run("vault.own_access").await.expect_done("vault.own_access");

    bench.more.insert("audit", json!("/vault/audit.log"));
    let Outcome::Failed(error) = bench.run("vault.configure").await else { panic!("must not go on") };
    assert_eq!(error.class, ErrorClass::NeedsHuman, "{error}");
    assert!(error.message.contains("/audit"), "{error}");
}

/// Proves that a reader whose name would mean more than it says, or somebody else, is refused before anything is written.
#[tokio::test]
async fn a_reader_cannot_pass_for_another() {
    let mut bench = Bench::new();
    bench.more.insert("readers", json!([]));
    for kind in ["vault.install", "vault.init", "vault.unseal", "vault.configure"] {
        bench.run(kind).await.expect_done(kind);
    }
    for name in ["platflow", "root", "default", "a*", "a/b", "a\"b", "A", ""] {
        bench.more.insert("readers", json!([{ "name": name, "namespace": "a" }]));
        let Outcome::Failed(error) = bench.run("vault.own_access").await else { panic!("{name} must be refused") };
        assert_eq!(error.class, ErrorClass::Permanent, "{name}: {error}");
    }
}
