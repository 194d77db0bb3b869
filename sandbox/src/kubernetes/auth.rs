//! Who asks, and may they: presigned EKS tokens, service account tokens, access grants, and RBAC over the stored roles.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cluster::Cluster;
use super::model::{Caller, KubeRequest, Outside};
use super::object::{self, list, text};
use super::presigned;
use super::status::Refusal;
use super::store::Key;

/// An authenticated user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// Name.
    pub(crate) name: String,
    /// Uid, for service accounts.
    pub(crate) uid: String,
    /// Groups.
    pub(crate) groups: Vec<String>,
    /// Names of EKS access policies.
    pub(crate) policies: Vec<String>,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Verb.
    pub(crate) verb: String,
    /// Group.
    pub(crate) group: String,
    /// Resource, with `/sub`.
    pub(crate) resource: String,
    /// Namespace or empty.
    pub(crate) namespace: String,
    /// Name or empty.
    pub(crate) name: String,
    /// Path, for requests about no resource.
    pub(crate) path: Option<String>,
}

fn unauthorized() -> Refusal {
    Refusal::new(401, Some("Unauthorized"), "Unauthorized")
}

/// Finds out who sends a request.
pub(crate) fn authenticate(
    cluster: &Cluster,
    request: &KubeRequest,
    now: Timestamp,
    outside: &mut dyn Outside,
) -> Result<User, Refusal> {
    match &request.caller {
        Caller::Anonymous => Ok(User {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..User::default()
        }),
        Caller::User { name, groups } => {
            let mut groups = groups.clone();
            groups.push("system:authenticated".to_owned());
            Ok(User { name: name.clone(), groups, ..User::default() })
        }
        Caller::Bearer(token) => of_token(cluster, token, request.wall, now, outside).ok_or_else(unauthorized),
    }
}

/// The user behind a bearer token.
pub(crate) fn of_token(
    cluster: &Cluster,
    token: &str,
    wall: Timestamp,
    now: Timestamp,
    outside: &mut dyn Outside,
) -> Option<User> {
    if token.starts_with("k8s-aws-v1.") {
        if !presigned_token_is_fresh(token, &cluster.identity.info.name, wall) {
            return None;
        }
        let principal = outside.principal_of(&cluster.identity.info.name, token)?;
        let grant = cluster.identity.access.iter().find(|grant| grant.principal_arn == principal)?;
        let mut groups = grant.groups.clone();
        groups.push("system:authenticated".to_owned());
        let policies = grant.policies.iter().filter_map(|arn| arn.rsplit('/').next()).map(str::to_owned).collect();
        let name = if grant.username.is_empty() { principal } else { grant.username.clone() };
        return Some(User { name, uid: String::new(), groups, policies });
    }
    let claims = service_account_claims(cluster, token)?;
    let expires = claims.pointer("/exp").and_then(Value::as_i64)?;
    if now.as_second() > expires {
        return None;
    }
    let namespace = text(&claims, "/kubernetes.io/namespace").to_owned();
    let claims_in = claims.get("kubernetes.io")?;
    let namespace = if namespace.is_empty() { text(claims_in, "/namespace").to_owned() } else { namespace };
    let account = text(claims_in, "/serviceaccount/name");
    let stored = cluster.store.get(&Key::core("serviceaccounts", &namespace, account))?;
    if object::uid(stored) != text(claims_in, "/serviceaccount/uid") {
        return None;
    }
    Some(service_account(&namespace, account, object::uid(stored)))
}

fn service_account(namespace: &str, account: &str, uid: &str) -> User {
    User {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        policies: Vec::new(),
    }
}

/// Checks the form and age of a presigned `GetCallerIdentity` token; whose signature it is, the AWS side says.
pub(crate) fn presigned_token_is_fresh(token: &str, cluster: &str, wall: Timestamp) -> bool {
    let Some(presigned) = presigned::read(token) else { return false };
    let Some(signed_at) = presigned.signed_at else { return false };
    let age = wall.duration_since(signed_at);
    presigned.asks_who
        && !cluster.is_empty()
        && presigned.expires <= 900
        && age >= SignedDuration::from_mins(-5)
        && age <= SignedDuration::from_mins(15)
}

fn signature(cluster: &Cluster, payload: &str) -> String {
    URL_SAFE_NO_PAD
        .encode(Sha256::digest(format!("{}.{payload}.{}", cluster.identity.ca_key, cluster.identity.info.arn)))
}

