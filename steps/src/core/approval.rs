//! `core.approval`: the run waits for a human. Who may decide is the runbook's, where decisions are kept is a port's.

use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use jiff::Timestamp;
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::name::{EnvironmentName, RunId, StepName};
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const POLL: Duration = Duration::from_secs(2);

/// What is to be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// In this run.
    pub run: RunId,
    /// Of this environment.
    pub environment: EnvironmentName,
    /// At this step.
    pub step: StepName,
    /// What the approver is told.
    pub message: String,
}

/// A human's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Yes or no.
    pub approved: bool,
    /// Who decided.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, if they said so.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Where decisions are kept.
#[async_trait]
pub trait ApprovalSource: Send + Sync + 'static {
    /// The decision, once there is one.
    ///
    /// # Errors
    /// When it could not be asked; the step tries again.
    async fn decision(&self, request: &ApprovalRequest) -> Result<Option<Decision>, StepError>;
}

/// Decisions as files: `<folder>/<run>.<step>.json`. A decision stands once it is written.
#[derive(Debug, Clone)]
pub struct ApprovalFolder(pub PathBuf);

impl ApprovalFolder {
    fn path(&self, run: &RunId, step: &StepName) -> PathBuf {
        self.0.join(format!("{run}.{step}.json"))
    }

    /// The decision on a step of a run, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, or is no decision.
    pub fn decided(&self, run: &RunId, step: &StepName) -> std::io::Result<Option<Decision>> {
        match std::fs::read(self.path(run, step)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a decision durably; false when there is one already, which stands.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn decide(&self, run: &RunId, step: &StepName, decision: &Decision) -> std::io::Result<bool> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let path = self.path(run, step);
        let fresh = self.0.join(format!(".{run}.{step}.{}.new", std::process::id()));
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(decision)?)?;
        file.sync_all()?;
        // A link, not a rename: of two who decide at once one is first, and it stands.
        let linked = std::fs::hard_link(&fresh, &path);
        std::fs::remove_file(&fresh)?;
        std::fs::File::open(&self.0)?.sync_all()?;
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl ApprovalSource for ApprovalFolder {
    async fn decision(&self, request: &ApprovalRequest) -> Result<Option<Decision>, StepError> {
        let path = self.path(&request.run, &request.step);
        let unreadable = |cause: String| {
            StepError::transient(format!("{} cannot be read: {cause}", path.display())).leaving(Residue::None)
        };
        match tokio::fs::read(&path).await {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| unreadable(error.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}

/// Asks a human.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveSpec {
    /// What the approver is told.
    pub message: String,
    /// Who may decide (user names); anybody if empty.
    #[serde(default)]
    pub approvers: Vec<String>,
    /// Keep the run open for this long to wait for the decision, before it parks; 0 parks at once. A decision that comes
    /// later counts when the run is resumed.
    #[serde(default)]
    pub timeout_seconds: u64,
}

/// Who approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovedBy {
    /// User name.
    pub approved_by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why, if they said so.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The kind `core.approval`.
pub struct Approval {
    source: Arc<dyn ApprovalSource>,
}

impl std::fmt::Debug for Approval {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Approval").finish_non_exhaustive()
    }
}

enum Asked {
    Approved(ApprovedBy),
    Open { reason: String },
}

impl Approval {
    pub(super) fn new(source: Arc<dyn ApprovalSource>) -> Self {
        Self { source }
    }

    async fn ask(&self, spec: &ApproveSpec, context: &Context) -> Result<Asked, StepError> {
        let request = ApprovalRequest {
            run: context.run.clone(),
            environment: context.environment.clone(),
            step: context.step.clone(),
            message: spec.message.clone(),
        };
        let waiting = format!("needs approval: {}", spec.message);
        let Some(decision) = self.source.decision(&request).await? else { return Ok(Asked::Open { reason: waiting }) };
        if !spec.approvers.is_empty() && !spec.approvers.contains(&decision.by) {
            return Err(StepError::needs_human(format!("{} decided, but is not among the approvers", decision.by))
                .leaving(Residue::None)
                .with_remedy(format!("one of {} must decide", spec.approvers.join(", "))));
        }
        if !decision.approved {
            let why = decision.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            return Err(StepError::needs_human(format!("{} rejected it at {}{why}", decision.by, decision.at))
                .leaving(Residue::None)
                .with_code("Rejected")
                .with_remedy(format!(
                    "a decision stands: end this run with platflow rollback {}, and ask again with a new one",
                    context.run
                )));
        }
        Ok(Asked::Approved(ApprovedBy {
            approved_by: decision.by,
            at: decision.at.to_string(),
            reason: decision.reason,
        }))
    }
}

/// The outputs on record, if they are of this run: an approval of an earlier run approves nothing now.
fn approved_now(record: &Record<ApprovedBy>, context: &Context) -> Option<ApprovedBy> {
    let asked_in = record.notes.get("asked_in").and_then(Value::as_str)?;
    record.outputs.clone().filter(|_| asked_in == context.run.as_str())
}

#[async_trait]
impl StepKind for Approval {
    type Spec = ApproveSpec;
    type Outputs = ApprovedBy;

    const NAME: &'static str = "core.approval";
    const SUMMARY: &'static str = "Waits until a human approves; asked anew in every run.";
    const EXPECTED: Duration = Duration::from_secs(600);

    async fn observe(
        &self,
        spec: &ApproveSpec,
        record: &Record<ApprovedBy>,
        context: &Context,
    ) -> Result<Seen<ApprovedBy>, StepError> {
        let present = |outputs| Seen::Present { outputs, ownership: Ownership::Ours, differences: Vec::new() };
        if let Some(outputs) = approved_now(record, context) {
            return Ok(present(outputs));
        }
        let asked = record.notes.get("asked_in").and_then(Value::as_str) == Some(context.run.as_str());
        if !asked {
            return Ok(Seen::Absent);
        }
        Ok(match self.ask(spec, context).await? {
            Asked::Approved(outputs) => present(outputs),
            Asked::Open { .. } if spec.timeout_seconds == 0 => Seen::Absent,
            Asked::Open { reason } => Seen::Changing { reason, poll_in: POLL },
        })
    }

    async fn apply(
        &self,
        spec: &ApproveSpec,
        _seen: &Seen<ApprovedBy>,
        _record: &Record<ApprovedBy>,
        context: &Context,
    ) -> Result<Made<ApprovedBy>, StepError> {
        context.note("asked_in", json!(context.run.as_str())).await?;
        Ok(match self.ask(spec, context).await? {
            Asked::Approved(outputs) => Made::Done(outputs),
            Asked::Open { reason } if spec.timeout_seconds == 0 => {
                let Context { run, step, .. } = context;
                return Err(StepError::awaited(reason).with_remedy(format!(
                    "agree with: platflow approve {run} {step}\nor refuse with: platflow reject {run} {step} --reason <why>"
                )));
            }
            Asked::Open { reason } => {
                Made::Waiting { reason, poll_in: POLL, budget: Duration::from_secs(spec.timeout_seconds) }
            }
        })
    }

    async fn undo(
        &self,
        _spec: &ApproveSpec,
        _record: &Record<ApprovedBy>,
        _context: &Context,
    ) -> Result<UndoProgress, StepError> {
        Ok(UndoProgress::Gone { evidence: "an approval leaves nothing behind".to_owned() })
    }
}
