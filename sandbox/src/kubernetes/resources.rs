//! The table of served resources: built-in kinds, and what a CustomResourceDefinition adds. Routing and discovery read it.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::object::{flag, list, text};

/// All the verbs of an ordinary resource.
pub(crate) const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One subresource.
#[derive(Debug, Clone)]
pub(crate) struct Sub {
    /// Name, such as `status`.
    pub(crate) name: String,
    /// Kind it speaks.
    pub(crate) kind: String,
    /// Group and version of the kind when it is another one.
    pub(crate) gv: Option<(String, String)>,
    /// Verbs.
    pub(crate) verbs: Vec<&'static str>,
}

/// One served resource.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// API group, empty for core.
    pub(crate) group: String,
    /// Version.
    pub(crate) version: String,
    /// Plural name in paths.
    pub(crate) plural: String,
    /// Singular name.
    pub(crate) singular: String,
    /// Kind.
    pub(crate) kind: String,
    /// Whether it lives in namespaces.
    pub(crate) namespaced: bool,
    /// Short names.
    pub(crate) short: Vec<String>,
    /// Categories.
    pub(crate) categories: Vec<String>,
    /// Subresources.
    pub(crate) subs: Vec<Sub>,
    /// Verbs.
    pub(crate) verbs: Vec<&'static str>,
    /// The schema of a custom resource.
    pub(crate) schema: Option<Arc<Value>>,
    /// Columns for the Table form.
    pub(crate) columns: Arc<Vec<Value>>,
    /// Whether a CRD defines it.
    pub(crate) custom: bool,
}

impl Resource {
    /// `plural` or `plural.group`, as messages name it.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether it has the subresource.
    pub(crate) fn sub(&self, name: &str) -> Option<&Sub> {
        self.subs.iter().find(|sub| sub.name == name)
    }

