//! A check written down for people, pull requests, test reports (JUnit) and code scanning (SARIF 2.1.0).
//!
//! Pure: text in, text out. JUnit as <https://github.com/testmoapp/junitxml> describes it, SARIF as
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/> does.

use super::{Check, Deviation, Drifted};
use serde_json::{Value, json};
use std::fmt::Write;

/// As one JSON object.
pub(crate) fn json(check: &Check) -> Value {
    json!({
        "schema_version": 1,
        "environment": check.environment,
        "checked_at": check.checked_at,
        "compared": check.compared,
        "passed_over": check.passed_over,
        "drifted": !check.findings.is_empty(),
        "findings": check.findings,
        "untold": check.untold,
    })
}

fn summary(check: &Check) -> String {
    let steps = format!("{} steps compared", check.compared);
    let untold = match check.untold.len() {
        0 => String::new(),
        count => format!(", {count} could not be told"),
    };
    match check.findings.len() {
        0 => format!("{}: no drift; {steps}{untold}", check.environment),
        1 => format!("{}: 1 finding; {steps}{untold}", check.environment),
        count => format!("{}: {count} findings; {steps}{untold}", check.environment),
    }
}

/// For people: what drifted, then the commands that lead on.
pub(crate) fn text(check: &Check) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    for one in &check.findings {
        let _ = writeln!(text, "{}  {:<9} {:<42} {}", one.id, one.word(), one.subject(), one.kind);
        let _ = writeln!(text, "          {}", one.line());
    }
    for one in &check.untold {
        let _ = writeln!(text, "untold    {:<42} {}", one.step, one.reason);
    }
    let _ = writeln!(text, "{}", summary(check));
    text
}

/// A cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// As a Markdown section.
pub(crate) fn markdown(check: &Check) -> String {
    let mut text = format!("### Drift of {}\n\n{}\n", check.environment, summary(check));
    if !check.findings.is_empty() {
        text.push_str("\n| id | | what | kind | finding |\n| --- | --- | --- | --- | --- |\n");
    }
    for one in &check.findings {
        let parts = [&one.id, one.word(), one.subject(), &one.kind, &one.line()].map(cell);
        let _ = writeln!(text, "| {} |", parts.join(" | "));
    }
    if !check.untold.is_empty() {
        text.push_str("\nCould not be told:\n\n");
    }
    for one in &check.untold {
        let _ = writeln!(text, "- `{}`: {}", one.step, cell(&one.reason));
    }
    text
}

/// Text of an XML 1.0 attribute or element: five entities, and nothing that XML cannot carry.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// As a JUnit report: a failure per finding, an error per step that could not be told, and one case for all that is as
/// recorded.
pub(crate) fn junit(check: &Check) -> String {
    let (failures, errors) = (check.findings.len(), check.untold.len());
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"", failures + errors + 1);
    let _ = writeln!(text, "<testsuites name=\"platflow drift\" {counts}>");
    let name = xml(check.environment.as_str());
    let _ = writeln!(text, "  <testsuite name=\"{name}\" timestamp=\"{}\" {counts}>", check.checked_at);
    let _ = writeln!(text, "    <testcase classname=\"{name}\" name=\"{} steps compared\"/>", check.compared);
    for one in &check.findings {
        let (subject, line) = (xml(one.subject()), xml(&one.line()));
        let _ = writeln!(text, "    <testcase classname=\"{}\" name=\"{subject} {}\">", xml(&one.kind), one.id);
        let _ = writeln!(text, "      <failure type=\"{}\" message=\"{line}\"/>\n    </testcase>", one.word());
    }
    for one in &check.untold {
        let _ = writeln!(text, "    <testcase classname=\"untold\" name=\"{}\">", xml(&one.step));
        let _ = writeln!(text, "      <error type=\"untold\" message=\"{}\"/>\n    </testcase>", xml(&one.reason));
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// Every kind of finding, with what it means.
const RULES: [(&str, &str); 5] = [
    ("changed", "A field that platflow manages has another value than the one on record."),
    ("missing", "Something on record does not exist."),
    ("foreign", "What is in the place of something on record belongs to somebody else."),
    ("unhealthy", "The cloud reports a health issue of something on record."),
    ("extra", "Something that no step made is in a VPC or a cluster of the environment."),
];

fn level(one: &Drifted) -> &'static str {
    match one.deviation {
        Deviation::Missing | Deviation::Foreign { .. } => "error",
        Deviation::Changed { .. } | Deviation::Unhealthy { .. } => "warning",
        Deviation::Extra { .. } => "note",
    }
}

