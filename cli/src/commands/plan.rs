//! `platflow plan`: look at everything, change nothing, and say what a run would create, adopt, change or leave.
//!
//! The steps' own `observe` answers; the context it gets refuses every mutating call.

use crate::arguments::{self, OutputFormat};
use crate::connection::{self, Wanted};
use crate::failure::{CommandError, ExitCode};
use crate::looking::Looker;
use crate::settings::Settings;
use crate::views::output;
use crate::{identifiers, preflight, runbook, wiring};
use platflow_engine::drive::{Engine, Unobserved};
use platflow_engine::graph::{Graph, StepIndex};
use platflow_engine::journal::{Journal, RecordedStep};
use platflow_engine::name::StepName;
use platflow_engine::plan::{OutputLookup, Plan, PlannedStep, Resolved};
use platflow_engine::step::{Difference, Observation, Ownership, Progress};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a run would do with a step.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    Create,
    /// A check that every run makes anew and cleans up after.
    Check,
    Adopt,
    Leave,
    Change(Vec<Difference>),
    Replace(Vec<Difference>),
    Refuse(String),
    Skip(String),
    Unsure(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Check => "check",
            Self::Adopt => "adopt",
            Self::Leave => "leave",
            Self::Change(_) => "change",
            Self::Replace(_) => "replace",
            Self::Refuse(_) => "refuse",
            Self::Skip(_) => "skip",
            Self::Unsure(_) => "unsure",
        }
    }

    fn differences(&self) -> &[Difference] {
        match self {
            Self::Change(differences) | Self::Replace(differences) => differences,
            Self::Create
            | Self::Check
            | Self::Adopt
            | Self::Leave
            | Self::Refuse(_)
            | Self::Skip(_)
            | Self::Unsure(_) => &[],
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Refuse(reason) | Self::Skip(reason) | Self::Unsure(reason) => Some(reason),
            Self::Create | Self::Check | Self::Adopt | Self::Leave | Self::Change(_) | Self::Replace(_) => None,
        }
    }

    fn changes_something(&self) -> bool {
        matches!(self, Self::Create | Self::Change(_) | Self::Replace(_))
    }
}

#[derive(Default)]
struct Seen {
    outputs: HashMap<StepName, Value>,
    skipped: HashMap<StepName, ()>,
}

impl Seen {
    /// What the steps want the operator to know before a run.
    fn warnings(&self) -> Vec<String> {
        let told = self.outputs.values().filter_map(|outputs| outputs.get("warnings")?.as_array()).flatten();
        told.filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

impl OutputLookup for Seen {
    fn outputs(&self, step: &StepName) -> Option<&Value> {
        self.outputs.get(step)
    }
    fn skipped(&self, step: &StepName) -> bool {
        self.skipped.contains_key(step)
    }
}

/// Observes and prints.
///
/// # Errors
/// What also stops a run before its first fact. Exit 3 when there is something to do.
pub(crate) async fn execute(arguments: arguments::Plan, settings: &Settings) -> Result<ExitCode, CommandError> {
    let arguments::Plan { workflow: arguments, refresh } = arguments;
    let descriptions = wiring::descriptions(settings).await?;
    let mut compiled = runbook::load(&arguments, &descriptions, settings, None)?;
    let run = identifiers::run_id()?;
    runbook::refresh(&mut compiled.plan, &refresh, &run)?;
    let wanted = Wanted { account: arguments.account.clone(), region: arguments.region.clone() };
    let store = wiring::open_store(settings)?;
    let (connection, row) = connection::connect(settings, &store, &compiled.plan.environment, &wanted).await?;
    let checked = preflight::of_plan(settings, &store, &connection, &compiled.plan, row.as_ref()).await?;
    let record = match &row {
        Some(row) => store.record(&row.uid).await.map_err(wiring::journal_error)?,
        None => Vec::new(),
    };
    let engine = wiring::engine(settings, &store, &connection, Arc::new(Unobserved), None).await?;
    let uid = match row {
        Some(row) => row.uid,
        None => identifiers::environment_uid()?,
    };
    let survey = Survey {
        engine: &engine,
        looker: Looker { engine: &engine, environment: compiled.plan.environment.clone(), uid, run },
        plan: &compiled.plan,
        record: record.into_iter().map(|step| (step.step.clone(), step)).collect(),
    };
    let (verdicts, seen) = survey.all().await?;
    show(settings, &compiled.plan, &verdicts, &seen.warnings(), &checked)?;
    let something = verdicts.values().any(Verdict::changes_something);
    Ok(if something { ExitCode::Changes } else { ExitCode::Done })
}

/// Whether a step has something to do.
fn is_open(found: &Observation) -> bool {
    match found {
        Observation::Present { differences, .. } => !differences.is_empty(),
        Observation::Absent => true,
        Observation::Changing { .. } | Observation::Unknown { .. } => false,
    }
}

struct Survey<'a> {
    engine: &'a Engine,
    looker: Looker<'a>,
    plan: &'a Plan,
    record: BTreeMap<StepName, RecordedStep>,
}

impl Survey<'_> {
    async fn all(&self) -> Result<(BTreeMap<StepName, Verdict>, Seen), CommandError> {
        let graph = Graph::new(&Arc::new(self.plan.clone())).map_err(|error| CommandError::usage(error.to_string()))?;
        let mut seen = Seen::default();
        let mut verdicts: BTreeMap<StepName, Verdict> = BTreeMap::new();
        let layers: Vec<Vec<StepIndex>> = graph.layers().into_values().collect();
        for index in layers.into_iter().flatten() {
            let Some(step) = graph.step(index) else { continue };
            // A step whose inputs come from what does not exist yet cannot exist either.
            let unbuilt =
                step.needs.iter().any(|need| !seen.outputs.contains_key(need) && !seen.skipped.contains_key(need));
            let verdict = if unbuilt && !self.record.contains_key(&step.name) {
                Verdict::Create
            } else {
                self.one(step, &mut seen).await
            };
            if let Verdict::Skip(_) = verdict {
                seen.skipped.insert(step.name.clone(), ());
            }
            verdicts.insert(step.name.clone(), verdict);
        }
        Ok((verdicts, seen))
    }

