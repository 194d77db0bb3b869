//! The kinds that live in a cluster, driven against the simulated API server over TLS with real tokens.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail by panicking"
)]

mod bench;
mod vanished;

use bench::Bench;
use platflow_engine::failure::{ErrorClass, Residue};
use platflow_engine::step::{Observation, Ownership};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

type Step = (&'static str, &'static str, Value);

fn guards() -> Vec<Step> {
    vec![
        ("api", "kubernetes.api_reachable", json!({"groups": ["apps/v1"]})),
        (
            "namespace",
            "kubernetes.namespace",
            json!({"name": "apps", "labels": {"team": "a"}, "pod_security": {"enforce": "restricted", "warn": "restricted"}}),
        ),
        (
            "quota",
            "kubernetes.resource_quota",
            json!({"namespace": "apps", "name": "platform", "hard": {"requests.cpu": "20", "limits.cpu": 40, "requests.memory": "64Gi"}}),
        ),
        (
            "limits",
            "kubernetes.limit_range",
            json!({"namespace": "apps", "name": "platform", "limits": [{"type": "Container", "defaultRequest": {"cpu": "100m"}, "default": {"cpu": "1"}}]}),
        ),
        (
            "deny",
            "kubernetes.network_policy",
            json!({"namespace": "apps", "name": "default-deny", "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}),
        ),
        (
            "class",
            "kubernetes.storage_class",
            json!({"name": "gp3", "provisioner": "ebs.csi.aws.com", "default": true, "parameters": {"type": "gp3"}}),
        ),
    ]
}

/// Proves the whole life of the single objects: made, verified, unchanged by a second run without one mutating call,
/// drift found at the spec's field and repaired, and gone after the undo.
#[tokio::test]
async fn namespaces_and_their_guards_live_and_die() {
    let mut bench = Bench::new().await;
    for (step, kind, spec) in guards() {
        bench.run(step, kind, spec).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    assert_eq!(bench.mutations(), 5);
    bench.next_run();
    for (step, kind, spec) in guards() {
        bench.run(step, kind, spec).await.unwrap();
    }
    assert_eq!(bench.mutations(), 0);

    let path = "/api/v1/namespaces/apps/resourcequotas/platform";
    bench.as_admin("PATCH", path, &json!({"spec": {"hard": {"requests.cpu": "99"}}}));
    let (step, kind, spec) = guards().remove(2);
    let seen = bench.observe(step, kind, spec.clone()).await.unwrap();
    let Observation::Present { differences, ownership: Ownership::Ours, .. } = seen else { panic!("{seen:?}") };
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!((differences[0].field.as_str(), &differences[0].found), ("/hard/requests.cpu", &json!("99")));
    bench.run(step, kind, spec).await.unwrap();

    for (step, kind, spec) in guards().into_iter().rev() {
        bench.undo(step, kind, spec.clone()).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        bench.undo(step, kind, spec).await.unwrap();
    }
    assert_eq!(bench.world.listing(), Vec::<String>::new());
}

/// Proves that an object of somebody else is refused by name of its owner, with nothing sent, and that our undo leaves
/// it alone.
#[tokio::test]
async fn what_is_not_ours_is_refused_and_left() {
    let bench = Bench::new().await;
    bench.as_admin("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "apps", "labels": {"team": "b"}}}));
    let (step, kind, spec) = guards().remove(1);
    let seen = bench.observe(step, kind, spec.clone()).await.unwrap();
    assert!(
        matches!(&seen, Observation::Present { ownership: Ownership::Foreign(owner), .. } if owner.contains("team=b"))
    );
    let error = bench.run(step, kind, spec.clone()).await.unwrap_err();
    assert_eq!((error.class, error.residue), (ErrorClass::NeedsHuman, Residue::None));
    bench.undo(step, kind, spec).await.unwrap();
    assert_eq!(bench.mutations(), 0);
    let left = bench.as_admin("GET", "/api/v1/namespaces/apps", &Value::Null);
    assert!(left["metadata"]["deletionTimestamp"].is_null(), "{left}");
}

const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: made}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: one, namespace: made}
spec: {size: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: made}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: registry.example.com/web:1
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, listKind: WidgetList, plural: widgets, singular: widget}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, properties: {size: {type: integer}}}
";

/// Proves that manifests in any order come up in the right one, and that a death before any of the mutating calls,
/// while applying or undoing, ends in the same world as an undisturbed run, with nothing made twice.
#[tokio::test]
async fn manifests_survive_a_death_before_every_call() {
    let spec = || json!({"yaml": MANIFEST});
    let undisturbed = Bench::new().await;
    undisturbed.run("all", "kubernetes.apply", spec()).await.unwrap();
    let (wanted, calls) = (undisturbed.world.listing(), undisturbed.mutations());
    assert_eq!(calls, 4);
    undisturbed.undo("all", "kubernetes.apply", spec()).await.unwrap();
    let removals = undisturbed.mutations();
    for calls in 0..calls {
        let bench = Bench::new().await;
        bench.die_after(calls);
        let error = bench.run("all", "kubernetes.apply", spec()).await.unwrap_err();
        assert_eq!(error.code.as_deref(), Some("Killed"));
        bench.die_after(usize::MAX);
        bench.run("all", "kubernetes.apply", spec()).await.unwrap();
        assert_eq!((bench.world.listing(), bench.mutations()), (wanted.clone(), 4), "after {calls} calls");
        // One call further with each life.
        for _ in 0..removals {
            bench.die_after(1);
            drop(bench.undo("all", "kubernetes.apply", spec()).await);
        }
        bench.die_after(usize::MAX);
        bench.undo("all", "kubernetes.apply", spec()).await.unwrap();
        assert_eq!(bench.world.listing(), Vec::<String>::new());
    }
}

