//! The graph of `deploy-aws-dev` on model steps: its names, dependencies, teardown edges and ways of undoing are the
//! shipped runbook's; what its steps do is the model's.

use platflow_engine::model::generate;
use platflow_engine::model::kinds::Habit;
use platflow_engine::model::sweep::Subject;
use platflow_engine::name::StepName;
use platflow_engine::plan::PlannedStep;
use platflow_engine::step::UndoPlan;
use serde::Deserialize;
use serde_json::{Value, json};

/// What of a validated runbook the simulations know: a part of the answer of `platflow validate --output json`.
///
/// # Panics
/// When the answer has no steps.
#[must_use]
pub fn known(answer: &Value) -> Value {
    let step = |step: &Value| {
        json!({
            "name": step["name"], "kind": step["kind"], "needs": step["needs"],
            "undo_after": step["undo_after"], "undo": step["undo"],
        })
    };
    json!({ "steps": answer["steps"].as_array().expect("steps").iter().map(step).collect::<Vec<_>>() })
}

/// The graph as it was shipped when this was built.
///
/// # Panics
/// When the fixture is no JSON.
#[must_use]
pub fn fixture() -> Value {
    serde_json::from_str(include_str!("deploy-aws-dev.json")).expect("JSON")
}

/// How the resource behind a kind behaves, as far as crashes can tell. What is not named has a name of its own, is there
/// at once and is read consistently: objects of Kubernetes and Vault, roles, keys of IAM and EKS.
fn habit(kind: &str) -> Habit {
    match kind {
        "aws.vpc" | "aws.subnet" | "aws.internet_gateway" | "aws.elastic_ip" | "aws.security_group" | "aws.kms_key" => {
            Habit::Anonymous
        }
        "aws.nat_gateway" => Habit::SlowToken,
        "aws.route_table" | "aws.launch_template" => Habit::Token,
        "aws.eks_cluster"
        | "aws.node_group"
        | "aws.addon"
        | "argocd.install"
        | "vault.install"
        | "vault.unseal"
        | "external_secrets.install" => Habit::Slow,
        "vault.init" | "argocd.admin_password" => Habit::Secret,
        _ => Habit::Plain,
    }
}

fn names(value: &Value) -> Vec<StepName> {
    Vec::<StepName>::deserialize(value).expect("step names")
}

/// The shipped graph on an empty account; `earlier`: on what an earlier run of half of it had built, some of it otherwise.
///
/// # Panics
/// When the graph is none.
#[must_use]
pub fn subject(graph: &Value, earlier: bool) -> Subject {
    let mut steps = Vec::new();
    for one in graph["steps"].as_array().expect("steps") {
        let name = one["name"].as_str().expect("a name");
        let habit = habit(one["kind"].as_str().expect("a kind"));
        let mut step = generate::step(name, habit, json!({"size": 1}), &names(&one["needs"])).expect("a step");
        step.undo_after = names(&one["undo_after"]);
        step.undo = UndoPlan::deserialize(&one["undo"]).expect("a way of undoing");
        steps.push(step);
    }
    assert!(steps.len() > 60);
    let mut built: Vec<PlannedStep> = Vec::new();
    // Level by level, as only what stands on something built can have been built.
    loop {
        let is_built = |name: &StepName| built.iter().any(|step| step.name == *name);
        let ready = |(number, step): &(usize, &PlannedStep)| {
            number % 5 != 4 && !is_built(&step.name) && step.needs.iter().all(is_built)
        };
        let level: Vec<PlannedStep> =
            steps.iter().enumerate().filter(ready).map(|(number, step)| as_before(number, step)).collect();
        if level.is_empty() {
            break;
        }
        built.extend(level);
    }
    assert!(built.len() > 10);
    let earlier = if earlier { Some(generate::plan(built).expect("a plan")) } else { None };
    let plan = generate::plan(steps).expect("a plan");
    Subject { plan, earlier, vanished: Vec::new(), habits: generate::habits().expect("habits") }
}

/// A step as an earlier run had it: some otherwise than now.
fn as_before(number: usize, step: &PlannedStep) -> PlannedStep {
    let mut before = step.clone();
    if number % 7 == 3 {
        before.spec = json!({"size": 2});
    }
    before
}