    async fn one(&self, step: &PlannedStep, seen: &mut Seen) -> Verdict {
        let recorded = self.record.get(&step.name);
        let spec = match self.engine.resolver.resolve(self.plan, step, seen) {
            Ok(Resolved::Spec(spec)) => spec,
            Ok(Resolved::Skip { reason }) => return Verdict::Skip(reason),
            Err(_) if recorded.is_none() => return Verdict::Create,
            Err(error) => return Verdict::Unsure(error.to_string()),
        };
        let Some(kind) = self.engine.catalog.step(&step.kind) else {
            return Verdict::Unsure(format!("no step kind {}", step.kind));
        };
        let known = Looker::known(recorded);
        let context = self.looker.context(&step.name, recorded);
        match kind.observe(&spec, &known, &context).await {
            Ok(Observation::Absent) if step.kind.as_str().starts_with("smoke.") => Verdict::Check,
            Ok(found) if step.kind.as_str() == "aws.lookups" && is_open(&found) => {
                // Asking is all that this kind does: what follows from the answers is worth showing.
                match kind.apply(&spec, &found, &known, &context).await {
                    Ok(Progress::Done { outputs }) => {
                        seen.outputs.insert(step.name.clone(), outputs);
                        match found {
                            Observation::Present { differences, .. } => Verdict::Change(differences),
                            _ => Verdict::Create,
                        }
                    }
                    Ok(Progress::Waiting { reason, .. }) => Verdict::Unsure(reason),
                    Err(error) => Verdict::Refuse(error.to_string()),
                }
            }
            Ok(Observation::Absent) => Verdict::Create,
            Ok(Observation::Present { ownership: Ownership::Foreign(owner), .. }) => {
                Verdict::Refuse(format!("it exists and belongs to {owner}"))
            }
            Ok(Observation::Present { outputs, differences, .. }) => {
                seen.outputs.insert(step.name.clone(), outputs);
                if differences.iter().any(|difference| difference.replace) {
                    Verdict::Replace(differences)
                } else if !differences.is_empty() {
                    Verdict::Change(differences)
                } else if recorded.is_some() {
                    Verdict::Leave
                } else {
                    Verdict::Adopt
                }
            }
            Ok(Observation::Changing { reason, .. } | Observation::Unknown { reason }) => Verdict::Unsure(reason),
            Err(error) => Verdict::Unsure(error.to_string()),
        }
    }
}

fn show(
    settings: &Settings,
    plan: &Plan,
    verdicts: &BTreeMap<StepName, Verdict>,
    warnings: &[String],
    checked: &preflight::Report,
) -> Result<(), CommandError> {
    let kind = |name: &StepName| {
        plan.steps.iter().find(|step| step.name == *name).map(|step| step.kind.to_string()).unwrap_or_default()
    };
    if settings.output != OutputFormat::Text {
        let steps: Vec<Value> = verdicts
            .iter()
            .map(|(name, verdict)| {
                json!({
                    "name": name,
                    "kind": kind(name),
                    "action": verdict.word(),
                    "differences": verdict.differences(),
                    "reason": verdict.reason(),
                })
            })
            .collect();
        return output::json(&json!({
            "schema_version": 1,
            "workflow": plan.workflow,
            "environment": plan.environment,
            "steps": steps,
            "warnings": warnings,
            "preflight": checked.to_json(),
        }));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, verdict) in verdicts {
        *counts.entry(verdict.word()).or_default() += 1;
        let reason = verdict.reason().map(|reason| format!("  {reason}")).unwrap_or_default();
        output::line(&format!("{:<8} {:<42} {}{reason}", verdict.word(), name, kind(name)))?;
        for difference in verdict.differences() {
            output::line(&format!("           {}: {} -> {}", difference.field, difference.found, difference.wanted))?;
        }
    }
    for warning in warnings {
        output::line(&format!("warning: {warning}"))?;
    }
    checked.print()?;
    let summary: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    output::line(&format!("{}: {}; nothing was changed", plan.environment, summary.join(", ")))
}
