//! Subresources: status, scale, token, eviction, binding, log, port-forward, namespace finalize.

use serde_json::{Value, json};

use super::super::auth;
use super::super::model::{KubeReply, PortForward};
use super::super::object::{self, int, list, text};
use super::super::resources::Resource;
use super::super::route::Place;
use super::super::selectors::LabelSelector;
use super::super::status::{Cause, Refusal};
use super::super::store::Key;
use super::read::{find, key};
use super::write::{self, Mode};
use super::{Answer, Call, delete, method_not_allowed, shown};

/// Answers a request to a subresource.
pub(crate) fn answer(
    call: &mut Call<'_>,
    resource: &Resource,
    place: &Place,
    sub: &str,
    verb: &str,
) -> Result<Answer, Refusal> {
    match (sub, verb) {
        ("status" | "log" | "scale" | "portforward", _) if call.cluster.object(&key(resource, place)).is_none() => {
            Err(Refusal::not_found(resource, place.name.as_deref().unwrap_or_default()))
        }
        ("status", "get") => Ok(Answer::Object(200, shown(resource, &*find(call, resource, place)?))),
        ("status", "update") => write::update(call, resource, place, "status"),
        ("status", "patch") => write::patch(call, resource, place, "status"),
        ("scale", _) => scale(call, resource, place, verb),
        ("token", "create") => token(call, resource, place),
        ("eviction", "create") => eviction(call, resource, place),
        ("binding", "create") => binding(call, resource, place),
        ("log", "get") => log(call, resource, place),
        ("portforward", _) => port_forward(call, resource, place),
        ("finalize", "update") => finalize(call, resource, place),
        _ => Err(method_not_allowed()),
    }
}

