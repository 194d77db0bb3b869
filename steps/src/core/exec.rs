//! `core.exec`: any program as a step, run under a guard so that it never outlives its engine or runs beside its retry.
//!
//! A program either speaks the three verbs (see [`super::answer`]) or is `plain`: run once at apply, exit code 0 is done.

use super::answer::{self, Told, last_line};
use super::{CoreSettings, plain, refused};
use crate::contract::{Made, Record, Seen, StepKind};
use crate::guard_process::{self, Ended, GuardError, Job};
use async_trait::async_trait;
use platflow_engine::context::{Context, token};
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::UndoProgress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Between being asked to end and being killed.
const GRACE_MS: u64 = 2_000;

/// How a program is talked to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// It speaks observe, apply and undo: a JSON object on stdin, one on stdout.
    #[default]
    Verbs,
    /// It is run at apply only. Exit code 0 is done; a JSON object on its stdout becomes the outputs.
    Plain,
}

/// Runs a program.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// Program and arguments. No shell is involved unless it is named here.
    pub command: Vec<String>,
    /// Where it runs; the working directory of platflow by default.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// Its environment, besides PATH, HOME and LANG. No secrets: specs are journaled.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// How it is talked to.
    #[serde(default)]
    pub protocol: Protocol,
    /// What a program that speaks the verbs gets as `spec`.
    #[serde(default)]
    pub input: Value,
    /// What a plain command reads.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Declared outputs: name and JSON Schema of each. All of them must be told.
    #[serde(default)]
    pub outputs: BTreeMap<String, Value>,
    /// It is killed with all that it started after this long in real time.
    #[serde(default = "timeout")]
    pub timeout_seconds: u64,
    /// A plain command that may run twice: after a crash it is run again instead of asking a human.
    #[serde(default)]
    pub idempotent: bool,
    /// What takes back what a plain command did; it must cope with running twice.
    #[serde(default)]
    pub undo_command: Vec<String>,
}

fn timeout() -> u64 {
    600
}

/// What the program told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ExecOutputs(pub BTreeMap<String, Value>);

/// The kind `core.exec`.
#[derive(Debug)]
pub struct Exec {
    settings: CoreSettings,
}

impl Exec {
    pub(super) fn new(settings: CoreSettings) -> Self {
        Self { settings }
    }

    fn lock(&self, context: &Context) -> PathBuf {
        // Generation 0: whatever generation still runs, it is in the way.
        let name = token(&context.environment_uid, &context.step, "guard", 0);
        self.settings.guard_folder.join(format!("{name}.lock"))
    }

    fn job(&self, command: &[String], spec: &ExecSpec, stdin: String, context: &Context) -> Job {
        Job {
            command: command.to_vec(),
            directory: spec.directory.clone(),
            environment: self.settings.environment(&spec.environment),
            stdin,
            timeout_ms: spec.timeout_seconds.saturating_mul(1_000),
            grace_ms: GRACE_MS,
            lock: self.lock(context),
        }
    }

    /// Runs one verb of a program that speaks them.
    async fn ask(
        &self,
        verb: &str,
        spec: &ExecSpec,
        record: &Record<ExecOutputs>,
        context: &Context,
    ) -> Result<(i32, String, String), StepError> {
        let job = self.job(&spec.command, spec, answer::request(verb, &spec.input, record, context), context);
        let reads = verb == "observe";
        exited(verb, self.run(&job, reads, context).await, spec, context)
    }

    async fn run(&self, job: &Job, reads: bool, context: &Context) -> Result<Ended, GuardError> {
        // An apply is let finish when the engine stops at the next safe point; a look is not worth waiting for.
        let go_on = || context.guard.lease_left().is_ok() && !(reads && context.cancelled.is_cancelled());
        guard_process::run(&self.settings.guard, job, go_on).await
    }

