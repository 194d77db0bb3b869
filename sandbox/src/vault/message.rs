//! Requests, replies, and the hook through which a simulated Vault asks its cluster who a token belongs to.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One HTTP request to a Vault listener.
#[derive(Clone, Default)]
pub struct VaultRequest {
    /// Upper case, `LIST` included.
    pub method: String,
    /// Without the query, e.g. `/v1/sys/init`.
    pub path: String,
    /// Decoded query parameters.
    pub query: BTreeMap<String, String>,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as sent.
    pub body: Vec<u8>,
}

/// What the listener answers.
#[derive(Clone)]
pub struct VaultReply {
    /// HTTP status.
    pub status: u16,
    /// JSON, or nothing.
    pub body: Vec<u8>,
}

// Bodies and headers carry key shares and tokens: neither type shows them.
impl std::fmt::Debug for VaultRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("VaultRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VaultReply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("VaultReply").field("status", &self.status).finish_non_exhaustive()
    }
}

impl VaultRequest {
    pub(super) fn json(&self) -> Result<Value, VaultReply> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let why = if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() };
            VaultReply::refuse(400, &format!("failed to decode JSON input: {why}"))
        })
    }

    pub(super) fn token(&self) -> Option<&str> {
        let bearer = || self.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        self.headers.get("x-vault-token").map(String::as_str).or_else(bearer)
    }

    pub(super) fn writes(&self) -> bool {
        matches!(self.method.as_str(), "PUT" | "POST")
    }

    pub(super) fn lists(&self) -> bool {
        self.method == "LIST" || (self.method == "GET" && self.query.get("list").is_some_and(|value| value == "true"))
    }
}

impl VaultReply {
    /// 200 with a JSON body.
    pub(super) fn ok(body: &Value) -> Self {
        Self::with(200, body)
    }

    pub(super) fn with(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into_bytes() }
    }

    /// 204.
    pub(super) fn empty() -> Self {
        Self { status: 204, body: Vec::new() }
    }

    /// An error as Vault words it.
    pub(super) fn refuse(status: u16, text: &str) -> Self {
        Self::with(status, &json!({ "errors": [text] }))
    }

    /// 404 without an explanation, as Vault answers for what is not there.
    pub(super) fn missing() -> Self {
        Self::with(404, &json!({ "errors": [] }))
    }

    /// 405 as the endpoints answer that are no paths of a backend: without a word.
    pub(super) fn wrong_method() -> Self {
        Self::with(405, &json!({ "errors": [] }))
    }

    fn envelope(data: &Value) -> Value {
        json!({
            "request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": data, "wrap_info": null, "warnings": null, "auth": null
        })
    }

    /// 200 with `data`, in Vault's envelope.
    pub(super) fn data(data: &Value) -> Self {
        Self::ok(&Self::envelope(data))
    }

    /// The same with the data repeated at the top level: mounts, auth methods, audit devices, capabilities and the old
    /// path of policies have answered so since before there was an envelope.
    pub(super) fn data_twice(data: &Value) -> Self {
        let mut envelope = Self::envelope(data);
        if let (Some(envelope), Some(data)) = (envelope.as_object_mut(), data.as_object()) {
            for (name, value) in data {
                envelope.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        Self::ok(&envelope)
    }

    /// Gives an envelope its request id; whatever has none stays as it is.
    pub(super) fn identified(mut self, id: &str) -> Self {
        let empty = br#""request_id":"""#;
        if self.body.windows(empty.len()).any(|part| part == empty)
            && let Ok(Value::Object(mut body)) = serde_json::from_slice(&self.body)
            && body.get("request_id") == Some(&json!(""))
        {
            body.insert("request_id".into(), json!(id));
            self.body = Value::Object(body).to_string().into_bytes();
        }
        self
    }
}

/// Answers of the Kubernetes API that a Vault server asks for.
pub trait Reviews {
    /// Who a service account's token belongs to, (namespace, service account), if the API server accepts it.
    fn token_review(&self, jwt: &str) -> Option<(String, String)>;
}
