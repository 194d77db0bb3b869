//! What the software that runs in the cluster does to its objects: Argo CD and External Secrets, once their workloads are ready.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::auth;
use super::super::model::VaultRead;
use super::super::network;
use super::super::object::{self, condition_true, int, label, list, put_condition, text};
use super::super::queue::Beyond;
use super::super::store::Key;
use super::{Look, all};

/// Whether a workload with a component name has all its replicas ready, in a namespace or anywhere.
fn ready(look: &Look<'_>, names: &[&str], namespace: Option<&str>) -> Option<String> {
    ["deployments", "statefulsets"].iter().find_map(|resource| {
        all(look.cluster, "apps", resource, namespace)
            .into_iter()
            .find(|(key, found)| {
                names.contains(&key.name.as_str())
                    || label(found, "app.kubernetes.io/name").is_some_and(|name| names.contains(&name))
            })
            .filter(|(_, found)| {
                int(found, "/spec/replicas").unwrap_or(1) > 0
                    && int(found, "/status/readyReplicas").unwrap_or(0) >= int(found, "/spec/replicas").unwrap_or(1)
            })
            .map(|(key, _)| key.namespace)
    })
}

/// A Deployment or StatefulSet changed: its software may come up.
pub(crate) fn workload(look: &mut Look<'_>, key: &Key) {
    let Some(found) = look.cluster.object(key) else { return };
    let named = |name: &str| key.name == name || label(&found, "app.kubernetes.io/name") == Some(name);
    if named("argocd-server") && ready(look, &["argocd-server"], Some(&key.namespace)).is_some() {
        argocd_password(look, &key.namespace);
    }
    if named("argocd-application-controller") {
        for (application, _) in all(look.cluster, "argoproj.io", "applications", None) {
            look.again(&application, 1_000);
        }
    }
    if key.name.starts_with("external-secrets") {
        webhooks(look);
        for resource in ["clustersecretstores", "secretstores", "externalsecrets"] {
            for (each, _) in all(look.cluster, "external-secrets.io", resource, None) {
                look.again(&each, 1_000);
            }
        }
    }
}

/// The Argo CD server writes its first admin password once.
fn argocd_password(look: &mut Look<'_>, namespace: &str) {
    let done = Key::core("secrets", namespace, "argocd-secret");
    if look.cluster.object(&done).is_some_and(|secret| secret.pointer("/data/admin.password").is_some()) {
        return;
    }
    let password = look.cluster.new_suffix(16);
    look.cluster.make("secrets", "", json!({"metadata": {"name": "argocd-initial-admin-secret", "namespace": namespace}, "type": "Opaque", "data": {"password": STANDARD.encode(&password)}}), look.now);
    let hash = STANDARD.encode(format!("$2a$10${}", look.cluster.new_suffix(31)));
    let stamp = STANDARD.encode(object::stamp(look.now));
    look.cluster.make(
        "secrets",
        "",
        json!({"metadata": {"name": "argocd-secret", "namespace": namespace}, "type": "Opaque"}),
        look.now,
    );
    look.cluster.change(&done, |new| {
        object::set(new, &["data", "admin.password"], json!(hash));
        object::set(new, &["data", "admin.passwordMtime"], json!(stamp));
    });
}

/// One look at an Argo CD Application: synced and healthy a while after its controller sees it.
pub(crate) fn application(look: &mut Look<'_>, key: &Key) {
    let Some(application) = look.cluster.object(key) else { return };
    if ready(look, &["argocd-application-controller"], None).is_none() {
        return;
    }
    if object::deleting(&application) {
        super::garbage::release(look, key, "resources-finalizer.argocd.argoproj.io");
        return;
    }
    let generation = int(&application, "/metadata/generation").unwrap_or(1);
    if text(&application, "/status/sync/status") == "Synced"
        && int(&application, "/status/sandboxGeneration") == Some(generation)
    {
        return;
    }
    let age = object::time_at(&application, "/metadata/creationTimestamp")
        .map_or(0, |since| look.now.duration_since(since).as_secs());
    if age < 5 {
        look.again(key, (5 - age) * 1_000);
        return;
    }
    if let Err(why) = network::argocd_compares(look.cluster, &key.namespace) {
        let message = format!("Failed to load target state: rpc error: code = Unavailable desc = {why}");
        let row = json!({"type": "ComparisonError", "message": message});
        look.cluster.change(key, |new| {
            object::set(
                new,
                &["status"],
                json!({"sync": {"status": "Unknown"}, "health": {"status": "Unknown"}, "conditions": [row]}),
            );
        });
        look.poll(key, 10_000);
        return;
    }
    let now = object::stamp(look.now);
    let revision = hex::encode(object::uid(&application)).chars().take(40).collect::<String>();
    look.cluster.change(key, |new| {
        let source = new.pointer("/spec/source").cloned().unwrap_or_default();
        let automated = new.pointer("/spec/syncPolicy/automated").is_some();
        let mut status = json!({"sync": {"status": if automated { "Synced" } else { "OutOfSync" }, "revision": revision, "comparedTo": {"source": source, "destination": new.pointer("/spec/destination")}}, "health": {"status": "Healthy", "lastTransitionTime": now}, "reconciledAt": now, "observedAt": now, "sandboxGeneration": generation, "resources": []});
        if automated || new.get("operation").is_some() {
            object::set(&mut status, &["operationState"], json!({"phase": "Succeeded", "message": "successfully synced (all tasks run)", "startedAt": now, "finishedAt": now, "operation": {"sync": {"revision": revision}}, "syncResult": {"revision": revision, "source": source}}));
            object::set(&mut status, &["sync", "status"], json!("Synced"));
        }
        object::remove(new, &["operation"]);
        object::set(new, &["status"], status);
    });
}

