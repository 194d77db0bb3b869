//! The language itself: modules, for_each, references, skipping, and that nothing an author writes makes it panic.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test by panicking")]

mod fixture;

use fixture::catalog;
use platflow_engine::name::StepName;
use platflow_engine::plan::{OutputLookup, PlannedStep, Resolve, Resolved};
use platflow_workflows::{CompileOptions, Compiled, Findings, Library, ParameterValues, Resolver, Source, compile};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Known {
    outputs: BTreeMap<String, Value>,
    skipped: BTreeSet<String>,
}

impl OutputLookup for Known {
    fn outputs(&self, step: &StepName) -> Option<&Value> {
        self.outputs.get(step.as_str())
    }
    fn skipped(&self, step: &StepName) -> bool {
        self.skipped.contains(step.as_str())
    }
}

const PAIR: &str = r#"
module: pair
inputs:
  base: {type: any}
  names: {type: list}
steps:
  ip:
    kind: aws.elastic_ip
    for_each: ${inputs.names}
    spec: {name: "${inputs.base}-${each.key}-${each.index}"}
outputs:
  addresses: ${steps.ip.outputs.public_ip}
  first: ${steps.ip.outputs.public_ip[0]}
"#;

fn try_compile(text: &str) -> Result<Compiled, Findings> {
    let library = Library::new().with_module("pair", PAIR);
    let source = Source::new("test.yaml", text);
    compile(&library, &source, &catalog(), &ParameterValues::default(), &CompileOptions::default())
}

fn compiled(steps: &str) -> Compiled {
    let text =
        format!("workflow: w\nenvironment: e\nparameters:\n  on: {{type: boolean, default: true}}\nsteps:\n{steps}");
    try_compile(&text).unwrap_or_else(|findings| panic!("{}", findings.plain()))
}

fn step<'a>(compiled: &'a Compiled, name: &str) -> &'a PlannedStep {
    compiled.plan.steps.iter().find(|step| step.name.as_str() == name).unwrap_or_else(|| panic!("no step {name}"))
}

fn resolve(compiled: &Compiled, name: &str, known: &Known) -> Resolved {
    Resolver.resolve(&compiled.plan, step(compiled, name), known).expect("resolvable")
}

const CHAIN: &str = "  vpc:
    kind: aws.vpc
    spec: {name: x, cidr: 10.0.0.0/16}
  many:
    module: pair
    with:
      base: ${steps.vpc.outputs.vpc_id}
      names: [a, b]
  last:
    kind: aws.elastic_ip
    spec:
      name: ${steps.many.outputs.first}
      tags:
        all: ${steps.many.outputs.addresses.join(',')}
        on: ${string(params.on)}
        env: ${env.name}
";

/// Proves that modules and for_each become steps with path names, that dependencies follow references through module
/// inputs and outputs, and that expressions evaluate to what the author meant.
#[test]
fn modules_expand_and_references_pass_through() {
    let compiled = compiled(CHAIN);
    let names: Vec<&str> = compiled.plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["last", "many.ip.a", "many.ip.b", "vpc"]);
    let needs = |name: &str| step(&compiled, name).needs.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(needs("many.ip.a"), ["vpc"]);
    assert_eq!(needs("last"), ["many.ip.a", "many.ip.b"]);
    assert_eq!(compiled.groups["many"].len(), 2);
    let mut known = Known::default();
    known.outputs.insert("vpc".into(), json!({"vpc_id": "vpc-1"}));
    assert_eq!(resolve(&compiled, "many.ip.b", &known), Resolved::Spec(json!({"name": "vpc-1-b-1"})));
    known.outputs.insert("many.ip.a".into(), json!({"public_ip": "192.0.2.1"}));
    known.outputs.insert("many.ip.b".into(), json!({"public_ip": "192.0.2.2"}));
    let Resolved::Spec(spec) = resolve(&compiled, "last", &known) else { panic!("a spec") };
    assert_eq!(spec, json!({"name": "192.0.2.1", "tags": {"all": "192.0.2.1,192.0.2.2", "on": "true", "env": "e"}}));
}

/// Proves that an output that is not known yet is an error that names step and field, never a guess.
#[test]
fn unknown_outputs_are_errors() {
    let compiled = compiled(CHAIN);
    let error = Resolver.resolve(&compiled.plan, step(&compiled, "last"), &Known::default()).expect_err("unknown");
    assert_eq!(error.step.as_str(), "last");
    assert!(error.message.contains("not known yet"), "{error}");
    let mut known = Known::default();
    known.outputs.insert("vpc".into(), json!({}));
    let error = Resolver.resolve(&compiled.plan, step(&compiled, "many.ip.a"), &known).expect_err("no such output");
    assert_eq!(error.field, "/name");
}

