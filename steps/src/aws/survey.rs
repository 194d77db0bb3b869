//! The search for what is left in the account after a rollback: by tag, by VPC, by cluster and by name.
//!
//! Reads only, and asks AWS, not the record: the record says where to look and what is meant to stay. Nothing here
//! deletes, and nothing of somebody else is held against the rollback.

mod compute;
mod extras;
mod health;
mod services;

pub use extras::{Extra, extras};
pub use health::{Complaint, complaints};

use super::clients::AwsClients;
use super::ownership::{STEP, Tags, UID, owner_text};
use async_trait::async_trait;
use platflow_engine::clock::after;
use platflow_engine::failure::StepError;
use platflow_engine::survey::{Findings, Remnant, Scope, ScopedStep, Standing, Survey};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Clocks of the account and of this machine differ by less.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// See the file.
pub(super) struct AccountSurvey(pub(super) Arc<AwsClients>);

/// One thing that a call showed.
struct Shown {
    resource: &'static str,
    id: String,
    tags: Tags,
    created_at: Option<jiff::Timestamp>,
    /// What the call says about it beside its tags: who asked for it, what it hangs on.
    note: String,
}

/// What the searches share.
struct Search<'a> {
    aws: &'a AwsClients,
    scope: &'a Scope,
    findings: Findings,
}

/// The text in a step's outputs, its notes or its spec.
fn text_of<'a>(step: &'a ScopedStep, key: &str) -> Option<&'a str> {
    let output = step.outputs.as_ref().and_then(|outputs| outputs.get(key));
    let spec = step.spec.as_ref().and_then(|spec| spec.get(key));
    output.or_else(|| step.notes.get(key)).or(spec).and_then(Value::as_str)
}

impl Search<'_> {
    fn gone<'a>(&'a self, kind: &'a str, key: &'a str) -> impl Iterator<Item = (&'a ScopedStep, &'a str)> {
        let steps = self.scope.of_kind(kind).filter(|step| step.stays.is_none());
        steps.filter_map(move |step| Some((step, text_of(step, key)?)))
    }

    fn ours(&self, tags: &Tags) -> bool {
        tags.get(UID).map(String::as_str) == Some(self.scope.environment_uid.as_str())
    }

    /// Made before the environment was: then its name is all that it has in common with us.
    fn is_older(&self, created_at: Option<jiff::Timestamp>) -> bool {
        match (created_at, self.scope.since) {
            (Some(created_at), Some(since)) => after(created_at, SKEW) < since,
            _ => false,
        }
    }

    fn searched(&mut self, call: &str, filter: impl Into<String>, found: usize) {
        self.findings.search(call, filter, found);
    }

    /// Something that carries our uid.
    fn tagged(&mut self, resource: &str, id: &str, tags: &Tags) {
        let step = tags.get(STEP).map(String::as_str);
        let maker = step.map_or_else(|| "a step that its tags do not name".to_owned(), |step| format!("step {step}"));
        let standing = self.scope.standing_of(step);
        self.found(resource, id, maker, standing);
    }

    /// Something that hangs on what was ours, whoever made it.
    fn hanging(&mut self, shown: &Shown) {
        if self.ours(&shown.tags) {
            return self.tagged(shown.resource, &shown.id, &shown.tags);
        }
        let standing = if self.is_older(shown.created_at) {
            Standing::Foreign { owner: owner_text(&shown.tags) }
        } else {
            Standing::Left
        };
        self.found(shown.resource, &shown.id, shown.note.clone(), standing);
    }

    /// Something under the name of what was ours: somebody else's, unless it carries our tags.
    fn named(&mut self, resource: &str, id: &str, step: &ScopedStep, tags: &Tags) {
        if self.ours(tags) {
            return self.tagged(resource, id, tags);
        }
        let standing = Standing::Foreign { owner: owner_text(tags) };
        self.found(resource, id, format!("has the name of step {}", step.name), standing);
    }

    fn found(&mut self, resource: &str, id: &str, maker: String, standing: Standing) {
        self.findings.remnant(Remnant { resource: resource.to_owned(), id: id.to_owned(), maker, standing });
    }
}

#[async_trait]
impl Survey for AccountSurvey {
    async fn survey(&self, scope: &Scope) -> Result<Findings, StepError> {
        // A run that never came near the account has nothing to be searched for there.
        if !scope.steps.iter().any(|step| step.kind.as_str().starts_with("aws.") && step.spec.is_some()) {
            return Ok(Findings::default());
        }
        let mut search = Search { aws: &self.0, scope, findings: Findings::default() };
        search.by_tag().await?;
        search.compute_by_tag().await?;
        search.in_vpcs().await?;
        search.of_clusters().await?;
        search.balancers().await?;
        search.scaling_groups().await?;
        search.keys().await?;
        search.log_groups().await?;
        search.identities().await?;
        Ok(search.findings)
    }
}
