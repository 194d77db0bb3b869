//! `core.wait`: waits for a time, or until a URL answers. Durable: the beginning is noted, the engine's timer does the rest.

use super::http::{Request, send};
use super::refused;
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use jiff::Timestamp;
use platflow_engine::clock::after;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

const POLL: Duration = Duration::from_secs(5);

/// Waits.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitSpec {
    /// This long. Either this or `until_url`.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Until this answers as wanted.
    #[serde(default)]
    pub until_url: Option<UntilUrl>,
    /// With `until_url`: park after this long.
    #[serde(default = "timeout")]
    pub timeout_seconds: u64,
}

/// What to wait for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UntilUrl {
    /// Asked with GET.
    pub url: String,
    /// The status to wait for.
    #[serde(default = "ok")]
    pub status: u16,
}

fn timeout() -> u64 {
    1_800
}

fn ok() -> u16 {
    200
}

/// How long it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitOutputs {
    /// From the first attempt, on the engine's clock.
    pub waited_seconds: u64,
}

/// The kind `core.wait`.
#[derive(Debug)]
pub struct Wait {
    client: reqwest::Client,
}

enum Until<'a> {
    Time(Duration),
    Url(&'a UntilUrl),
}

fn until(spec: &WaitSpec) -> Result<Until<'_>, StepError> {
    match (spec.seconds, &spec.until_url) {
        (Some(seconds), None) => Ok(Until::Time(Duration::from_secs(seconds))),
        (None, Some(url)) => Ok(Until::Url(url)),
        _ => Err(refused("exactly one of `seconds` and `until_url` is needed")),
    }
}

fn begun(record: &Record<WaitOutputs>) -> Option<Timestamp> {
    record.notes.get("began")?.as_str()?.parse().ok()
}

/// Time from `from` to `to`, zero if it lies behind.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn present(waited: Duration) -> Seen<WaitOutputs> {
    Seen::Present {
        outputs: WaitOutputs { waited_seconds: waited.as_secs() },
        ownership: Ownership::Ours,
        differences: Vec::new(),
    }
}

impl Wait {
    pub(super) fn new(client: reqwest::Client) -> Self {
        Self { client }
    }

    /// Why the URL is not as wanted yet; `None` when it is.
    async fn missing(&self, wanted: &UntilUrl) -> Result<Option<String>, StepError> {
        let request = Request {
            method: "GET".to_owned(),
            url: wanted.url.clone(),
            headers: BTreeMap::new(),
            body: None,
            expect_status: Vec::new(),
        };
        match send(&self.client, &request, None, Duration::from_secs(10)).await {
            Ok(answer) if answer.status == wanted.status => Ok(None),
            Ok(answer) => Ok(Some(format!("{} answers {}, not {}", wanted.url, answer.status, wanted.status))),
            Err(error) if error.class == platflow_engine::failure::ErrorClass::Permanent => Err(error),
            Err(error) => Ok(Some(format!("{} does not answer: {error}", wanted.url))),
        }
    }
}

#[async_trait]
impl StepKind for Wait {
    type Spec = WaitSpec;
    type Outputs = WaitOutputs;

    const NAME: &'static str = "core.wait";
    const SUMMARY: &'static str = "Waits for a time, or until a URL answers with a status; survives crashes.";
    const EXPECTED: Duration = Duration::from_secs(30);

    async fn observe(
        &self,
        spec: &WaitSpec,
        record: &Record<WaitOutputs>,
        context: &Context,
    ) -> Result<Seen<WaitOutputs>, StepError> {
        let until = until(spec)?;
        if let Some(outputs) = &record.outputs {
            // It was waited for once; a later run does not wait again.
            return Ok(present(Duration::from_secs(outputs.waited_seconds)));
        }
        let Some(began) = begun(record) else { return Ok(Seen::Absent) };
        let waited = between(began, context.now());
        match until {
            Until::Time(wanted) if waited >= wanted => Ok(present(waited)),
            Until::Time(wanted) => {
                let left = wanted.saturating_sub(waited);
                Ok(Seen::Changing {
                    reason: format!("waiting for another {} s", left.as_secs_f64().ceil()),
                    poll_in: left,
                })
            }
            Until::Url(url) => Ok(match self.missing(url).await? {
                None => present(waited),
                Some(reason) => Seen::Changing { reason, poll_in: POLL },
            }),
        }
    }

    async fn apply(
        &self,
        spec: &WaitSpec,
        _seen: &Seen<WaitOutputs>,
        record: &Record<WaitOutputs>,
        context: &Context,
    ) -> Result<Made<WaitOutputs>, StepError> {
        let until = until(spec)?;
        let began = match begun(record) {
            Some(began) => began,
            None => {
                let now = context.now();
                context.note("began", json!(now.to_string())).await?;
                now
            }
        };
        match until {
            Until::Time(wanted) => Ok(Made::Waiting {
                reason: format!("waiting until {}", after(began, wanted)),
                poll_in: between(context.now(), after(began, wanted)),
                budget: wanted.saturating_add(Duration::from_secs(3_600)),
            }),
            Until::Url(url) => Ok(Made::Waiting {
                reason: format!("waiting until {} answers {}", url.url, url.status),
                poll_in: Duration::ZERO,
                budget: Duration::from_secs(spec.timeout_seconds),
            }),
        }
    }

    async fn undo(
        &self,
        _spec: &WaitSpec,
        _record: &Record<WaitOutputs>,
        _context: &Context,
    ) -> Result<UndoProgress, StepError> {
        Ok(UndoProgress::Gone { evidence: "waiting leaves nothing behind".to_owned() })
    }
}
