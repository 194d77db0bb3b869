//! Manifests from an https server with a CA of its own: what is applied, and what is refused with which words.

use super::apply::{ApplyKind, ApplySpec};
use super::clients::{BearerTokens, Clients};
use super::download::MAX_BYTES;
use super::sources::{Source, Sources};
use crate::contract::{Record, Seen, StepKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use platflow_engine::clock::Clock;
use platflow_engine::context::{Context, StepGuard};
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n";

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// A server on loopback, and the CA that vouches for it.
struct Server {
    address: SocketAddr,
    authority: String,
}

impl Server {
    async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(own.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(acceptor.clone(), stream, address));
            }
        });
        Self { address, authority }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }
}

/// One request, one answer, by its path. A client that is refused by its own means hangs up first.
async fn answer(acceptor: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&byte);
    }
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let path = asked.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/');
    let body = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{MANIFEST}")
    };
    let moved =
        |to: &str| format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let reply = match path {
        "good" => body("200 OK", MANIFEST.len()),
        "moved" => moved(&format!("https://{address}/good")),
        "plain" => moved("http://127.0.0.1:1/good"),
        "circle" => moved(&format!("https://{address}/circle")),
        "cut" => body("200 OK", MANIFEST.len() + 100),
        "busy" => body("503 Service Unavailable", MANIFEST.len()),
        "announced" => body("200 OK", MAX_BYTES + 1),
        "endless" => "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned(),
        _ => body("404 Not Found", MANIFEST.len()),
    };
    stream.write_all(reply.as_bytes()).await?;
    if path == "endless" {
        let block = vec![b' '; 1 << 20];
        for _ in 0..=MAX_BYTES >> 20 {
            stream.write_all(&block).await?;
        }
    }
    stream.shutdown().await
}

fn source(url: String, sha256: &str) -> Source {
    Source { url: Some(url), file: None, embedded: false, sha256: Some(sha256.to_owned()) }
}

/// Proves that what an address gives is taken when its digest is the pinned one, also behind a redirect to https.
#[tokio::test]
async fn a_pinned_manifest_is_downloaded() {
    let server = Server::start().await;
    for path in ["good", "moved"] {
        let sources = Sources::trusting(server.authority.as_bytes());
        let found = sources.objects(&source(server.url(path), &digest(MANIFEST)), None).await.unwrap();
        assert_eq!(found.len(), 1, "{path}");
    }
}

/// Fails the test when a mutating call is begun or a note is made.
struct Nothing;

#[async_trait::async_trait]
impl StepGuard for Nothing {
    async fn note(&self, _: &StepName, key: &str, _: Value) -> Result<(), StepError> {
        panic!("{key} was noted")
    }
    fn lease_left(&self) -> Result<Duration, StepError> {
        panic!("a mutating call was begun")
    }
}

#[async_trait::async_trait]
impl Clock for Nothing {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    async fn sleep_until(&self, _: Timestamp) {}
}

#[async_trait::async_trait]
impl BearerTokens for Nothing {
    async fn token(&self, _: &str) -> Result<(SecretString, Timestamp), StepError> {
        panic!("the cluster was about to be asked")
    }
}

/// What `kubernetes.apply` says, of a cluster that must not be asked.
async fn refusal(server: &Server, sources: Sources, source: &Source) -> StepError {
    let kind = ApplyKind { clients: Arc::new(Clients::new(Arc::new(Nothing))), sources: Arc::new(sources) };
    let spec: ApplySpec = serde_json::from_value(json!({
        "cluster": { "name": "c", "endpoint": "https://127.0.0.1:1",
            "certificate_authority_data": STANDARD.encode(&server.authority) },
        "source": { "url": source.url, "sha256": source.sha256 }
    }))
    .unwrap();
    let context = Context {
        step: StepName::new("apply").unwrap(),
        run: RunId::new("r1").unwrap(),
        environment: EnvironmentName::new("dev").unwrap(),
        environment_uid: EnvironmentUid::new("env1").unwrap(),
        attempt: 1,
        generation: 0,
        clock: Arc::new(Nothing),
        cancelled: tokio_util::sync::CancellationToken::new(),
        guard: Arc::new(Nothing),
    };
    let record = || Record { outputs: None, notes: BTreeMap::new(), uncertain: false, intended_at: None };
    kind.observe(&spec, &record(), &context).await.expect_err("observed");
    kind.apply(&spec, &Seen::Absent, &record(), &context).await.expect_err("applied")
}

/// Proves that whatever else comes is refused with words that say why, that only what may pass by itself is tried again,
/// and that the cluster was not even asked, let alone changed.
#[tokio::test]
async fn what_is_not_the_pinned_manifest_is_refused() {
    let server = Server::start().await;
    let good = digest(MANIFEST);
    let passing = ErrorClass::Transient;
    let lasting = ErrorClass::Permanent;
    for (path, sha256, class, words) in [
        ("good", "00", lasting, "the manifest has digest"),
        ("moved", "00", lasting, "not 00 as pinned"),
        ("plain", &good, lasting, "redirects to http://127.0.0.1:1/good, which is not an https address"),
        ("circle", &good, lasting, "redirects more than 5 times"),
        ("cut", &good, passing, "cannot be fetched: end of file before message length reached"),
        ("announced", &good, lasting, "has more than 33554432 bytes"),
        ("endless", &good, lasting, "has more than 33554432 bytes"),
        ("missing", &good, lasting, "it answers 404 Not Found"),
        ("busy", &good, passing, "it answers 503 Service Unavailable"),
    ] {
        let sources = Sources::trusting(server.authority.as_bytes());
        let error = refusal(&server, sources, &source(server.url(path), sha256)).await;
        assert!(error.message.contains(words), "{path}: {error}");
        assert_eq!((error.class, error.residue), (class, Residue::None), "{path}: {error}");
    }
    let error = refusal(&server, Sources::default(), &source(server.url("good"), &good)).await;
    assert!(error.message.contains("UnknownIssuer"), "{error}");
    assert_eq!((error.class, error.residue), (lasting, Residue::None), "{error}");
    assert!(error.remedy.is_some_and(|remedy| remedy.contains("CA")));
}
