//! The crash sweep of the engine over the graph of `deploy-aws-dev` itself, on model steps.
//!
//! The graph comes from the real binary (`validate`), so names, dependencies, teardown edges and ways of undoing are those
//! of the shipped runbook; what the steps do is a model whose world counts every creation. In CI every crash is tried and
//! the failures are sampled evenly, under `nightly` all of them run; none is excluded by hand.

use platflow_engine::model::generate;
use platflow_engine::model::kinds::Habit;
use platflow_engine::model::sweep::{Crash, Recovery, Subject};
use platflow_engine::model::world::Moment;
use platflow_engine::name::{KindName, StepName};
use platflow_engine::plan::OnFailure;
use platflow_engine::step::UndoPlan;
use platflow_tests::TestEnvironment;
use platflow_tests::scale::scale;
use serde::Deserialize;
use serde_json::{Value, json};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// How the resource behind a kind behaves, as far as crashes can tell.
fn habit(kind: &str) -> Habit {
    match kind {
        "aws.vpc" | "aws.subnet" | "aws.internet_gateway" | "aws.elastic_ip" | "aws.security_group" | "aws.kms_key" => {
            Habit::Anonymous
        }
        "aws.nat_gateway" | "aws.route_table" | "aws.launch_template" => Habit::Token,
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

fn subject() -> Subject {
    let place = TestEnvironment::new();
    let answer = place.run(&["validate", "deploy-aws-dev", "--output", "json"]).expect_code(0).json();
    let mut steps = Vec::new();
    for one in answer["steps"].as_array().expect("steps") {
        let name = one["name"].as_str().expect("a name");
        let habit = habit(one["kind"].as_str().expect("a kind"));
        let mut step = generate::step(name, habit, json!({"size": 1}), &names(&one["needs"])).expect("a step");
        step.undo_after = names(&one["undo_after"]);
        step.undo = UndoPlan::deserialize(&one["undo"]).expect("a way of undoing");
        assert_ne!(
            step.kind,
            KindName::new("aws.vpc").expect("a kind"),
            "the model's kinds stand in for the real ones"
        );
        steps.push(step);
    }
    assert!(steps.len() > 60);
    let plan = generate::plan(steps).expect("a plan");
    Subject { plan, earlier: None, vanished: Vec::new(), habits: generate::habits().expect("habits") }
}

/// Every `n`-th of the cases, so that about `most` remain, spread evenly.
fn sample<T>(cases: Vec<T>, most: usize) -> Vec<T> {
    // Prime to the three policies and to the faults of a step, so that no stride leaves one of them out.
    let mut every = cases.len().div_ceil(most).max(1);
    while every > 1 && (every.is_multiple_of(2) || every.is_multiple_of(3)) {
        every += 1;
    }
    cases.into_iter().step_by(every).collect()
}

/// Proves that wherever the journal is cut, and before or after whichever call the process dies, the run ends in the
/// undisturbed world when resumed and in the first one when rolled back, and nothing is made twice.
#[test]
fn the_shipped_graph_survives_every_crash() {
    let subject = subject();
    block_on(async {
        let expected = subject.undisturbed(false).await.unwrap_or_else(|broken| panic!("{broken}"));
        let events = (2..=expected.events).map(Crash::Event);
        let calls =
            (1..=expected.calls).flat_map(|call| [Crash::Call(call, Moment::Before), Crash::Call(call, Moment::After)]);
        let all: Vec<Crash> = events.chain(calls).collect();
        let total = all.len();
        let chosen = sample(all, usize::MAX);
        for crash in &chosen {
            for recovery in [Recovery::Forward, Recovery::Backward] {
                subject
                    .crash(*crash, recovery, None, false, &expected)
                    .await
                    .unwrap_or_else(|broken| panic!("{broken}"));
            }
        }
        println!("crash points: {} of {total}, each resumed and rolled back", chosen.len());
    });
}

/// Proves that every step fails in every class and residue, for a moment or for good.
#[test]
fn the_shipped_graph_survives_every_failure() {
    let subject = subject();
    block_on(async {
        let expected = subject.undisturbed(false).await.unwrap_or_else(|broken| panic!("{broken}"));
        let mut all = Vec::new();
        for step in &subject.plan.steps {
            for times in [1, u32::MAX] {
                for fault in Subject::faults(&step.name, times) {
                    all.push((fault.clone(), OnFailure::Park, Recovery::Forward));
                    all.push((fault.clone(), OnFailure::Park, Recovery::Backward));
                    all.push((fault, OnFailure::Rollback, Recovery::Backward));
                }
            }
        }
        let total = all.len();
        let chosen = sample(all, scale().of(240, usize::MAX));
        let count = chosen.len();
        for (policy, recovery) in [
            (OnFailure::Park, Recovery::Forward),
            (OnFailure::Park, Recovery::Backward),
            (OnFailure::Rollback, Recovery::Backward),
        ] {
            let tried = chosen.iter().filter(|(_, one, way)| *one == policy && *way == recovery).count();
            assert!(tried * 4 > count, "{policy:?} with {recovery:?} is hardly sampled: {tried} of {count}");
        }
        for (fault, policy, recovery) in chosen {
            subject.fault(fault, policy, recovery, &expected).await.unwrap_or_else(|broken| panic!("{broken}"));
        }
        println!("failures: {count} of {total}");
    });
}
