//! The listener of one cluster: TLS with the cluster's own authority, HTTP/1.1 and HTTP/2, watches as streams, port-forwards as WebSockets.
//! It owns sockets and real time for signatures; state and simulated time stay behind [`KubeBackend`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::StreamExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::encoding;
use super::identity::{self, CertificateFailed};
use super::model::{Caller, KubeReply, KubeRequest};
use super::portforward;
use super::watch::Subscription;

/// A byte stream to a port of a pod.
pub trait PodStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> PodStream for T {}

/// What the listener needs from the world.
#[async_trait::async_trait]
pub trait KubeBackend: Send + Sync + 'static {
    /// Answers a request (`Clusters::handle` under the world's lock), then wakes the watchers.
    fn handle(&self, cluster: &str, request: &KubeRequest) -> KubeReply;

    /// Polls a watch (`Clusters::poll_watch` under the world's lock).
    fn poll_watch(&self, watch: &mut Subscription) -> (Vec<Value>, bool);

    /// Ends when the world changed or its clock reached a time, whichever comes first. May end early.
    async fn changed(&self, cluster: &str, until: Timestamp);

    /// Waits for some simulated time.
    async fn hold(&self, milliseconds: i64);

    /// Real time.
    fn wall(&self) -> Timestamp;

    /// A byte stream to a port of a running pod, if something listens there.
    fn connect_pod(&self, cluster: &str, namespace: &str, pod: &str, port: u16) -> Option<Box<dyn PodStream>>;
}

/// Makes the TLS side of a cluster's listener from its authority (see `Clusters::certificate_authority`).
///
/// # Errors
/// When the serving certificate cannot be made.
pub fn tls_config(
    authority: &(String, String),
    names: &[String],
) -> Result<Arc<rustls::ServerConfig>, CertificateFailed> {
    let (certificate, key) = identity::serving(&authority.1, names)?;
    let chain: Vec<CertificateDer<'static>> = [certificate.as_str(), authority.0.as_str()]
        .iter()
        .filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok())
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| CertificateFailed::unreadable())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|_| CertificateFailed::unreadable())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

struct Front {
    cluster: String,
    backend: Arc<dyn KubeBackend>,
}

/// What may change between two connections to one listener.
pub trait Doors: Send + Sync + 'static {
    /// The TLS side of the cluster as it is now; nothing while there is none.
    fn tls(&self) -> Option<Arc<rustls::ServerConfig>>;

    /// Breaks the connection that is being made, once it is cancelled.
    fn stop(&self) -> CancellationToken;
}

struct Fixed {
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
}

impl Doors for Fixed {
    fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        Some(Arc::clone(&self.tls))
    }

    fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }
}

/// Serves one cluster until the token is cancelled.
pub async fn serve_cluster(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    cluster: String,
    backend: Arc<dyn KubeBackend>,
    stop: CancellationToken,
) {
    let doors = Arc::new(Fixed { tls, stop: stop.clone() });
    serve_through(listener, doors, cluster, backend, stop).await;
}

/// Serves whatever cluster of a name there is, until the token is cancelled.
pub async fn serve_through(
    listener: TcpListener,
    doors: Arc<dyn Doors>,
    cluster: String,
    backend: Arc<dyn KubeBackend>,
    stop: CancellationToken,
) {
    let front = Arc::new(Front { cluster, backend });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, peer)) = accepted else { continue };
        let Some(tls) = doors.tls() else { continue };
        tokio::spawn(connection(socket, peer, TlsAcceptor::from(tls), Arc::clone(&front), doors.stop()));
    }
}

async fn connection(
    socket: tokio::net::TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    front: Arc<Front>,
    stop: CancellationToken,
) {
    socket.set_nodelay(true).unwrap_or_default();
    let stream = match acceptor.accept(socket).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
    };
    let service = service_fn(move |request: Request<Incoming>| answer(Arc::clone(&front), request.map(Body::new)));
    let builder = Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        ended = serving => {
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "connection ended");
            }
        }
    }
}

/// The connection is to break without a reply.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox was told to break this connection")]
struct Broken;

async fn answer(front: Arc<Front>, request: Request<Body>) -> Result<Response<Body>, Broken> {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 16 << 20).await else {
        return Ok(plain(StatusCode::BAD_REQUEST, "the body could not be read\n"));
    };
    let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let caller = header(header::AUTHORIZATION)
        .and_then(|value| value.strip_prefix("Bearer ").map(|token| Caller::Bearer(token.trim().to_owned())))
        .unwrap_or_default();
    let accepts = header(header::ACCEPT_ENCODING);
    let mut kube = KubeRequest {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
        content_type: header(header::CONTENT_TYPE),
        accept: header(header::ACCEPT),
        if_none_match: header(header::IF_NONE_MATCH),
        user_agent: header(header::USER_AGENT),
        body,
        caller,
        wall: front.backend.wall(),
        waited: false,
    };
    loop {
        match front.backend.handle(&front.cluster, &kube) {
            KubeReply::Json { status, headers, body } => {
                return Ok(whole(status, "application/json", headers, body.to_string(), accepts.as_deref()));
            }
            KubeReply::Text { status, content_type, headers, body } => {
                return Ok(whole(status, &content_type, headers, body, accepts.as_deref()));
            }
            KubeReply::Watch(watch) => return Ok(stream(&front, *watch)),
            KubeReply::Broken => return Err(Broken),
            KubeReply::Later { after_ms } => {
                front.backend.hold(after_ms).await;
                kube.waited = true;
            }
            KubeReply::Upgrade(forward) => {
                let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
                    Ok(upgrade) => upgrade,
                    Err(refused) => return Ok(refused.into_response()),
                };
                let backend = Arc::clone(&front.backend);
                return Ok(upgrade
                    .protocols(["v4.channel.k8s.io"])
                    .on_upgrade(move |socket| portforward::run(socket, forward, backend)));
            }
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// An answer that is no stream, compressed where the request takes it so.
fn whole(
    status: u16,
    content_type: &str,
    mut headers: Vec<(String, String)>,
    body: String,
    accepts: Option<&str>,
) -> Response<Body> {
    let Some(packed) = encoding::packed(accepts, body.as_bytes()) else {
        return respond(status, content_type, &headers, Body::from(body));
    };
    headers.extend(encoding::HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    respond(status, content_type, &headers, Body::from(packed))
}

fn respond(status: u16, content_type: &str, headers: &[(String, String)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type)
        && !content_type.is_empty()
    {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

struct Streaming {
    watch: Subscription,
    backend: Arc<dyn KubeBackend>,
    over: bool,
}

fn stream(front: &Front, watch: Subscription) -> Response<Body> {
    let state = Streaming { watch, backend: Arc::clone(&front.backend), over: false };
    let chunks = futures::stream::unfold(state, next_chunk);
    let chunks: Pin<Box<dyn futures::Stream<Item = Result<Bytes, Infallible>> + Send>> = chunks.boxed();
    respond(200, "application/json", &[], Body::from_stream(chunks))
}

async fn next_chunk(mut state: Streaming) -> Option<(Result<Bytes, Infallible>, Streaming)> {
    if state.over {
        return None;
    }
    loop {
        let (events, over) = state.backend.poll_watch(&mut state.watch);
        state.over = over;
        if !events.is_empty() {
            let mut text = String::new();
            for event in events {
                text.push_str(&event.to_string());
                text.push('\n');
            }
            return Some((Ok(Bytes::from(text)), state));
        }
        if over {
            return None;
        }
        let (cluster, due) = (state.watch.cluster().to_owned(), state.watch.due());
        state.backend.changed(&cluster, due).await;
    }
}