    async fn apply_plain(&self, spec: &ExecSpec, context: &Context) -> Result<Made<ExecOutputs>, StepError> {
        let job = self.job(&spec.command, spec, spec.stdin.clone().unwrap_or_default(), context);
        plain::started(context, &plain::digest(spec)).await?;
        let ended = self.run(&job, false, context).await;
        // Lost, or let go in the middle: how it ended is not known, and must not be noted as if it were.
        let known = !matches!(ended, Ok(Ended::Abandoned) | Err(GuardError::NoAnswer | GuardError::Pipe(_)));
        let outcome = exited("apply", ended, spec, context).and_then(|(code, stdout, stderr)| {
            if code != 0 {
                let message = format!("{} failed: {}", program(spec), last_line(&stderr));
                return Err(StepError::permanent(message).with_code(format!("exit {code}")));
            }
            // Output that is no JSON object is output for people, not a failure, unless outputs were promised.
            let told = serde_json::from_str::<Told>(&stdout).unwrap_or_default();
            check_outputs(spec, &told).map(|()| told)
        });
        if known {
            plain::ended(context, outcome.as_ref().ok()).await?;
        }
        outcome.map(|told| Made::Done(ExecOutputs(told)))
    }

    async fn undo_plain(
        &self,
        spec: &ExecSpec,
        record: &Record<ExecOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        if !plain::may_have_begun(record, outputs(record)) {
            return Ok(UndoProgress::Gone {
                evidence: "the journal shows that the command never ran, or was taken back".to_owned(),
            });
        }
        if spec.undo_command.is_empty() {
            return Ok(UndoProgress::Blocked {
                owner: format!("whatever {} did", program(spec)),
                remedy: plain::by_hand(context, "undo_command"),
            });
        }
        let job = self.job(&spec.undo_command, spec, String::new(), context);
        let (code, _, stderr) = exited("undo", self.run(&job, false, context).await, spec, context)?;
        if code != 0 {
            let message = format!("the undo command failed: {}", last_line(&stderr));
            return Err(StepError::permanent(message).with_code(format!("exit {code}")));
        }
        plain::undone(context, record).await?;
        Ok(UndoProgress::Gone { evidence: "the undo command ended with exit code 0".to_owned() })
    }
}

fn program(spec: &ExecSpec) -> &str {
    spec.command.first().map_or("the command", String::as_str)
}

fn outputs(record: &Record<ExecOutputs>) -> Option<&Told> {
    record.outputs.as_ref().map(|outputs| &outputs.0)
}

fn check(spec: &ExecSpec) -> Result<(), StepError> {
    if spec.command.first().is_none_or(String::is_empty) {
        return Err(refused("the command is empty"));
    }
    match spec.protocol {
        Protocol::Verbs if spec.stdin.is_some() => {
            Err(refused("`stdin` is for plain commands; a program that speaks the verbs gets `input`"))
        }
        Protocol::Verbs if !spec.undo_command.is_empty() || spec.idempotent => Err(refused(
            "`undo_command` and `idempotent` are for plain commands; a program that speaks the verbs has undo and observe",
        )),
        Protocol::Plain if !spec.input.is_null() => {
            Err(refused("`input` is for programs that speak the verbs; a plain command gets `stdin`"))
        }
        _ => Ok(()),
    }
}

/// All declared outputs must be there and of the declared type.
fn check_outputs(spec: &ExecSpec, told: &Told) -> Result<(), StepError> {
    for (name, schema) in &spec.outputs {
        let value = told.get(name).ok_or_else(|| {
            StepError::permanent(format!("{} did not tell the declared output {name:?}", program(spec)))
        })?;
        let fits = match schema.get("type").and_then(Value::as_str) {
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            Some("null") => value.is_null(),
            _ => true,
        };
        if !fits {
            return Err(StepError::permanent(format!(
                "output {name:?} of {} is not of the declared type",
                program(spec)
            )));
        }
    }
    Ok(())
}

