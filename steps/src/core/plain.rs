//! The trail of something that can be done but not looked at: a plain command, a request without a look of its own.
//!
//! It is made of durable notes: `started` before it begins, `ended` once it is known how it ended, `undone`. What started
//! and has no end may or may not have happened: that is never guessed, unless the runbook says that doing it twice does
//! no harm.

use super::answer::Told;
use crate::contract::{Record, Seen};
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Difference, Ownership};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Which attempt a note belongs to.
fn serial(context: &Context) -> String {
    format!("{}/{}", context.run, context.attempt)
}

/// What is done, as a digest: another one later is a difference.
pub(super) fn digest(of: &impl Serialize) -> String {
    let text = serde_json::to_vec(of).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}

/// The ways out of what was done and nothing declared takes back.
pub(super) fn by_hand(context: &Context, field: &str) -> String {
    let Context { step, run, environment, .. } = context;
    format!(
        "take it back by hand, then strike it off the record: platflow forget {environment} --step {step} --confirm {environment}\n\
         and go on with: platflow resume {run}\n\
         or leave it as it is: platflow rollback {run} --keep {step} --confirm {environment}\n\
         next time declare `{field}`, or `undo: keep`"
    )
}

/// Before it begins.
pub(super) async fn started(context: &Context, digest: &str) -> Result<(), StepError> {
    context.note("started", json!({"attempt": serial(context), "digest": digest})).await
}

/// It is known how it ended: with outputs, or in vain.
pub(super) async fn ended(context: &Context, outputs: Option<&Told>) -> Result<(), StepError> {
    context.note("ended", json!({"attempt": serial(context), "outputs": outputs})).await
}

/// What the attempt on record made was taken back.
pub(super) async fn undone<O>(context: &Context, record: &Record<O>) -> Result<(), StepError> {
    context.note("undone", json!({"attempt": attempt(record, "started")})).await
}

fn attempt<'a, O>(record: &'a Record<O>, note: &str) -> Option<&'a str> {
    record.notes.get(note)?.get("attempt")?.as_str()
}

/// What the trail proves.
#[derive(Debug, PartialEq)]
pub(super) enum Trail {
    /// It never began, ended in vain, or was taken back.
    NotThere,
    /// It was done.
    Done(Told),
    /// It began, and nobody knows how it ended.
    Uncertain,
}

/// Reads the trail. `outputs` are those on record, for what was done before there were notes.
pub(super) fn trail<O>(record: &Record<O>, outputs: Option<&Told>) -> Trail {
    let Some(started) = attempt(record, "started") else {
        return outputs.map_or(Trail::NotThere, |outputs| Trail::Done(outputs.clone()));
    };
    if attempt(record, "undone") == Some(started) {
        return Trail::NotThere;
    }
    if attempt(record, "ended") != Some(started) {
        return Trail::Uncertain;
    }
    let told = record.notes.get("ended").and_then(|note| note.get("outputs"));
    match told.and_then(Value::as_object) {
        Some(told) => Trail::Done(told.clone().into_iter().collect()),
        None => Trail::NotThere,
    }
}

/// True when something may be there that an undo has to take back.
pub(super) fn may_have_begun<O>(record: &Record<O>, outputs: Option<&Told>) -> bool {
    match attempt(record, "started") {
        Some(started) => attempt(record, "undone") != Some(started),
        None => outputs.is_some(),
    }
}

/// The trail as an observation.
///
/// # Errors
/// What began, has no end and may not happen twice: only a human can tell whether it happened.
pub(super) fn seen<O>(
    record: &Record<O>,
    outputs: Option<&Told>,
    digest: &str,
    repeatable: bool,
    what: &str,
) -> Result<Seen<Told>, StepError> {
    Ok(match trail(record, outputs) {
        Trail::NotThere => Seen::Absent,
        Trail::Uncertain if repeatable => Seen::Absent,
        Trail::Uncertain => {
            return Err(StepError::needs_human(format!(
                "{what} was begun and its end is not on record, and it cannot be asked whether it happened"
            ))
            .leaving(Residue::Unknown)
            .with_code("Uncertain")
            .with_remedy("look for yourself; then roll the run back, or, if it may happen twice, say `idempotent: true` in the runbook and run that"));
        }
        Trail::Done(outputs) => {
            let then = record.notes.get("started").and_then(|note| note.get("digest")).and_then(Value::as_str);
            let differences = match then {
                Some(then) if then != digest => {
                    vec![Difference { field: String::new(), wanted: json!(digest), found: json!(then), replace: false }]
                }
                _ => Vec::new(),
            };
            Seen::Present { outputs, ownership: Ownership::Ours, differences }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn record(notes: &[(&str, Value)]) -> Record<Told> {
        let notes = notes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Record { outputs: None, notes, uncertain: true, intended_at: None }
    }

    /// Proves each state of the trail, above all that an end of an earlier attempt says nothing about a later one.
    #[test]
    fn only_the_end_of_the_same_attempt_counts() {
        let started = |attempt: &str| ("started", json!({"attempt": attempt, "digest": "d"}));
        let done = |attempt: &str| ("ended", json!({"attempt": attempt, "outputs": {"a": 1}}));
        let vain = |attempt: &str| ("ended", json!({"attempt": attempt, "outputs": null}));
        let undone = |attempt: &str| ("undone", json!({"attempt": attempt}));
        let made = Trail::Done(BTreeMap::from([("a".to_owned(), json!(1))]));
        assert_eq!(trail(&record(&[]), None), Trail::NotThere);
        assert_eq!(trail(&record(&[started("r/1")]), None), Trail::Uncertain);
        assert_eq!(trail(&record(&[started("r/1"), done("r/1")]), None), made);
        assert_eq!(trail(&record(&[started("r/1"), vain("r/1")]), None), Trail::NotThere);
        assert_eq!(trail(&record(&[started("r/2"), done("r/1")]), None), Trail::Uncertain);
        assert_eq!(trail(&record(&[started("r/2"), vain("r/1")]), None), Trail::Uncertain);
        assert_eq!(trail(&record(&[started("r/1"), done("r/1"), undone("r/1")]), None), Trail::NotThere);
        assert_eq!(trail(&record(&[started("r/2"), done("r/2"), undone("r/1")]), None), made);
        assert!(may_have_begun(&record(&[started("r/1"), vain("r/1")]), None));
        assert!(!may_have_begun(&record(&[started("r/1"), undone("r/1")]), None));
        let seen = seen(&record(&[started("r/1"), done("r/1")]), None, "another", false, "it").unwrap();
        assert!(matches!(seen, Seen::Present { differences, .. } if differences.len() == 1));
        let uncertain = super::seen(&record(&[started("r/1")]), None, "d", false, "it").unwrap_err();
        assert_eq!(uncertain.code.as_deref(), Some("Uncertain"));
    }
}
