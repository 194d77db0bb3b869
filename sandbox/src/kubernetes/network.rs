//! Network policies, evaluated on the flows that the platform's own parts need: names, the API server, Vault, Redis,
//! webhooks. Traffic of pods on the host's network and of a node to its own pods is never restricted, as in life.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::cluster::Cluster;
use super::object::{self, label, list, text};
use super::selectors::{LabelSelector, plain_selector_matches};
use super::store::Key;

/// One end of a flow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// A pod.
    Pod(&'a Value),
    /// An address outside of the cluster's pods.
    Address(Ipv4Addr),
}

/// A port to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port {
    /// Number.
    pub(crate) number: u16,
    /// `TCP` or `UDP`.
    pub(crate) protocol: &'static str,
}

/// A TCP port.
pub(crate) fn tcp(number: u16) -> Port {
    Port { number, protocol: "TCP" }
}

/// An address of the internet, for what has to reach git.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Whether the cluster's network add-on enforces policies at all.
fn enforced(cluster: &Cluster) -> bool {
    let addon = cluster.identity.addons.get("vpc-cni").and_then(|addon| addon.configuration.as_ref());
    let wanted = addon.and_then(|values| values.get("enableNetworkPolicy"));
    wanted.is_some_and(|wanted| wanted == "true" || wanted == &Value::Bool(true))
}

/// Whether traffic flows from one end to the other; why not, if not.
pub(crate) fn flows(cluster: &Cluster, from: End<'_>, to: End<'_>, port: Port) -> Result<(), String> {
    if !enforced(cluster) {
        return Ok(());
    }
    for (own, other, direction) in [(from, to, "egress"), (to, from, "ingress")] {
        let End::Pod(pod) = own else { continue };
        if object::flag(pod, "/spec/hostNetwork") {
            continue;
        }
        let policies: Vec<&Value> = cluster
            .store
            .list("networking.k8s.io", "networkpolicies", Some(object::namespace(pod)))
            .map(|(_, policy)| policy.as_ref())
            .filter(|policy| selects(policy, pod) && concerns(policy, direction))
            .collect();
        let served = if let End::Pod(served) = to { Some(served) } else { None };
        let allowed = policies.is_empty()
            || policies.iter().any(|policy| {
                let (rules, peers) =
                    if direction == "egress" { ("/spec/egress", "/to") } else { ("/spec/ingress", "/from") };
                list(policy, rules).iter().any(|rule| {
                    let sides = list(rule, peers);
                    let side =
                        sides.is_empty() || sides.iter().any(|side| is(cluster, side, other, object::namespace(pod)));
                    side && opens(list(rule, "/ports"), port, served)
                })
            });
        if !allowed {
            return Err(format!(
                "no network policy allows {direction} of {}/{} on {} port {}",
                object::namespace(pod),
                object::name(pod),
                port.protocol,
                port.number
            ));
        }
    }
    Ok(())
}

fn selects(policy: &Value, pod: &Value) -> bool {
    LabelSelector::of_object(policy.pointer("/spec/podSelector").unwrap_or(&Value::Null)).selects(pod)
}

fn concerns(policy: &Value, direction: &str) -> bool {
    let types = list(policy, "/spec/policyTypes");
    if types.is_empty() {
        return direction == "ingress" || policy.pointer("/spec/egress").is_some();
    }
    types.iter().filter_map(Value::as_str).any(|one| one.eq_ignore_ascii_case(direction))
}

/// Whether an end is the peer that a rule names.
fn is(cluster: &Cluster, peer: &Value, end: End<'_>, own_namespace: &str) -> bool {
    if let Some(block) = peer.get("ipBlock") {
        let address = match end {
            End::Address(address) => Some(address),
            End::Pod(pod) => text(pod, "/status/podIP").parse().ok(),
        };
        let excepted =
            |address| list(block, "/except").iter().filter_map(Value::as_str).any(|cidr| within(cidr, address));
        return address.is_some_and(|address| within(text(block, "/cidr"), address) && !excepted(address));
    }
    let End::Pod(pod) = end else { return false };
    let namespace = object::namespace(pod);
    let home = match peer.get("namespaceSelector") {
        None => namespace == own_namespace,
        Some(selector) => cluster
            .object(&Key::core("namespaces", "", namespace))
            .is_some_and(|found| LabelSelector::of_object(selector).selects(&found)),
    };
    home && peer.get("podSelector").is_none_or(|selector| LabelSelector::of_object(selector).selects(pod))
}

fn within(cidr: &str, address: Ipv4Addr) -> bool {
    let Some((network, length)) = cidr.split_once('/') else { return false };
    let (Ok(network), Ok(length)) = (network.parse::<Ipv4Addr>(), length.parse::<u32>()) else { return false };
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
    u32::from(network) & mask == u32::from(address) & mask
}

