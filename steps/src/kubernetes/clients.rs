//! Clients of API servers: endpoint and CA from step outputs, bearer tokens minted in process, nothing ambient.
//!
//! No kubeconfig, no environment, no retries: the engine alone retries. The only second try is after a 401, once, with
//! a new token.

use super::api::Served;
use super::objects::label_value;
use super::snapshot::Snapshot;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::client::Body;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::name::EnvironmentUid;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tower::BoxError;

/// How to reach a cluster's API server; an output of the step that made the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterAccess {
    /// The cluster's name; bearer tokens are signed for it.
    pub name: String,
    /// `https://…` of the API server.
    pub endpoint: String,
    /// The cluster's CA: PEM in base64, as DescribeCluster returns it. Nothing else is trusted.
    pub certificate_authority_data: String,
    /// The cluster's region, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Where bearer tokens come from.
#[async_trait]
pub trait BearerTokens: Send + Sync + 'static {
    /// A new token for the named cluster, and the moment of real time from which it should not be used any more.
    ///
    /// # Errors
    /// When no token can be made; nothing was sent to the cluster.
    async fn token(&self, cluster: &str) -> Result<(SecretString, Timestamp), StepError>;
}

#[async_trait]
impl BearerTokens for crate::aws::TokenSource {
    async fn token(&self, cluster: &str) -> Result<(SecretString, Timestamp), StepError> {
        Self::token(self, cluster).await
    }
}

/// A token is used for this long at most, whatever its own expiry says.
const TOKEN_AGE: SignedDuration = SignedDuration::from_mins(10);
/// And never this close to its expiry.
const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One client per cluster, made at first use.
pub struct Clients {
    tokens: Arc<dyn BearerTokens>,
    known: Mutex<HashMap<ClusterAccess, Client>>,
    discovery: Mutex<HashMap<(ClusterAccess, String, String), Served>>,
    snapshot: Option<Snapshot>,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    /// Clients that take their tokens from `tokens`.
    #[must_use]
    pub fn new(tokens: Arc<dyn BearerTokens>) -> Self {
        // A second installation is refused, which is what is wanted: the first provider stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { tokens, known: Mutex::default(), discovery: Mutex::default(), snapshot: None }
    }

    /// Clients for a single pass over everything of one environment: objects come from lists where they can, and are never
    /// read twice. Not for a run, which looks again at what it changed.
    #[must_use]
    pub fn for_one_look(tokens: Arc<dyn BearerTokens>, uid: &EnvironmentUid) -> Self {
        Self { snapshot: Some(Snapshot::new(label_value(uid.as_str()))), ..Self::new(tokens) }
    }

    /// The lists of a single pass.
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The client of a cluster; connections are made at the first request. Call it inside a runtime.
    ///
    /// # Errors
    /// When the endpoint or the CA is malformed; nothing was sent.
    pub fn connect(&self, access: &ClusterAccess) -> Result<Client, StepError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(access) {
            return Ok(client.clone());
        }
        let client = build(access, Arc::clone(&self.tokens))?;
        known.insert(access.clone(), client.clone());
        Ok(client)
    }

    /// How a kind is served, if it was looked up and found before. What is not served is asked again each time.
    pub(crate) fn discovered(&self, access: &ClusterAccess, api_version: &str, kind: &str) -> Option<Served> {
        let discovery = self.discovery.lock().unwrap_or_else(PoisonError::into_inner);
        discovery.get(&(access.clone(), api_version.to_owned(), kind.to_owned())).cloned()
    }

    /// Remembers what a group version serves.
    pub(crate) fn discover(&self, access: &ClusterAccess, api_version: &str, found: Vec<(String, Served)>) {
        let mut discovery = self.discovery.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, served) in found {
            discovery.insert((access.clone(), api_version.to_owned(), kind), served);
        }
    }
}

fn malformed(access: &ClusterAccess, what: &str, error: &dyn std::fmt::Display) -> StepError {
    StepError::permanent(format!("the {what} of cluster {} is malformed: {error}", access.name)).leaving(Residue::None)
}

fn build(access: &ClusterAccess, tokens: Arc<dyn BearerTokens>) -> Result<Client, StepError> {
    let endpoint: http::Uri = access.endpoint.parse().map_err(|error| malformed(access, "endpoint", &error))?;
    if endpoint.scheme_str() != Some("https") {
        return Err(malformed(access, "endpoint", &"it is not https, and a bearer token never travels in clear"));
    }
    let mut config = kube::Config::new(endpoint);
    config.root_cert = Some(certificates(access)?);
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    let transport = Client::try_from(config).map_err(|error| malformed(access, "CA or endpoint", &error))?;
    let bearer = Arc::new(Bearer { cluster: access.name.clone(), tokens, current: tokio::sync::Mutex::new(None) });
    let service = tower::service_fn(move |request| {
        let (transport, bearer) = (transport.clone(), Arc::clone(&bearer));
        async move { send(&transport, &bearer, request).await }
    });
    Ok(Client::new(service, "default"))
}

fn certificates(access: &ClusterAccess) -> Result<Vec<Vec<u8>>, StepError> {
    let pem =
        STANDARD.decode(access.certificate_authority_data.trim()).map_err(|error| malformed(access, "CA", &error))?;
    let found: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(access, "CA", &error))?;
    if found.is_empty() {
        return Err(malformed(access, "CA", &"it holds no certificate"));
    }
    Ok(found)
}

struct Token {
    secret: SecretString,
    use_until: Timestamp,
}

struct Bearer {
    cluster: String,
    tokens: Arc<dyn BearerTokens>,
    current: tokio::sync::Mutex<Option<Arc<Token>>>,
}

impl Bearer {
    /// The current token, or a new one when it is old or was `refused`.
    async fn token(&self, refused: Option<&Arc<Token>>) -> Result<Arc<Token>, StepError> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref() {
            let was_refused = refused.is_some_and(|refused| Arc::ptr_eq(refused, token));
            if !was_refused && real_now() < token.use_until {
                return Ok(Arc::clone(token));
            }
        }
        let (secret, expiry) = self.tokens.token(&self.cluster).await?;
        let use_until = (real_now() + TOKEN_AGE).min(expiry - EXPIRY_MARGIN);
        let token = Arc::new(Token { secret, use_until });
        *current = Some(Arc::clone(&token));
        Ok(token)
    }
}

/// Tokens age in real time, also while the machine sleeps: the engine's clock knows neither.
#[expect(clippy::disallowed_methods, reason = "the age of a bearer token is real time, not the engine's")]
fn real_now() -> Timestamp {
    Timestamp::now()
}

fn authorised(mut request: http::Request<Body>, token: &Token) -> Result<http::Request<Body>, StepError> {
    let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.secret.expose_secret())).map_err(|_| {
        StepError::new(ErrorClass::Permission, "the bearer token is not a header value").leaving(Residue::None)
    })?;
    value.set_sensitive(true);
    request.headers_mut().insert(http::header::AUTHORIZATION, value);
    Ok(request)
}

fn copy(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    let mut copy = http::Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

async fn send(
    transport: &Client,
    bearer: &Bearer,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, BoxError> {
    let again = copy(&request);
    let token = bearer.token(None).await?;
    let answer = transport.send(authorised(request, &token)?).await?;
    match again {
        Some(request) if answer.status() == http::StatusCode::UNAUTHORIZED => {
            let token = bearer.token(Some(&token)).await?;
            Ok(transport.send(authorised(request, &token)?).await?)
        }
        _ => Ok(answer),
    }
}
