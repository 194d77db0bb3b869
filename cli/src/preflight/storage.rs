//! Volumes that steps claim: there is a class for them, encrypted, that they name right.

use platflow_steps::preflight::{Check, Family, Finding, Subject};

static DEFAULT: Check = Check::of_request(
    "storage.default-class",
    Family::Storage,
    "There is a default storage class where volumes are claimed without one",
);
static SEVERAL: Check =
    Check::of_request("storage.several-defaults", Family::Storage, "There is one default storage class at most");
static NAMED: Check = Check::of_request("storage.class", Family::Storage, "Storage classes that steps name exist");
static ENCRYPTED: Check =
    Check::of_request("storage.encryption", Family::Storage, "Volumes of storage classes are encrypted");
static BINDING: Check =
    Check::of_request("storage.binding", Family::Storage, "Volumes are made in the zone of their pod");

pub(super) static CHECKS: &[&Check] = &[&DEFAULT, &SEVERAL, &NAMED, &ENCRYPTED, &BINDING];

pub(super) fn examine(subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    let classes: Vec<_> = subject.of_kind("kubernetes.storage_class").collect();
    let defaults: Vec<&str> =
        classes.iter().filter(|step| step.is("/default")).map(|step| step.name.as_str()).collect();
    if defaults.len() > 1 {
        found.push(SEVERAL.warning(
            format!("{} are all the default", defaults.join(", ")),
            "which one a claim gets is the newest one's luck",
            "let one be the default",
        ));
    }
    for step in subject.of_kind("vault.install").filter(|_| subject.has("aws.eks_cluster")) {
        match step.text("/storage_class") {
            Some(name) if !classes.is_empty() && !classes.iter().any(|class| class.text("/name") == Some(name)) => {
                found.push(NAMED.blocker(
                    format!("{} wants storage class {name}, and no step makes it", step.name),
                    "its volumes stay pending, and the run waits for them in vain",
                    "name a class that a step makes",
                ));
            }
            // A class that another step will name is that step's.
            None if step.lacks("/storage_class") && defaults.is_empty() => found.push(DEFAULT.blocker(
                format!("{} claims volumes of the default storage class, and there is none", step.name),
                "clusters have none since Kubernetes 1.30: its volumes stay pending",
                "add a step of kind kubernetes.storage_class with default: true, or name a class",
            )),
            _ => {}
        }
    }
    for step in classes.iter().filter(|step| step.text("/provisioner") == Some("ebs.csi.aws.com")) {
        if step.text("/parameters/encrypted") != Some("true") {
            found.push(ENCRYPTED.warning(
                format!("{} makes volumes without encrypted: \"true\"", step.name),
                "unless the account encrypts by default, data lies in clear",
                "set parameters: {encrypted: \"true\"}",
            ));
        }
        if step.text("/volume_binding_mode").is_some_and(|mode| mode != "WaitForFirstConsumer") {
            found.push(BINDING.warning(
                format!("{} makes volumes before their pod has a node", step.name),
                "a volume in one zone and a pod that only fits in another never meet",
                "set volume_binding_mode: WaitForFirstConsumer",
            ));
        }
    }
    found
}
