//! Bodies in the API's protobuf: what kubectl's typed commands (`create`, `auth can-i`) send. Read by a table of messages into the same
//! documents that JSON gives; a field that the table does not know refuses the body, so that nothing is lost unseen.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::status::Refusal;

/// Every body begins with it.
const MAGIC: &[u8] = b"k8s\0";

/// Deeper messages are refused.
const DEEPEST: usize = 24;

/// One message a line: its name, then its fields as `number name type`. `[]` repeats, `{}` maps texts to the type, `?` leaves out
/// what is zero (protobuf writes those, JSON does not), `-` reads over it.
const MESSAGES: &str = "\
ObjectMeta 1 name string?, 2 generateName string?, 3 namespace string?, 4 selfLink -, 5 uid string?, 6 resourceVersion string?, 7 generation int?, 8 creationTimestamp -, 9 deletionTimestamp -, 10 deletionGracePeriodSeconds int, 11 labels string{}, 12 annotations string{}, 13 ownerReferences OwnerReference[], 14 finalizers string[], 17 managedFields -
OwnerReference 1 kind string?, 3 name string?, 4 uid string?, 5 apiVersion string?, 6 controller bool, 7 blockOwnerDeletion bool
LabelSelector 1 matchLabels string{}, 2 matchExpressions Requirement[]
Requirement 1 key string?, 2 operator string?, 3 values string[]
Namespace 1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status -
NamespaceSpec 1 finalizers string[]
ConfigMap 1 metadata ObjectMeta, 2 data string{}, 3 binaryData bytes{}, 4 immutable bool
Secret 1 metadata ObjectMeta, 2 data bytes{}, 3 type string?, 4 stringData string{}, 5 immutable bool
ServiceAccount 1 metadata ObjectMeta, 2 secrets Reference[], 3 imagePullSecrets LocalReference[], 4 automountServiceAccountToken bool
LocalReference 1 name string?
Reference 1 kind string?, 2 namespace string?, 3 name string?, 4 uid string?, 5 apiVersion string?, 6 resourceVersion string?, 7 fieldPath string?
ResourceQuota 1 metadata ObjectMeta, 2 spec ResourceQuotaSpec, 3 status -
ResourceQuotaSpec 1 hard quantity{}, 2 scopes string[]
Deployment 1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status -
DeploymentSpec 1 replicas int, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy DeploymentStrategy, 5 minReadySeconds int?, 6 revisionHistoryLimit int, 7 paused bool?, 9 progressDeadlineSeconds int
DeploymentStrategy 1 type string?, 2 rollingUpdate RollingUpdate
RollingUpdate 1 maxUnavailable intOrString, 2 maxSurge intOrString
PodTemplateSpec 1 metadata ObjectMeta, 2 spec PodSpec
Pod 1 metadata ObjectMeta, 2 spec PodSpec, 3 status -
PodSpec 2 containers Container[], 3 restartPolicy string?, 4 terminationGracePeriodSeconds int, 5 activeDeadlineSeconds int, 6 dnsPolicy string?, 7 nodeSelector string{}, 8 serviceAccountName string?, 9 serviceAccount string?, 10 nodeName string?, 11 hostNetwork bool?, 12 hostPID bool?, 13 hostIPC bool?, 15 imagePullSecrets LocalReference[], 16 hostname string?, 17 subdomain string?, 19 schedulerName string?, 20 initContainers Container[], 24 priorityClassName string?
Container 1 name string?, 2 image string?, 3 command string[], 4 args string[], 5 workingDir string?, 6 ports ContainerPort[], 7 env EnvVar[], 8 resources Resources, 13 terminationMessagePath string?, 14 imagePullPolicy string?, 16 stdin bool?, 17 stdinOnce bool?, 18 tty bool?, 20 terminationMessagePolicy string?
ContainerPort 1 name string?, 2 hostPort int?, 3 containerPort int?, 4 protocol string?, 5 hostIP string?
EnvVar 1 name string?, 2 value string?
Resources 1 limits quantity{}, 2 requests quantity{}
Job 1 metadata ObjectMeta, 2 spec JobSpec, 3 status -
JobSpec 1 parallelism int, 2 completions int, 3 activeDeadlineSeconds int, 4 selector LabelSelector, 5 manualSelector bool, 6 template PodTemplateSpec, 7 backoffLimit int, 8 ttlSecondsAfterFinished int, 9 completionMode string, 10 suspend bool
CronJob 1 metadata ObjectMeta, 2 spec CronJobSpec, 3 status -
CronJobSpec 1 schedule string?, 2 startingDeadlineSeconds int, 3 concurrencyPolicy string?, 4 suspend bool, 5 jobTemplate JobTemplate, 6 successfulJobsHistoryLimit int, 7 failedJobsHistoryLimit int, 8 timeZone string
JobTemplate 1 metadata ObjectMeta, 2 spec JobSpec
Role 1 metadata ObjectMeta, 2 rules PolicyRule[]
ClusterRole 1 metadata ObjectMeta, 2 rules PolicyRule[]
PolicyRule 1 verbs string[], 2 apiGroups string[], 3 resources string[], 4 resourceNames string[], 5 nonResourceURLs string[]
RoleBinding 1 metadata ObjectMeta, 2 subjects Subject[], 3 roleRef RoleRef
ClusterRoleBinding 1 metadata ObjectMeta, 2 subjects Subject[], 3 roleRef RoleRef
Subject 1 kind string?, 2 apiGroup string?, 3 name string?, 4 namespace string?
RoleRef 1 apiGroup string?, 2 kind string?, 3 name string?
Service 1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status -
ServiceSpec 1 ports ServicePort[], 2 selector string{}, 3 clusterIP string?, 4 type string?, 5 externalIPs string[], 7 sessionAffinity string?, 8 loadBalancerIP string?, 9 loadBalancerSourceRanges string[], 10 externalName string?, 11 externalTrafficPolicy string?, 12 healthCheckNodePort int?, 13 publishNotReadyAddresses bool?, 18 clusterIPs string[], 19 ipFamilies string[]
ServicePort 1 name string?, 2 protocol string?, 3 port int?, 4 targetPort intOrString, 5 nodePort int?
PodDisruptionBudget 1 metadata ObjectMeta, 2 spec BudgetSpec, 3 status -
BudgetSpec 1 minAvailable intOrString, 2 selector LabelSelector, 3 maxUnavailable intOrString
PriorityClass 1 metadata ObjectMeta, 2 value int, 3 globalDefault bool?, 4 description string?, 5 preemptionPolicy string
Scale 1 metadata ObjectMeta, 2 spec ScaleSpec, 3 status -
ScaleSpec 1 replicas int
Eviction 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions
DeleteOptions 1 gracePeriodSeconds int, 2 preconditions Preconditions, 3 orphanDependents bool, 4 propagationPolicy string, 5 dryRun string[]
Preconditions 1 uid string, 2 resourceVersion string
TokenRequest 1 metadata ObjectMeta, 2 spec TokenRequestSpec, 3 status -
TokenRequestSpec 1 audiences string[], 3 boundObjectRef BoundObject, 4 expirationSeconds int
BoundObject 1 kind string?, 2 apiVersion string?, 3 name string?, 4 uid string?
TokenReview 1 metadata ObjectMeta, 2 spec TokenReviewSpec, 3 status -
TokenReviewSpec 1 token string?, 2 audiences string[]
SelfSubjectReview 1 metadata ObjectMeta, 2 status -
SelfSubjectAccessReview 1 metadata ObjectMeta, 2 spec AccessSpec, 3 status -
AccessSpec 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes PathAttributes
ResourceAttributes 1 namespace string?, 2 verb string?, 3 group string?, 4 version string?, 5 resource string?, 6 subresource string?, 7 name string?
PathAttributes 1 path string?, 2 verb string?
SelfSubjectRulesReview 1 metadata ObjectMeta, 2 spec RulesSpec, 3 status -
RulesSpec 1 namespace string?";

