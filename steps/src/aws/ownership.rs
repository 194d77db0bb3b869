//! Whose a resource is: the tags that every resource gets at its creation, and what other tags mean.
//!
//! Ours means this environment's uid and this step's name; run, operation and names are provenance and prove nothing.

use crate::contract::{Record, Seen};
use platflow_engine::clock::after;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::foreign;
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tags by key.
pub(super) type Tags = BTreeMap<String, String>;

pub(super) const UID: &str = "platflow:environment-uid";
pub(super) const STEP: &str = "platflow:step";
const ENVIRONMENT: &str = "platflow:environment";
const RUN: &str = "platflow:run";
const OWNER: &str = "platflow:owner";
const OPERATION: &str = "platflow:op";

/// How long AWS may not show what it has already accepted.
pub(super) const READ_LAG: Duration = Duration::from_secs(60);

/// The tags of a resource at its creation; `token` is that of the creating call.
pub(super) fn creation_tags(context: &Context, name: &str, extra: &Tags, token: &str) -> Tags {
    let mut tags = lasting_tags(context, name, extra);
    tags.insert(RUN.to_owned(), context.run.to_string());
    tags.insert(OPERATION.to_owned(), token.to_owned());
    tags
}

/// The tags that stay the same from run to run, for what is compared or copied on.
pub(super) fn lasting_tags(context: &Context, name: &str, extra: &Tags) -> Tags {
    let mut tags = extra.clone();
    tags.insert("Name".to_owned(), name.to_owned());
    tags.insert(OWNER.to_owned(), "platflow".to_owned());
    tags.insert(UID.to_owned(), context.environment_uid.to_string());
    tags.insert(ENVIRONMENT.to_owned(), context.environment.to_string());
    tags.insert(STEP.to_owned(), context.step.to_string());
    tags
}

/// Whose a resource with these tags is. `recorded`: its id is on our record, so missing tags are drift, not a stranger.
pub(super) fn ownership(tags: &Tags, context: &Context, recorded: bool) -> Ownership {
    let uid = tags.get(UID).map(String::as_str);
    let step = tags.get(STEP).map(String::as_str);
    let ours = uid == Some(context.environment_uid.as_str());
    if (ours && (recorded || step == Some(context.step.as_str()))) || (uid.is_none() && recorded) {
        Ownership::Ours
    } else {
        Ownership::Foreign(owner_text(tags))
    }
}

/// Whose a resource is that may be deleted: a name that is on record proves nothing, as anybody may have made another
/// thing of that name since. Only our tags do.
pub(super) fn proven(tags: &Tags, context: &Context) -> Ownership {
    ownership(tags, context, false)
}

/// The owner that tags name, in words.
pub(super) fn owner_text(tags: &Tags) -> String {
    let Some(uid) = tags.get(UID) else {
        let shown: Vec<String> = tags.iter().take(6).map(|(key, value)| format!("{key}={value}")).collect();
        return if shown.is_empty() {
            "not made by platflow (it carries no tags)".to_owned()
        } else {
            format!("not made by platflow (tags {})", shown.join(", "))
        };
    };
    let part = |key: &str| tags.get(key).map_or("unknown", String::as_str);
    foreign::environment(part(ENVIRONMENT), uid, part(STEP), part(RUN))
}

/// Adds a difference if a lasting tag is missing or other; tags of others are theirs.
pub(super) fn compare_tags(differences: &mut Differences, wanted: &Tags, found: &Tags) {
    let found: Tags = wanted.keys().filter_map(|key| Some((key.clone(), found.get(key)?.clone()))).collect();
    differences.field("/tags", wanted, found);
}

/// Collects differences field by field. Values have the spec's own shape: a rollback puts what was found back into it.
#[derive(Debug, Default)]
pub(super) struct Differences(pub(super) Vec<Difference>);

impl Differences {
    /// A field that can be changed in place.
    pub(super) fn field(&mut self, field: &str, wanted: impl Serialize, found: impl Serialize) {
        self.add(field, json(wanted), json(found), false);
    }

    /// A field that only replacement would change.
    pub(super) fn fixed(&mut self, field: &str, wanted: impl Serialize, found: impl Serialize) {
        self.add(field, json(wanted), json(found), true);
    }

    fn add(&mut self, field: &str, wanted: Value, found: Value, replace: bool) {
        if wanted != found {
            self.0.push(Difference { field: field.to_owned(), wanted, found, replace });
        }
    }
}

