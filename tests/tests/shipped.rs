//! The shipped runbooks against the real step kinds, and the documents that are generated from them.
//!
//! Compiling them against a fixture of schemas is the language's own test; here the schemas are those of the binary.

use platflow_tests::TestEnvironment;
use std::path::{Path, PathBuf};

/// Proves that every shipped runbook is valid against the kinds of this binary, without a warning.
#[test]
fn every_shipped_runbook_is_valid() {
    let place = TestEnvironment::new();
    for (name, extra) in [
        ("deploy-aws-dev", None),
        ("deploy-aws-staging", None),
        ("deploy-aws-production", Some("public_access_cidrs=[198.51.100.0/24]")),
    ] {
        let mut arguments = vec!["validate", name, "--output", "json"];
        if let Some(extra) = extra {
            arguments.extend(["--set", extra]);
        }
        let answer = place.run(&arguments).expect_code(0).json();
        assert!(answer["steps"].as_array().is_some_and(|steps| steps.len() > 60), "{answer}");
        assert_eq!(answer["warnings"], serde_json::json!([]), "{answer}");
    }
    let refused = place.run(&["validate", "deploy-aws-production"]).expect_code(2);
    assert!(refused.stderr.contains("public_access_cidrs"), "production has no default for it: {}", refused.stderr);
}

/// Proves that the reference in the repository is the one that the binary generates.
#[test]
fn the_reference_is_current() {
    let place = TestEnvironment::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/steps.md");
    let found = std::fs::read_to_string(&file).expect("docs/reference/steps.md");
    let wanted = place.run(&["reference", "steps"]).expect_code(0).stdout;
    assert!(found == wanted, "regenerate it: platflow reference steps > docs/reference/steps.md");
}

/// Proves that the language's own tests check runbooks against the kinds that the binary has.
#[test]
fn the_kinds_of_the_language_tests_are_current() {
    let place = TestEnvironment::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workflows/tests/fixture/kinds.json");
    let found = std::fs::read_to_string(&file).expect("kinds.json");
    let found: serde_json::Value = serde_json::from_str(&found).expect("JSON");
    let wanted = place.run(&["reference", "kinds"]).expect_code(0).json();
    assert!(found == wanted, "regenerate it: platflow reference kinds > workflows/tests/fixture/kinds.json");
}

/// Proves that the schema for editors describes every kind of the reference.
#[test]
fn the_schema_describes_every_kind() {
    let place = TestEnvironment::new();
    let schema = place.run(&["reference", "schema"]).expect_code(0).json();
    let reference = place.run(&["reference", "steps"]).expect_code(0).stdout;
    let kinds: Vec<&str> = reference.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert!(kinds.len() > 40, "the reference has another form: {kinds:?}");
    for kind in kinds {
        assert!(schema["$defs"][kind].is_object(), "{kind} is not in the schema");
    }
}

/// Proves that every link between the documents leads to a file, and that every command shown in them exists.
#[test]
fn the_documents_hold_together() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let commands = TestEnvironment::new().run(&["--help"]).expect_code(0).stdout;
    let commands: Vec<&str> = commands.lines().filter_map(|line| line.trim_start().split(' ').next()).collect();
    let (mut links, mut shown) = (0, 0);
    for file in documents(&root) {
        let text = std::fs::read_to_string(&file).expect("a document");
        let here = file.parent().expect("a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(here.join(target).exists(), "{}: {target} does not exist", file.display());
            links += 1;
        }
        for line in text.lines().filter_map(|line| line.strip_prefix("$ platflow ")) {
            let verb = line.split(' ').next().unwrap_or_default();
            assert!(commands.contains(&verb), "{}: platflow {verb} does not exist", file.display());
            shown += 1;
        }
    }
    assert!(links > 5 && shown > 5, "{links} links, {shown} commands: the documents are written otherwise");
}

fn documents(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "md") {
                found.push(entry);
            }
        }
    }
    found
}