    /// Whether this is the named built-in resource.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// group | version | plural | singular | Kind | n or c | short | categories | subresources.
const TABLE: &str = "\
|v1|bindings|binding|Binding|n||create-only|
|v1|componentstatuses|componentstatus|ComponentStatus|c|cs|read-only|
|v1|configmaps|configmap|ConfigMap|n|cm||
|v1|endpoints|endpoints|Endpoints|n|ep||
|v1|events|event|Event|n|ev||
|v1|limitranges|limitrange|LimitRange|n|limits||
|v1|namespaces|namespace|Namespace|c|ns||finalize status
|v1|nodes|node|Node|c|no||proxy status
|v1|persistentvolumeclaims|persistentvolumeclaim|PersistentVolumeClaim|n|pvc||status
|v1|persistentvolumes|persistentvolume|PersistentVolume|c|pv||status
|v1|pods|pod|Pod|n|po|all|attach binding ephemeralcontainers eviction exec log portforward proxy resize status
|v1|podtemplates|podtemplate|PodTemplate|n|||
|v1|replicationcontrollers|replicationcontroller|ReplicationController|n|rc|all|scale status
|v1|resourcequotas|resourcequota|ResourceQuota|n|quota||status
|v1|secrets|secret|Secret|n|||
|v1|serviceaccounts|serviceaccount|ServiceAccount|n|sa||token
|v1|services|service|Service|n|svc|all|proxy status
apiregistration.k8s.io|v1|apiservices|apiservice|APIService|c||api-extensions|status
apps|v1|controllerrevisions|controllerrevision|ControllerRevision|n|||
apps|v1|daemonsets|daemonset|DaemonSet|n|ds|all|status
apps|v1|deployments|deployment|Deployment|n|deploy|all|scale status
apps|v1|replicasets|replicaset|ReplicaSet|n|rs|all|scale status
apps|v1|statefulsets|statefulset|StatefulSet|n|sts|all|scale status
events.k8s.io|v1|events|event|Event|n|ev||
authentication.k8s.io|v1|selfsubjectreviews|selfsubjectreview|SelfSubjectReview|c||create-only|
authentication.k8s.io|v1|tokenreviews|tokenreview|TokenReview|c||create-only|
authorization.k8s.io|v1|localsubjectaccessreviews|localsubjectaccessreview|LocalSubjectAccessReview|n||create-only|
authorization.k8s.io|v1|selfsubjectaccessreviews|selfsubjectaccessreview|SelfSubjectAccessReview|c||create-only|
authorization.k8s.io|v1|selfsubjectrulesreviews|selfsubjectrulesreview|SelfSubjectRulesReview|c||create-only|
authorization.k8s.io|v1|subjectaccessreviews|subjectaccessreview|SubjectAccessReview|c||create-only|
autoscaling|v2|horizontalpodautoscalers|horizontalpodautoscaler|HorizontalPodAutoscaler|n|hpa|all|status
autoscaling|v1|horizontalpodautoscalers|horizontalpodautoscaler|HorizontalPodAutoscaler|n|hpa|all|status
batch|v1|cronjobs|cronjob|CronJob|n|cj|all|status
batch|v1|jobs|job|Job|n||all|status
certificates.k8s.io|v1|certificatesigningrequests|certificatesigningrequest|CertificateSigningRequest|c|csr||approval status
networking.k8s.io|v1|ingressclasses|ingressclass|IngressClass|c|||
networking.k8s.io|v1|ingresses|ingress|Ingress|n|ing||status
networking.k8s.io|v1|networkpolicies|networkpolicy|NetworkPolicy|n|netpol||
policy|v1|poddisruptionbudgets|poddisruptionbudget|PodDisruptionBudget|n|pdb||status
rbac.authorization.k8s.io|v1|clusterrolebindings|clusterrolebinding|ClusterRoleBinding|c|||
rbac.authorization.k8s.io|v1|clusterroles|clusterrole|ClusterRole|c|||
rbac.authorization.k8s.io|v1|rolebindings|rolebinding|RoleBinding|n|||
rbac.authorization.k8s.io|v1|roles|role|Role|n|||
storage.k8s.io|v1|csidrivers|csidriver|CSIDriver|c|||
storage.k8s.io|v1|csinodes|csinode|CSINode|c|||
storage.k8s.io|v1|storageclasses|storageclass|StorageClass|c|sc||
storage.k8s.io|v1|volumeattachments|volumeattachment|VolumeAttachment|c|||status
admissionregistration.k8s.io|v1|mutatingwebhookconfigurations|mutatingwebhookconfiguration|MutatingWebhookConfiguration|c||api-extensions|
admissionregistration.k8s.io|v1|validatingadmissionpolicies|validatingadmissionpolicy|ValidatingAdmissionPolicy|c||api-extensions|status
admissionregistration.k8s.io|v1|validatingadmissionpolicybindings|validatingadmissionpolicybinding|ValidatingAdmissionPolicyBinding|c||api-extensions|
admissionregistration.k8s.io|v1|validatingwebhookconfigurations|validatingwebhookconfiguration|ValidatingWebhookConfiguration|c||api-extensions|
apiextensions.k8s.io|v1|customresourcedefinitions|customresourcedefinition|CustomResourceDefinition|c|crd crds|api-extensions|status
scheduling.k8s.io|v1|priorityclasses|priorityclass|PriorityClass|c|pc||
coordination.k8s.io|v1|leases|lease|Lease|n|||
node.k8s.io|v1|runtimeclasses|runtimeclass|RuntimeClass|c|||
discovery.k8s.io|v1|endpointslices|endpointslice|EndpointSlice|n|||
resource.k8s.io|v1|deviceclasses|deviceclass|DeviceClass|c|||
resource.k8s.io|v1|resourceclaims|resourceclaim|ResourceClaim|n|||status
resource.k8s.io|v1|resourceclaimtemplates|resourceclaimtemplate|ResourceClaimTemplate|n|||
resource.k8s.io|v1|resourceslices|resourceslice|ResourceSlice|c|||
flowcontrol.apiserver.k8s.io|v1|flowschemas|flowschema|FlowSchema|c|||status
flowcontrol.apiserver.k8s.io|v1|prioritylevelconfigurations|prioritylevelconfiguration|PriorityLevelConfiguration|c|||status";

static BUILT_IN: LazyLock<Vec<Arc<Resource>>> =
    LazyLock::new(|| TABLE.lines().filter_map(parse).map(Arc::new).collect());

/// The built-in resources, in the order of discovery.
pub(crate) fn built_in() -> &'static [Arc<Resource>] {
    &BUILT_IN
}

