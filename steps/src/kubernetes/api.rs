//! Requests to one API server as JSON: paths by discovery, a time limit on each, failures told apart.
//!
//! Whether an object is ours, and what to do about it, is `objects`.

use super::clients::{Clients, ClusterAccess};
use super::failure::{Failure, Meaning};
use super::snapshot::listed;
use http::{Method, Request};
use kube::Client;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use platflow_engine::clock::after;
use platflow_engine::context::{Call, Context};
use platflow_engine::failure::{ErrorClass, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// The field manager of everything that platflow applies.
pub(crate) const MANAGER: &str = "platflow";
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The waits before a read is asked again (ADR 7).
const READ_AGAIN: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ObjectKey {
    /// For example `apps/v1`.
    pub api_version: String,
    /// For example `Deployment`.
    pub kind: String,
    /// Absent for what lives in no namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// A key of an object in a namespace.
    pub(crate) fn namespaced(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::global(api_version, kind, name) }
    }

    /// A key of an object in no namespace.
    pub(crate) fn global(api_version: &str, kind: &str, name: &str) -> Self {
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), namespace: None, name: name.to_owned() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(formatter, "{} {namespace}/{}", self.kind, self.name),
            None => write!(formatter, "{} {}", self.kind, self.name),
        }
    }
}

/// How the server serves a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
}

/// One API server, on behalf of one step.
pub(crate) struct Api<'a> {
    clients: &'a Clients,
    access: &'a ClusterAccess,
    client: Client,
    /// The step at work.
    pub(crate) context: &'a Context,
}

impl<'a> Api<'a> {
    pub(crate) fn new(
        clients: &'a Clients,
        access: &'a ClusterAccess,
        context: &'a Context,
    ) -> Result<Self, StepError> {
        Ok(Self { clients, access, client: clients.connect(access)?, context })
    }

    async fn once(&self, what: &str, request: Request<Vec<u8>>, limit: Duration) -> Result<String, Failure> {
        match tokio::time::timeout(limit, self.client.request_text(request)).await {
            Ok(answer) => answer.map_err(|error| Failure::of(what, error)),
            Err(_) => Err(Failure::timeout(what, limit.as_secs())),
        }
    }

    /// Sends a request; one that changes nothing is asked again after a hiccup, as a look at a large installation consists
    /// of a hundred of them and would otherwise begin anew at each.
    async fn send(&self, what: &str, request: Request<Vec<u8>>, limit: Duration) -> Result<String, Failure> {
        let mut settled = self.told(what, request.clone(), limit).await;
        if !only_reads(&request) {
            return settled;
        }
        for pause in READ_AGAIN {
            let passing = |failure: &Failure| {
                matches!(failure.error.class, ErrorClass::Transient | ErrorClass::Throttled)
                    && failure.meaning != Meaning::NotConnected
            };
            if self.context.cancelled.is_cancelled() || !settled.as_ref().is_err_and(passing) {
                break;
            }
            self.context.clock.sleep_until(after(self.context.now(), pause)).await;
            settled = self.told(what, request.clone(), limit).await;
        }
        settled
    }

    /// Sends a request once. An authorisation refusal counts only from a server that is ready: right after a restart,
    /// authorisation answers 403 before its rules are loaded (kubernetes/kubernetes, `rbac/bootstrap-roles` hook).
    async fn told(&self, what: &str, request: Request<Vec<u8>>, limit: Duration) -> Result<String, Failure> {
        let again = request.clone();
        let refused = match self.once(what, request, limit).await {
            Err(failure) if failure.meaning == Meaning::Forbidden => failure,
            settled => return settled,
        };
        match self.once("GET /readyz", plain(Method::GET, "/readyz"), READ_TIMEOUT).await {
            Ok(_) => self.once(what, again, limit).await,
            Err(_) => {
                let mut failure = refused;
                failure.error.class = ErrorClass::Transient;
                failure.error.message.push_str(" (the API server is not ready yet)");
                Err(failure)
            }
        }
    }

    async fn json(&self, what: &str, request: Request<Vec<u8>>, limit: Duration) -> Result<Value, Failure> {
        let text = self.send(what, request, limit).await?;
        serde_json::from_str(&text).map_err(|error| Failure::unreadable(what, &error))
    }

