//! `core.http`: one request as a step, with an optional look and an optional undo.
//!
//! Without `look`, whether it happened is answered from the journal's trail ([`super::plain`]). Every mutating request
//! carries the step's token as `Idempotency-Key`. No proxy is taken from the environment.

use super::answer::Told;
use super::{plain, refused};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Ownership, UndoProgress};
use reqwest::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most of an answer that is read.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Where to.
    pub url: String,
    /// Headers. No secrets: specs are journaled.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// JSON is sent as JSON, text as it is.
    #[serde(default)]
    pub body: Option<Value>,
    /// The statuses that mean success; any 2xx by default.
    #[serde(default)]
    pub expect_status: Vec<u16>,
}

/// Sends a request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    /// `GET`, `POST`, …
    pub method: String,
    /// Where to.
    pub url: String,
    /// Headers. No secrets: specs are journaled.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// JSON is sent as JSON, text as it is.
    #[serde(default)]
    pub body: Option<Value>,
    /// The statuses that mean success; any 2xx by default.
    #[serde(default)]
    pub expect_status: Vec<u16>,
    /// Outputs: name and JSON pointer into the answer. `status` is always told.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// The request may be sent twice. By default so for GET, HEAD, OPTIONS, PUT and DELETE, not for POST and PATCH.
    #[serde(default)]
    pub idempotent: Option<bool>,
    /// Asks whether it is there: success is present (with outputs from this answer), 404 and 410 are absent.
    #[serde(default)]
    pub look: Option<Request>,
    /// Takes it back; 404 and 410 count as gone. Without it, what was sent cannot be taken back.
    #[serde(default)]
    pub undo: Option<Request>,
    /// How long a request may take in real time.
    #[serde(default = "timeout")]
    pub timeout_seconds: u64,
}

fn timeout() -> u64 {
    30
}

impl HttpSpec {
    fn request(&self) -> Request {
        Request {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            expect_status: self.expect_status.clone(),
        }
    }

    fn reads_only(&self) -> bool {
        matches!(self.method.to_ascii_uppercase().as_str(), "GET" | "HEAD" | "OPTIONS")
    }

    fn repeatable(&self) -> bool {
        let by_method = self.reads_only() || matches!(self.method.to_ascii_uppercase().as_str(), "PUT" | "DELETE");
        self.idempotent.unwrap_or(by_method)
    }
}

/// What was answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HttpOutputs(pub BTreeMap<String, Value>);

/// The kind `core.http`.
#[derive(Debug)]
pub struct Http {
    client: reqwest::Client,
}

/// The client of this kind and of `core.wait`: rustls with ring, no redirects to other hosts' surprises, no proxy.
pub(super) fn client() -> reqwest::Result<reqwest::Client> {
    // Whoever was first has installed the same provider: this workspace has no other.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .tls_backend_preconfigured(crate::trust::client_config())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("platflow/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    body: Value,
}