/// The cert-controller fills the CA bundles of External Secrets' own webhooks and CRD conversions.
pub(crate) fn webhooks(look: &mut Look<'_>) {
    if ready(look, &["external-secrets-cert-controller"], None).is_none() {
        return;
    }
    let bundle = STANDARD.encode(&look.cluster.identity.ca_certificate);
    for (key, hooks) in all(look.cluster, "admissionregistration.k8s.io", "validatingwebhookconfigurations", None) {
        if !list(&hooks, "/webhooks")
            .iter()
            .any(|hook| text(hook, "/clientConfig/service/name").starts_with("external-secrets"))
        {
            continue;
        }
        let bundle = bundle.clone();
        look.cluster.change(&key, |new| {
            if let Some(all) = object::list_mut(new, &["webhooks"]) {
                for hook in all {
                    object::set(hook, &["clientConfig", "caBundle"], json!(bundle));
                }
            }
        });
    }
}

/// One look at a secret store: Ready when the Vault it names accepts the login.
pub(crate) fn store(look: &mut Look<'_>, key: &Key) {
    let Some(store) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    if ready(look, &["external-secrets"], None).is_none() {
        return;
    }
    let outcome = read(look, &store, &key.namespace, "");
    let row = match &outcome {
        Ok(_) => json!({"type": "Ready", "status": "True", "reason": "Valid", "message": "store validated"}),
        Err(error) => json!({"type": "Ready", "status": "False", "reason": "InvalidProviderConfig", "message": error}),
    };
    set_ready(look, key, row, outcome.is_ok());
    if outcome.is_ok() { content(look, key, 300_000) } else { look.again(key, 10_000) }
}

/// What Vault gave it gives again, until somebody tells it something: only a refusal may pass by itself.
fn content(look: &mut Look<'_>, key: &Key, every_ms: i64) {
    let heard = look.outside.vault_heard();
    look.cluster.poll(key.clone(), look.now, every_ms, Beyond::Heard(heard));
}

fn set_ready(look: &mut Look<'_>, key: &Key, row: Value, good: bool) {
    let now = object::stamp(look.now);
    look.cluster.change(key, |new| {
        if let Some(conditions) = object::list_mut(new, &["status", "conditions"]) {
            put_condition(conditions, row, &now);
        }
        if good && key.resource.ends_with("stores") {
            object::set(new, &["status", "capabilities"], json!("ReadWrite"));
        }
    });
}

/// Logs in to a store's Vault as its service account and reads a key (or only logs in, for an empty one).
fn read(look: &mut Look<'_>, store: &Value, namespace: &str, remote: &str) -> Result<Value, String> {
    let vault = store.pointer("/spec/provider/vault").ok_or("no vault provider")?;
    let server = url::Url::parse(text(vault, "/server")).map_err(|error| error.to_string())?;
    let host = server.host_str().unwrap_or_default().to_owned();
    let mut parts = host.split('.');
    let (service, home) = (parts.next().unwrap_or_default().to_owned(), parts.next().unwrap_or_default().to_owned());
    reach(look, &home, &service)
        .map_err(|why| format!("unable to log in with Kubernetes auth: dial tcp: i/o timeout ({why})"))?;
    let login = vault.pointer("/auth/kubernetes").ok_or("no kubernetes auth")?;
    let account = Some(text(login, "/serviceAccountRef/name"))
        .filter(|name| !name.is_empty())
        .unwrap_or("external-secrets")
        .to_owned();
    let at = Some(text(login, "/serviceAccountRef/namespace")).filter(|name| !name.is_empty()).map_or_else(
        || {
            if namespace.is_empty() {
                ready(look, &["external-secrets"], None).unwrap_or_default()
            } else {
                namespace.to_owned()
            }
        },
        str::to_owned,
    );
    let found = look
        .cluster
        .object(&Key::core("serviceaccounts", &at, &account))
        .ok_or_else(|| format!("cannot get Kubernetes service account \"{account}\": not found"))?;
    let token = auth::mint(
        look.cluster,
        &at,
        &account,
        object::uid(&found),
        &["https://kubernetes.default.svc".to_owned(), "vault".to_owned()],
        look.now,
        600,
    );
    let mount = Some(text(login, "/mountPath")).filter(|path| !path.is_empty()).unwrap_or("kubernetes").to_owned();
    let request = VaultRead {
        cluster: look.cluster.name(),
        namespace: home,
        service,
        auth_mount: mount,
        role: text(login, "/role").to_owned(),
        token,
        mount: if remote.is_empty() { String::new() } else { text(vault, "/path").to_owned() },
        key: remote.to_owned(),
    };
    look.outside.vault_read(&request)
}