    /// The text at a path of the server itself, such as `/readyz`.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Failure> {
        self.once(&format!("GET {path}"), plain(Method::GET, path), READ_TIMEOUT).await
    }

    /// The JSON at a path of the server itself.
    pub(crate) async fn document(&self, path: &str) -> Result<Value, Failure> {
        self.json(&format!("GET {path}"), plain(Method::GET, path), READ_TIMEOUT).await
    }

    /// How a kind is served; `None` when it is not (yet).
    pub(crate) async fn served(&self, api_version: &str, kind: &str) -> Result<Option<Served>, Failure> {
        if let Some(served) = self.clients.discovered(self.access, api_version, kind) {
            return Ok(Some(served));
        }
        let path = root(api_version);
        let answer = match self.document(&path).await {
            Ok(answer) => answer,
            Err(failure) if matches!(failure.meaning, Meaning::NotServed | Meaning::NotFound) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let resources = answer.get("resources").and_then(Value::as_array).cloned().unwrap_or_default();
        let found: Vec<(String, Served)> = resources.iter().filter_map(resource).collect();
        self.clients.discover(self.access, api_version, found);
        Ok(self.clients.discovered(self.access, api_version, kind))
    }

    async fn path(&self, key: &ObjectKey) -> Result<Option<String>, Failure> {
        let Some(served) = self.served(&key.api_version, &key.kind).await? else { return Ok(None) };
        let collection = collection(&key.api_version, &served, key.namespace.as_deref());
        Ok(Some(format!("{collection}/{}", escaped(&key.name))))
    }

    /// Like `path`, for what must be served by now.
    async fn known_path(&self, key: &ObjectKey) -> Result<String, Failure> {
        match self.path(key).await? {
            Some(path) => Ok(path),
            None => {
                let status = json!({"code": 404, "message": format!("{} {} is not served", key.api_version, key.kind),
                    "reason": "Failed to parse error data"});
                let status =
                    serde_json::from_value(status).map_err(|error| Failure::unreadable("discovery", &error))?;
                Err(Failure::of_status(&key.to_string(), &status))
            }
        }
    }

    /// The object, or `None` when neither it nor its kind is there.
    pub(crate) async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, Failure> {
        if let Some(object) = self.on_a_list(key).await {
            return Ok(Some(object));
        }
        let Some(path) = self.path(key).await? else { return Ok(None) };
        match self.json(&format!("reading {key}"), plain(Method::GET, &path), READ_TIMEOUT).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if matches!(failure.meaning, Meaning::NotFound | Meaning::NotServed) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The object from the list of a single pass, if there is one and it shows it. A list that fails decides nothing.
    async fn on_a_list(&self, key: &ObjectKey) -> Option<Value> {
        let snapshot = self.clients.snapshot()?;
        let list = snapshot.list(self.access, key);
        let place = snapshot.place(&list);
        let listed = place
            .get_or_try_init(|| async {
                let namespace = list.namespace.as_deref();
                let items = self.list(&list.api_version, &list.kind, namespace, &list.selector).await?;
                Ok::<_, Failure>(listed(&list, items))
            })
            .await
            .ok()?;
        let served = self.served(&key.api_version, &key.kind).await.ok()??;
        let namespace = key.namespace.clone().filter(|_| served.namespaced);
        listed.get(&(namespace, key.name.clone())).cloned()
    }

    /// All objects of a kind, in one namespace or all; empty when the kind is not served.
    pub(crate) async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, Failure> {
        let Some(served) = self.served(api_version, kind).await? else { return Ok(Vec::new()) };
        let mut path = collection(api_version, &served, namespace);
        if !selector.is_empty() {
            path = format!("{path}?labelSelector={}", escaped(selector));
        }
        match self.json(&format!("listing {kind}"), plain(Method::GET, &path), READ_TIMEOUT).await {
            Ok(mut answer) => match answer.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => Ok(items),
                _ => Ok(Vec::new()),
            },
            Err(failure) if matches!(failure.meaning, Meaning::NotFound | Meaning::NotServed) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }

    async fn server_side_apply(
        &self,
        key: &ObjectKey,
        body: &Value,
        query: &str,
        limit: Duration,
    ) -> Result<Value, Failure> {
        let path = self.known_path(key).await?;
        let uri = format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict{query}");
        let request = with_body(Method::PATCH, &uri, "application/apply-patch+yaml", body);
        self.json(&format!("applying {key}"), request, limit).await
    }

    /// What the server would store for this apply; stores nothing.
    pub(crate) async fn dry_apply(&self, key: &ObjectKey, body: &Value) -> Result<Value, Failure> {
        self.server_side_apply(key, body, "&force=true&dryRun=All", READ_TIMEOUT).await
    }

    /// Applies; `force` takes over fields that others set on an object of ours.
    pub(crate) async fn apply(
        &self,
        key: &ObjectKey,
        body: &Value,
        force: bool,
        permit: &Call,
    ) -> Result<Value, Failure> {
        self.server_side_apply(key, body, if force { "&force=true" } else { "" }, permit.timeout).await
    }

    /// Creates, or only asks whether it would be accepted when `permit` is absent.
    pub(crate) async fn create(&self, key: &ObjectKey, body: &Value, permit: Option<&Call>) -> Result<Value, Failure> {
        let path = self.known_path(key).await?;
        let collection = path.rsplit_once('/').map_or(path.as_str(), |(collection, _)| collection);
        let dry = if permit.is_none() { "&dryRun=All" } else { "" };
        let request =
            with_body(Method::POST, &format!("{collection}?fieldManager={MANAGER}{dry}"), "application/json", body);
        let limit = permit.map_or(READ_TIMEOUT, |permit| permit.timeout);
        self.json(&format!("creating {key}"), request, limit).await
    }

    /// Asks a review (access, token) that stores nothing.
    pub(crate) async fn review(&self, api_version: &str, kind: &str, body: &Value) -> Result<Value, Failure> {
        self.create_at(api_version, kind, body).await
    }

    async fn create_at(&self, api_version: &str, kind: &str, body: &Value) -> Result<Value, Failure> {
        let key = ObjectKey::global(api_version, kind, "review");
        let path = self.known_path(&key).await?;
        let collection = path.rsplit_once('/').map_or(path.as_str(), |(collection, _)| collection);
        let request = with_body(Method::POST, collection, "application/json", body);
        self.json(&format!("asking for a {kind}"), request, READ_TIMEOUT).await
    }

    /// A JSON merge patch under our field manager.
    pub(crate) async fn merge(&self, key: &ObjectKey, body: &Value, permit: &Call) -> Result<Value, Failure> {
        let path = self.known_path(key).await?;
        let uri = format!("{path}?fieldManager={MANAGER}");
        let request = with_body(Method::PATCH, &uri, "application/merge-patch+json", body);
        self.json(&format!("changing {key}"), request, permit.timeout).await
    }

    /// Deletes exactly the object with that uid. Not found counts as done.
    pub(crate) async fn delete(
        &self,
        key: &ObjectKey,
        uid: &str,
        propagation: &str,
        permit: &Call,
    ) -> Result<(), Failure> {
        let Some(path) = self.path(key).await? else { return Ok(()) };
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation,
            "preconditions": {"uid": uid}});
        let request = with_body(Method::DELETE, &path, "application/json", &options);
        match self.send(&format!("deleting {key}"), request, permit.timeout).await {
            Ok(_) => Ok(()),
            // Another object of that name, or none: ours is gone.
            Err(failure) if matches!(failure.meaning, Meaning::NotFound | Meaning::OtherObject) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

fn only_reads(request: &Request<Vec<u8>>) -> bool {
    request.method() == Method::GET || request.uri().query().is_some_and(|query| query.contains("dryRun=All"))
}

fn plain(method: Method, uri: &str) -> Request<Vec<u8>> {
    let mut request = Request::new(Vec::new());
    *request.method_mut() = method;
    // Paths are built from escaped names; one that still does not parse becomes the root, which serves no object.
    *request.uri_mut() = uri.parse().unwrap_or_default();
    request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json, */*"));
    request
}

fn with_body(method: Method, uri: &str, content_type: &'static str, body: &Value) -> Request<Vec<u8>> {
    let mut request = plain(method, uri);
    request.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    *request.body_mut() = body.to_string().into_bytes();
    request
}

fn escaped(text: &str) -> String {
    const SAFE: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, SAFE).to_string()
}

fn root(api_version: &str) -> String {
    if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") }
}

fn collection(api_version: &str, served: &Served, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if served.namespaced => {
            format!("{}/namespaces/{}/{}", root(api_version), escaped(namespace), served.plural)
        }
        _ => format!("{}/{}", root(api_version), served.plural),
    }
}

fn resource(entry: &Value) -> Option<(String, Served)> {
    let name = entry.get("name")?.as_str()?;
    let kind = entry.get("kind")?.as_str()?;
    // `deployments/status` and the like are subresources.
    (!name.contains('/')).then(|| {
        let namespaced = entry.get("namespaced").and_then(Value::as_bool).unwrap_or(false);
        (kind.to_owned(), Served { plural: name.to_owned(), namespaced })
    })
}
