//! Rollouts judged on the statuses that a real API server (1.36) reported, in their order.

use super::rollout::{Rollout, rollout};
use serde_json::Value;

/// The objects of the watches in a recording; it shortens them, so their kind is put back.
fn recorded(name: &str, kind: &str) -> Vec<Value> {
    let path = format!("{}/../tests/fixtures/kubernetes/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let recording: Value = serde_json::from_str(&text).unwrap();
    let interactions = recording["interactions"].as_array().unwrap();
    let events = interactions.iter().flat_map(|entry| entry["response"]["events"].as_array().into_iter().flatten());
    events
        .filter(|event| event["type"] != "BOOKMARK")
        .map(|event| event["object"].clone())
        .map(|mut object| {
            object["kind"] = kind.into();
            object
        })
        .collect()
}

fn named<'a>(objects: &'a [Value], name: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["metadata"]["name"] == name).collect()
}

/// Proves that no status of a Deployment counts while its controller lags behind, and that the rollout ends complete.
#[test]
fn a_deployment_is_done_only_when_observed() {
    let objects = recorded("deployment-rollout-watch", "Deployment");
    assert!(objects.len() > 5);
    let mut complete = 0;
    for object in &objects {
        let lagging = object["status"]["observedGeneration"].as_i64() < object["metadata"]["generation"].as_i64();
        let done = rollout(object) == Rollout::Complete;
        assert!(!(lagging && done), "{object}");
        complete += usize::from(done);
    }
    assert!(complete > 0);
    assert_eq!(rollout(objects.last().unwrap()), Rollout::Complete);
}

/// Proves that a Deployment past its progress deadline is given up, and not before.
#[test]
fn a_stuck_deployment_is_given_up() {
    let objects = recorded("deployment-progress-deadline", "Deployment");
    let failed = objects.iter().position(|object| matches!(rollout(object), Rollout::Failed(_))).unwrap();
    assert!(failed > 0);
    assert!(objects[..failed].iter().all(|object| rollout(object) != Rollout::Complete));
}

/// Proves that a Job that completes ends complete, and one that exhausts its retries ends failed with its reason.
#[test]
fn jobs_end_complete_or_failed() {
    let objects = recorded("job-complete-and-failed", "Job");
    let outcomes = |name: &str| named(&objects, name).into_iter().map(rollout).collect::<Vec<_>>();
    assert!(outcomes("good").contains(&Rollout::Complete));
    assert!(!outcomes("good").iter().any(|outcome| matches!(outcome, Rollout::Failed(_))));
    let failed = |outcome: &Rollout| matches!(outcome, Rollout::Failed(what) if what.contains("BackoffLimitExceeded"));
    assert!(outcomes("bad").iter().any(failed));
}

/// Proves that a definition counts only once its names are accepted and it is established; its first conditions are
/// `null`, which is no error.
#[test]
fn a_definition_is_done_when_established() {
    let objects = recorded("crd-lifecycle", "CustomResourceDefinition");
    let outcomes: Vec<Rollout> = named(&objects, "gizmos.life.example.com").into_iter().map(rollout).collect();
    assert!(matches!(outcomes.first(), Some(Rollout::Progressing(_))), "{outcomes:?}");
    assert_eq!(outcomes.last(), Some(&Rollout::Complete));
}

/// Proves that the bundles that ship hold the workloads they promise, fit under Pod Security `baseline` with requests
/// and limits on every container, and leave no name of an upstream namespace behind once replaced.
#[test]
fn shipped_bundles_hold_what_they_promise() {
    let argocd: &[(&str, &str, i64)] = &[
        ("Deployment", "argocd-applicationset-controller", 1),
        ("Deployment", "argocd-dex-server", 1),
        ("Deployment", "argocd-notifications-controller", 1),
        ("Deployment", "argocd-redis-ha-haproxy", 3),
        ("Deployment", "argocd-repo-server", 2),
        ("Deployment", "argocd-server", 2),
        ("StatefulSet", "argocd-application-controller", 1),
        ("StatefulSet", "argocd-redis-ha-server", 3),
    ];
    let operator: &[(&str, &str, i64)] = &[
        ("Deployment", "external-secrets", 1),
        ("Deployment", "external-secrets-cert-controller", 1),
        ("Deployment", "external-secrets-webhook", 1),
    ];
    let bundles = [
        (include_str!("../../manifests/argocd.yaml"), argocd, "argocd", 3),
        (include_str!("../../manifests/external-secrets.yaml"), operator, "external-secrets", 3),
    ];
    for (text, wanted, upstream, definitions) in bundles {
        let mut objects = super::documents::objects(text).unwrap();
        assert_eq!(objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition").count(), definitions);
        for object in &mut objects {
            super::documents::replace_namespace(object, upstream, "platform-system");
            let left = object.to_string();
            assert!(!left.contains(&format!("\"namespace\":\"{upstream}\"")), "{left}");
        }
        let mut found: Vec<(&str, &str, i64)> = objects
            .iter()
            .filter(|object| !object["spec"]["template"].is_null())
            .map(|object| {
                let name = object["metadata"]["name"].as_str().unwrap();
                (object["kind"].as_str().unwrap(), name, object["spec"]["replicas"].as_i64().unwrap())
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
        for workload in objects.iter().filter(|object| !object["spec"]["template"].is_null()) {
            let pod = &workload["spec"]["template"]["spec"];
            let containers =
                ["containers", "initContainers"].iter().flat_map(|list| pod[*list].as_array().into_iter().flatten());
            for container in containers {
                for amount in ["requests", "limits"] {
                    for resource in ["cpu", "memory"] {
                        assert!(container["resources"][amount][resource].is_string(), "{container}");
                    }
                }
                assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{container}");
            }
            let name = &workload["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"];
            assert_eq!(name, &workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]);
        }
    }
}

/// Proves that the upstream manifest (several megabytes of definitions included) is read whole. Set
/// `PLATFLOW_ARGOCD_MANIFEST` to a copy of Argo CD v3.5.1's `manifests/ha/install.yaml`.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test's opt-in to a large file that is not part of the project")]
fn the_upstream_manifest_is_read() {
    let Ok(path) = std::env::var("PLATFLOW_ARGOCD_MANIFEST") else {
        platflow_report::skipped("the_upstream_manifest_is_read", "PLATFLOW_ARGOCD_MANIFEST names no file");
        return;
    };
    let objects = super::documents::objects(&std::fs::read_to_string(path).unwrap()).unwrap();
    let count = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
    assert_eq!(count("CustomResourceDefinition"), 3);
    assert_eq!((count("Deployment"), count("StatefulSet")), (6, 2));
    assert_eq!((count("ClusterRole"), count("ClusterRoleBinding")), (3, 3));
}
