//! The shapes of runs that are measured: chains, wide graphs, layers. No sense in their steps.

use platflow_engine::kind::Catalog;
use platflow_engine::name::{EnvironmentName, InvalidName, KindName, StepName, WorkflowName};
use platflow_engine::plan::{OnFailure, Plan, PlannedStep};
use platflow_engine::step::UndoPlan;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The kind of every step.
pub(crate) const KIND: &str = "bench.nothing";
/// How wide a layer is, and how many of the layer before each of its steps needs.
const LAYER: usize = 1_000;
const PREDECESSORS: usize = 3;

/// A shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Shape {
    /// Each step needs the one before.
    Chain,
    /// One, then all but two of them at once, then one.
    Wide,
    /// Layers of a thousand, each step needing three of the layer before.
    Layered,
}

fn step(number: usize, needs: &[usize]) -> Result<PlannedStep, InvalidName> {
    Ok(PlannedStep {
        name: name(number)?,
        kind: KindName::new(KIND)?,
        spec: json!({ "number": number }),
        when: None,
        needs: needs.iter().map(|need| name(*need)).collect::<Result<_, _>>()?,
        undo_after: Vec::new(),
        undo: UndoPlan::Own,
        timeout: None,
        retry_for: None,
        expected: Duration::from_secs(1),
        description: None,
    })
}

// Names of one length, so that their order is that of their numbers.
fn name(number: usize) -> Result<StepName, InvalidName> {
    StepName::new(format!("step-{number:07}"))
}

fn needs(shape: Shape, number: usize, steps: usize) -> Vec<usize> {
    match shape {
        _ if number == 0 => Vec::new(),
        Shape::Chain => vec![number - 1],
        Shape::Wide if number + 1 == steps => (1..number).collect(),
        Shape::Wide => vec![0],
        Shape::Layered if number < LAYER => Vec::new(),
        Shape::Layered => {
            let before = number / LAYER * LAYER - LAYER;
            (0..PREDECESSORS).map(|hop| before + (number + hop * 331) % LAYER).collect()
        }
    }
}

/// A plan of that many steps.
pub(crate) fn plan(shape: Shape, steps: usize, environment: &str) -> Result<Plan, InvalidName> {
    let steps = (0..steps)
        .map(|number| {
            let mut needs = needs(shape, number, steps);
            needs.sort_unstable();
            step(number, &needs)
        })
        .collect::<Result<_, _>>()?;
    Ok(Plan {
        workflow: WorkflowName::new("bench")?,
        environment: EnvironmentName::new(environment)?,
        parameters: BTreeMap::new(),
        steps,
        on_failure: OnFailure::Park,
        only: None,
    })
}

/// The catalog of the one kind.
pub(crate) fn catalog(step: std::sync::Arc<dyn platflow_engine::step::Step>) -> Result<Catalog, InvalidName> {
    let mut catalog = Catalog::default();
    let description = platflow_engine::kind::KindDescription {
        name: KindName::new(KIND)?,
        summary: "nothing",
        spec_schema: json!({}),
        outputs_schema: json!({}),
        undo: platflow_engine::kind::UndoDefault::Own,
        settle: Duration::ZERO,
        expected: Duration::from_secs(1),
        holds_data: false,
    };
    catalog.insert(description, step);
    Ok(catalog)
}
