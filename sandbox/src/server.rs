//! The server process: one loopback port for all AWS services and the control endpoint. Every change is on disk before its
//! reply is sent. What calls mean is the world's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::aws::{self, RawRequest};
use crate::clock::{Clock, ClockDocument, DEFAULT_SPEED, timestamp, wall_ms};
use crate::embedded::Witness;
use crate::faults::{Effect, Profile, Rule};
use crate::listeners::reconcile;
use crate::persistence::{Persistence, PersistenceError};
use crate::world::World;

const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where the world is kept.
    pub directory: PathBuf,
    /// Seed of a new world.
    pub seed: u64,
    /// Simulated seconds per real second; nothing keeps what the world has.
    pub speed: Option<f64>,
    /// Version of the program, which clients compare.
    pub version: String,
}

/// Where a sandbox answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Process id of the server.
    pub pid: u32,
    /// Version of its program.
    pub version: String,
    /// All AWS services.
    pub aws_url: String,
    /// The control endpoint.
    pub control_url: String,
    /// Which world it serves.
    pub world_id: String,
    /// Account of the world.
    pub account: String,
    /// Simulated seconds per real second.
    pub speed: f64,
}

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The world cannot be kept.
    #[error(transparent)]
    Persistence(#[from] PersistenceError),
    /// No port, or no file.
    #[error("the sandbox cannot use {what}")]
    Io {
        /// What failed.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

pub(crate) struct Inner {
    pub(crate) world: World,
    pub(crate) clock: Clock,
    pub(crate) listeners: BTreeMap<String, CancellationToken>,
    /// Where the listeners answer, by cluster.
    pub(crate) addresses: BTreeMap<String, SocketAddr>,
    /// Nothing keeps a world that lives as long as its process.
    pub(crate) persistence: Option<Persistence>,
}

pub(crate) struct Shared {
    pub(crate) inner: Mutex<Inner>,
    /// Sees every call.
    pub(crate) witness: Option<Arc<dyn Witness>>,
    /// Breaks the connections that there are.
    pub(crate) connections: Mutex<CancellationToken>,
    pub(crate) stop: CancellationToken,
    /// The world changed.
    pub(crate) changed: Notify,
    pub(crate) endpoints: Mutex<Option<Endpoints>>,
}

impl Shared {
    pub(crate) fn connections(&self) -> CancellationToken {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes what changed; a server that cannot write says so instead of answering.
    pub(crate) fn flush(&mut self) -> Result<(), PersistenceError> {
        let Some(persistence) = &mut self.persistence else {
            self.world.forget_changes();
            return Ok(());
        };
        let mut dirty = self.world.take_dirty();
        dirty.push(("clock".to_owned(), serde_json::to_value(self.clock.document()).ok()));
        persistence.save(&dirty)
    }
}

fn load(options: &ServeOptions) -> Result<Inner, ServeError> {
    std::fs::create_dir_all(&options.directory)
        .map_err(|source| ServeError::Io { what: options.directory.display().to_string(), source })?;
    let persistence = Persistence::open(&options.directory.join("world.sqlite3"))?;
    let mut documents = persistence.load()?;
    let clock = documents.iter().position(|(key, _)| key == "clock").map(|at| documents.swap_remove(at).1);
    let clock = match clock {
        Some(document) => Clock::resume(
            serde_json::from_value::<ClockDocument>(document).map_err(PersistenceError::from)?,
            options.speed,
        ),
        None => Clock::starting_at(wall_ms(), options.speed.unwrap_or(DEFAULT_SPEED)),
    };
    let world = if documents.is_empty() {
        World::new(options.seed)
    } else {
        World::restore(documents, clock.now_ms()).map_err(PersistenceError::from)?
    };
    let (listeners, addresses) = (BTreeMap::new(), BTreeMap::new());
    let mut inner = Inner { world, clock, listeners, addresses, persistence: Some(persistence) };
    inner.flush()?;
    Ok(inner)
}

/// The file that says where a sandbox answers.
#[must_use]
pub fn endpoints_file(directory: &Path) -> PathBuf {
    directory.join("endpoints.json")
}

async fn bind(directory: &Path) -> Result<TcpListener, ServeError> {
    let last =
        std::fs::read(endpoints_file(directory)).ok().and_then(|text| serde_json::from_slice::<Endpoints>(&text).ok());
    let port = last.and_then(|last| url::Url::parse(&last.aws_url).ok()?.port());
    if let Some(port) = port
        && let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await
    {
        return Ok(listener);
    }
    TcpListener::bind(("127.0.0.1", 0))
        .await
        .map_err(|source| ServeError::Io { what: "a loopback port".to_owned(), source })
}

fn announce(directory: &Path, endpoints: &Endpoints) -> Result<(), ServeError> {
    let file = endpoints_file(directory);
    let failed = |source| ServeError::Io { what: file.display().to_string(), source };
    let partial = file.with_extension("json.partial");
    let text = serde_json::to_vec_pretty(endpoints).map_err(PersistenceError::from)?;
    std::fs::write(&partial, text).map_err(failed)?;
    std::fs::rename(&partial, &file).map_err(failed)
}

/// Serves until it is told to stop.
///
/// # Errors
/// The world cannot be kept, or no port is free.
pub async fn serve(options: ServeOptions) -> Result<(), ServeError> {
    let inner = load(&options)?;
    let listener = bind(&options.directory).await?;
    let address = listener.local_addr().map_err(|source| ServeError::Io { what: "its port".to_owned(), source })?;
    let url = format!("http://{address}");
    let endpoints = Endpoints {
        pid: std::process::id(),
        version: options.version.clone(),
        aws_url: url.clone(),
        control_url: format!("{url}/_sandbox"),
        world_id: inner.world.meta.world_id.clone(),
        account: inner.world.aws.account().to_owned(),
        speed: inner.clock.speed(),
    };
    let shared = Arc::new(Shared {
        inner: Mutex::new(inner),
        witness: None,
        connections: Mutex::default(),
        stop: CancellationToken::new(),
        changed: Notify::new(),
        endpoints: Mutex::new(Some(endpoints.clone())),
    });
    announce(&options.directory, &endpoints)?;
    let mut heartbeat = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => break,
            _ = heartbeat.tick() => {
                let mut inner = shared.lock();
                let now_ms = inner.clock.now_ms();
                inner.world.advance(now_ms);
                reconcile(&shared, &mut inner);
                inner.flush()?;
                drop(inner);
                shared.changed.notify_waiters();
            }
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                tokio::spawn(connection(Arc::clone(&shared), stream, peer));
            }
        }
    }
    shared.lock().flush()?;
    Ok(())
}

