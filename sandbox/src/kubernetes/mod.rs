//! The simulated Kubernetes API of EKS clusters: pure state on simulated time, and a server that speaks its wire protocol.
//! What happens outside of Kubernetes (volumes, load balancers, Vault processes, IAM) goes through [`Outside`].

mod admission;
mod apply;
mod auth;
mod cluster;
mod controllers;
mod defaults;
mod discovery;
pub mod encoding;
mod expressions;
mod fields;
mod identity;
mod lists;
mod model;
mod network;
mod object;
mod openapi;
mod patch;
mod portforward;
pub(crate) mod presigned;
mod protobuf;
mod quantity;
mod queue;
mod resources;
mod route;
mod schema;
mod selectors;
mod server;
mod status;
mod store;
mod table;
mod validate;
mod verbs;
mod versions;
mod watch;
mod yaml;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use identity::CertificateFailed;
pub use model::{
    AccessGrant, AddonHealth, Caller, KubeReply, KubeRequest, NewCluster, NodeSeed, Outside, PortForward, Taint,
    VaultPod, VaultRead,
};
pub use server::{Doors, KubeBackend, PodStream, serve_cluster, serve_through, tls_config};
pub use watch::Subscription;

use cluster::{Addon, Cluster};
use store::Key;

/// All the clusters of a world.
#[derive(Debug, Clone, Default)]
pub struct Clusters {
    clusters: BTreeMap<String, Cluster>,
    removed: Vec<String>,
    wrote: bool,
}

/// One object for a listing of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Cluster name.
    pub cluster: String,
    /// Kind.
    pub kind: String,
    /// Namespace, empty for cluster-wide kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Phase or the like, as far as the kind has one.
    pub state: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Made by the control plane, an add-on or a controller, not by a caller.
    pub system: bool,
}

