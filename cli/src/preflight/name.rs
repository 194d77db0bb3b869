//! Names as the runbook gives them: no longer than their services take, of letters that they take, none twice. What is
//! taken in the account is checked elsewhere.

use platflow_steps::preflight::{Check, Family, Finding, Subject};
use std::collections::BTreeMap;

static LENGTH: Check = Check::of_request("name.length", Family::Name, "No name is longer than its service takes");
static LETTERS: Check =
    Check::of_request("name.letters", Family::Name, "Names have no letters that their service refuses");
static RESERVED: Check =
    Check::of_request("name.reserved", Family::Name, "No name is one that its service keeps for itself");
static TWICE: Check = Check::of_request("name.twice", Family::Name, "No two steps of a kind have one name");

pub(super) static CHECKS: &[&Check] = &[&LENGTH, &LETTERS, &RESERVED, &TWICE];

/// Kind, field, longest name, letters beside ASCII letters and digits; from the API references.
const RULES: [(&str, &str, usize, &str); 8] = [
    ("aws.eks_cluster", "/name", 100, "-_"),
    ("aws.node_group", "/name", 63, "-_"),
    ("aws.iam_role", "/name", 64, "+=,.@-_"),
    ("aws.kms_key", "/alias", 256, "/_-:"),
    ("aws.log_group", "/name", 512, "_-/.#"),
    ("aws.launch_template", "/name", 128, "().-/_"),
    ("aws.security_group", "/name", 255, " ._-:/()#,@[]+=&;{}!$*"),
    ("kubernetes.namespace", "/name", 63, "-"),
];

/// Names within one parent may be the same.
const NAMED_IN_PARENT: [&str; 1] = ["aws.node_group"];

pub(super) fn examine(subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    for (kind, field, longest, letters) in RULES {
        let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
        for (step, name) in subject.named(kind, field) {
            if name.chars().count() > longest {
                found.push(LENGTH.blocker(
                    format!("{}: {name:?} has {} letters, {longest} are taken", step.name, name.chars().count()),
                    "the step would fail with a part of the others built",
                    "choose a shorter one (cluster_name is the beginning of most)",
                ));
            }
            let strange: String =
                name.chars().filter(|one| !(one.is_ascii_alphanumeric() || letters.contains(*one))).collect();
            let lower = kind == "kubernetes.namespace" && name.chars().any(|one| one.is_ascii_uppercase());
            let edge = ["kubernetes.namespace", "aws.eks_cluster", "aws.node_group"].contains(&kind)
                && (name.starts_with(['-', '_']) || (kind == "kubernetes.namespace" && name.ends_with('-')));
            if name.is_empty() || !strange.is_empty() || lower || edge {
                found.push(LETTERS.blocker(
                    format!("{}: {name:?} is no name for {kind}", step.name),
                    "its service refuses it",
                    "use letters, digits and hyphens; namespaces are lower-case",
                ));
            }
            if is_reserved(kind, name) {
                found.push(RESERVED.blocker(
                    format!("{}: {name:?}", step.name),
                    "its service keeps that name for itself",
                    "choose another one",
                ));
            }
            if let Some(other) = holders.insert(name, &step.name).filter(|_| !NAMED_IN_PARENT.contains(&kind)) {
                found.push(TWICE.blocker(
                    format!("{other} and {} are both called {name:?}", step.name),
                    "the second one would stop at the first",
                    "choose another name for one of them",
                ));
            }
        }
    }
    found
}

fn is_reserved(kind: &str, name: &str) -> bool {
    match kind {
        "aws.kms_key" => name.trim_start_matches("alias/").starts_with("aws/"),
        "aws.security_group" => name.starts_with("sg-") || name == "default",
        "aws.log_group" => name.starts_with("aws/"),
        "kubernetes.namespace" => name.starts_with("kube-") || name == "default",
        _ => false,
    }
}