/// Name and type of a field.
type Field = (&'static str, &'static str);

static FIELDS: LazyLock<HashMap<&'static str, HashMap<u64, Field>>> = LazyLock::new(|| {
    let field = |text: &'static str| {
        let mut words = text.split_whitespace();
        Some((words.next()?.parse().ok()?, (words.next()?, words.next()?)))
    };
    MESSAGES
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, fields)| (name, fields.split(',').filter_map(field).collect()))
        .collect()
});

/// Whether a body is written in protobuf.
pub(crate) fn is(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Reads a body.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Refusal> {
    let unreadable =
        |why: String| Refusal::new(415, Some("UnsupportedMediaType"), format!("the protobuf body is not read: {why}"));
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| unreadable("it does not begin as one".to_owned()))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), Vec::new());
    for (number, part) in parts(envelope).map_err(unreadable)? {
        match (number, part) {
            (1, Part::Bytes(meta)) => {
                for (number, part) in parts(meta).map_err(unreadable)? {
                    match (number, part) {
                        (1, Part::Bytes(text)) => api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, Part::Bytes(text)) => kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Part::Bytes(bytes)) => raw = bytes.to_vec(),
            _ => {}
        }
    }
    let mut document = message(&kind, &raw, 0).map_err(unreadable)?;
    document.insert("apiVersion".to_owned(), json!(api_version));
    document.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(document))
}

enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let Some((first, rest)) = bytes.split_first() else { break };
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("it ends within a number".to_owned())
}

