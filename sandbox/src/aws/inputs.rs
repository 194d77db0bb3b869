//! Inputs held against the service models before an operation sees them: what is required, and what is one of a set.
//!
//! The rules are `models.txt`, which a tool writes from botocore; how each service words its refusal is here.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::wire::{Refusal, number, text};

static MODELS: &str = include_str!("models.txt");

/// What may be wrong at one place of an input.
enum Rule {
    /// It has to be there.
    Required(&'static str),
    /// It holds one of these.
    OneOf(&'static str, Vec<&'static str>),
    /// It is a number from the first to the second.
    Within(&'static str, i64, i64),
}

#[derive(Default)]
struct Rules {
    inputs: Vec<Rule>,
    /// Answers are an empty document.
    bare: bool,
}

fn rules(service: &str, operation: &str) -> Option<&'static Rules> {
    static ALL: OnceLock<BTreeMap<String, Rules>> = OnceLock::new();
    ALL.get_or_init(read).get(&format!("{service} {operation}"))
}

/// Whether the reference of an EC2 call lists a filter.
pub(super) fn is_filter(operation: &str, name: &str) -> bool {
    static ALL: OnceLock<BTreeMap<&'static str, Vec<&'static str>>> = OnceLock::new();
    let lines = || MODELS.lines().filter_map(|line| line.strip_prefix("filters "));
    let all = ALL.get_or_init(|| {
        let named = |line: &'static str| line.split_once(' ').map(|(call, names)| (call, names.split(' ').collect()));
        lines().filter_map(named).collect()
    });
    all.get(operation).is_some_and(|names| names.contains(&name))
}

fn read() -> BTreeMap<String, Rules> {
    let mut sets: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for line in MODELS.lines().filter(|line| !["#", "filters ", "pages "].iter().any(|other| line.starts_with(other))) {
        let mut words = line.split(' ');
        let (Some(service), Some(name)) = (words.next(), words.next()) else { continue };
        if service == "enum" {
            sets.insert(name, words.collect());
            continue;
        }
        let mut rules = Rules::default();
        for word in words {
            if word == "-" {
                rules.bare = true;
            } else if let Some(path) = word.strip_suffix('!') {
                rules.inputs.push(Rule::Required(path));
            } else if let Some((path, range)) = word.split_once(':') {
                let (low, high) = range.split_once("..").unwrap_or_default();
                if let (Ok(low), Ok(high)) = (low.parse(), high.parse()) {
                    rules.inputs.push(Rule::Within(path, low, high));
                }
            } else if let Some((path, set)) = word.split_once('=') {
                rules.inputs.push(Rule::OneOf(path, sets.get(set).cloned().unwrap_or_default()));
            }
        }
        all.insert(format!("{service} {name}"), rules);
    }
    all
}

/// The model of a service behind a signing name.
fn model<'a>(service: &'a str, input: &Value) -> &'a str {
    match service {
        "elasticloadbalancing" if text(input, "/Version") == "2012-06-01" => "elb",
        "elasticloadbalancing" => "elbv2",
        "tagging" => "resourcegroupstaggingapi",
        "servicequotas" => "service-quotas",
        other => other,
    }
}

/// Whether answers of an operation of the Query protocol have no result element.
pub(super) fn is_bare(service: &str, operation: &str, input: &Value) -> bool {
    rules(model(service, input), operation).is_some_and(|rules| rules.bare)
}

/// Refuses an input that the model of its operation does not allow.
pub(super) fn check(service: &str, operation: &str, input: &Value) -> Result<(), Refusal> {
    let Some(rules) = rules(model(service, input), operation) else { return Ok(()) };
    for rule in &rules.inputs {
        match rule {
            Rule::Required(path) => {
                let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
                let absent = |parent: &&Value| {
                    parent.is_object() && parent.get(name.trim_end_matches("[]")).is_none_or(Value::is_null)
                };
                if places(input, parents).iter().any(absent) {
                    return Err(missing(service, operation, path));
                }
            }
            Rule::OneOf(path, allowed) => {
                let found = places(input, path);
                let strange = found.iter().filter_map(|value| value.as_str()).find(|value| !allowed.contains(value));
                if let Some(value) = strange {
                    return Err(not_one_of(service, operation, path, value, allowed));
                }
            }
            Rule::Within(path, low, high) => {
                let found = places(input, path);
                let mut numbers = found.iter().filter_map(|value| number(value, ""));
                if let Some(value) = numbers.find(|value| value < low || value > high) {
                    return Err(not_within(service, operation, path, value, *low, *high));
                }
            }
        }
    }
    Ok(())
}

/// How a list of an operation comes in pages, as its service names the parts.
pub(super) struct Pages {
    /// Token of a request.
    pub(super) token: &'static str,
    /// Token of an answer.
    pub(super) next: &'static str,
    /// How many a page holds at most.
    pub(super) size: &'static str,
    /// The list.
    pub(super) list: &'static str,
    /// What says that there is more, where the service says it.
    pub(super) more: Option<&'static str>,
}

