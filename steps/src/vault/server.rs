//! One Vault server, spoken to through a tunnel: requests, replies, and what their codes mean to a step.
//!
//! reqwest speaks what vaultrs lacks or gets wrong (health, seal status, Raft, audit) and everything that carries a
//! key share, because vaultrs records call arguments in its tracing spans. vaultrs serves mounts, auth methods,
//! policies and roles.

use super::place::VaultPlace;
use super::reach::Reach;
use super::tunnel::VaultTunnel;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use vaultrs::client::{VaultClient, VaultClientSettings};
use zeroize::Zeroizing;

/// The longest a read takes.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// A reply: status and body. Its Debug shows the status only.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body as JSON; null when it was empty or not JSON.
    pub body: Value,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Reply {
    /// True for 2xx.
    #[must_use]
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The server's own words, or the bare status.
    #[must_use]
    pub fn errors(&self) -> String {
        let errors = self.body.get("errors").and_then(Value::as_array);
        let texts: Vec<&str> = errors.map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
        let joined = texts.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        if joined.is_empty() { format!("status {}", self.status) } else { joined.join("; ") }
    }

    /// What a refusal means to a step.
    #[must_use]
    pub fn failure(&self, what: &str) -> StepError {
        let errors = self.errors();
        let class = match self.status {
            400 if errors.contains("Waiting for the primary") || errors.contains("pgrading from non-versioned") => {
                ErrorClass::Transient
            }
            403 => ErrorClass::Permission,
            429 => ErrorClass::Throttled,
            412 | 472..=474 | 500..=599 => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        };
        let residue = if self.status < 500 { Residue::None } else { Residue::Unknown };
        StepError::new(class, format!("{what} was refused: {errors}"))
            .with_code(self.status.to_string())
            .leaving(residue)
    }

    /// The reply, or the failure that it means.
    ///
    /// # Errors
    /// For every status outside 2xx.
    pub fn success(self, what: &str) -> Result<Self, StepError> {
        if self.ok() { Ok(self) } else { Err(self.failure(what)) }
    }

    /// A text member of the body.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.body.pointer(pointer).and_then(Value::as_str)
    }
}

/// One pod's Vault server. Dropping it closes the way to it.
pub struct VaultServer {
    pod: String,
    host: String,
    base: String,
    http: reqwest::Client,
    tunnel: VaultTunnel,
    token: Option<SecretString>,
}

impl std::fmt::Debug for VaultServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("VaultServer").field("pod", &self.pod).finish_non_exhaustive()
    }
}

fn tls(ca_certificate: &str) -> Result<rustls::ClientConfig, StepError> {
    let bad = |error: &dyn std::fmt::Display| {
        StepError::permanent(format!("Vault's CA certificate is not usable: {error}")).leaving(Residue::None)
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_certificate.as_bytes()) {
        roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
    }
    if roots.is_empty() {
        return Err(bad(&"it holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

impl VaultServer {
    /// Opens the way to one pod. Nothing is sent yet.
    ///
    /// # Errors
    /// When the CA is not usable or no local port is free.
    pub async fn open(reach: &Arc<dyn Reach>, place: &VaultPlace, pod: &str) -> Result<Self, StepError> {
        let host = place.host(pod);
        let config = tls(&place.ca_certificate)?;
        let tunnel =
            VaultTunnel::open(Arc::clone(reach), place.cluster.clone(), place.namespace.clone(), pod.to_owned())
                .await?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .resolve(&host, tunnel.address())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| StepError::permanent(format!("no HTTP client: {error}")).leaving(Residue::None))?;
        let base = format!("https://{host}:{}", tunnel.address().port());
        Ok(Self { pod: pod.to_owned(), host, base, http, tunnel, token: None })
    }

    /// The pod it runs in.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// The pod's DNS name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The same server, with a token for the calls that want one.
    #[must_use]
    pub fn with_token(mut self, token: SecretString) -> Self {
        self.token = Some(token);
        self
    }

    /// Reads.
    ///
    /// # Errors
    /// When no reply came; a reply of any status is a [`Reply`].
    pub async fn get(&self, path: &str) -> Result<Reply, StepError> {
        self.send(reqwest::Method::GET, path, None, READ_TIMEOUT).await
    }

    /// Deletes.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete(&self, path: &str, timeout: Duration) -> Result<Reply, StepError> {
        self.send(reqwest::Method::DELETE, path, None, timeout).await
    }

    /// Writes.
    ///
    /// # Errors
    /// As [`Self::get`]; the residue is then unknown.
    pub async fn put(&self, path: &str, body: &Value, timeout: Duration) -> Result<Reply, StepError> {
        self.send(reqwest::Method::POST, path, Some(body), timeout).await
    }

    async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Reply, StepError> {
        let (status, bytes) = self.raw(method, path, body, timeout).await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Reply { status, body })
    }

    /// One exchange; the body comes back in a buffer that wipes itself.
    pub(super) async fn raw(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<(u16, Zeroizing<Vec<u8>>), StepError> {
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.base)).timeout(timeout);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(token) = &self.token {
            request = request.header("x-vault-token", token.expose_secret());
        }
        let response = request.send().await.map_err(|error| self.no_answer(path, &error))?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|error| self.no_answer(path, &error))?;
        Ok((status, Zeroizing::new(bytes.to_vec())))
    }

    fn no_answer(&self, path: &str, error: &reqwest::Error) -> StepError {
        if let Some(failure) = self.tunnel.take_failure() {
            return failure;
        }
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = cause.to_string();
            source = cause.source();
        }
        let residue = if error.is_connect() { Residue::None } else { Residue::Unknown };
        StepError::transient(format!("{} did not answer {path}: {text}", self.pod)).leaving(residue)
    }

    /// A vaultrs client over the same connection pool and token.
    ///
    /// # Errors
    /// When it cannot be made; nothing was sent.
    pub fn client(&self, timeout: Duration) -> Result<VaultClient, StepError> {
        let failed = |error: &dyn std::fmt::Display| {
            StepError::permanent(format!("no Vault client: {error}")).leaving(Residue::None)
        };
        let address = url::Url::parse(&self.base).map_err(|error| failed(&error))?;
        // Every member is given, so that nothing is taken from the environment (VAULT_ADDR, VAULT_TOKEN).
        let settings = VaultClientSettings {
            address: url::Url::parse("http://127.0.0.1").map_err(|error| failed(&error))?,
            ca_certs: Vec::new(),
            identity: None,
            timeout: Some(timeout),
            token: self.token.as_ref().map(|token| token.expose_secret().to_owned()).unwrap_or_default(),
            verify: true,
            version: 1,
            wrapping: false,
            namespace: None,
            proxy: None,
        };
        let mut client = VaultClient::new(settings).map_err(|error| failed(&error))?;
        // The connection is ours: verified against Vault's CA, through the tunnel.
        client.http.http = self.http.clone();
        client.http.base = address.as_str().trim_end_matches('/').to_owned();
        client.settings.address = address;
        Ok(client)
    }
}

/// What an error of vaultrs means to a step.
pub(super) fn client_failure(what: &str, error: &vaultrs::error::ClientError) -> StepError {
    match error {
        vaultrs::error::ClientError::APIError { code, errors } => {
            let body = serde_json::json!({ "errors": errors });
            Reply { status: *code, body }.failure(what)
        }
        other => StepError::transient(format!("{what} got no usable answer: {other}")),
    }
}

/// True when a mount or device was refused because it exists.
pub(super) fn in_use(error: &StepError) -> bool {
    error.message.contains("already in use")
}