/// What a run under the guard came to, if the command ended by itself.
fn exited(
    verb: &str,
    ended: Result<Ended, GuardError>,
    spec: &ExecSpec,
    context: &Context,
) -> Result<(i32, String, String), StepError> {
    match ended {
        Ok(Ended::Exited { code, stdout, stderr }) => Ok((code, stdout, stderr)),
        Ok(Ended::TimedOut { stderr }) => Err(StepError::permanent(format!(
            "{} did not end within {} s at {verb} and was killed with all that it started: {}",
            program(spec),
            spec.timeout_seconds,
            last_line(&stderr)
        ))
        .with_code("TimedOut")
        .with_remedy("raise `timeout_seconds` if it needs longer")),
        Ok(Ended::Busy) => Err(StepError::new(
            ErrorClass::Conflict,
            format!("a process of an earlier attempt of {} still runs", program(spec)),
        )
        .leaving(Residue::Unknown)
        .with_code("Busy")),
        Ok(Ended::NotStarted { reason }) => Err(refused(reason).with_code("NotStarted")),
        Ok(Ended::Abandoned) => {
            context.guard.lease_left()?;
            Err(StepError::transient(format!("{verb} was stopped before its end")).with_code("Stopped"))
        }
        Err(error @ GuardError::Start(_)) => {
            Err(StepError::transient(sources(&error)).leaving(Residue::None).with_code("NotStarted"))
        }
        Err(error) => Err(StepError::transient(sources(&error))),
    }
}

fn sources(error: &GuardError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[async_trait]
impl StepKind for Exec {
    type Spec = ExecSpec;
    type Outputs = ExecOutputs;

    const NAME: &'static str = "core.exec";
    const SUMMARY: &'static str =
        "Runs a program: one that speaks observe, apply and undo over JSON, or a plain command.";
    const EXPECTED: Duration = Duration::from_secs(10);

    async fn observe(
        &self,
        spec: &ExecSpec,
        record: &Record<ExecOutputs>,
        context: &Context,
    ) -> Result<Seen<ExecOutputs>, StepError> {
        check(spec)?;
        if guard_process::is_busy(&self.lock(context)) {
            let reason = format!("a process of an earlier attempt of {} still runs", program(spec));
            return Ok(Seen::Changing { reason, poll_in: Duration::from_millis(500) });
        }
        let seen = match spec.protocol {
            Protocol::Plain => {
                plain::seen(record, outputs(record), &plain::digest(spec), spec.idempotent, program(spec))?
            }
            Protocol::Verbs => {
                let (code, stdout, stderr) = self.ask("observe", spec, record, context).await?;
                answer::observed(code, &stdout, &stderr)?
            }
        };
        Ok(match seen {
            Seen::Absent => Seen::Absent,
            Seen::Present { outputs, ownership, differences } => {
                if differences.is_empty() {
                    check_outputs(spec, &outputs)?;
                }
                Seen::Present { outputs: ExecOutputs(outputs), ownership, differences }
            }
            Seen::Changing { reason, poll_in } => Seen::Changing { reason, poll_in },
            Seen::Unknown { reason } => Seen::Unknown { reason },
        })
    }

    async fn apply(
        &self,
        spec: &ExecSpec,
        _seen: &Seen<ExecOutputs>,
        record: &Record<ExecOutputs>,
        context: &Context,
    ) -> Result<Made<ExecOutputs>, StepError> {
        check(spec)?;
        context.begin("apply")?;
        if spec.protocol == Protocol::Plain {
            return self.apply_plain(spec, context).await;
        }
        let (code, stdout, stderr) = self.ask("apply", spec, record, context).await?;
        Ok(match answer::applied(code, &stdout, &stderr)? {
            Made::Done(told) => {
                check_outputs(spec, &told)?;
                Made::Done(ExecOutputs(told))
            }
            Made::Waiting { reason, poll_in, budget } => Made::Waiting { reason, poll_in, budget },
        })
    }

    async fn undo(
        &self,
        spec: &ExecSpec,
        record: &Record<ExecOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        check(spec)?;
        if guard_process::is_busy(&self.lock(context)) {
            return Ok(UndoProgress::Waiting {
                reason: format!("a process of an earlier attempt of {} still runs", program(spec)),
                poll_in: Duration::from_millis(500),
                budget: Duration::from_secs(spec.timeout_seconds.saturating_add(60)),
            });
        }
        context.begin("undo")?;
        if spec.protocol == Protocol::Plain {
            return self.undo_plain(spec, record, context).await;
        }
        let (code, stdout, stderr) = self.ask("undo", spec, record, context).await?;
        answer::undone(code, &stdout, &stderr)
    }
}
