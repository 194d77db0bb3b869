//! A gallery of bad runbooks: what is said about each, word for word, with place, line, caret and hint.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test by panicking")]

mod fixture;

use fixture::catalog;
use platflow_workflows::{CompileOptions, Findings, Library, ParameterValues, Source, compile};
use std::path::{Path, PathBuf};

fn gallery() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gallery")
}

fn findings(name: &str, text: &str, set: &[&str]) -> Findings {
    let mut values = ParameterValues::default();
    for assignment in set {
        if let Err(findings) = values.set(assignment) {
            return findings;
        }
    }
    let source = Source::new(name, text);
    compile(&Library::new(), &source, &catalog(), &values, &CompileOptions::default())
        .expect_err("a bad runbook must not compile")
}

/// Proves that every bad runbook of the gallery is refused with exactly the expected text, and that each finding has a
/// file, a line, a column and the line itself.
#[test]
fn bad_runbooks_are_explained() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(gallery()).expect("the gallery") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        let found = findings(&name, &text, &[]);
        for finding in found.list.iter().filter(|finding| finding.file == name) {
            assert!(finding.line >= 1 && finding.column >= 1, "{name}: {finding:?}");
            assert_eq!(text.lines().nth(finding.line - 1).unwrap_or(""), finding.source_line, "{name}");
        }
        let actual = found.plain();
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        if actual != expected {
            wrong.push(format!("=== {name} should say\n{expected}--- and says\n{actual}"));
        }
    }
    assert!(seen >= 25, "only {seen} bad runbooks");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Proves that bad parameter values are refused with the assignment itself as the line.
#[test]
fn bad_parameters_point_at_the_command_line() {
    let text = "workflow: w\nenvironment: e\nparameters:\n  nodes: {type: integer, default: 3, maximum: 9}\n  size: \
                {type: string, enum: [small, large], default: small}\nsteps:\n  ip:\n    kind: aws.elastic_ip\n    \
                spec: {name: \"${params.size}-${params.nodes}\"}\n";
    for (set, line, hint) in [
        ("node=3", "command line:1:7: error[unknown-parameter]: there is no parameter 'node'", "did you mean 'nodes'?"),
        ("nodes=many", "command line:1:13: error[parameter]: parameter 'nodes' must be an integer, not 'many'", ""),
        ("nodes=10", "command line:1:13: error[parameter]: parameter 'nodes' must be at most 9, not 10", ""),
        ("size=smal", "command line:1:12: error[parameter]: parameter 'size' must be one of small, large", "'small'"),
        ("size", "command line:1:7: error[parameter]: a parameter is set with 'name=value'", "--set size=<value>"),
    ] {
        let plain = findings("w.yaml", text, &[set]).plain();
        assert!(plain.starts_with(line), "{set}: {plain}");
        assert!(plain.contains(&format!("| --set {set}")) && plain.contains(hint), "{set}: {plain}");
    }
}

/// Proves that the fancy report carries place and hint, and colour codes only when asked for.
#[test]
fn reports_are_rendered_with_and_without_colour() {
    let text = std::fs::read_to_string(gallery().join("unknown-kind.yaml")).expect("readable");
    let found = findings("unknown-kind.yaml", &text, &[]);
    let plain = found.render(false, 100);
    assert!(plain.contains("unknown-kind.yaml:5:11") && plain.contains("did you mean 'aws.vpc'"), "{plain}");
    assert!(!plain.contains('\u{1b}'));
    assert!(found.render(true, 100).contains('\u{1b}'));
    let json = serde_json::to_value(&found).expect("JSON");
    assert_eq!(json[0]["line"], 5);
    assert_eq!(json[0]["code"], "unknown-kind");
}

/// Proves that an unknown workflow is answered with its near matches, and a missing file with what the system says.
#[test]
fn unknown_workflows_have_near_matches() {
    let error = Library::new().find("deploy-aws-dve").expect_err("unknown").to_string();
    assert!(error.starts_with("there is no workflow 'deploy-aws-dve'; did you mean 'deploy-aws-dev'"), "{error}");
    let error = Library::new().find("./nowhere.yaml").expect_err("missing").to_string();
    assert!(error.starts_with("cannot read ./nowhere.yaml: "), "{error}");
}
