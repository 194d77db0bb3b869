//! The shipped runbooks against the real step kinds, and the documents that are generated from them.
//!
//! Compiling them against a fixture of schemas is the language's own test; here the schemas are those of the binary.

use platflow_tests::TestEnvironment;
use std::path::Path;

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
        assert_eq!(answer["warnings"]["list"].as_array().map(Vec::len).unwrap_or_default(), 0, "{answer}");
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
