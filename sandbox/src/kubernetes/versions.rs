//! A kind that is served in two versions: autoscalers are kept as autoscaling/v2, and v1 says a part of that in other words.

use serde_json::{Map, Value, json};

use super::resources::Resource;

const TARGET: &str = "targetCPUUtilizationPercentage";
const CURRENT: &str = "currentCPUUtilizationPercentage";
/// Where v1 keeps what it has no words for, as a real server does.
const OTHERS: &str = "autoscaling.alpha.kubernetes.io/metrics";

fn is_older(resource: &Resource) -> bool {
    resource.version == "v1" && resource.is("autoscaling", "horizontalpodautoscalers")
}

/// What v1 can say: how much of its requested CPU a pod uses.
fn is_cpu(metric: &Value) -> bool {
    metric.pointer("/resource/name") == Some(&json!("cpu"))
        && (metric.pointer("/resource/target/averageUtilization").is_some()
            || metric.pointer("/resource/current/averageUtilization").is_some())
}

fn part<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    object.get_mut(name).and_then(Value::as_object_mut)
}

/// An object of a request in the version in which it is kept.
pub(crate) fn to_stored(resource: &Resource, object: &mut Value) {
    if !is_older(resource) {
        return;
    }
    let others = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
        .and_then(|annotations| annotations.remove(OTHERS))
        .and_then(|text| serde_json::from_str::<Vec<Value>>(text.as_str()?).ok());
    let mut metrics = others.unwrap_or_default();
    if let Some(spec) = part(object, "spec") {
        if let Some(target) = spec.remove(TARGET) {
            let wanted = json!({"type": "Utilization", "averageUtilization": target});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": wanted}}));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), Value::Array(metrics));
        }
    }
    if let Some(status) = part(object, "status")
        && let Some(current) = status.remove(CURRENT)
    {
        let found = json!({"averageUtilization": current});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": found}});
        status.insert("currentMetrics".to_owned(), json!([metric]));
    }
}

/// An object that is kept, in the version that was asked for.
pub(crate) fn to_served(resource: &Resource, object: &mut Value) {
    if !is_older(resource) {
        return;
    }
    let mut others = Vec::new();
    if let Some(spec) = part(object, "spec") {
        spec.remove("behavior");
        if let Some(Value::Array(metrics)) = spec.remove("metrics") {
            let (cpu, rest): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu);
            others = rest;
            if let Some(target) = cpu.first().and_then(|one| one.pointer("/resource/target/averageUtilization")) {
                spec.insert(TARGET.to_owned(), target.clone());
            }
        }
    }
    if !others.is_empty() {
        super::object::set(object, &["metadata", "annotations", OTHERS], json!(Value::Array(others).to_string()));
    }
    if let Some(status) = part(object, "status") {
        status.remove("conditions");
        if let Some(Value::Array(metrics)) = status.remove("currentMetrics") {
            let cpu = metrics.iter().find(|one| is_cpu(one));
            if let Some(current) = cpu.and_then(|one| one.pointer("/resource/current/averageUtilization")) {
                status.insert(CURRENT.to_owned(), current.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::resources::built_in;
    use super::*;

    /// What one version says the other says as well, and nothing is lost on the way there and back.
    #[test]
    fn an_autoscaler_in_both_versions() {
        let mut both = built_in().iter().filter(|each| each.is("autoscaling", "horizontalpodautoscalers"));
        let (Some(newer), Some(older)) = (both.next(), both.next()) else { panic!("two versions") };
        assert_eq!((newer.version.as_str(), older.version.as_str()), ("v2", "v1"));
        let said = json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 3, TARGET: 80}});
        let mut kept = said.clone();
        to_stored(older, &mut kept);
        assert_eq!(kept.pointer("/spec/metrics/0/resource/target/averageUtilization"), Some(&json!(80)));
        let mut told = kept.clone();
        to_served(newer, &mut told);
        assert_eq!(told, kept);
        to_served(older, &mut told);
        assert_eq!(told, said);
        let memory =
            json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Value", "value": "1Gi"}}});
        let other = json!({"metadata": {"annotations": {}}, "spec": {"metrics": [memory]}});
        let mut there = other.clone();
        to_served(older, &mut there);
        assert_eq!(there.pointer("/spec/metrics"), None);
        to_stored(older, &mut there);
        assert_eq!(there, other);
    }
}
