//! The way to a real account, end to end: no `--sandbox`, the credential chain of the environment, `AWS_ENDPOINT_URL*`, and
//! the real clock. Behind the addresses is a sandbox at its highest speed, so that real seconds are enough.

use platflow_tests::{Finished, TestEnvironment};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");
const OPEN: &str = "public_access_cidrs=[0.0.0.0/0]";

/// An address that passes everything on to another one, and counts who comes.
struct Forwarder {
    url: String,
    visits: Arc<AtomicUsize>,
}

impl Forwarder {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let visits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&visits);
        // It lives as long as the process of this test; its connections end with those who made them.
        std::thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (Ok(back), Ok(forth)) = (server.try_clone(), visitor.try_clone()) else { continue };
                std::thread::spawn(move || pass(back, visitor));
                std::thread::spawn(move || pass(forth, server));
            }
        });
        Self { url, visits }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 8_192];
    while let Ok(read) = from.read(&mut bytes) {
        if read == 0 || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// A fresh sandbox for everything; its account and its address.
fn sandbox(place: &TestEnvironment) -> (String, String) {
    let sandbox = place.run(&["sandbox", "start", "--speed", "600", "--output", "json"]).expect_code(0).json();
    let text = |field: &str| sandbox[field].as_str().expect("text").to_owned();
    (text("account"), text("aws_url"))
}

/// A command as somebody with an account types it.
fn real(place: &TestEnvironment, arguments: &[&str], endpoints: &[(&str, &str)]) -> Command {
    let mut command = place.command(arguments);
    command
        .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "example")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(endpoints.iter().copied());
    command
}

/// Proves that a run without `--sandbox` comes to its end over `AWS_ENDPOINT_URL`, on the real clock, with one service at
/// an address of its own; that account and region need not be named again; that a second run changes nothing, another
/// account is refused; and that destroy leaves nothing, with a certificate.
#[test]
fn a_run_without_the_sandbox_goes_from_nothing_to_a_cluster_and_back() {
    let place = TestEnvironment::new();
    let (account, url) = sandbox(&place);
    let target = url.trim_start_matches("http://").parse().expect("an address");
    let iam = Forwarder::to(target);
    let endpoints = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_ENDPOINT_URL_IAM", iam.url.as_str())];
    let go = |arguments: &[&str]| -> Finished { place.finish(real(&place, arguments, &endpoints), arguments) };
    let first = ["run", SMALL, "--account", &account, "--region", "us-east-1", "--set", OPEN];
    go(&first).expect_code(0);
    let run = place.newest_run().expect("a run");
    let status = go(&["status", &run, "--output", "json"]).expect_code(0).json();
    assert_eq!(status["status"], "done", "{status}");
    let world = place.world();
    let found =
        ["ec2:vpc", "ec2:subnet", "iam:role", "eks:cluster", "kubernetes:Namespace"].map(|kind| world.count(kind));
    assert_eq!(found, [1, 2, 1, 1, 1], "{:#?}", world.shape());
    assert!(iam.visits.load(Ordering::SeqCst) > 0, "IAM was asked at its own address");

    let before = place.counters()["mutating"]["total"].clone();
    go(&["run", SMALL, "--set", OPEN]).expect_code(0);
    assert_eq!(place.counters()["mutating"]["total"], before, "a second run changes nothing");
    let other = go(&["run", SMALL, "--set", OPEN, "--account", "999999999999"]).expect_code(2);
    assert!(other.stderr.contains("999999999999"), "{}", other.stderr);
    assert_eq!(place.counters()["mutating"]["total"], before, "nothing was called");

    go(&["destroy", "small", "--confirm", "small"]).expect_code(0);
    assert_eq!(place.world().shape(), std::collections::BTreeMap::new());
    let run = place.newest_run().expect("a run");
    let certificate = go(&["status", &run, "--output", "json"]).expect_code(0).json()["residue_certificate"].clone();
    assert_eq!(certificate["clean"], true, "{certificate}");
}

/// Proves that the address of one service goes before the address of all, and is named when nobody answers there.
#[test]
fn the_address_of_a_service_goes_first() {
    let place = TestEnvironment::new();
    let (account, url) = sandbox(&place);
    let endpoints = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")];
    let arguments = ["plan", SMALL, "--account", &account, "--region", "us-east-1", "--set", OPEN];
    let plan = place.finish(real(&place, &arguments, &endpoints), &arguments).expect_code(2);
    assert!(plan.stderr.contains("127.0.0.1:9"), "{}", plan.stderr);
    let plan = place.finish(real(&place, &arguments, &endpoints[..1]), &arguments).expect_code(3);
    assert!(plan.stdout.contains("create   vpc"), "{}", plan.stdout);
}