fn platform() -> Vec<Step> {
    let source = json!({"embedded": true});
    vec![
        ("system", "kubernetes.namespace", json!({"name": "platform-system", "pod_security": {"enforce": "baseline"}})),
        ("argocd", "argocd.install", json!({"namespace": "platform-system", "source": source})),
        ("password", "argocd.admin_password", json!({"namespace": "platform-system"})),
        ("root", "argocd.root_app", json!({"namespace": "platform-system", "repo": "https://git.example.com/x.git"})),
        ("eso", "external_secrets.install", json!({"namespace": "platform-system", "source": source})),
    ]
}

/// Proves that Argo CD and External Secrets come up from the bundles that ship, that the password is rotated and
/// sealed, that a second run changes nothing, and that the undo leaves nothing of them.
#[tokio::test]
async fn operators_come_up_and_go() {
    let mut bench = Bench::new().await;
    for (step, kind, spec) in platform() {
        let outputs = bench.run(step, kind, spec).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        if step == "argocd" {
            assert_eq!(outputs["version"], "v3.5.1");
        }
    }
    let uid = platflow_engine::name::EnvironmentUid::new("uid-1").unwrap();
    let password = bench.keystore.get(&uid, "argocd/admin-password", None).await.unwrap().unwrap();
    let secret = bench.as_admin("GET", "/api/v1/namespaces/platform-system/secrets/argocd-secret", &Value::Null);
    let hash = secret["data"]["admin.password"].as_str().unwrap();
    let hash = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, hash).unwrap();
    assert!(bcrypt::verify(password.expose_secret(), std::str::from_utf8(&hash).unwrap()).unwrap());
    bench.mutations();
    bench.next_run();
    for (step, kind, spec) in platform() {
        bench.run(step, kind, spec).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    assert_eq!(bench.mutations(), 0);
    for (step, kind, spec) in platform().into_iter().rev() {
        bench.undo(step, kind, spec).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    assert_eq!(bench.world.listing(), Vec::<String>::new());
}

/// Proves that each smoke check passes on a good cluster with evidence, runs again in the next run, and leaves the
/// world as it was.
#[tokio::test]
async fn smoke_checks_keep_evidence_and_leave_nothing() {
    let mut bench = Bench::new().await;
    for (step, kind, spec) in guards() {
        bench.run(step, kind, spec).await.unwrap();
    }
    let before = bench.world.listing();
    let checks: Vec<Step> = vec![
        ("nodes", "smoke.nodes_ready", json!({"pools": [{"name": "system", "desired": 4, "arch": "amd64"}]})),
        ("dns", "smoke.dns", json!({})),
        ("quota_own", "smoke.quota_enforced", json!({})),
        ("quota", "smoke.quota_enforced", json!({"namespace": "apps"})),
        ("security", "smoke.pod_security_enforced", json!({"namespace": "apps"})),
    ];
    for run in ["run1", "run2"] {
        for (step, kind, spec) in checks.clone() {
            let outputs = bench.run(step, kind, spec).await.unwrap_or_else(|error| panic!("{step}: {error}"));
            assert_eq!(outputs["run"], run, "{step}");
            assert!(outputs["evidence"].is_object(), "{step}");
        }
        assert_eq!(bench.world.listing(), before);
        bench.next_run();
    }
    // A namespace without Pod Security labels does not pass.
    let error = bench.run("bad", "smoke.pod_security_enforced", json!({"namespace": "kube-system"})).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("SmokeTestFailed"));
}

/// Proves that the upstream manifest, definitions beyond the size of an annotation included, comes up in another
/// namespace and goes again. Set `PLATFLOW_ARGOCD_MANIFEST` to a copy of Argo CD v3.5.1's `manifests/ha/install.yaml`.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test's opt-in to a large file that is not part of the project")]
async fn the_upstream_manifest_comes_up() {
    let Ok(path) = std::env::var("PLATFLOW_ARGOCD_MANIFEST") else {
        platflow_report::skipped("the_upstream_manifest_comes_up", "PLATFLOW_ARGOCD_MANIFEST names no file");
        return;
    };
    let bench = Bench::new().await;
    let digest = "1d7b6baa0769ff8a5757c61e2c677ae0939a15e86e149f64df6b12435db5c4b2";
    let (step, kind, spec) = platform().remove(0);
    bench.run(step, kind, spec).await.unwrap();
    let spec = json!({"namespace": "platform-system", "source": {"file": path, "sha256": digest}});
    let outputs = bench.run("argocd", "argocd.install", spec.clone()).await.unwrap();
    assert_eq!(outputs["version"], "v3.5.1");
    bench.undo("argocd", "argocd.install", spec).await.unwrap();
    assert_eq!(bench.world.listing(), ["Namespace /platform-system"]);
}