/// Specs and answers are plain data: they always have a JSON form.
fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// True if one of the differences is in `field` or below it.
pub(super) fn touches(differences: &[Difference], field: &str) -> bool {
    differences.iter().any(|difference| {
        difference.field.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// What an apply starts from.
pub(super) enum Start<'a, O> {
    /// Nothing there: create.
    Create,
    /// Ours, with what differs (perhaps nothing).
    Change(&'a O, &'a [Difference]),
}

/// Refuses what is not ours and what cannot be changed in place, before any call is made.
pub(super) fn start<'a, O>(what: &str, seen: &'a Seen<O>) -> Result<Start<'a, O>, StepError> {
    match seen {
        Seen::Absent => Ok(Start::Create),
        Seen::Present { ownership: Ownership::Foreign(owner), .. } => Err(foreign(what, owner)),
        Seen::Present { outputs, differences, .. } => match differences.iter().find(|difference| difference.replace) {
            Some(fixed) => Err(StepError::new(
                ErrorClass::NeedsHuman,
                format!(
                    "{what} cannot be changed in place: {} is {} and should be {}",
                    fixed.field, fixed.found, fixed.wanted
                ),
            )
            .leaving(Residue::Present)
            .with_code("ReplacementNeeded")
            .with_remedy("put the old value back, or destroy the step and build it again")),
            None => Ok(Start::Change(outputs, differences)),
        },
        Seen::Changing { reason, .. } | Seen::Unknown { reason } => {
            Err(StepError::transient(format!("{what} is not settled: {reason}")).leaving(Residue::Present))
        }
    }
}

/// Somebody else's: refused, the owner named.
pub(super) fn foreign(what: &str, owner: &str) -> StepError {
    foreign::refusal(what, owner)
}

/// Two resources with this step's tags: a human decides which one stays; a third is never made.
pub(super) fn duplicates(what: &str, ids: &[String]) -> StepError {
    StepError::needs_human(format!("several {what}s carry this step's tags: {}", ids.join(", ")))
        .leaving(Residue::Present)
        .with_code("Duplicate")
        .with_remedy("delete the one that nothing uses, then resume")
}

/// A resource in a state that it never leaves: it has to be removed before it can be built again, which `resume` does for
/// what never came up.
pub(super) fn terminal(what: &str, state: &str, cause: &str) -> StepError {
    StepError::permanent(format!("{what} is {state} for good: {cause}"))
        .terminal()
        .with_code(state)
        .with_remedy("correct the cause, then resume: what never came up is removed and built again; or roll back")
}

/// A noted id.
pub(super) fn noted<O>(record: &Record<O>, key: &str) -> Option<String> {
    record.notes.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn fresh<O>(record: &Record<O>, context: &Context) -> bool {
    record.intended_at.is_some_and(|at| after(at, READ_LAG) > context.now())
}

/// An absence, unless an id was noted so recently that it may be read lag.
pub(super) fn absent<O>(record: &Record<O>, id: Option<&String>, context: &Context) -> Seen<O> {
    match id {
        Some(id) if fresh(record, context) => {
            Seen::Unknown { reason: format!("{id} was created and is not shown yet") }
        }
        _ => Seen::Absent,
    }
}

/// How an undo ends that found nothing: gone, once an accepted creation can no longer be hidden by read lag.
pub(super) fn nothing_left<O>(record: &Record<O>, context: &Context, evidence: impl Into<String>) -> UndoProgress {
    if fresh(record, context) {
        UndoProgress::Waiting {
            reason: "nothing is shown; making sure that a late creation does not appear".to_owned(),
            poll_in: Duration::from_secs(10),
            budget: READ_LAG * 3,
        }
    } else {
        UndoProgress::Gone { evidence: evidence.into() }
    }
}

/// How an undo ends whose resource belongs to somebody else. If the step never made one, nothing of it is there; if it
/// did, a human decides: nothing is deleted without proof that it is ours.
pub(super) fn not_ours<O>(record: &Record<O>, context: &Context, what: &str, owner: &str) -> UndoProgress {
    if record.outputs.is_none() && record.notes.is_empty() {
        return UndoProgress::Gone { evidence: format!("{what} belongs to {owner}; nothing of this step exists") };
    }
    let step = &context.step;
    UndoProgress::Blocked {
        owner: format!("{what} is on record as made by {step}, but belongs to {owner}"),
        remedy: ways_out(context, "give it back its tags, or remove it yourself"),
    }
}

/// What the operator can do about something that platflow does not delete.
pub(super) fn ways_out(context: &Context, first: &str) -> String {
    let Context { step, run, environment, .. } = context;
    format!(
        "{first}, then: platflow resume {run}\nor leave {step} in place: platflow rollback {run} --keep {step} --confirm {environment}\nor strike it off the record: platflow forget {environment} --step {step} --confirm {environment}"
    )
}

/// A deletion that was accepted and must still be proven.
pub(super) fn going(what: impl Into<String>, poll_seconds: u64, budget_minutes: u64) -> UndoProgress {
    UndoProgress::Waiting {
        reason: what.into(),
        poll_in: Duration::from_secs(poll_seconds),
        budget: Duration::from_secs(budget_minutes * 60),
    }
}
