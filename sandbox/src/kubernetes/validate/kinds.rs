//! Validation of the core kinds: configuration, Services, claims, quotas, namespaces, network policies.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::object::{self, flag, list, map, text};
use super::super::quantity::Quantity;
use super::super::status::Cause;
use super::super::store::Key;
use super::immutable;

/// Most bytes of data of a ConfigMap or Secret.
const MOST_DATA: usize = 1_048_576;

const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// The addresses of Services, as EKS gives them out.
const SERVICE_RANGE: &str = "172.20.0.0/16";

fn data(new: &Value, causes: &mut Vec<Cause>, whole: &str) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in map(new, &format!("/{field}")).into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            if key.is_empty() || !key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter)) {
                causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), CONFIG_KEY));
            }
        }
    }
    if size > MOST_DATA {
        causes.push(Cause::too_long(whole, &format!("may not be more than {MOST_DATA} bytes")));
    }
}

fn sealed(live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let Some(live) = live.filter(|live| flag(live, "/immutable")) else { return };
    if !flag(new, "/immutable") {
        causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in ["data", "binaryData"] {
        if live.get(field) != new.get(field) {
            causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
}

/// A ConfigMap.
pub(super) fn config_map(live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    data(new, causes, "[]");
    sealed(live, new, causes);
}

/// A Secret.
pub(super) fn secret(live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    data(new, causes, "data");
    immutable(live, new, "/type", "type", causes);
    sealed(live, new, causes);
    let wanted: &[&str] = match text(new, "/type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in wanted.iter().filter(|key| map(new, "/data").is_none_or(|data| !data.contains_key(**key))) {
        causes.push(Cause::required(format!("data[{key}]"), ""));
    }
}

/// A namespace: the levels of Pod Security are a closed list.
pub(super) fn namespace(new: &Value, causes: &mut Vec<Cause>) {
    for mode in ["enforce", "audit", "warn"] {
        let key = format!("pod-security.kubernetes.io/{mode}");
        if let Some(level) = object::label(new, &key)
            && !["privileged", "baseline", "restricted"].contains(&level)
        {
            let field = format!("metadata.labels[{key}]");
            causes.push(Cause::invalid(field, &json!(level), "must be one of privileged, baseline, restricted"));
        }
    }
}

/// A quota.
pub(super) fn quota(new: &Value, causes: &mut Vec<Cause>) {
    for (name, value) in map(new, "/spec/hard").into_iter().flatten() {
        if value.as_str().and_then(Quantity::parse).is_some_and(|quantity| quantity.milli < 0) {
            causes.push(Cause::invalid(format!("spec.hard[{name}]"), value, "must be greater than or equal to 0"));
        }
    }
}

/// A claim: its spec stays, but for growth once it is bound.
pub(super) fn claim(live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let Some(live) = live else { return };
    let bound = text(live, "/status/phase") == "Bound";
    let rest = |claim: &Value| {
        let mut spec = claim.get("spec").cloned().unwrap_or_default();
        object::remove(&mut spec, &["volumeAttributesClassName"]);
        if bound {
            object::remove(&mut spec, &["resources", "requests"]);
        }
        spec
    };
    if rest(live) != rest(new) {
        causes.push(Cause::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
        return;
    }
    let size = |claim: &Value| Quantity::parse(text(claim, "/spec/resources/requests/storage"));
    if let (Some(before), Some(after)) = (size(live), size(new))
        && after.milli < before.milli
    {
        causes.push(Cause::forbidden("spec.resources.requests.storage", "field can not be less than status.capacity"));
    }
}

/// A StorageClass.
pub(super) fn storage_class(live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    if live.is_none() && text(new, "/provisioner").is_empty() {
        causes.push(Cause::required("provisioner", ""));
    }
    for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
        immutable(live, new, &format!("/{field}"), field, causes);
    }
}

fn port_ok(port: &Value) -> bool {
    port.as_i64().is_none_or(|number| (1..=65_535).contains(&number))
}

fn range_ok(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// A network policy.
pub(super) fn network_policy(new: &Value, causes: &mut Vec<Cause>) {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (at, rule) in list(new, &format!("/spec/{direction}")).iter().enumerate() {
            for (index, port) in list(rule, "/ports").iter().enumerate() {
                let number = port.get("port").unwrap_or(&Value::Null);
                if !port_ok(number) {
                    let field = format!("spec.{direction}[{at}].ports[{index}].port");
                    causes.push(Cause::invalid(field, number, "must be between 1 and 65535, inclusive"));
                }
            }
            for (index, peer) in list(rule, &format!("/{peers}")).iter().enumerate() {
                let field = format!("spec.{direction}[{at}].{peers}[{index}]");
                let named = ["podSelector", "namespaceSelector", "ipBlock"].iter().any(|each| peer.get(each).is_some());
                if !named {
                    causes.push(Cause::required(field, "must specify a peer"));
                } else if let Some(range) = peer.pointer("/ipBlock/cidr")
                    && !range.as_str().is_some_and(range_ok)
                {
                    let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                    causes.push(Cause::invalid(format!("{field}.ipBlock.cidr"), range, why));
                }
            }
        }
    }
}

/// A Service: its ports, and the address it has or asks for.
pub(super) fn service(cluster: &Cluster, live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let kind = text(new, "/spec/type");
    let address = text(new, "/spec/clusterIP");
    let ports = list(new, "/spec/ports");
    if ports.is_empty() && kind != "ExternalName" && address != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (at, port) in ports.iter().enumerate() {
        let number = port.get("port").unwrap_or(&Value::Null);
        if !port_ok(number) {
            causes.push(Cause::invalid(
                format!("spec.ports[{at}].port"),
                number,
                "must be between 1 and 65535, inclusive",
            ));
        }
        if let Some(node) = object::int(port, "/nodePort").filter(|node| !(30_000..=32_767).contains(node)) {
            causes.push(Cause::invalid(
                format!("spec.ports[{at}].nodePort"),
                &json!(node),
                "provided port is not in the valid range. The range of valid ports is 30000-32767",
            ));
        }
    }
    let before = live.map_or("", |live| text(live, "/spec/clusterIP"));
    if !before.is_empty() && before != address && kind != "ExternalName" {
        let shown = new.pointer("/spec/clusterIPs").cloned().unwrap_or_else(|| json!([address]));
        causes.push(Cause::invalid("spec.clusterIPs[0]", &shown, "may not change once set"));
    } else if live.is_none() && !address.is_empty() && address != "None" {
        let key = Key::core("services", object::namespace(new), object::name(new));
        let taken = cluster
            .store
            .list("", "services", None)
            .any(|(other, service)| *other != key && text(service, "/spec/clusterIP") == address);
        let why = if !address.starts_with("172.20.") {
            format!("the provided network does not match the current range. The range of valid IPs is {SERVICE_RANGE}")
        } else if taken {
            "provided IP is already allocated".to_owned()
        } else {
            return;
        };
        causes.push(Cause::invalid(
            "spec.clusterIPs",
            &json!([address]),
            &format!("failed to allocate IP {address}: {why}"),
        ));
    }
}