/// Proves the rules of skipping: a false condition skips; a step all of whose references were skipped is skipped; with
/// some left, the skipped ones read as null.
#[test]
fn skipping_spreads_only_when_nothing_is_left() {
    let compiled = compiled(
        "  a:
    kind: aws.elastic_ip
    when: ${!params.on}
    spec: {name: a}
  b:
    kind: aws.elastic_ip
    spec: {name: b}
  only_a:
    kind: aws.elastic_ip
    spec: {name: \"${steps.a.outputs.public_ip}\"}
  both:
    kind: aws.elastic_ip
    spec: {name: \"${steps.a.outputs.public_ip == null ? steps.b.outputs.public_ip : steps.a.outputs.public_ip}\"}
  late:
    kind: aws.elastic_ip
    when: ${steps.b.outputs.public_ip.startsWith('192')}
    spec: {name: late}
",
    );
    let mut known = Known::default();
    assert!(matches!(resolve(&compiled, "a", &known), Resolved::Skip { .. }));
    known.skipped.insert("a".into());
    known.outputs.insert("b".into(), json!({"public_ip": "198.51.100.1"}));
    assert!(matches!(resolve(&compiled, "only_a", &known), Resolved::Skip { .. }));
    assert_eq!(resolve(&compiled, "both", &known), Resolved::Spec(json!({"name": "198.51.100.1"})));
    assert!(matches!(resolve(&compiled, "late", &known), Resolved::Skip { .. }));
}

/// Proves that a plan read back from JSON, as the store keeps it, resolves to the same.
#[test]
fn plans_survive_the_store() {
    let compiled = compiled(CHAIN);
    let text = serde_json::to_string(&compiled.plan).expect("JSON");
    let plan: platflow_engine::plan::Plan = serde_json::from_str(&text).expect("the same type");
    assert_eq!(plan, compiled.plan);
    assert_eq!(plan.digest().expect("JSON"), compiled.plan.digest().expect("JSON"));
}

/// Proves that the editor's schema and the reference know every kind.
#[test]
fn schema_and_reference_cover_the_catalog() {
    let catalog = catalog();
    let schema = platflow_workflows::schema(&catalog);
    let reference = platflow_workflows::reference(&catalog);
    for description in catalog.descriptions() {
        let name = description.name.as_str();
        assert!(schema["$defs"].get(name).is_some(), "{name}");
        assert!(reference.contains(&format!("\n### {name}\n")), "{name}");
    }
}

/// Proves that the runbook shown in the language's documentation compiles and repeats its steps as it says.
#[test]
fn the_documented_example_compiles() {
    let page = include_str!("../../docs/runbooks.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let compiled = try_compile(example).unwrap_or_else(|findings| panic!("{}", findings.plain()));
    let names: Vec<&str> = compiled.plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["gateway.blue", "gateway.red", "network.blue", "network.red"]);
    assert_eq!(step(&compiled, "network.red").spec["name"], "sandbox-net-red");
    assert_eq!(step(&compiled, "gateway.red").needs, vec!["network.red".parse::<StepName>().expect("a name")]);
}

/// Proves that neither deep nesting nor long chains exhaust the stack: they are refused or compiled, never fatal.
#[test]
fn deep_nesting_is_survived() {
    for open in ["[", "{a: ", "- ", "? ", "a:\n"] {
        let _ = try_compile(&open.repeat(20_000));
    }
    for (piece, end) in
        [("(", "1"), ("[", "1"), ("!", "true"), ("-", "1"), ("true ? 1 : ", "1"), ("1 + ", "1"), ("{'a': ", "1")]
    {
        let expression = format!("{}{end}", piece.repeat(10_000));
        let quoted = serde_json::to_string(&format!("${{{expression}}}")).expect("JSON");
        let text = format!(
            "workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: aws.elastic_ip\n    spec: {{name: {quoted}}}\n"
        );
        assert!(try_compile(&text).is_err(), "{piece}");
        let expression = format!("{}{end}", piece.repeat(300));
        let quoted = serde_json::to_string(&format!("${{{expression}}}")).expect("JSON");
        let text = format!(
            "workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: aws.elastic_ip\n    spec: {{name: {quoted}}}\n"
        );
        let _ = try_compile(&text);
    }
}

/// Proves that a module that uses itself, and one whose inputs feed on its own outputs, are refused and not followed.
#[test]
fn endless_modules_are_refused() {
    let library = Library::empty()
        .with_module("self", "module: self\nsteps:\n  again:\n    module: self\n")
        .with_module("echo", "module: echo\ninputs:\n  x: {type: any}\nsteps: {}\noutputs:\n  y: ${inputs.x}\n");
    for (steps, word) in [
        ("  a:\n    module: self\n", "nested deeper"),
        (
            "  a:\n    module: echo\n    with: {x: \"${steps.a.outputs.y}\"}\n  ip:\n    kind: aws.elastic_ip\n    spec: {name: \"${steps.a.outputs.y}\"}\n",
            "in a circle",
        ),
    ] {
        let source = Source::new("t.yaml", format!("workflow: w\nenvironment: e\nsteps:\n{steps}"));
        let found = compile(&library, &source, &catalog(), &ParameterValues::default(), &CompileOptions::default())
            .expect_err("endless");
        assert!(found.plain().contains(word), "{}", found.plain());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Proves that no text at all makes the parser or the checker panic.
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = try_compile(&text);
    }

    /// Proves that a damaged runbook (a piece cut out, doubled or replaced) never makes the checker panic, and that
    /// every finding's place exists.
    #[test]
    fn damaged_runbooks_never_panic(from in 0_usize..400, length in 0_usize..40, with in "[\\PC\\n ]{0,12}") {
        let text = format!("workflow: w\nenvironment: e\nparameters:\n  on: {{type: boolean, default: true}}\nsteps:\n{CHAIN}");
        let from = from.min(text.len());
        let to = (from + length).min(text.len());
        let damaged = format!("{}{with}{}", text.get(..from).unwrap_or(""), text.get(to..).unwrap_or(""));
        if let Err(findings) = try_compile(&damaged) {
            for finding in findings.list {
                prop_assert!(finding.line >= 1 && finding.line <= damaged.matches('\n').count() + 1);
            }
        }
    }

    /// Proves that no expression makes the checker panic.
    #[test]
    fn arbitrary_expressions_never_panic(expression in "[a-z0-9.'\"()\\[\\]{}+?:, $\\\\]{0,60}") {
        let quoted = serde_json::to_string(&format!("${{{expression}}}")).expect("JSON");
        let text = format!("workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: aws.elastic_ip\n    spec: {{name: {quoted}}}\n");
        let _ = try_compile(&text);
    }
}