/// The pages of an operation; none for one that answers no list, and for EC2, which is its own master.
pub(super) fn pages(service: &str, operation: &str, input: &Value) -> Option<&'static Pages> {
    static ALL: OnceLock<BTreeMap<String, Pages>> = OnceLock::new();
    let line = |line: &'static str| {
        let mut words = line.strip_prefix("pages ")?.split(' ');
        let call = format!("{} {}", words.next()?, words.next()?);
        let (token, next, size, list) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let more = words.next().filter(|word| *word != "-");
        Some((call, Pages { token, next, size, list, more }))
    };
    ALL.get_or_init(|| MODELS.lines().filter_map(line).collect()).get(&format!("{} {operation}", model(service, input)))
}

/// All values at a path such as `Tags[].Key`.
fn places<'a>(input: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut at = vec![input];
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let name = part.trim_end_matches("[]");
        at = at.into_iter().filter_map(|value| value.get(name)).collect();
        if part.ends_with("[]") {
            at = at
                .into_iter()
                .flat_map(|value| match value {
                    Value::Array(list) => list.iter().collect(),
                    other => vec![other],
                })
                .collect();
        }
    }
    at
}

/// The code under which a service refuses an input that its model does not allow.
pub(super) fn code(service: &str, operation: &str) -> &'static str {
    match service {
        "eks" if operation.contains("Resource") => "BadRequestException",
        "eks" | "logs" | "tagging" => "InvalidParameterException",
        "servicequotas" => "IllegalArgumentException",
        "kms" => "ValidationException",
        _ => "ValidationError",
    }
}

fn missing(service: &str, operation: &str, path: &str) -> Refusal {
    if service == "ec2" {
        let message = format!("The request must contain the parameter {path}");
        return Refusal::bad("MissingParameter", message);
    }
    constraint(service, operation, "null", path, "Member must not be null")
}

fn not_one_of(service: &str, operation: &str, path: &str, value: &str, allowed: &[&str]) -> Refusal {
    if service == "ec2" {
        let message = format!("Value ({value}) for parameter {path} is invalid.");
        return Refusal::bad("InvalidParameterValue", message);
    }
    let wanted = format!("Member must satisfy enum value set: [{}]", allowed.join(", "));
    constraint(service, operation, &format!("'{value}'"), path, &wanted)
}

fn not_within(service: &str, operation: &str, path: &str, value: i64, low: i64, high: i64) -> Refusal {
    let (bound, word) = if value < low { (low, "greater") } else { (high, "less") };
    if service == "ec2" {
        let message = format!(
            "Value ( {value} ) for parameter {path} is invalid. Expecting a value {word} than or equal to {bound}."
        );
        return Refusal::bad("InvalidParameterValue", message);
    }
    constraint(
        service,
        operation,
        &format!("'{value}'"),
        path,
        &format!("Member must have value {word} than or equal to {bound}"),
    )
}

fn constraint(service: &str, operation: &str, value: &str, path: &str, wanted: &str) -> Refusal {
    let message = format!(
        "1 validation error detected: Value {value} at '{}' failed to satisfy constraint: {wanted}",
        path.replace("[]", "")
    );
    Refusal::bad(code(service, operation), message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each service words it its own way, at any depth; what is allowed passes.
    #[test]
    fn what_the_models_do_not_allow_is_refused() {
        let code = |service, operation, input: Value| check(service, operation, &input).err().map(|no| no.code);
        assert_eq!(code("ec2", "CreateSubnet", json!({})).as_deref(), Some("MissingParameter"));
        assert_eq!(code("ec2", "CreateSubnet", json!({"VpcId": "vpc-1"})), None);
        let tagged = |kind: &str| json!({"VpcId": "vpc-1", "TagSpecification": [{"ResourceType": kind, "Tag": []}]});
        assert_eq!(code("ec2", "CreateSubnet", tagged("subnet")), None);
        assert_eq!(code("ec2", "CreateSubnet", tagged("planet")).as_deref(), Some("InvalidParameterValue"));
        let role = json!({"RoleName": "r", "AssumeRolePolicyDocument": "{}", "Tags": [{"Key": "a"}]});
        assert_eq!(code("iam", "CreateRole", role).as_deref(), Some("ValidationError"));
        assert_eq!(code("kms", "TagResource", json!({"KeyId": "k"})).as_deref(), Some("ValidationException"));
        assert_eq!(code("eks", "TagResource", json!({})).as_deref(), Some("BadRequestException"));
        assert_eq!(code("eks", "ListClusters", json!({"maxResults": "100"})), None);
        let many = code("eks", "ListClusters", json!({"maxResults": "101"}));
        assert_eq!(many.as_deref(), Some("InvalidParameterException"));
        let few = code("ec2", "DescribeSubnets", json!({"MaxResults": "4"}));
        assert_eq!(few.as_deref(), Some("InvalidParameterValue"));
    }
}