impl Clusters {
    /// Brings a control plane up: system namespaces, roles, and a certificate authority.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn create(&mut self, new: NewCluster, now: Timestamp) -> Result<(), CertificateFailed> {
        let name = new.name.clone();
        let mut cluster = Cluster::empty(identity::new(new)?);
        controllers::bootstrap(&mut cluster, now);
        controllers::settle(&mut cluster, now);
        self.clusters.insert(name, cluster);
        Ok(())
    }

    /// Takes a control plane away, with all that is in it. Volumes and load balancers stay behind, as they do on AWS.
    pub fn remove(&mut self, name: &str, _now: Timestamp) {
        if let Some(cluster) = self.clusters.remove(name) {
            self.removed.push(format!("{name}#identity"));
            self.removed.extend(cluster.store.keys().map(|key| format!("{name}#object#{}", key.path())));
        }
    }

    /// Whether there is such a cluster.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.clusters.contains_key(name)
    }

    /// Names of all clusters.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.clusters.keys().cloned().collect()
    }

    /// Machines join. They become Ready once the network add-on is there.
    pub fn join_nodes(&mut self, cluster: &str, nodes: Vec<NodeSeed>, now: Timestamp) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            for node in &nodes {
                controllers::nodes::join(cluster, node, now);
            }
            controllers::settle(cluster, now);
        }
    }

    /// A machine goes away, with the pods on it.
    pub fn remove_node(&mut self, cluster: &str, name: &str, now: Timestamp) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            controllers::nodes::leave(cluster, name, now);
            controllers::settle(cluster, now);
        }
    }

    /// An add-on is installed or updated.
    pub fn addon_installed(
        &mut self,
        cluster: &str,
        name: &str,
        version: &str,
        configuration: Option<Value>,
        now: Timestamp,
    ) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.identity.addons.insert(name.to_owned(), Addon { version: version.to_owned(), configuration });
            cluster.identity_dirty = true;
            cluster.settings += 1;
            controllers::addons::install(cluster, name, now);
            controllers::settle(cluster, now);
        }
    }

    /// An add-on is removed with its objects.
    pub fn addon_removed(&mut self, cluster: &str, name: &str, now: Timestamp) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.identity.addons.remove(name);
            cluster.identity_dirty = true;
            cluster.settings += 1;
            controllers::addons::uninstall(cluster, name, now);
            controllers::settle(cluster, now);
        }
    }

    /// Health of an add-on.
    #[must_use]
    pub fn addon_health(&self, cluster: &str, name: &str) -> AddonHealth {
        self.clusters.get(cluster).map_or_else(
            || AddonHealth::Degraded("no such cluster".to_owned()),
            |cluster| controllers::addons::health(cluster, name),
        )
    }

    /// Sets the access entries of a cluster.
    pub fn set_access(&mut self, cluster: &str, access: Vec<AccessGrant>) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.identity.access = access;
            cluster.identity_dirty = true;
        }
    }

    /// The certificate authority as DescribeCluster returns it: base64 of PEM.
    #[must_use]
    pub fn certificate_authority_data(&self, cluster: &str) -> Option<String> {
        use base64::Engine as _;
        let cluster = self.clusters.get(cluster)?;
        Some(base64::engine::general_purpose::STANDARD.encode(&cluster.identity.ca_certificate))
    }

    /// The certificate authority of a cluster, certificate and key as PEM: for its listener.
    #[must_use]
    pub fn certificate_authority(&self, cluster: &str) -> Option<(String, String)> {
        let identity = &self.clusters.get(cluster)?.identity;
        Some((identity.ca_certificate.clone(), identity.ca_key.clone()))
    }

    /// Lets the controllers work up to a time.
    pub fn advance(&mut self, now: Timestamp, outside: &mut dyn Outside) {
        for cluster in self.clusters.values_mut() {
            controllers::advance(cluster, now, outside);
        }
    }

    /// When the controllers have something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.clusters.values().filter_map(|cluster| cluster.queue.next()).min()
    }

    /// Answers a request.
    pub fn handle(
        &mut self,
        cluster: &str,
        request: &KubeRequest,
        now: Timestamp,
        outside: &mut dyn Outside,
    ) -> KubeReply {
        let Some(cluster) = self.clusters.get_mut(cluster) else {
            return KubeReply::Text {
                status: 503,
                content_type: "text/plain; charset=utf-8".to_owned(),
                headers: Vec::new(),
                body: "no such cluster\n".to_owned(),
            };
        };
        controllers::advance(cluster, now, outside);
        cluster.clock = now;
        let before = cluster.store.version();
        let reply = verbs::handle(cluster, request, now, outside);
        self.wrote = cluster.store.version() != before;
        controllers::settle(cluster, now);
        reply
    }

    /// Makes an object in a namespace keep its finalizer until a time (Unix milliseconds), or for good.
    pub fn hold_namespace(&mut self, cluster: &str, namespace: &str, until_ms: Option<i64>, now: Timestamp) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            controllers::stuck::hold(cluster, namespace, until_ms, now);
            controllers::settle(cluster, now);
        }
    }

    /// Whether a pod reaches another one of its namespace on a port, and the names of pods; why not, if not.
    ///
    /// # Errors
    /// A network policy is in the way.
    pub fn reaches(&self, cluster: &str, namespace: &str, from: &str, to: &str, port: u16) -> Result<(), String> {
        let Some(cluster) = self.clusters.get(cluster) else { return Ok(()) };
        let pod = |name: &str| cluster.object(&Key::core("pods", namespace, name));
        let (Some(from), Some(to)) = (pod(from), pod(to)) else { return Ok(()) };
        network::to_names(cluster, &from)?;
        network::flows(cluster, network::End::Pod(&from), network::End::Pod(&to), network::tcp(port))
    }

    /// Whether a pod reaches the API server; why not, if not.
    ///
    /// # Errors
    /// A network policy is in the way.
    pub fn reaches_api(&self, cluster: &str, namespace: &str, pod: &str) -> Result<(), String> {
        let Some(cluster) = self.clusters.get(cluster) else { return Ok(()) };
        let Some(pod) = cluster.object(&Key::core("pods", namespace, pod)) else { return Ok(()) };
        network::to_api(cluster, &pod)
    }

    /// Makes a namespace that belongs to somebody else.
    pub fn plant_namespace(&mut self, cluster: &str, name: &str, now: Timestamp) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            let namespace = json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "owner": "team-blue"}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
            cluster.make("namespaces", "", namespace, now);
            controllers::settle(cluster, now);
        }
    }

    /// Kills a pod at once; what owns it makes another.
    pub fn kill_pod(&mut self, cluster: &str, namespace: &str, name: &str, now: Timestamp) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            verbs::delete::begin(cluster, &Key::core("pods", namespace, name), now, Some(0));
            controllers::settle(cluster, now);
        }
    }

    /// Whether the last request itself changed what is stored.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.wrote
    }

    /// The events of a watch since the last poll, and whether it is over.
    pub fn poll_watch(&self, watch: &mut Subscription, now: Timestamp) -> (Vec<Value>, bool) {
        let name = watch.cluster().to_owned();
        watch::poll(self.clusters.get(&name), watch, now)
    }

    /// Forgets the history of a cluster, as a compaction of its storage does: older watches and lists expire.
    pub fn compact(&mut self, cluster: &str) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.store.compact();
        }
    }

    /// Reads one object, for tests and for the other fronts of the world.
    #[must_use]
    pub fn object(&self, cluster: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.clusters
            .get(cluster)?
            .store
            .get(&Key::new(group, resource, namespace, name))
            .map(|object| (**object).clone())
    }

    /// Reviews a bearer token as the API server would: the user name and groups behind it.
    pub fn review_token(
        &self,
        cluster: &str,
        token: &str,
        now: Timestamp,
        outside: &mut dyn Outside,
    ) -> Option<(String, Vec<String>)> {
        let user = auth::of_token(self.clusters.get(cluster)?, token, now, now, outside)?;
        Some((user.name, user.groups))
    }

    /// The objects that people see in a world: everything but what controllers keep for themselves.
    #[must_use]
    pub fn resources(&self) -> Vec<Listed> {
        const HIDDEN: [&str; 6] =
            ["events", "leases", "endpoints", "endpointslices", "replicasets", "controllerrevisions"];
        let mut found = Vec::new();
        for (name, cluster) in &self.clusters {
            for (key, object) in cluster.store.all().filter(|(key, _)| !HIDDEN.contains(&key.resource.as_str())) {
                let kind = cluster
                    .resource_of(&key.group, &key.resource)
                    .map_or_else(|| key.resource.clone(), |resource| resource.kind.clone());
                let labels: BTreeMap<String, String> = object::map(object, "/metadata/labels")
                    .map(|labels| {
                        labels
                            .iter()
                            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                            .collect()
                    })
                    .unwrap_or_default();
                found.push(Listed {
                    cluster: name.clone(),
                    kind,
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    uid: object::uid(object).to_owned(),
                    state: object::text(object, "/status/phase").to_owned(),
                    system: !labels.contains_key("platflow.io/step") && made_by_the_cluster(key, object),
                    labels,
                });
            }
        }
        found
    }

    /// What changed since the last call, by persistence key; `None` for what is gone.
    pub fn take_dirty(&mut self) -> Vec<(String, Option<Value>)> {
        let mut dirty: Vec<(String, Option<Value>)> =
            std::mem::take(&mut self.removed).into_iter().map(|key| (key, None)).collect();
        for (name, cluster) in &mut self.clusters {
            let changed = cluster.store.take_dirty();
            if !changed.is_empty() || std::mem::take(&mut cluster.identity_dirty) {
                cluster.identity.version = cluster.store.version();
                dirty.push((format!("{name}#identity"), serde_json::to_value(&cluster.identity).ok()));
            }
            cluster.identity_dirty = false;
            dirty.extend(changed.into_iter().map(|key| {
                (format!("{name}#object#{}", key.path()), cluster.store.get(&key).map(|object| (**object).clone()))
            }));
        }
        dirty
    }

    /// See [`crate::world::World::forget_changes`].
    pub(crate) fn forget_changes(&mut self) {
        self.removed.clear();
        for cluster in self.clusters.values_mut() {
            cluster.store.take_dirty();
            cluster.identity.version = cluster.store.version();
            cluster.identity_dirty = false;
        }
    }

    /// Puts one persisted entry back. Call [`Clusters::restored`] after the last one. Answers whether the entry was understood.
    pub fn restore(&mut self, key: &str, value: Value) -> bool {
        let mut parts = key.splitn(3, '#');
        let (Some(name), Some(kind)) = (parts.next(), parts.next()) else { return false };
        match (kind, parts.next()) {
            ("identity", None) => {
                let Ok(identity) = serde_json::from_value::<cluster::Identity>(value) else { return false };
                match self.clusters.get_mut(name) {
                    Some(cluster) => {
                        cluster.store.restore_version(identity.version);
                        cluster.identity = identity;
                    }
                    None => {
                        self.clusters.insert(name.to_owned(), Cluster::empty(identity));
                    }
                }
                true
            }
            ("object", Some(path)) => {
                let Some(key) = Key::parse(path) else { return false };
                let placeholder = || Cluster::empty(identity::placeholder(name));
                self.clusters.entry(name.to_owned()).or_insert_with(placeholder).store.restore_object(key, value);
                true
            }
            _ => false,
        }
    }

    /// Ends a restore: definitions are read again and the controllers look at everything once.
    pub fn restored(&mut self, now: Timestamp) {
        for cluster in self.clusters.values_mut() {
            cluster.identity_dirty = false;
            cluster.refresh_definitions();
            let keys: Vec<Key> = cluster.store.keys().cloned().collect();
            for key in keys {
                cluster.ask(key, now, 0);
            }
        }
    }

    /// A short description for logs.
    #[must_use]
    pub fn summary(&self) -> Value {
        json!(
            self.clusters
                .iter()
                .map(|(name, cluster)| (name.clone(), cluster.store.version()))
                .collect::<BTreeMap<_, _>>()
        )
    }
}

/// Namespaces that a control plane comes with.
const OWN_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// What the control plane, an add-on or a controller made by itself.
fn made_by_the_cluster(key: &Key, object: &Value) -> bool {
    let by_name = |name: &str| {
        OWN_NAMESPACES.contains(&name)
            || ["system:", "eks:", "kube-", "system-"].iter().any(|prefix| name.starts_with(prefix))
    };
    let kind_of_its_own = matches!(
        key.resource.as_str(),
        "nodes"
            | "pods"
            | "persistentvolumes"
            | "persistentvolumeclaims"
            | "csinodes"
            | "csidrivers"
            | "apiservices"
            | "flowschemas"
            | "prioritylevelconfigurations"
    );
    let owned = !object::list(object, "/metadata/ownerReferences").is_empty();
    kind_of_its_own
        || owned
        || by_name(&key.namespace)
        || by_name(&key.name)
        || (key.resource == "serviceaccounts" && key.name == "default")
        || (key.resource == "storageclasses" && (key.name == "gp2" || key.name.starts_with("ebs-csi")))
        || matches!(key.name.as_str(), "cluster-admin" | "admin" | "edit" | "view" | "argocd-initial-admin-secret")
}
