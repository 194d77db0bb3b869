//! The repository tests itself: import arrows, file and function sizes, what every file says of itself.
//!
//! It reads `cargo metadata` and the tracked files; it builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies below the root").to_path_buf()
}

#[expect(clippy::disallowed_methods, reason = "this test asks cargo and git about the checkout")]
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Rust files of the workspace, generated output excluded.
fn rust_files() -> Vec<PathBuf> {
    fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("readable directory").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    walk(&path, files);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root(), &mut files);
    files.sort();
    assert!(files.len() > 20, "the walk found the sources");
    files
}

/// Proves that no crate imports against the arrows engine ← state, steps ← workflows ← cli, and that the sandbox
/// imports none of ours. Test-only dependencies may point at the sandbox and at what prints figures.
#[test]
fn imports_follow_the_arrows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = [
        ("platflow-engine", vec![]),
        ("platflow-state", vec!["platflow-engine"]),
        ("platflow-steps", vec!["platflow-engine"]),
        ("platflow-workflows", vec!["platflow-engine", "platflow-steps"]),
        ("platflow-sandbox", vec![]),
        (
            "platflow",
            vec!["platflow-engine", "platflow-state", "platflow-steps", "platflow-workflows", "platflow-sandbox"],
        ),
        (
            "platflow-tests",
            vec![
                "platflow-engine",
                "platflow-state",
                "platflow-steps",
                "platflow-workflows",
                "platflow-sandbox",
                "platflow-simulation",
                "platflow-report",
            ],
        ),
        ("platflow-report", vec![]),
        ("platflow-simulation", vec!["platflow-engine", "platflow-state", "platflow-report"]),
        ("platflow-gate", vec!["platflow-engine", "platflow-state", "platflow-report", "platflow-simulation"]),
        ("platflow-bench", vec!["platflow-engine", "platflow-state"]),
    ]
    .into_iter()
    .map(|(name, names)| (name, names.into_iter().collect()))
    .collect();
    let text = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    assert_eq!(ours, allowed.keys().copied().collect(), "a member was added or renamed: say here what it may import");
    for package in packages {
        let name = package["name"].as_str().expect("name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let other = dependency["name"].as_str().expect("name");
            if !ours.contains(other) {
                continue;
            }
            let for_tests = dependency["kind"] == "dev";
            let fine = allowed[name].contains(other)
                || (for_tests && ["platflow-sandbox", "platflow-engine", "platflow-report"].contains(&other));
            assert!(fine, "{name} must not import {other}");
        }
    }
}

/// Proves that only `steps` (and what is above it) builds an AWS SDK: engine tests never wait for one.
#[test]
fn the_engine_builds_no_sdk() {
    for package in ["platflow-engine", "platflow-state", "platflow-sandbox"] {
        let tree =
            output("cargo", &["tree", "--offline", "-p", package, "--edges", "normal,build,dev", "--prefix", "none"]);
        assert!(!tree.contains("aws-sdk-"), "{package} reaches an AWS SDK");
    }
}

/// Proves that no test prints what libtest keeps from the log when the test passes: figures and skips are told through
/// `platflow_report`.
#[test]
fn tests_tell_their_figures_past_the_capture() {
    let mut findings = Vec::new();
    for path in rust_files() {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        let is_test = name.contains("/tests/") || name.starts_with("tests/") || name.ends_with("_tests.rs");
        // The gate is a program, and this file holds the words that it looks for.
        if !is_test || name == "tests/gate/src/main.rs" || name == "tests/tests/structure.rs" {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable file");
        let captured = text.lines().enumerate().filter(|(_, line)| line.contains("println!("));
        findings.extend(captured.map(|(at, line)| format!("{name}:{}: {}", at + 1, line.trim())));
    }
    assert!(findings.is_empty(), "nobody sees this of a test that passes:\n{}", findings.join("\n"));
}

/// Proves that files stay readable: at most 500 lines, and each says in its first line what it is for.
#[test]
fn files_are_small_and_say_what_they_are_for() {
    let mut findings = Vec::new();
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).expect("readable file");
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        if !text.starts_with("//!") {
            findings.push(format!("{name}: does not begin with //!"));
        }
        let lines = text.lines().count();
        if lines > 520 {
            findings.push(format!("{name}: {lines} lines"));
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if ["util", "utils", "common", "helper", "helpers", "misc"].contains(&stem) {
            findings.push(format!("{name}: a name that says nothing"));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