/// Whether the ports of a rule (none are all) hold a port; names are those of the serving pod.
fn opens(ports: &[Value], wanted: Port, served: Option<&Value>) -> bool {
    ports.is_empty()
        || ports.iter().any(|port| {
            let protocol = Some(text(port, "/protocol")).filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
            let number = match port.get("port") {
                None => Some(i64::from(wanted.number)),
                Some(Value::String(name)) => served.and_then(|pod| named(pod, name)),
                Some(number) => number.as_i64(),
            };
            let last = object::int(port, "/endPort").or(number);
            protocol == wanted.protocol
                && number.zip(last).is_some_and(|(first, last)| (first..=last).contains(&i64::from(wanted.number)))
        })
}

fn named(pod: &Value, name: &str) -> Option<i64> {
    list(pod, "/spec/containers")
        .iter()
        .flat_map(|container| list(container, "/ports"))
        .find(|port| text(port, "/name") == name)
        .and_then(|port| object::int(port, "/containerPort"))
}

/// Whether a pod reaches any of those that a Service stands for. A Service without pods is not a matter of policies.
pub(crate) fn to_service(
    cluster: &Cluster,
    pod: &Value,
    namespace: &str,
    service: &str,
    port: Port,
) -> Result<(), String> {
    let Some(found) = cluster.object(&Key::core("services", namespace, service)) else { return Ok(()) };
    let selector = object::map(&found, "/spec/selector");
    to_any(cluster, pod, namespace, port, |each| {
        plain_selector_matches(selector, object::map(each, "/metadata/labels"))
    })
}

fn to_any(
    cluster: &Cluster,
    pod: &Value,
    namespace: &str,
    port: Port,
    is_target: impl Fn(&Value) -> bool,
) -> Result<(), String> {
    let mut refused = Ok(());
    for (_, target) in cluster.store.list("", "pods", Some(namespace)).filter(|(_, each)| is_target(each)) {
        match flows(cluster, End::Pod(pod), End::Pod(target), port) {
            Ok(()) => return Ok(()),
            Err(why) => refused = Err(why),
        }
    }
    refused
}

/// Whether a pod can ask for names.
pub(crate) fn to_names(cluster: &Cluster, pod: &Value) -> Result<(), String> {
    to_service(cluster, pod, "kube-system", "kube-dns", Port { number: 53, protocol: "UDP" })
        .map_err(|why| format!("lookup on 172.20.0.10:53: i/o timeout ({why})"))
}

/// Where the control plane is, as far as it is known.
fn control_plane(cluster: &Cluster) -> Vec<Ipv4Addr> {
    cluster.identity.info.control_plane.iter().filter_map(|address| address.parse().ok()).collect()
}

/// Whether a pod reaches the API server.
pub(crate) fn to_api(cluster: &Cluster, pod: &Value) -> Result<(), String> {
    let mut refused = Ok(());
    for address in control_plane(cluster) {
        match flows(cluster, End::Pod(pod), End::Address(address), tcp(443)) {
            Ok(()) => return Ok(()),
            Err(why) => refused = Err(format!("dial tcp 172.20.0.1:443: i/o timeout ({why})")),
        }
    }
    refused
}

/// Whether the control plane reaches a pod.
pub(crate) fn from_api(cluster: &Cluster, pod: &Value, port: u16) -> Result<(), String> {
    let mut refused = Ok(());
    for address in control_plane(cluster) {
        match flows(cluster, End::Address(address), End::Pod(pod), tcp(port)) {
            Ok(()) => return Ok(()),
            Err(why) => refused = Err(format!("context deadline exceeded ({why})")),
        }
    }
    refused
}

/// Why a running pod of the platform cannot become ready: a flow that it needs from the start is not allowed.
pub(crate) fn lacks(cluster: &Cluster, pod: &Value) -> Option<String> {
    if !enforced(cluster) || object::flag(pod, "/spec/hostNetwork") {
        return None;
    }
    let name = label(pod, "app.kubernetes.io/name")?;
    let outcome = match name {
        "argocd-server"
        | "argocd-application-controller"
        | "argocd-applicationset-controller"
        | "argocd-notifications-controller"
        | "argocd-dex-server"
        | "external-secrets"
        | "external-secrets-webhook"
        | "external-secrets-cert-controller" => to_names(cluster, pod).and_then(|()| to_api(cluster, pod)),
        "argocd-redis-ha" => to_names(cluster, pod),
        "argocd-redis-ha-haproxy" => to_names(cluster, pod).and_then(|()| {
            let redis = |each: &Value| label(each, "app.kubernetes.io/name") == Some("argocd-redis-ha");
            to_any(cluster, pod, object::namespace(pod), tcp(6379), redis)
        }),
        _ => Ok(()),
    };
    outcome.err()
}