/// A built-in resource by group and plural.
pub(crate) fn find_built_in(group: &str, plural: &str) -> Option<Arc<Resource>> {
    built_in().iter().find(|each| each.is(group, plural)).cloned()
}

fn parse(line: &str) -> Option<Resource> {
    let mut parts = line.split('|');
    let mut next = || parts.next().unwrap_or_default();
    let (group, version, plural, singular, kind, scope, short, flags, subs) =
        (next(), next(), next(), next(), next(), next(), next(), next(), next());
    let create_only = flags == "create-only";
    let mut verbs: Vec<&'static str> = match flags {
        "create-only" => vec!["create"],
        "read-only" => vec!["get", "list"],
        _ => ALL_VERBS.to_vec(),
    };
    if plural == "namespaces" {
        verbs.retain(|verb| *verb != "deletecollection");
    }
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    (!plural.is_empty()).then(|| Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: singular.to_owned(),
        kind: kind.to_owned(),
        namespaced: scope == "n",
        short: words(short),
        categories: if create_only || flags == "read-only" { Vec::new() } else { words(flags) },
        subs: subs.split_whitespace().map(|name| built_in_sub(name, kind)).collect(),
        verbs,
        schema: None,
        columns: Arc::default(),
        custom: false,
    })
}

fn built_in_sub(name: &str, kind: &str) -> Sub {
    let own = |group: &str, version: &str| Some((group.to_owned(), version.to_owned()));
    let (kind, gv, verbs): (&str, _, Vec<&'static str>) = match name {
        "scale" => ("Scale", own("autoscaling", "v1"), vec!["get", "patch", "update"]),
        "token" => ("TokenRequest", own("authentication.k8s.io", "v1"), vec!["create"]),
        "eviction" => ("Eviction", own("policy", "v1"), vec!["create"]),
        "binding" => ("Binding", None, vec!["create"]),
        "log" => ("Pod", None, vec!["get"]),
        "portforward" => ("PodPortForwardOptions", None, vec!["create", "get"]),
        "finalize" => (kind, None, vec!["update"]),
        "attach" => ("PodAttachOptions", None, vec!["create", "get"]),
        "exec" => ("PodExecOptions", None, vec!["create", "get"]),
        "proxy" => {
            let options = match kind {
                "Node" => "NodeProxyOptions",
                "Service" => "ServiceProxyOptions",
                _ => "PodProxyOptions",
            };
            (options, None, vec!["create", "delete", "get", "patch", "update"])
        }
        _ => (kind, None, vec!["get", "patch", "update"]),
    };
    Sub { name: name.to_owned(), kind: kind.to_owned(), gv, verbs }
}

/// The resources that a CustomResourceDefinition serves, once its names are accepted.
pub(crate) fn of_definition(crd: &Value) -> Vec<Resource> {
    let words =
        |pointer: &str| list(crd, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    list(crd, "/spec/versions")
        .iter()
        .filter(|version| flag(version, "/served"))
        .map(|version| {
            let mut subs = Vec::new();
            let kind = text(crd, "/spec/names/kind");
            if version.pointer("/subresources/status").is_some() {
                subs.push(built_in_sub("status", kind));
            }
            if version.pointer("/subresources/scale").is_some() {
                subs.push(built_in_sub("scale", kind));
            }
            Resource {
                group: text(crd, "/spec/group").to_owned(),
                version: text(version, "/name").to_owned(),
                plural: text(crd, "/spec/names/plural").to_owned(),
                singular: text(crd, "/spec/names/singular").to_owned(),
                kind: kind.to_owned(),
                namespaced: text(crd, "/spec/scope") == "Namespaced",
                short: words("/spec/names/shortNames"),
                categories: words("/spec/names/categories"),
                subs,
                verbs: ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"].to_vec(),
                schema: version.pointer("/schema/openAPIV3Schema").cloned().map(Arc::new),
                columns: Arc::new(list(version, "/additionalPrinterColumns").to_vec()),
                custom: true,
            }
        })
        .collect()
}