/// Sends one request; any status is an answer.
pub(super) async fn send(
    client: &reqwest::Client,
    request: &Request,
    token: Option<&str>,
    timeout: Duration,
) -> Result<Answer, StepError> {
    let method = Method::from_bytes(request.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| refused(format!("{:?} is not an HTTP method", request.method)))?;
    let mut building = client.request(method, &request.url).timeout(timeout);
    if let Some(token) = token {
        building = building.header("Idempotency-Key", token);
    }
    for (name, value) in &request.headers {
        building = building.header(name, value);
    }
    building = match &request.body {
        None => building,
        Some(Value::String(text)) => building.body(text.clone()),
        Some(body) => building.json(body),
    };
    let mut answer = building.send().await.map_err(|error| failure(&error))?;
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| failure(&error))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES {
            return Err(StepError::permanent(format!("the answer is larger than {ANSWER_BYTES} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    Ok(Answer { status, body })
}

fn failure(error: &reqwest::Error) -> StepError {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    if error.is_builder() {
        refused(message)
    } else if error.is_connect() {
        // No connection: the request never left.
        StepError::transient(message).leaving(Residue::None)
    } else {
        StepError::transient(message)
    }
}

fn expected(request: &Request, status: u16) -> bool {
    if request.expect_status.is_empty() {
        (200..300).contains(&status)
    } else {
        request.expect_status.contains(&status)
    }
}

fn gone(status: u16) -> bool {
    matches!(status, 404 | 410)
}

fn unexpected(request: &Request, answer: &Answer) -> StepError {
    let (class, residue) = match answer.status {
        429 => (ErrorClass::Throttled, Residue::None),
        401 | 403 => (ErrorClass::Permission, Residue::None),
        409 | 423 => (ErrorClass::Conflict, Residue::Unknown),
        400..=499 => (ErrorClass::Permanent, Residue::None),
        500..=599 => (ErrorClass::Transient, Residue::Unknown),
        _ => (ErrorClass::Permanent, Residue::Unknown),
    };
    StepError::new(class, format!("{} {} answered {}", request.method, request.url, answer.status))
        .leaving(residue)
        .with_code(answer.status.to_string())
}

fn told(spec: &HttpSpec, answer: &Answer) -> Result<Told, StepError> {
    let mut told = Told::from([("status".to_owned(), json!(answer.status))]);
    for (name, pointer) in &spec.outputs {
        let value = answer.body.pointer(pointer).ok_or_else(|| {
            StepError::permanent(format!("the answer has nothing at {pointer:?}, where output {name:?} should be"))
        })?;
        told.insert(name.clone(), value.clone());
    }
    Ok(told)
}

impl Http {
    pub(super) fn new(client: reqwest::Client) -> Self {
        Self { client }
    }

    async fn look(&self, spec: &HttpSpec, look: &Request) -> Result<Seen<HttpOutputs>, StepError> {
        let answer = send(&self.client, look, None, Duration::from_secs(spec.timeout_seconds)).await?;
        if gone(answer.status) {
            return Ok(Seen::Absent);
        }
        if !expected(look, answer.status) {
            return Err(unexpected(look, &answer));
        }
        Ok(Seen::Present {
            outputs: HttpOutputs(told(spec, &answer)?),
            ownership: Ownership::Ours,
            differences: Vec::new(),
        })
    }
}

fn outputs(record: &Record<HttpOutputs>) -> Option<&Told> {
    record.outputs.as_ref().map(|outputs| &outputs.0)
}

#[async_trait]
impl StepKind for Http {
    type Spec = HttpSpec;
    type Outputs = HttpOutputs;

    const NAME: &'static str = "core.http";
    const SUMMARY: &'static str = "Sends an HTTP request, with JSON pointers into the answer as outputs.";

    async fn observe(
        &self,
        spec: &HttpSpec,
        record: &Record<HttpOutputs>,
        _context: &Context,
    ) -> Result<Seen<HttpOutputs>, StepError> {
        if let Some(look) = &spec.look {
            return self.look(spec, look).await;
        }
        let what = format!("{} {}", spec.method, spec.url);
        Ok(match plain::seen(record, outputs(record), &plain::digest(spec), spec.repeatable(), &what)? {
            Seen::Absent => Seen::Absent,
            Seen::Present { outputs, ownership, differences } => {
                Seen::Present { outputs: HttpOutputs(outputs), ownership, differences }
            }
            Seen::Changing { reason, poll_in } => Seen::Changing { reason, poll_in },
            Seen::Unknown { reason } => Seen::Unknown { reason },
        })
    }

    async fn apply(
        &self,
        spec: &HttpSpec,
        _seen: &Seen<HttpOutputs>,
        _record: &Record<HttpOutputs>,
        context: &Context,
    ) -> Result<Made<HttpOutputs>, StepError> {
        let call = context.begin("request")?;
        let timeout = Duration::from_secs(spec.timeout_seconds).min(call.timeout);
        let request = spec.request();
        plain::started(context, &plain::digest(spec)).await?;
        let token = (!spec.reads_only()).then_some(call.token.as_str());
        let outcome = match send(&self.client, &request, token, timeout).await {
            Ok(answer) if expected(&request, answer.status) => told(spec, &answer),
            Ok(answer) => Err(unexpected(&request, &answer)),
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(told) => plain::ended(context, Some(told)).await?,
            // Refused, or never sent: it is known that nothing happened.
            Err(error) if error.residue == Residue::None => plain::ended(context, None).await?,
            Err(_) => {}
        }
        outcome.map(|told| Made::Done(HttpOutputs(told)))
    }

    async fn undo(
        &self,
        spec: &HttpSpec,
        record: &Record<HttpOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        if spec.reads_only() {
            return Ok(UndoProgress::Gone { evidence: format!("{} leaves nothing behind", spec.method) });
        }
        if spec.look.is_none() && !plain::may_have_begun(record, outputs(record)) {
            return Ok(UndoProgress::Gone {
                evidence: "the journal shows that it was never sent, or was taken back".to_owned(),
            });
        }
        let Some(undo) = &spec.undo else {
            return Ok(UndoProgress::Blocked {
                owner: format!("whatever {} {} did", spec.method, spec.url),
                remedy: plain::by_hand(context, "undo"),
            });
        };
        let call = context.begin("undo")?;
        let timeout = Duration::from_secs(spec.timeout_seconds).min(call.timeout);
        let answer = send(&self.client, undo, Some(&call.token), timeout).await?;
        if !expected(undo, answer.status) && !gone(answer.status) {
            return Err(unexpected(undo, &answer));
        }
        plain::undone(context, record).await?;
        let sent = format!("{} {} answered {}", undo.method, undo.url, answer.status);
        let Some(look) = &spec.look else { return Ok(UndoProgress::Gone { evidence: sent }) };
        match self.look(spec, look).await? {
            Seen::Absent => Ok(UndoProgress::Gone {
                evidence: format!("{sent}; {} {} answers that it is gone", look.method, look.url),
            }),
            _ => Ok(UndoProgress::Waiting {
                reason: format!("{} {} still finds it", look.method, look.url),
                poll_in: Duration::from_secs(5),
                budget: Duration::from_secs(600),
            }),
        }
    }
}