/// As SARIF 2.1.0. Findings lie at logical places: the environment and the step.
pub(crate) fn sarif(check: &Check) -> Value {
    let rules: Vec<Value> = RULES
        .iter()
        .map(|(id, text)| json!({"id": id, "shortDescription": {"text": text}, "fullDescription": {"text": text}}))
        .collect();
    let results: Vec<Value> = check
        .findings
        .iter()
        .map(|one| {
            let place = format!("{}/{}", check.environment, one.subject());
            json!({
                "ruleId": one.word(),
                "level": level(one),
                "message": {"text": format!("{} ({}): {}", one.subject(), one.kind, one.line())},
                "partialFingerprints": {"platflow/v1": one.id},
                "locations": [{
                    "physicalLocation": {"artifactLocation": {"uri": format!("platflow/{}", check.environment)}},
                    "logicalLocations": [{"fullyQualifiedName": place, "kind": "resource"}],
                }],
            })
        })
        .collect();
    let notes: Vec<Value> = check
        .untold
        .iter()
        .map(|one| json!({"level": "warning", "message": {"text": format!("{}: {}", one.step, one.reason)}}))
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "platflow", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "invocations": [{"executionSuccessful": check.untold.is_empty(), "toolExecutionNotifications": notes}],
            "results": results,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::Untold;
    use jiff::Timestamp;
    use platflow_engine::name::{EnvironmentName, StepName};

    fn check() -> Check {
        let step = StepName::new("network.vpc").expect("a name");
        let deviation = Deviation::Changed {
            field: "/tags".to_owned(),
            recorded: json!({"a": "<b> & \"c\" | d"}),
            found: json!({}),
            replace: false,
        };
        Check {
            environment: EnvironmentName::new("aws-dev").expect("a name"),
            checked_at: Timestamp::UNIX_EPOCH,
            compared: 2,
            passed_over: 1,
            findings: vec![
                Drifted::of_step(&step, "aws.vpc", deviation),
                Drifted::extra("ec2:subnet", "subnet-1", "vpc-1 (network.vpc)", "not made\nby platflow"),
            ],
            untold: vec![Untold { step: "vault.unseal".to_owned(), reason: "no answer \u{1}".to_owned() }],
        }
    }

    /// Proves that what others wrote into the cloud cannot break the reports: markup is escaped, tables keep their columns.
    #[test]
    fn what_is_found_cannot_break_a_report() {
        let check = check();
        let junit = junit(&check);
        assert!(junit.contains("&lt;b&gt; &amp; \\&quot;c\\&quot;"), "{junit}");
        assert!(!junit.contains('\u{1}'), "{junit:?}");
        assert_eq!(junit.matches("<testcase").count(), 4);
        let markdown = markdown(&check);
        let rows: Vec<&str> = markdown.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(rows.len(), 4, "{markdown}");
        for row in rows {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 6, "{row}");
        }
        assert!(text(&check).ends_with("aws-dev: 2 findings; 2 steps compared, 1 could not be told\n"));
    }

    /// Proves that every finding is a result whose rule is declared, and that the untold is no silent success.
    #[test]
    fn sarif_declares_the_rules_it_uses() {
        let report = sarif(&check());
        let run = &report["runs"][0];
        let rules: Vec<&Value> = run["tool"]["driver"]["rules"].as_array().expect("rules").iter().collect();
        for result in run["results"].as_array().expect("results") {
            assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]), "{result}");
        }
        assert_eq!(run["results"].as_array().map(Vec::len), Some(2));
        assert_eq!(run["invocations"][0]["executionSuccessful"], json!(false));
    }
}