/// Mints a service account token.
pub(crate) fn mint(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    account_uid: &str,
    audiences: &[String],
    now: Timestamp,
    expires_in_seconds: i64,
) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "RS256", "kid": "sandbox", "typ": "JWT"}).to_string());
    let issuer = &cluster.identity.info.oidc_issuer;
    let claims = json!({
        "aud": audiences, "exp": now.as_second() + expires_in_seconds, "iat": now.as_second(), "nbf": now.as_second(), "iss": issuer,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": account_uid}},
    });
    let payload = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = signature(cluster, &payload);
    format!("{payload}.{signature}")
}

/// The claims of a service account token that this cluster signed.
pub(crate) fn service_account_claims(cluster: &Cluster, token: &str) -> Option<Value> {
    let (payload, given) = token.rsplit_once('.')?;
    if signature(cluster, payload) != given {
        return None;
    }
    let (_, claims) = payload.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// Whether a user may do something; with the reason that reviews show.
pub(crate) fn allowed(cluster: &Cluster, user: &User, wish: &Wish) -> Option<String> {
    if user.groups.iter().any(|group| group == "system:masters") {
        return Some(String::new());
    }
    for policy in &user.policies {
        let reads = ["get", "list", "watch"].contains(&wish.verb.as_str());
        if policy == "AmazonEKSClusterAdminPolicy"
            || policy == "AmazonEKSAdminPolicy" && wish.path.is_none()
            || policy.ends_with("ViewPolicy") && reads
        {
            return Some(format!("EKS Access Policy: allowed by ClusterRoleBinding \"{policy}\""));
        }
    }
    if let Some(path) = &wish.path
        && (public_path(path) || user.name != "system:anonymous" && discovery_path(path))
    {
        return Some(String::new());
    }
    // As `system:basic-user` has it, also in worlds from before that role was there.
    if matches!(wish.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
        && wish.resource.starts_with("selfsubject")
        && user.name != "system:anonymous"
    {
        return Some("RBAC: allowed by ClusterRoleBinding \"system:basic-user\" of ClusterRole \"system:basic-user\" to Group \"system:authenticated\"".to_owned());
    }
    by_role(cluster, user, wish)
}

fn public_path(path: &str) -> bool {
    ["/version", "/healthz", "/readyz", "/livez"]
        .iter()
        .any(|public| path == *public || path.strip_prefix(public).is_some_and(|rest| rest.starts_with('/')))
}

fn discovery_path(path: &str) -> bool {
    ["/api", "/apis", "/openapi"]
        .iter()
        .any(|root| path == *root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
}

fn by_role(cluster: &Cluster, user: &User, wish: &Wish) -> Option<String> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    for (_, binding) in cluster.store.list(RBAC, "clusterrolebindings", None) {
        if let Some(subject) = bound(binding, user, "")
            && role_allows(cluster, binding, "", wish)
        {
            return Some(format!(
                "RBAC: allowed by ClusterRoleBinding \"{}\" of {} \"{}\" to {subject}",
                object::name(binding),
                text(binding, "/roleRef/kind"),
                text(binding, "/roleRef/name")
            ));
        }
    }
    if wish.namespace.is_empty() {
        return None;
    }
    for (_, binding) in cluster.store.list(RBAC, "rolebindings", Some(&wish.namespace)) {
        if let Some(subject) = bound(binding, user, &wish.namespace)
            && role_allows(cluster, binding, &wish.namespace, wish)
        {
            return Some(format!(
                "RBAC: allowed by RoleBinding \"{}/{}\" of {} \"{}\" to {subject}",
                object::name(binding),
                wish.namespace,
                text(binding, "/roleRef/kind"),
                text(binding, "/roleRef/name")
            ));
        }
    }
    None
}

fn bound(binding: &Value, user: &User, namespace: &str) -> Option<String> {
    list(binding, "/subjects").iter().find_map(|subject| {
        let name = text(subject, "/name");
        match text(subject, "/kind") {
            "User" if name == user.name => Some(format!("User \"{name}\"")),
            "Group" if user.groups.iter().any(|group| group == name) => Some(format!("Group \"{name}\"")),
            "ServiceAccount" => {
                let home = Some(text(subject, "/namespace")).filter(|home| !home.is_empty()).unwrap_or(namespace);
                (user.name == format!("system:serviceaccount:{home}:{name}"))
                    .then(|| format!("ServiceAccount \"{name}/{home}\""))
            }
            _ => None,
        }
    })
}

fn role_allows(cluster: &Cluster, binding: &Value, namespace: &str, wish: &Wish) -> bool {
    rules_of(cluster, binding, namespace).iter().any(|rule| rule_allows(rule, wish))
}

/// The rules of the role that a binding names.
pub(crate) fn rules_of(cluster: &Cluster, binding: &Value, namespace: &str) -> Vec<Value> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let name = text(binding, "/roleRef/name");
    let key = if text(binding, "/roleRef/kind") == "Role" {
        Key::new(RBAC, "roles", namespace, name)
    } else {
        Key::new(RBAC, "clusterroles", "", name)
    };
    cluster.store.get(&key).map(|role| list(role, "/rules").to_vec()).unwrap_or_default()
}

/// Whether one rule covers a wish.
pub(crate) fn rule_allows(rule: &Value, wish: &Wish) -> bool {
    let has = |pointer: &str, value: &str| {
        list(rule, pointer).iter().filter_map(Value::as_str).any(|each| each == "*" || each == value)
    };
    if !has("/verbs", &wish.verb) {
        return false;
    }
    if let Some(path) = &wish.path {
        return list(rule, "/nonResourceURLs")
            .iter()
            .filter_map(Value::as_str)
            .any(|each| each == path || each.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix)));
    }
    let sub = wish.resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    let named = list(rule, "/resourceNames");
    has("/apiGroups", &wish.group)
        && (has("/resources", &wish.resource) || sub.is_some_and(|sub| has("/resources", &sub)))
        && (named.is_empty() || named.iter().any(|each| each.as_str() == Some(&wish.name)))
}