/// Whether the operator's pod reaches Vault.
fn reach(look: &Look<'_>, home: &str, service: &str) -> Result<(), String> {
    for (_, pod) in all(look.cluster, "", "pods", None) {
        if label(&pod, "app.kubernetes.io/name") == Some("external-secrets") {
            network::to_names(look.cluster, &pod)?;
            network::to_service(look.cluster, &pod, home, service, network::tcp(8200))?;
        }
    }
    Ok(())
}

/// One look at an ExternalSecret: its target Secret holds what the Vault has.
pub(crate) fn external_secret(look: &mut Look<'_>, key: &Key) {
    let Some(wish) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    if ready(look, &["external-secrets"], None).is_none() {
        return;
    }
    let outcome = collect(look, &wish, key);
    match outcome {
        Ok(data) => {
            let name =
                Some(text(&wish, "/spec/target/name")).filter(|name| !name.is_empty()).unwrap_or(&key.name).to_owned();
            let owner = json!([{"apiVersion": text(&wish, "/apiVersion"), "kind": "ExternalSecret", "name": key.name, "uid": object::uid(&wish), "controller": true, "blockOwnerDeletion": true}]);
            look.cluster.make("secrets", "", json!({"metadata": {"name": name, "namespace": key.namespace, "ownerReferences": owner, "labels": {"reconcile.external-secrets.io/managed": "true"}}, "type": "Opaque"}), look.now);
            look.cluster.change(&Key::core("secrets", &key.namespace, &name), |new| object::set(new, &["data"], data));
            let now = object::stamp(look.now);
            look.cluster.change(key, |new| object::default_to(new, &["status", "refreshTime"], json!(now)));
            set_ready(
                look,
                key,
                json!({"type": "Ready", "status": "True", "reason": "SecretSynced", "message": "secret synced"}),
                true,
            );
            content(look, key, 60_000);
        }
        Err(error) => {
            set_ready(
                look,
                key,
                json!({"type": "Ready", "status": "False", "reason": "SecretSyncedError", "message": error}),
                false,
            );
            look.again(key, 10_000);
        }
    }
}

fn collect(look: &mut Look<'_>, wish: &Value, key: &Key) -> Result<Value, String> {
    let kind = text(wish, "/spec/secretStoreRef/kind");
    let name = text(wish, "/spec/secretStoreRef/name");
    let store_key = if kind == "ClusterSecretStore" {
        Key::new("external-secrets.io", "clustersecretstores", "", name)
    } else {
        Key::new("external-secrets.io", "secretstores", &key.namespace, name)
    };
    let store = look.cluster.object(&store_key).ok_or_else(|| format!("could not get {kind} \"{name}\""))?;
    if !condition_true(&store, "Ready") {
        return Err(format!("{kind} \"{name}\" is not ready"));
    }
    let mut data = json!({});
    for entry in list(wish, "/spec/data") {
        let found = read(look, &store, &key.namespace, text(entry, "/remoteRef/key"))?;
        let property = text(entry, "/remoteRef/property");
        let value = if property.is_empty() { Some(found.clone()) } else { found.get(property).cloned() }
            .ok_or_else(|| format!("cannot find secret data for key: \"{property}\""))?;
        let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        object::set(&mut data, &[text(entry, "/secretKey")], json!(STANDARD.encode(plain)));
    }
    for entry in list(wish, "/spec/dataFrom") {
        let found = read(look, &store, &key.namespace, text(entry, "/extract/key"))?;
        for (property, value) in found.as_object().into_iter().flatten() {
            let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            object::set(&mut data, &[property], json!(STANDARD.encode(plain)));
        }
    }
    Ok(data)
}
