//! The verdict on a case: run, world, record, journal and secrets must be what an undisturbed run left, or what was there
//! before it.

use crate::failure::CommandError;
use crate::rehearsal::case::Recovery;
use crate::rehearsal::moment::Made;
use crate::rehearsal::picture::{self, Picture};
use crate::rehearsal::stage::{Process, Stage};
use crate::wiring;
use platflow_engine::event::Ending;
use platflow_engine::fold::Run;
use platflow_engine::journal::Journal;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How much simulated time passes before the last look: controllers come to rest, what was deleted is forgotten.
const REST_MS: i64 = 2 * 3_600_000;

/// The most events that a journal is read back in.
const EVENTS: usize = 1_000_000;

/// What the undisturbed run left.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The world before it.
    pub(crate) empty: Picture,
    /// The world after it.
    pub(crate) built: Picture,
    /// Steps on record after it.
    pub(crate) record: BTreeSet<String>,
    /// How many of each it made.
    pub(crate) made: Made,
}

/// What was expected, and what was found instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) expected: String,
    pub(crate) found: String,
}

pub(crate) fn finding(expected: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding { expected: expected.into(), found: found.into() }
}

/// The world as it is once everything has come to rest.
pub(crate) fn picture(stage: &Stage) -> Result<Picture, CommandError> {
    stage.time.advance(REST_MS);
    let listing = stage.embedded.look(|world, now_ms| world.listing(now_ms));
    let mut picture = picture::of_world(&listing);
    picture::add(&mut picture, &stage.recorder.things(), &stage.read_files()?);
    Ok(picture)
}

/// Steps on the environment's record; a row that is not settled is marked.
pub(crate) async fn record(stage: &Stage, process: &Process) -> Result<BTreeSet<String>, CommandError> {
    let rows = process.store.record(&stage.script.uid).await.map_err(wiring::journal_error)?;
    Ok(rows
        .into_iter()
        .map(|row| if row.settled { row.step.to_string() } else { format!("{} (not settled)", row.step) })
        .collect())
}

/// Everything that is wrong.
pub(crate) async fn judge(
    stage: &Stage,
    process: &Process,
    recovery: Recovery,
    expected: &Expected,
    count_made: bool,
) -> Result<Vec<Finding>, CommandError> {
    let mut findings = Vec::new();
    let (ending, world, word) = match recovery {
        Recovery::Resume => (Ending::Done, expected.built.clone(), "the world of an undisturbed run"),
        Recovery::Rollback => {
            (Ending::RolledBack, picture::without_pending(expected.empty.clone()), "the world as it was before")
        }
    };
    findings.extend(journal(stage, process, ending).await?);
    let mut found = picture(stage)?;
    if recovery == Recovery::Rollback {
        found = picture::without_pending(found);
    }
    let differences = picture::differences(&world, &found);
    if let Some(first) = differences.first() {
        let more = if differences.len() > 1 { format!(" (and {} more)", differences.len() - 1) } else { String::new() };
        findings.push(finding(word, format!("{first}{more}")));
    }
    let on_record = record(stage, process).await?;
    let wanted = if recovery == Recovery::Resume { expected.record.clone() } else { BTreeSet::new() };
    if on_record != wanted {
        let odd: Vec<&str> = on_record.symmetric_difference(&wanted).map(String::as_str).collect();
        findings.push(finding("a record that agrees with the world", format!("it differs in {}", odd.join(", "))));
    }
    if count_made {
        findings.extend(twice(&stage.recorder.made(), &expected.made));
    }
    findings.extend(secrets(stage, process).await?);
    Ok(findings)
}

/// Nothing is made more often than an undisturbed run makes it.
fn twice(made: &Made, expected: &Made) -> Option<Finding> {
    let often = |made: &Made, key: &(String, String)| made.get(key).map_or(0, BTreeSet::len);
    made.keys().find(|key| often(made, key) > often(expected, key)).map(|key| {
        finding(
            format!("{} of step {} made {} time(s)", key.0, key.1, often(expected, key)),
            format!("made {} time(s)", often(made, key)),
        )
    })
}

/// The chain of hashes holds, the rows are the fold of the events, and the run ended as wanted.
async fn journal(stage: &Stage, process: &Process, ending: Ending) -> Result<Option<Finding>, CommandError> {
    let id = &stage.script.run;
    if let Err(error) = process.store.verify(id).await {
        return Ok(Some(finding("a journal whose hashes agree", error.to_string())));
    }
    let loaded = process.store.load(id).await.map_err(wiring::journal_error)?;
    let events = process.store.events(id, 0, EVENTS).await.map_err(wiring::journal_error)?;
    let plan = Arc::new(loaded.plan.clone());
    let (cached, folded) = match (Run::load(loaded), Run::refold(id.clone(), plan, &events)) {
        (Ok(cached), Ok(folded)) => (cached, folded),
        (Err(error), _) | (_, Err(error)) => {
            return Ok(Some(finding("a journal that adds up", error.to_string())));
        }
    };
    let steps =
        |run: &Run| -> Vec<Value> { run.steps().filter_map(|(_, state)| serde_json::to_value(state).ok()).collect() };
    if cached.state != folded.state || cached.head != folded.head || steps(&cached) != steps(&folded) {
        return Ok(Some(finding("rows that are the fold of the events", "they differ")));
    }
    if folded.state.ending != Some(ending) {
        let status = folded.state.ending.map_or_else(|| "no ending".to_owned(), |ending| format!("{ending:?}"));
        return Ok(Some(finding(format!("a run that ended as {ending:?}"), status)));
    }
    Ok(None)
}

/// No secret stands in the state file in clear.
async fn secrets(stage: &Stage, process: &Process) -> Result<Option<Finding>, CommandError> {
    let uid = &stage.script.uid;
    let unusable = |error: platflow_steps::sealing::KeystoreError| {
        wiring::internal("a sealed secret cannot be opened")(error.into())
    };
    let names = process.keystore.list(uid, None).await.map_err(unusable)?;
    if names.is_empty() {
        return Ok(None);
    }
    let mut bytes = std::fs::read(stage.state_file()).unwrap_or_default();
    bytes.extend(std::fs::read(stage.state_file().with_extension("db-wal")).unwrap_or_default());
    for name in names {
        let Some(secret) = process.keystore.get(uid, &name, None).await.map_err(unusable)? else { continue };
        let plain = secret.expose_secret().as_bytes();
        if plain.len() >= 8 && memchr::memmem::find(&bytes, plain).is_some() {
            return Ok(Some(finding("sealed secrets only", format!("{name} stands in the state file in clear"))));
        }
    }
    Ok(None)
}