/// All the rules that hold for a user in a namespace.
pub(crate) fn all_rules(cluster: &Cluster, user: &User, namespace: &str) -> Vec<Value> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let mut rules = Vec::new();
    for (_, binding) in cluster.store.list(RBAC, "clusterrolebindings", None) {
        if bound(binding, user, "").is_some() {
            rules.extend(rules_of(cluster, binding, ""));
        }
    }
    for (_, binding) in cluster.store.list(RBAC, "rolebindings", Some(namespace)) {
        if bound(binding, user, namespace).is_some() {
            rules.extend(rules_of(cluster, binding, namespace));
        }
    }
    if user.groups.iter().any(|group| group == "system:masters")
        || user.policies.iter().any(|policy| policy == "AmazonEKSClusterAdminPolicy")
    {
        rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    rules
}

/// The rules of a list that a user does not hold: nobody grants what they have not got.
pub(crate) fn not_held(cluster: &Cluster, user: &User, namespace: &str, wanted: &[Value]) -> Vec<Value> {
    let own = all_rules(cluster, user, namespace);
    let texts = |rule: &Value, pointer: &str| -> Vec<String> {
        list(rule, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let held = |rule: &Value| {
        texts(rule, "/verbs").iter().all(|verb| {
            let wish = |group: &str, resource: &str, name: &str| Wish {
                verb: verb.clone(),
                group: group.to_owned(),
                resource: resource.to_owned(),
                name: name.to_owned(),
                ..Wish::default()
            };
            let covered = |wish: &Wish| own.iter().any(|rule| rule_allows(rule, wish));
            let paths = texts(rule, "/nonResourceURLs");
            let mut names = texts(rule, "/resourceNames");
            if names.is_empty() {
                names.push(String::new());
            }
            paths.iter().all(|path| covered(&Wish { path: Some(path.clone()), ..wish("", "", "") }))
                && texts(rule, "/apiGroups").iter().all(|group| {
                    texts(rule, "/resources")
                        .iter()
                        .all(|resource| names.iter().all(|name| covered(&wish(group, resource, name))))
                })
        })
    };
    wanted.iter().filter(|rule| !held(rule)).cloned().collect()
}

/// The refusal of a wish.
pub(crate) fn refuse(user: &User, wish: &Wish) -> Refusal {
    if let Some(path) = &wish.path {
        let mut refusal = Refusal::new(
            403,
            Some("Forbidden"),
            format!("forbidden: User \"{}\" cannot {} path \"{path}\"", user.name, wish.verb),
        );
        refusal.details = Some(json!({}));
        return refusal;
    }
    let place = if wish.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", wish.namespace)
    };
    let plural = wish.resource.split('/').next().unwrap_or_default();
    let qualified = if wish.group.is_empty() { plural.to_owned() } else { format!("{plural}.{}", wish.group) };
    let subject = if wish.name.is_empty() {
        format!("{qualified} is forbidden")
    } else {
        format!("{qualified} \"{}\" is forbidden", wish.name)
    };
    let mut refusal = Refusal::new(
        403,
        Some("Forbidden"),
        format!(
            "{subject}: User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
            user.name, wish.verb, wish.resource, wish.group
        ),
    );
    let mut details = json!({"kind": plural});
    if !wish.name.is_empty() {
        object::set(&mut details, &["name"], json!(wish.name));
    }
    if !wish.group.is_empty() {
        object::set(&mut details, &["group"], json!(wish.group));
    }
    refusal.details = Some(details);
    refusal
}
