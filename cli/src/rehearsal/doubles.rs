//! Simulated steps: programs, requests and approvals of the user's own, answered from what the runbook declares.
//!
//! A simulated step remembers that it was applied, tells outputs of the declared types, and forgets when it is undone.
//! What the program would really do, only `rehearse: run` shows.

use crate::rehearsal::recorder::Recorder;
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Known, Observation, Ownership, Progress, Step, UndoProgress};
use platflow_sandbox::embedded::Embedded;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Stands in for one kind.
pub(super) struct Double {
    pub(super) kind: String,
    pub(super) recorder: Arc<Recorder>,
    pub(super) embedded: Arc<Embedded>,
}

/// A value of a declared type.
fn value_of(schema: &Value, step: &str, name: &str) -> Value {
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        Some("null") => Value::Null,
        _ => json!(format!("rehearsed-{}-{name}", step.replace('.', "-"))),
    }
}

impl Double {
    fn outputs(&self, spec: &Value, step: &str) -> Value {
        let mut outputs = Map::new();
        match self.kind.as_str() {
            "core.approval" => {
                let first = spec.pointer("/approvers/0").cloned().unwrap_or_else(|| json!("rehearsal"));
                outputs.insert("approved_by".to_owned(), first);
                outputs.insert("at".to_owned(), json!("2026-01-01T00:00:00Z"));
                outputs.insert("reason".to_owned(), Value::Null);
            }
            "core.wait" => {
                outputs.insert("waited_seconds".to_owned(), json!(0));
            }
            kind => {
                let declared = spec.get("outputs").and_then(Value::as_object);
                for (name, schema) in declared.into_iter().flatten() {
                    // A request declares where in the answer an output is, not its type.
                    let value = if kind == "core.http" {
                        value_of(&Value::Null, step, name)
                    } else {
                        value_of(schema, step, name)
                    };
                    outputs.insert(name.clone(), value);
                }
                if kind == "core.http" {
                    let status = spec.pointer("/expect_status/0").cloned().unwrap_or_else(|| json!(200));
                    outputs.insert("status".to_owned(), status);
                }
            }
        }
        Value::Object(outputs)
    }

    fn change(&self, context: &Context, made: Option<Value>) {
        let what = format!("{} of {}", if made.is_some() { "apply" } else { "undo" }, context.step);
        let (world, now_ms) = self.embedded.look(|world, now_ms| (world.clone(), now_ms));
        self.recorder.before_program(what.clone(), world, now_ms);
        self.recorder.change_thing(&context.step, made.map(|outputs| (self.kind.clone(), outputs)));
        let (world, now_ms) = self.embedded.look(|world, now_ms| (world.clone(), now_ms));
        self.recorder.after_program(&what, world, now_ms);
    }
}

#[async_trait]
impl Step for Double {
    async fn observe(&self, _spec: &Value, _known: &Known, context: &Context) -> Result<Observation, StepError> {
        Ok(match self.recorder.thing(&context.step) {
            None => Observation::Absent,
            Some(outputs) => Observation::Present { outputs, ownership: Ownership::Ours, differences: Vec::new() },
        })
    }

    async fn apply(
        &self,
        spec: &Value,
        _observed: &Observation,
        _known: &Known,
        context: &Context,
    ) -> Result<Progress, StepError> {
        context.begin("apply")?;
        let outputs = self.outputs(spec, context.step.as_str());
        self.change(context, Some(outputs.clone()));
        Ok(Progress::Done { outputs })
    }

    async fn undo(&self, _spec: &Value, _known: &Known, context: &Context) -> Result<UndoProgress, StepError> {
        context.begin("undo")?;
        if self.recorder.thing(&context.step).is_some() {
            self.change(context, None);
        }
        Ok(UndoProgress::Gone { evidence: "the simulated step is taken back".to_owned() })
    }
}
