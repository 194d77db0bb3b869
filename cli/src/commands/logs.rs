//! `platflow logs`: the journal of a run, as it is.

use crate::arguments::{Logs, OutputFormat};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::{event_text, output, time};
use crate::wiring;
use platflow_engine::event::Event;
use platflow_engine::fold;
use platflow_engine::journal::{Journal, StoredEvent};
use platflow_engine::name::StepName;
use serde_json::{Value, json};

/// How many events are read at a time.
const PAGE: usize = 1_000;

/// Prints the events of a run.
///
/// # Errors
/// When the run is unknown, or the journal is damaged.
pub(crate) async fn execute(arguments: Logs, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let run = store.find(&arguments.run.run).await.map_err(wiring::journal_error)?;
    let step = arguments.step.map(StepName::new).transpose().map_err(|error| CommandError::usage(error.to_string()))?;
    let mut after = arguments.after;
    let mut all = Vec::new();
    loop {
        let page = store.events(&run, after, PAGE).await.map_err(wiring::journal_error)?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        for stored in &page {
            let event: Event = decode(stored)?;
            if step.is_some() && event.step() != step.as_ref() {
                continue;
            }
            match settings.output {
                OutputFormat::Text => output::line(&format!(
                    "{:>6}  {}  {}",
                    stored.sequence,
                    time::seconds(stored.recorded_at),
                    event_text::describe(&event)
                ))?,
                OutputFormat::Jsonl => output::json_line(&as_json(stored, &event)?)?,
                OutputFormat::Json => all.push(as_json(stored, &event)?),
            }
        }
    }
    if settings.output == OutputFormat::Json {
        output::json(&json!({"schema_version": 1, "run": run, "events": all}))?;
    }
    Ok(ExitCode::Done)
}

fn decode(stored: &StoredEvent) -> Result<Event, CommandError> {
    fold::decode(stored).map_err(|error| {
        CommandError::new(ExitCode::Internal, format!("event {} of the journal cannot be read", stored.sequence))
            .caused_by(error)
            .with_remedy("the file may be from a newer platflow; use that version")
    })
}

fn as_json(stored: &StoredEvent, event: &Event) -> Result<Value, CommandError> {
    let mut value = serde_json::to_value(event)
        .map_err(|error| CommandError::new(ExitCode::Internal, "an event cannot be shown as JSON").caused_by(error))?;
    if let Some(object) = value.as_object_mut() {
        object.insert("sequence".to_owned(), json!(stored.sequence));
        object.insert("recorded_at".to_owned(), json!(stored.recorded_at.to_string()));
    }
    Ok(value)
}