fn scale_of(object: &Value) -> Value {
    let selector = object.pointer("/spec/selector").cloned().unwrap_or_default();
    let labels = object::map(&selector, "/matchLabels")
        .map(|labels| {
            labels
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(",")
        })
        .unwrap_or_default();
    let mut metadata = json!({"name": object::name(object), "namespace": object::namespace(object), "uid": object::uid(object), "creationTimestamp": text(object, "/metadata/creationTimestamp")});
    object::set(&mut metadata, &["resourceVersion"], json!(text(object, "/metadata/resourceVersion")));
    let mut spec = json!({});
    if let Some(replicas) = int(object, "/spec/replicas").filter(|replicas| *replicas != 0) {
        object::set(&mut spec, &["replicas"], json!(replicas));
    }
    let mut status = json!({"replicas": int(object, "/status/replicas").unwrap_or(0)});
    if !labels.is_empty() {
        object::set(&mut status, &["selector"], json!(labels));
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn scale(call: &mut Call<'_>, resource: &Resource, place: &Place, verb: &str) -> Result<Answer, Refusal> {
    let live = find(call, resource, place)?;
    if verb == "get" {
        return Ok(Answer::Object(200, scale_of(&live)));
    }
    let name = object::name(&live).to_owned();
    let mut wanted = scale_of(&live);
    let body = if super::super::protobuf::is(&call.request.body) {
        call.body()?
    } else {
        super::super::yaml::decode(&call.request.body)?
    };
    match verb {
        "update" => wanted = body,
        _ => super::super::patch::merge(&mut wanted, &body),
    }
    let given = text(&wanted, "/metadata/resourceVersion");
    if !given.is_empty() && given != text(&live, "/metadata/resourceVersion") {
        return Err(Refusal::stale(resource, &name));
    }
    let replicas = int(&wanted, "/spec/replicas").unwrap_or(0);
    if replicas < 0 {
        return Err(Refusal::invalid(
            "autoscaling",
            "Scale",
            &name,
            &[Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0")],
        ));
    }
    let mut new = shown(resource, &live);
    object::set(&mut new, &["spec", "replicas"], json!(replicas));
    let (_, stored) = write::commit(call, resource, place, Some(live), new, Mode::Update, "scale")?;
    Ok(Answer::Object(200, scale_of(&stored)))
}

fn token(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let account = find(call, resource, place)?;
    let mut body = call.body()?;
    let asked = body.get("spec").cloned();
    let seconds = int(&body, "/spec/expirationSeconds").unwrap_or(3_600);
    let name = object::name(&account).to_owned();
    if seconds < 600 {
        return Err(Refusal::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            &[Cause::invalid(
                "spec.expirationSeconds",
                &json!(seconds),
                "may not specify a duration less than 10 minutes",
            )],
        ));
    }
    let mut audiences: Vec<String> =
        list(&body, "/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push("https://kubernetes.default.svc".to_owned());
    }
    let namespace = object::namespace(&account).to_owned();
    let minted = auth::mint(call.cluster, &namespace, &name, object::uid(&account), &audiences, call.now, seconds);
    let expires = call.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(call.now);
    object::set(&mut body, &["kind"], json!("TokenRequest"));
    object::set(&mut body, &["apiVersion"], json!("authentication.k8s.io/v1"));
    object::set(
        &mut body,
        &["metadata"],
        json!({"name": name, "namespace": namespace, "uid": object::uid(&account), "creationTimestamp": object::stamp(call.now)}),
    );
    super::own_fields(call, resource, asked.as_ref(), "token", &mut body);
    object::set(&mut body, &["spec", "audiences"], json!(audiences));
    object::set(&mut body, &["spec", "expirationSeconds"], json!(seconds));
    object::default_to(&mut body, &["spec", "boundObjectRef"], Value::Null);
    object::set(&mut body, &["status"], json!({"token": minted, "expirationTimestamp": object::stamp(expires)}));
    Ok(Answer::Object(201, body))
}

fn eviction(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let body = call.body()?;
    let pod = find(call, resource, place)?;
    let dry = call.dry_run()? || list(&body, "/deleteOptions/dryRun").iter().any(|each| each == "All");
    let namespace = object::namespace(&pod).to_owned();
    let budgets: Vec<_> = call
        .cluster
        .store
        .list("policy", "poddisruptionbudgets", Some(&namespace))
        .map(|(key, budget)| (key.clone(), std::sync::Arc::clone(budget)))
        .collect();
    for (key, budget) in budgets {
        let selector = budget.pointer("/spec/selector").cloned().unwrap_or_default();
        if !LabelSelector::of_object(&selector).selects(&pod) || !object::condition_true(&pod, "Ready") {
            continue;
        }
        let name = object::name(&budget);
        if int(&budget, "/status/observedGeneration").unwrap_or(0) < int(&budget, "/metadata/generation").unwrap_or(1) {
            let message = format!("The disruption budget {name} is still being processed by the server.");
            return Err(Refusal::new(
                429,
                Some("TooManyRequests"),
                "Cannot evict pod as it would violate the pod's disruption budget.",
            )
            .with_cause("DisruptionBudget", &message, None)
            .with_retry_after(10));
        }
        let allowed = int(&budget, "/status/disruptionsAllowed").unwrap_or(0);
        if allowed < 1 {
            let message = format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                int(&budget, "/status/desiredHealthy").unwrap_or(0),
                int(&budget, "/status/currentHealthy").unwrap_or(0)
            );
            return Err(Refusal::new(
                429,
                Some("TooManyRequests"),
                "Cannot evict pod as it would violate the pod's disruption budget.",
            )
            .with_cause("DisruptionBudget", &message, None));
        }
        if !dry {
            call.cluster.change(&key, |new| object::set(new, &["status", "disruptionsAllowed"], json!(allowed - 1)));
        }
    }
    if !dry {
        let grace = int(&body, "/deleteOptions/gracePeriodSeconds");
        delete::begin(call.cluster, &key(resource, place), call.now, grace);
    }
    Ok(Answer::Object(
        201,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

fn binding(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let body = call.body()?;
    let pod = find(call, resource, place)?;
    let node = text(&body, "/target/name").to_owned();
    let assigned = text(&pod, "/spec/nodeName");
    if !assigned.is_empty() {
        let name = object::name(&pod);
        let why = format!("pod {name} is already assigned to node \"{assigned}\"");
        let mut refusal = Refusal::conflict(resource, name, &why);
        refusal.message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
        refusal.details = Some(json!({"name": name, "kind": "pods/binding"}));
        return Err(refusal);
    }
    call.cluster.change(&key(resource, place), |pod| object::set(pod, &["spec", "nodeName"], json!(node)));
    Ok(Answer::Object(
        201,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

fn log(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let pod = find(call, resource, place)?;
    if matches!(text(&pod, "/status/phase"), "" | "Pending") {
        let container = text(&pod, "/spec/containers/0/name");
        return Err(Refusal::bad_request(format!(
            "container \"{container}\" in pod \"{}\" is waiting to start: ContainerCreating",
            object::name(&pod)
        )));
    }
    let body = object::annotation(&pod, "sandbox.platflow/log").unwrap_or_default().to_owned();
    Ok(Answer::Reply(KubeReply::Text { status: 200, content_type: "text/plain".to_owned(), headers: Vec::new(), body }))
}

fn port_forward(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let pod = find(call, resource, place)?;
    if text(&pod, "/status/phase") != "Running" {
        return Err(Refusal::new(
            500,
            Some("InternalError"),
            format!("error forwarding port to pod {}: pod is not running", object::name(&pod)),
        ));
    }
    let ports = call
        .request
        .query
        .iter()
        .filter(|(key, _)| key == "ports")
        .flat_map(|(_, value)| value.split(',').filter_map(|port| port.parse().ok()).collect::<Vec<u16>>())
        .collect();
    Ok(Answer::Reply(KubeReply::Upgrade(PortForward {
        cluster: call.cluster.name(),
        namespace: object::namespace(&pod).to_owned(),
        pod: object::name(&pod).to_owned(),
        ports,
    })))
}

fn finalize(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let body = call.body()?;
    let live = find(call, resource, place)?;
    let key = Key::core("namespaces", "", object::name(&live));
    let finalizers = body.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
    call.cluster.change(&key, |new| object::set(new, &["spec", "finalizers"], finalizers.clone()));
    let after = call.cluster.object(&key).unwrap_or(live);
    if object::deleting(&after) && list(&after, "/spec/finalizers").is_empty() {
        call.cluster.store.delete(&key);
    }
    Ok(Answer::Object(200, shown(resource, &after)))
}