/// Serves one connection to its end.
pub(crate) async fn connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let (stop, broken) = (shared.stop.clone(), shared.connections());
    let service = service_fn(move |request| answer(Arc::clone(&shared), peer, request));
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let last_words = async {
        stop.cancelled().await;
        let _ = tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>()).await;
    };
    tokio::select! {
        // First of all: what was sent over a broken connection is never taken in.
        biased;
        () = broken.cancelled() => {}
        ended = connection => if let Err(error) = ended { tracing::debug!(%error, "a connection ended"); },
        () = last_words => {}
    }
}

/// The connection is to break without a reply.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox was told to break this connection")]
struct Broken;

async fn answer(shared: Arc<Shared>, peer: SocketAddr, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), BODY_LIMIT).await.map_err(|_| Broken)?.to_vec();
    if let Some(path) = parts.uri.path().strip_prefix("/_sandbox/") {
        return Ok(control(&shared, peer, parts.method.as_str(), path, &body).unwrap_or_else(|never| match never {}));
    }
    let headers: BTreeMap<String, String> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let raw = RawRequest {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers,
        body,
    };
    let (outcome, kept, ahead_seconds) = {
        let mut inner = shared.lock();
        let now_ms = inner.clock.now_ms();
        let request = aws::parse(&raw, inner.world.aws.account());
        inner.world.advance(now_ms);
        reconcile(&shared, &mut inner);
        let witness = shared.witness.as_deref();
        if let Some(witness) = witness {
            witness.before(&inner.world, now_ms, aws::mutates(&request.operation));
        }
        let outcome = inner.world.call(&request, now_ms);
        reconcile(&shared, &mut inner);
        if let Some(witness) = witness {
            witness.after(&inner.world, now_ms);
        }
        tracing::debug!(
            service = request.service,
            operation = request.operation,
            status = outcome.response.status,
            "answered"
        );
        (outcome, inner.flush(), inner.world.aws.shape().ahead_seconds)
    };
    if let Err(error) = kept {
        return Ok(text(500, &format!("{error}")));
    }
    match outcome.effect {
        Some(Effect::LoseReply | Effect::CutBefore) => return Err(Broken),
        Some(Effect::Delay { delay_ms }) => {
            let _ = tokio::time::timeout(Duration::from_millis(delay_ms), std::future::pending::<()>()).await;
        }
        _ => {}
    }
    let mut response = Response::builder().status(outcome.response.status);
    if ahead_seconds != 0 {
        response = response.header("date", date(ahead_seconds));
    }
    for (name, value) in outcome.response.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(outcome.response.body)).map_err(|_| Broken)
}

