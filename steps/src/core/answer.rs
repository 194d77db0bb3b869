//! What a program that speaks the verbs reads and writes: one JSON object on stdin, one on stdout.
//!
//! ```text
//! stdin   {"protocol": 1, "verb": "observe" | "apply" | "undo", "spec": …, "known": {"outputs", "notes", "uncertain"},
//!          "token": "…", "environment": {"name", "uid"}, "step": "…", "run": "…", "attempt": 1, "generation": 0}
//! stdout  observe  {"state": "absent"}
//!                  {"state": "present", "outputs": {…}, "foreign"?: "who", "differences"?: [{"field", "wanted", "found", "replace"?}]}
//!                  {"state": "changing", "reason": "…", "poll_seconds"?: 5}
//!                  {"state": "unknown", "reason": "…"}
//!         apply    {"progress": "done", "outputs": {…}}
//!         undo     {"progress": "gone", "evidence": "…"}
//!                  {"progress": "blocked", "owner": "…", "remedy": "…"}
//!         both     {"progress": "waiting", "reason": "…", "poll_seconds"?: 5, "budget_seconds"?: 600}
//!         all      {"error": {"class": "transient", "residue"?: "unknown", "message": "…", "code"?: "…", "remedy"?: "…"}}
//! ```
//!
//! `spec` is the `input` of the step. Errors are told with exit code 0 or not; an exit code other than 0 without an
//! `error` is a permanent failure of unknown residue, with the end of stderr as its message.

use crate::contract::{Made, Record, Seen};
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Outputs as a program tells them.
pub(super) type Told = BTreeMap<String, Value>;

/// The request to a program.
pub(super) fn request<O: Serialize>(verb: &str, input: &Value, record: &Record<O>, context: &Context) -> String {
    json!({
        "protocol": 1,
        "verb": verb,
        "spec": input,
        "known": {"outputs": record.outputs, "notes": record.notes, "uncertain": record.uncertain},
        "token": context.token(verb),
        "environment": {"name": context.environment, "uid": context.environment_uid},
        "step": context.step,
        "run": context.run,
        "attempt": context.attempt,
        "generation": context.generation,
    })
    .to_string()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldError {
    error: ErrorBody,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorBody {
    class: ErrorClass,
    #[serde(default = "unknown")]
    residue: Residue,
    message: String,
    code: Option<String>,
    remedy: Option<String>,
}

fn unknown() -> Residue {
    Residue::Unknown
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldDifference {
    field: String,
    wanted: Value,
    found: Value,
    #[serde(default)]
    replace: bool,
}

#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", deny_unknown_fields)]
enum Observed {
    Absent,
    Present {
        #[serde(default)]
        outputs: Told,
        foreign: Option<String>,
        #[serde(default)]
        differences: Vec<ToldDifference>,
    },
    Changing {
        reason: String,
        #[serde(default = "poll")]
        poll_seconds: f64,
    },
    Unknown {
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "progress", rename_all = "kebab-case", deny_unknown_fields)]
enum Applied {
    Done {
        #[serde(default)]
        outputs: Told,
    },
    Waiting {
        reason: String,
        #[serde(default = "poll")]
        poll_seconds: f64,
        #[serde(default = "budget")]
        budget_seconds: f64,
    },
}

#[derive(Deserialize)]
#[serde(tag = "progress", rename_all = "kebab-case", deny_unknown_fields)]
enum Undone {
    Gone {
        evidence: String,
    },
    Blocked {
        owner: String,
        remedy: String,
    },
    Waiting {
        reason: String,
        #[serde(default = "poll")]
        poll_seconds: f64,
        #[serde(default = "budget")]
        budget_seconds: f64,
    },
}

fn poll() -> f64 {
    5.0
}

fn budget() -> f64 {
    600.0
}

/// A program's number of seconds; nonsense counts as the shortest poll.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::from_secs(1))
}

/// The last line that says anything.
pub(super) fn last_line(text: &str) -> &str {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message on stderr")
}

fn parse<T: DeserializeOwned>(verb: &str, code: i32, stdout: &str, stderr: &str) -> Result<T, StepError> {
    if let Ok(told) = serde_json::from_str::<ToldError>(stdout) {
        let ErrorBody { class, residue, message, code, remedy } = told.error;
        return Err(StepError { class, residue, code, message, remedy, terminal: false });
    }
    if code != 0 {
        let message = format!("the program failed at {verb}: {}", last_line(stderr));
        return Err(StepError::permanent(message).with_code(format!("exit {code}")));
    }
    serde_json::from_str(stdout).map_err(|error| {
        StepError::permanent(format!("the program's answer to {verb} is not understood: {error}"))
            .with_remedy("it must write one JSON object to stdout, and nothing else (messages belong on stderr)")
    })
}

/// The answer to `observe`.
pub(super) fn observed(code: i32, stdout: &str, stderr: &str) -> Result<Seen<Told>, StepError> {
    Ok(match parse("observe", code, stdout, stderr)? {
        Observed::Absent => Seen::Absent,
        Observed::Present { outputs, foreign, differences } => Seen::Present {
            outputs,
            ownership: foreign.map_or(Ownership::Ours, Ownership::Foreign),
            differences: differences
                .into_iter()
                .map(|told| Difference {
                    field: told.field,
                    wanted: told.wanted,
                    found: told.found,
                    replace: told.replace,
                })
                .collect(),
        },
        Observed::Changing { reason, poll_seconds } => Seen::Changing { reason, poll_in: seconds(poll_seconds) },
        Observed::Unknown { reason } => Seen::Unknown { reason },
    })
}

/// The answer to `apply`.
pub(super) fn applied(code: i32, stdout: &str, stderr: &str) -> Result<Made<Told>, StepError> {
    Ok(match parse("apply", code, stdout, stderr)? {
        Applied::Done { outputs } => Made::Done(outputs),
        Applied::Waiting { reason, poll_seconds, budget_seconds } => {
            Made::Waiting { reason, poll_in: seconds(poll_seconds), budget: seconds(budget_seconds) }
        }
    })
}

/// The answer to `undo`.
pub(super) fn undone(code: i32, stdout: &str, stderr: &str) -> Result<UndoProgress, StepError> {
    Ok(match parse("undo", code, stdout, stderr)? {
        Undone::Gone { evidence } => UndoProgress::Gone { evidence },
        Undone::Blocked { owner, remedy } => UndoProgress::Blocked { owner, remedy },
        Undone::Waiting { reason, poll_seconds, budget_seconds } => {
            UndoProgress::Waiting { reason, poll_in: seconds(poll_seconds), budget: seconds(budget_seconds) }
        }
    })
}
