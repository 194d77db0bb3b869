//! Manifests from elsewhere through the real binary: downloaded over https when pinned, and not needed for a way back.

use platflow_tests::world::World;
use platflow_tests::{TestEnvironment, wait_for};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const FAST: &str = "150";
const LIMIT: Duration = Duration::from_secs(120);
const MANIFEST: &str = include_str!("../../steps/manifests/argocd.yaml");

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An https server on loopback that gives one manifest, until it is switched off.
struct Server {
    address: SocketAddr,
    authority: String,
    given: Arc<AtomicUsize>,
    off: Arc<AtomicBool>,
}

impl Server {
    fn start() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a CA").pem();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let leaf = leaf.signed_by(&own, &issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(own.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("a configuration");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (given, off) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (config, counted, switch) = (Arc::new(config), Arc::clone(&given), Arc::clone(&off));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if switch.load(Ordering::SeqCst) {
                    break;
                }
                if stream.is_ok_and(|stream| give(stream, &config).is_some()) {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { address, authority, given, off }
    }

    fn switch_off(&self) {
        self.off.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        wait_for("a closed port", LIMIT, || TcpStream::connect(self.address).is_err());
    }
}

/// One request, one manifest.
fn give(stream: TcpStream, config: &Arc<ServerConfig>) -> Option<()> {
    let connection = ServerConnection::new(Arc::clone(config)).ok()?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = String::new();
    while stream.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", MANIFEST.len());
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(MANIFEST.as_bytes())).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}

fn left(world: &World) -> Vec<String> {
    let waits = |kind: &str, state: &str| kind == "kms:key" && state == "PendingDeletion";
    let left = world.resources.iter().filter(|resource| !waits(&resource.kind, &resource.state));
    left.map(|resource| format!("{} {} {}", resource.kind, resource.id, resource.name)).collect()
}

/// Proves that a pinned manifest comes over https from a CA that the machine trusts, and from no other; and that a
/// rollback takes everything away again when the address answers nobody any more.
#[test]
fn a_rollback_does_not_need_the_address() {
    let server = Server::start();
    let source =
        format!("argocd_source={{url: 'https://{}/install.yaml', sha256: '{}'}}", server.address, digest(MANIFEST));
    let run = ["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--set", &source];

    let stranger = TestEnvironment::new();
    let refused = stranger.run(&run).expect_code(5);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("UnknownIssuer") && said.contains("argocd.install"), "{said}");
    assert_eq!(server.given.load(Ordering::SeqCst), 0);
    drop(stranger);

    let place = TestEnvironment::new();
    let authority = place.path().join("ca.pem");
    std::fs::write(&authority, &server.authority).expect("a file");
    let place = place.with("SSL_CERT_FILE", &authority.display().to_string());
    place.run(&run).expect_code(0);
    assert!(server.given.load(Ordering::SeqCst) > 0, "it was downloaded");
    server.switch_off();
    let run = place.newest_run().expect("a run");
    place.run(&["rollback", &run, "--confirm", "aws-dev"]).expect_code(0);
    assert_eq!(left(&place.world()), Vec::<String>::new());
}

fn state_of(place: &TestEnvironment, step: &str) -> String {
    let status = place.run(&["status", "--output", "json"]);
    if status.code != 0 {
        return String::new();
    }
    let steps = status.json()["steps"].as_array().cloned().unwrap_or_default();
    let found = steps.iter().find(|one| one["name"] == step);
    found.and_then(|one| one["state"].as_str()).unwrap_or_default().to_owned()
}

/// Proves that a run which was killed while it applied a manifest is rolled back at once although the file holds another
/// one by now: neither the look that comes before nor the undo waits for the old one.
#[test]
fn a_changed_manifest_does_not_hold_up_the_way_back() {
    let place = TestEnvironment::new();
    let file: PathBuf = place.path().join("install.yaml");
    std::fs::write(&file, MANIFEST).expect("a file");
    let source = format!("argocd_source={{file: '{}', sha256: '{}'}}", file.display(), digest(MANIFEST));
    let mut going = place.start(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--set", &source]);
    wait_for("argocd.install to be under way", LIMIT, || {
        going.ended().is_some() || !matches!(state_of(&place, "argocd.install").as_str(), "" | "pending")
    });
    going.kill();
    std::fs::write(&file, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other, namespace: default}\n")
        .expect("a file");
    let run = place.newest_run().expect("a run");
    place.run(&["rollback", &run, "--confirm", "aws-dev"]).expect_code(0);
    assert_eq!(left(&place.world()), Vec::<String>::new());
}