fn parts(mut bytes: &[u8]) -> Result<Vec<(u64, Part<'_>)>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let part = match key & 7 {
            0 => Part::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|error| error.to_string())?;
                let (inner, rest) = bytes.split_at_checked(length).ok_or("it ends within a field")?;
                bytes = rest;
                Part::Bytes(inner)
            }
            other => return Err(format!("wire type {other}")),
        };
        found.push((key >> 3, part));
    }
    Ok(found)
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    let fields = FIELDS.get(name).ok_or_else(|| format!("no table for {name}"))?;
    if depth > DEEPEST {
        return Err("it is too deep".to_owned());
    }
    let mut document = Map::new();
    for (number, part) in parts(bytes)? {
        let Some((field, kind)) = fields.get(&number) else { return Err(format!("field {number} of {name}")) };
        if *kind == "-" {
            continue;
        }
        if let Some(inner) = kind.strip_suffix("[]") {
            let value = one(inner, &part, depth)?;
            let list = document.entry(*field).or_insert_with(|| json!([]));
            if let Value::Array(items) = list {
                items.push(value);
            }
        } else if let Some(inner) = kind.strip_suffix("{}") {
            let (key, value) = entry(inner, &part, depth)?;
            let map = document.entry(*field).or_insert_with(|| json!({}));
            if let Value::Object(entries) = map {
                entries.insert(key, value);
            }
        } else {
            let value = one(kind.trim_end_matches('?'), &part, depth)?;
            let zero = value == "" || value == 0 || value == false;
            if !(kind.ends_with('?') && zero) {
                document.insert((*field).to_owned(), value);
            }
        }
    }
    Ok(document)
}

fn entry(kind: &str, part: &Part<'_>, depth: usize) -> Result<(String, Value), String> {
    let Part::Bytes(bytes) = part else { return Err("a map that is none".to_owned()) };
    let (mut key, mut value) = (String::new(), json!(""));
    for (number, part) in parts(bytes)? {
        match (number, &part) {
            (1, Part::Bytes(text)) => key = String::from_utf8_lossy(text).into_owned(),
            (2, part) => value = one(kind, part, depth)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn one(kind: &str, part: &Part<'_>, depth: usize) -> Result<Value, String> {
    use base64::Engine as _;
    Ok(match (kind, part) {
        // Negative numbers come in two's complement, as long as they get.
        ("int", Part::Number(number)) => json!(i64::from_ne_bytes(number.to_ne_bytes())),
        ("bool", Part::Number(number)) => json!(*number != 0),
        ("string", Part::Bytes(text)) => json!(String::from_utf8_lossy(text)),
        ("bytes", Part::Bytes(bytes)) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
        ("quantity", Part::Bytes(bytes)) => parts(bytes)?
            .into_iter()
            .find_map(
                |(_, part)| {
                    if let Part::Bytes(text) = part { Some(json!(String::from_utf8_lossy(text))) } else { None }
                },
            )
            .unwrap_or_else(|| json!("0")),
        ("intOrString", Part::Bytes(bytes)) => int_or_string(bytes)?,
        (name, Part::Bytes(bytes)) => Value::Object(message(name, bytes, depth + 1)?),
        (name, Part::Number(_)) => return Err(format!("a number for {name}")),
    })
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut text) = (false, 0_i64, String::new());
    for (field, part) in parts(bytes)? {
        match (field, part) {
            (1, Part::Number(kind)) => is_text = kind == 1,
            (2, Part::Number(value)) => number = i64::from_ne_bytes(value.to_ne_bytes()),
            (3, Part::Bytes(value)) => text = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
    Ok(if is_text { json!(text) } else { json!(number) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{decode, is};

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut all = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap_or(0)];
        all.extend_from_slice(bytes);
        all
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [b"k8s\0".to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    /// A ConfigMap as a typed client writes it: empty texts are left out, maps and names are there.
    #[test]
    fn reads_what_a_typed_client_writes() {
        let metadata = field(1, &[field(1, b"m"), field(2, b""), field(3, b"apps")].concat());
        let data = field(2, &[field(1, b"key"), field(2, b"value")].concat());
        let body = envelope("ConfigMap", &[metadata, data].concat());
        assert!(is(&body));
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "apps"}, "data": {"key": "value"}});
        assert_eq!(decode(&body).ok(), Some(wanted));
    }

    /// Broken bodies, kinds and fields without a table are refused, never half read.
    #[test]
    fn refuses_what_it_cannot_read_whole() {
        let unknown_field = envelope("ConfigMap", &field(9, b"x"));
        let unknown_kind = envelope("Unheard", b"");
        let cut = envelope("ConfigMap", &field(1, b"\x0a\x05ab"));
        for body in [unknown_field, unknown_kind, cut, b"k8s\0\x0a".to_vec(), b"{}".to_vec()] {
            assert_eq!(decode(&body).err().map(|refusal| refusal.code), Some(415));
        }
    }
}