/// Whether Argo CD's controller can compare an application: it asks the repository server, which asks git, and Redis.
pub(crate) fn argocd_compares(cluster: &Cluster, namespace: &str) -> Result<(), String> {
    let of = |name: &'static str| {
        cluster
            .store
            .list("", "pods", Some(namespace))
            .map(|(_, pod)| pod.as_ref())
            .filter(move |pod| label(pod, "app.kubernetes.io/name") == Some(name))
    };
    let is = |name: &'static str| move |each: &Value| label(each, "app.kubernetes.io/name") == Some(name);
    for controller in of("argocd-application-controller") {
        to_names(cluster, controller)?;
        to_any(cluster, controller, namespace, tcp(8081), is("argocd-repo-server"))?;
        to_any(cluster, controller, namespace, tcp(6379), is("argocd-redis-ha-haproxy"))?;
    }
    for server in of("argocd-repo-server") {
        to_names(cluster, server)?;
        flows(cluster, End::Pod(server), End::Address(OUTSIDE), tcp(443))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::cluster::Addon;
    use crate::kubernetes::{NewCluster, identity};
    use serde_json::json;

    fn cluster() -> Cluster {
        let new = NewCluster {
            name: "c".to_owned(),
            arn: "arn".to_owned(),
            version: "1.36".to_owned(),
            oidc_issuer: String::new(),
            account: String::new(),
            region: String::new(),
            control_plane: vec!["10.0.1.5".to_owned()],
        };
        let mut cluster = Cluster::empty(identity::new(new).unwrap());
        let configuration = Some(json!({"enableNetworkPolicy": "true"}));
        cluster.identity.addons.insert("vpc-cni".to_owned(), Addon { version: String::new(), configuration });
        for name in ["a", "b"] {
            let labels = json!({"kubernetes.io/metadata.name": name});
            cluster.store.put(Key::core("namespaces", "", name), json!({"metadata": {"name": name, "labels": labels}}));
        }
        cluster
    }

    fn pod(namespace: &str, name: &str, address: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}, "status": {"podIP": address},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]}})
    }

    fn policy(cluster: &mut Cluster, namespace: &str, name: &str, spec: Value) {
        let key = Key::new("networking.k8s.io", "networkpolicies", namespace, name);
        cluster.store.put(key, json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}));
    }

    /// Proves the rules of policies: none restrict, the first one that selects a pod denies all else in its direction,
    /// further ones add; peers by pod, namespace and block; ports by number, name, range and protocol.
    #[test]
    fn policies_add_up() {
        let mut cluster = cluster();
        let (one, two) = (pod("a", "one", "10.0.9.1"), pod("b", "two", "10.0.9.2"));
        let reach = |cluster: &Cluster, port: u16| flows(cluster, End::Pod(&one), End::Pod(&two), tcp(port)).is_ok();
        assert!(reach(&cluster, 80));
        policy(&mut cluster, "a", "deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
        assert!(!reach(&cluster, 80));
        policy(
            &mut cluster,
            "a",
            "out",
            json!({"podSelector": {"matchLabels": {"app": "one"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "b"}}}], "ports": [{"port": "web"}, {"port": 9000, "endPort": 9010}, {"port": 53, "protocol": "UDP"}]}]}),
        );
        assert_eq!([80, 8080, 9005, 9011, 53].map(|port| reach(&cluster, port)), [false, true, true, false, false]);
        policy(&mut cluster, "b", "in", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}));
        assert!(!reach(&cluster, 8080), "a pod selector alone means the policy's own namespace");
        policy(
            &mut cluster,
            "b",
            "block",
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.9.0/24", "except": ["10.0.9.1/32"]}}]}]}),
        );
        assert!(!reach(&cluster, 8080));
        policy(&mut cluster, "b", "wide", json!({"podSelector": {}, "ingress": [{}]}));
        assert!(reach(&cluster, 8080));
    }

    /// Proves that the API server and the control plane's way to webhooks are restricted like any other flow, that pods
    /// on the host's network are not, and that nothing is where the add-on does not enforce.
    #[test]
    fn the_api_server_is_a_peer() {
        let mut cluster = cluster();
        let mut one = pod("a", "one", "10.0.9.1");
        policy(&mut cluster, "a", "deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
        assert!(to_api(&cluster, &one).is_err() && from_api(&cluster, &one, 10250).is_err());
        let block = json!([{"ipBlock": {"cidr": "10.0.1.0/24"}}]);
        policy(
            &mut cluster,
            "a",
            "api",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "egress": [{"to": block, "ports": [{"port": 443}]}], "ingress": [{"from": block, "ports": [{"port": 10250}]}]}),
        );
        assert!(to_api(&cluster, &one).is_ok() && from_api(&cluster, &one, 10250).is_ok());
        assert!(from_api(&cluster, &one, 8443).is_err());
        object::set(&mut one, &["spec", "hostNetwork"], json!(true));
        assert!(from_api(&cluster, &one, 8443).is_ok());
        object::set(&mut one, &["spec", "hostNetwork"], json!(false));
        cluster.identity.addons.clear();
        assert!(from_api(&cluster, &one, 8443).is_ok());
    }
}
