//! Undoing what came from a source that has vanished or changed since: the record is enough.

use super::MANIFEST;
use super::bench::Bench;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

const OTHER: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: another, namespace: default}\n";
const ARGOCD: &str = include_str!("../../manifests/argocd.yaml");
const EXTERNAL_SECRETS: &str = include_str!("../../manifests/external-secrets.yaml");

fn pinned(path: &Path, text: &str) -> Value {
    json!({"file": path, "sha256": hex::encode(Sha256::digest(text))})
}

/// What may become of a file or an address between a run and its rollback.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Vanished,
    Changed,
    Unreachable,
}

/// The source as the undo finds it.
fn strike(fate: Fate, path: &Path, text: &str) -> Value {
    match fate {
        Fate::Vanished => std::fs::remove_file(path).unwrap(),
        Fate::Changed => std::fs::write(path, OTHER).unwrap(),
        Fate::Unreachable => {
            return json!({"url": "https://127.0.0.1:1/gone.yaml", "sha256": hex::encode(Sha256::digest(text))});
        }
    }
    pinned(path, text)
}

fn spec(kind: &str, source: Value) -> Value {
    match kind {
        "kubernetes.apply" => json!({"source": source}),
        _ => json!({"namespace": "platform-system", "source": source}),
    }
}

/// Proves that a rollback in another process takes everything away although the file has gone, holds another manifest,
/// or the address answers nobody.
#[tokio::test]
async fn an_undo_needs_no_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.yaml");
    for (kind, text) in
        [("kubernetes.apply", MANIFEST), ("argocd.install", ARGOCD), ("external_secrets.install", EXTERNAL_SECRETS)]
    {
        for fate in [Fate::Vanished, Fate::Changed, Fate::Unreachable] {
            let mut bench = Bench::new().await;
            let system = ("system", "kubernetes.namespace", json!({"name": "platform-system"}));
            bench.run(system.0, system.1, system.2.clone()).await.unwrap();
            std::fs::write(&path, text).unwrap();
            bench.run("all", kind, spec(kind, pinned(&path, text))).await.unwrap();
            bench.next_process();
            let source = strike(fate, &path, text);
            bench
                .undo("all", kind, spec(kind, source))
                .await
                .unwrap_or_else(|error| panic!("{kind} {fate:?}: {error}"));
            bench.undo(system.0, system.1, system.2).await.unwrap();
            assert_eq!(bench.world.listing(), Vec::<String>::new(), "{kind} {fate:?}");
        }
    }
}

/// Proves the same for a process that died in the middle of applying, when no outputs are on record yet; and that nothing
/// of a source that was never read is claimed.
#[tokio::test]
async fn what_was_half_applied_is_known_without_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.yaml");
    for calls in 0..4 {
        for fate in [Fate::Vanished, Fate::Changed, Fate::Unreachable] {
            let mut bench = Bench::new().await;
            std::fs::write(&path, MANIFEST).unwrap();
            bench.die_after(calls);
            let source = json!({"source": pinned(&path, MANIFEST)});
            let error = bench.run("all", "kubernetes.apply", source).await.unwrap_err();
            assert_eq!(error.code.as_deref(), Some("Killed"), "{calls}");
            bench.next_process();
            let source = strike(fate, &path, MANIFEST);
            bench.undo("all", "kubernetes.apply", json!({"source": source})).await.unwrap();
            assert_eq!(bench.world.listing(), Vec::<String>::new(), "{calls} {fate:?}");
        }
    }
    let bench = Bench::new().await;
    let source = strike(Fate::Unreachable, &path, MANIFEST);
    bench.undo("all", "kubernetes.apply", json!({"source": source})).await.unwrap();
}
