//! A byte stream to a pod's port 8200, as a port-forward delivers it: TLS with the pod's certificate, then HTTP/1.1.
//!
//! Which certificate, which server, and whether a reply is lost on its way, the backend says.

use super::message::{VaultReply, VaultRequest};
use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

const MAX_BODY: usize = 32 * 1024 * 1024;

/// What happens to a request that was handled.
#[derive(Debug)]
pub enum Answer {
    /// The reply goes out.
    Reply(VaultReply),
    /// The server did its work, and the connection breaks before a byte of the reply is sent.
    Lost,
}

/// The servers behind a stream.
#[async_trait]
pub trait VaultBackend: Send + Sync + 'static {
    /// Handles one request to the server on `storage_id`, now.
    async fn handle(&self, storage_id: &str, request: VaultRequest) -> Answer;
}

/// Why a stream ended badly.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The certificate or key that the pod mounts is not usable.
    #[error("the pod's certificate is not usable: {0}")]
    Identity(String),
    /// The client broke off, or does not trust the certificate.
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// The connection broke; also how a lost reply ends.
    #[error("the connection broke")]
    Connection(#[source] hyper::Error),
}

/// A certificate chain with its key, from the secret that the pod mounts.
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<rustls::ServerConfig>,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TlsIdentity")
    }
}

impl TlsIdentity {
    /// From PEM texts (`tls.crt`, `tls.key`).
    ///
    /// # Errors
    /// [`StreamError::Identity`] when they are not a certificate chain and its key.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, StreamError> {
        let bad = |error: &dyn std::fmt::Display| StreamError::Identity(error.to_string());
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().map_err(|error| bad(&error))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| bad(&error))?;
        Ok(Self { config: Arc::new(config) })
    }
}

/// Serves one stream until the client closes it.
///
/// # Errors
/// [`StreamError`]; a lost reply ends the stream with one too, by design.
pub async fn stream<S>(
    io: S,
    identity: &TlsIdentity,
    storage_id: &str,
    backend: Arc<dyn VaultBackend>,
) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&identity.config));
    let secured = acceptor.accept(io).await.map_err(StreamError::Handshake)?;
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
        let backend = Arc::clone(&backend);
        let storage_id = storage_id.to_owned();
        async move { answer(&*backend, &storage_id, request).await }
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(secured), service)
        .await
        .map_err(StreamError::Connection)
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the reply is lost")]
struct Lost;

async fn answer(
    backend: &dyn VaultBackend,
    storage_id: &str,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Lost> {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), MAX_BODY).await else { return Err(Lost) };
    let query = head.uri.query().unwrap_or_default();
    let headers = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect::<BTreeMap<_, _>>();
    let request = VaultRequest {
        method: head.method.as_str().to_owned(),
        path: percent_encoding::percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers,
        body: body.to_vec(),
    };
    match backend.handle(storage_id, request).await {
        Answer::Lost => Err(Lost),
        Answer::Reply(reply) => {
            let mut response = Response::new(Body::from(reply.body));
            *response.status_mut() = StatusCode::from_u16(reply.status).map_err(|_| Lost)?;
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
    }
}
