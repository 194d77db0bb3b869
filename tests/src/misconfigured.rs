//! One misconfiguration at a time: how the world, the parameters, the runbook or the surroundings of a command are made
//! wrong, and what `plan` and `run` say of it before anything is made.

use crate::{Finished, TestEnvironment};
use serde_json::Value;
use std::path::Path;

/// The parameter `pools` of the shipped runbooks, as they have it.
pub const POOLS: &str = "pools={system: {instance_types: [t3.large], architecture: x86_64, capacity: ON_DEMAND, disk_gib: 100, min: 3, desired: 3, max: 6, labels: {platform/pool: system}, taints: []}, \
    apps: {instance_types: [t3.xlarge, t3a.xlarge, m5.xlarge, m5a.xlarge, m6i.xlarge], architecture: x86_64, capacity: SPOT, disk_gib: 150, min: 3, desired: 3, max: 10, labels: {platform/pool: apps}, taints: []}, \
    data: {instance_types: [r6g.large], architecture: arm64, capacity: ON_DEMAND, disk_gib: 300, min: 2, desired: 2, max: 4, labels: {platform/pool: data}, taints: [{key: platform/pool, value: data, effect: NO_SCHEDULE}]}}";

/// How something is made wrong.
#[derive(Debug, Clone)]
pub enum Wrong {
    /// The account differs in these fields, as `sandbox account` takes them.
    Account(String),
    /// Somebody else has a resource of that kind and name.
    Foreign(&'static str, &'static str),
    /// A parameter, as `--set` takes it.
    Parameter(String),
    /// The shipped runbook of that name with one text in place of another.
    Runbook(&'static str, &'static str, &'static str),
    /// A fixture of these tests with one text in place of another.
    Fixture(&'static str, &'static str, &'static str),
    /// An environment variable.
    Variable(&'static str, &'static str),
}

/// What must be told of it: a check, and how much the finding weighs.
#[derive(Debug)]
pub struct Case {
    /// Everything that is wrong.
    pub wrong: Vec<Wrong>,
    /// The check that must find it.
    pub check: &'static str,
    /// `blocker`, `warning` or `note`.
    pub severity: &'static str,
}

/// A case with one thing wrong.
#[must_use]
pub fn case(wrong: Wrong, check: &'static str, severity: &'static str) -> Case {
    Case { wrong: vec![wrong], check, severity }
}

/// The pools with one text in place of another.
#[must_use]
pub fn pools(from: &str, to: &str) -> Wrong {
    assert!(POOLS.contains(from), "{from}");
    Wrong::Parameter(POOLS.replacen(from, to, 1))
}

/// What became of a case.
#[derive(Debug)]
pub struct Verdict {
    /// Its check.
    pub check: &'static str,
    /// Nothing if it was found as it must be; else what happened instead.
    pub missed: Option<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A second text that is put in place of another is put into what the first one made.
fn altered(place: &TestEnvironment, present: &str, path: &Path, from: &str, to: &str) -> String {
    let source = if present.contains('/') { Path::new(present) } else { path };
    let text = std::fs::read_to_string(source).expect("a runbook");
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    let file = place.path().join(path.file_name().expect("a file"));
    std::fs::write(&file, text.replacen(from, to, 1)).expect("a file");
    file.display().to_string()
}

/// Makes one case wrong in a fresh world, plans and (if a blocker must stop it) runs, and looks at what was said.
///
/// # Panics
/// When the sandbox does not do as it is told.
#[must_use]
pub fn tried(place: &TestEnvironment, case: &Case) -> Verdict {
    place.run(&["sandbox", "reset"]).expect_code(0);
    let mut workflow = "deploy-aws-dev".to_owned();
    let (mut parameters, mut variables) = (Vec::new(), Vec::new());
    for wrong in &case.wrong {
        match wrong {
            Wrong::Account(fields) => drop(place.run(&["sandbox", "account", fields]).expect_code(0)),
            Wrong::Foreign(kind, name) => drop(place.run(&["sandbox", "foreign", kind, name]).expect_code(0)),
            Wrong::Parameter(text) => parameters.push(text.clone()),
            Wrong::Runbook(name, from, to) => {
                let path = root().join("../workflows/runbooks").join(format!("{name}.yaml"));
                workflow = altered(place, &workflow, &path, from, to);
            }
            Wrong::Fixture(name, from, to) => {
                workflow = altered(place, &workflow, &root().join("fixtures").join(name), from, to);
            }
            Wrong::Variable(name, value) => variables.push((*name, *value)),
        }
    }
    let before = place.counters()["mutating"]["total"].clone();
    let said = |verb: &str| -> Finished {
        let mut arguments = vec![verb, &workflow, "--sandbox", "--output", "json"];
        for parameter in &parameters {
            arguments.extend(["--set", parameter.as_str()]);
        }
        let mut command = place.command(&arguments);
        command.envs(variables.iter().copied());
        place.finish(command, &arguments)
    };
    let missed = judged(case, &said);
    let after = place.counters()["mutating"]["total"].clone();
    let missed = missed.or_else(|| (before != after).then(|| format!("{after} mutating calls, {before} before")));
    Verdict { check: case.check, missed }
}

fn judged(case: &Case, said: &dyn Fn(&str) -> Finished) -> Option<String> {
    if case.severity == "blocker" {
        let run = said("run");
        let line = format!("blocker  {}:", case.check);
        let stopped =
            [2, 6].contains(&run.code) && run.stderr.contains(&line) && run.stderr.contains("nothing was changed");
        return (!stopped).then(|| format!("run: exit {}: {}", run.code, run.stderr));
    }
    let plan = said("plan");
    let Ok(told) = serde_json::from_str::<Value>(&plan.stdout) else {
        return Some(format!("plan: exit {}: {}{}", plan.code, plan.stdout, plan.stderr));
    };
    let findings = told["preflight"]["findings"].as_array().cloned().unwrap_or_default();
    let found = findings.iter().find(|one| one["check"] == case.check && one["severity"] == case.severity);
    match found {
        Some(one)
            if ["evidence", "consequence", "remedy"]
                .iter()
                .all(|part| one[*part].as_str().is_some_and(|text| !text.is_empty())) =>
        {
            None
        }
        Some(one) => Some(format!("a part is missing: {one}")),
        None => {
            let ids: Vec<String> = findings.iter().map(|one| format!("{} {}", one["severity"], one["check"])).collect();
            Some(format!("plan told {}", ids.join(", ")))
        }
    }
}