/// The time of a clock that is ahead of this machine's, as HTTP writes it.
fn date(ahead_seconds: i64) -> String {
    let now = timestamp(wall_ms() + ahead_seconds * 1_000);
    now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn text(status: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn document(value: &Value) -> Response<Body> {
    let mut response = text(200, &value.to_string());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn control(
    shared: &Arc<Shared>,
    peer: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Response<Body>, Infallible> {
    let given: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut inner = shared.lock();
    let now_ms = inner.clock.now_ms();
    inner.world.advance(now_ms);
    reconcile(shared, &mut inner);
    let reply = match (method, path) {
        ("GET", "checkip") => {
            let given = inner.world.aws.shape().caller_address.clone();
            text(200, &format!("{}\n", given.unwrap_or_else(|| peer.ip().to_string())))
        }
        ("GET", "account") => document(&json!(inner.world.aws.shape())),
        ("POST", "account") => shape(&mut inner.world, &given),
        ("GET", "status") => document(&json!(shared.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone())),
        ("GET", "clock") => document(&json!({"now_ms": now_ms, "speed": inner.clock.speed()})),
        ("POST", "clock") => {
            if let Some(speed) = given.get("speed").and_then(Value::as_f64).filter(|speed| *speed >= 0.0) {
                inner.clock.set_speed(speed);
            }
            inner.clock.advance(given.get("advance_ms").and_then(Value::as_i64).unwrap_or(0));
            let now_ms = inner.clock.now_ms();
            inner.world.advance(now_ms);
            document(&json!({"now_ms": now_ms, "speed": inner.clock.speed()}))
        }
        ("GET", "world") => document(&inner.world.listing(now_ms)),
        ("GET", "counters") => document(&inner.world.counters.summary()),
        ("GET", "faults") => document(&faults_document(&inner.world)),
        ("POST", "faults") => add_fault(&mut inner.world, &given),
        ("DELETE", "faults") => {
            inner.world.faults.clear();
            document(&faults_document(&inner.world))
        }
        ("POST", "leak") => {
            let kind = given.get("type").and_then(Value::as_str).unwrap_or_default();
            planted(inner.world.leak(kind, now_ms))
        }
        ("POST", "foreign") => planted(inner.world.plant_foreign(&given, now_ms)),
        ("POST", "credentials") => {
            let key = given.get("access_key").and_then(Value::as_str).unwrap_or_default();
            inner.world.aws.refuse_key(key, given.get("refused_as").and_then(Value::as_str));
            document(&json!({"access_key": key}))
        }
        ("POST", "reset") => reset(shared, &mut inner, &given),
        ("POST", "shutdown") => {
            shared.stop.cancel();
            document(&json!({"stopping": true}))
        }
        _ => text(404, "the control endpoint has no such path\n"),
    };
    reconcile(shared, &mut inner);
    Ok(match inner.flush() {
        Ok(()) => reply,
        Err(error) => text(500, &error.to_string()),
    })
}

/// Makes the account differ from an ordinary one in the fields that are given.
fn shape(world: &mut World, given: &Value) -> Response<Body> {
    let mut whole = json!(world.aws.shape());
    if let (Some(whole), Some(given)) = (whole.as_object_mut(), given.as_object()) {
        whole.extend(given.clone());
    }
    match serde_json::from_value(whole) {
        Ok(shape) => {
            world.aws.set_shape(shape);
            document(&json!(world.aws.shape()))
        }
        Err(error) => text(400, &error.to_string()),
    }
}

fn add_fault(world: &mut World, given: &Value) -> Response<Body> {
    if let Some(words) = given.get("profile").and_then(Value::as_str) {
        return match words.parse::<Profile>() {
            Ok(profile) => {
                world.faults.follow(profile);
                document(&faults_document(world))
            }
            Err(error) => text(400, &error.to_string()),
        };
    }
    let rule = match given.get("rule").and_then(Value::as_str) {
        Some(words) => words.parse::<Rule>().map_err(|error| error.to_string()),
        None => serde_json::from_value::<Rule>(given.clone()).map_err(|error| error.to_string()),
    };
    match rule {
        Ok(rule) => {
            world.faults.add(rule);
            document(&faults_document(world))
        }
        Err(error) => text(400, &error),
    }
}

fn faults_document(world: &World) -> Value {
    json!({"schema_version": 1, "rules": world.faults.rules(), "profile": world.faults.profile()})
}

/// What was put into the world by hand, or why it could not be.
fn planted(made: Result<Vec<String>, crate::plant::CannotPlant>) -> Response<Body> {
    match made {
        Ok(ids) => document(&json!({"schema_version": 1, "planted": ids})),
        Err(error) => text(400, &error.to_string()),
    }
}

fn reset(shared: &Arc<Shared>, inner: &mut Inner, given: &Value) -> Response<Body> {
    let seed = given.get("seed").and_then(Value::as_u64).unwrap_or(inner.world.meta.seed);
    if let Some(persistence) = &mut inner.persistence
        && let Err(error) = persistence.clear()
    {
        return text(500, &error.to_string());
    }
    inner.world = World::new(seed);
    reconcile(shared, inner);
    if let Some(endpoints) = shared.endpoints.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        endpoints.world_id.clone_from(&inner.world.meta.world_id);
        inner.world.aws.account().clone_into(&mut endpoints.account);
    }
    document(&json!({"world_id": inner.world.meta.world_id, "seed": seed}))
}
