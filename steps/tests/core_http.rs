//! `core.http`, `core.wait` and `core.approval` as the engine drives them, against a real server on loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod core_fixture;

use core_fixture::{Held, settings, step};
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::name::{RunId, StepName};
use platflow_engine::step::{Observation, Progress, Step, UndoProgress};
use platflow_steps::core::{ApprovalFolder, Decision};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that gives its answers in order (the last one for ever) and remembers what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Status 0 reads the request and closes the connection: the reply is lost.
async fn server(answers: &[(u16, &str)]) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/things", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let remembered = Arc::clone(&asked);
    let mut answers: VecDeque<(u16, String)> =
        answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
    let task = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            while !whole(&bytes) {
                let length = connection.read(&mut buffer).await.unwrap();
                if length == 0 {
                    break;
                }
                bytes.extend_from_slice(buffer.get(..length).unwrap());
            }
            remembered.lock().unwrap().push(String::from_utf8(bytes).unwrap());
            let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            let (status, body) = answer.unwrap();
            if status == 0 {
                continue;
            }
            let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = connection.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    Server { url, asked, task }
}

fn whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn kind(name: &str) -> (Arc<dyn Step>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (step(name, settings(folder.path())), folder)
}

async fn apply(step: &Arc<dyn Step>, spec: &Value, held: &Arc<Held>) -> Result<Progress, StepError> {
    step.apply(spec, &Observation::Absent, &held.known(None), &held.context(1)).await
}

async fn observe(step: &Arc<dyn Step>, spec: &Value, held: &Arc<Held>) -> Observation {
    step.observe(spec, &held.known(None), &held.context(1)).await.unwrap()
}

/// Proves that outputs are taken by pointer, that a mutating request carries the token and JSON, and that what was sent
/// is present afterwards without being sent again.
#[tokio::test]
async fn a_request_is_sent_once() {
    let server = server(&[(201, r#"{"item": {"id": "t-1", "tags": ["a"]}}"#)]).await;
    let (http, _folder) = kind("core.http");
    let held = Held::new();
    let outputs = json!({"id": "/item/id", "tag": "/item/tags/0"});
    let spec = json!({"method": "post", "url": server.url, "body": {"size": 3}, "headers": {"X-Mine": "1"}, "outputs": outputs});
    assert_eq!(observe(&http, &spec, &held).await, Observation::Absent);
    let made = apply(&http, &spec, &held).await.unwrap();
    assert_eq!(made, Progress::Done { outputs: json!({"status": 201, "id": "t-1", "tag": "a"}) });
    assert!(
        matches!(observe(&http, &spec, &held).await, Observation::Present { differences, .. } if differences.is_empty())
    );
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    let request = asked.first().unwrap().to_lowercase();
    assert!(request.starts_with("post /things http/1.1"), "{request}");
    assert!(request.contains(&format!("idempotency-key: {}", held.context(1).token("request"))), "{request}");
    assert!(
        request.contains("x-mine: 1") && request.contains("application/json") && request.ends_with(r#"{"size":3}"#)
    );
}

/// Proves class and residue of every kind of refusal, and that only a refusal without effect is noted as an end: after a
/// lost reply a POST is unknown, a PUT is sent again.
#[tokio::test]
async fn refusals_keep_their_class() {
    let (http, _folder) = kind("core.http");
    let cases = [
        (400, ErrorClass::Permanent, Residue::None),
        (403, ErrorClass::Permission, Residue::None),
        (409, ErrorClass::Conflict, Residue::Unknown),
        (429, ErrorClass::Throttled, Residue::None),
        (302, ErrorClass::Permanent, Residue::Unknown),
        (503, ErrorClass::Transient, Residue::Unknown),
        (0, ErrorClass::Transient, Residue::Unknown),
    ];
    for (status, class, residue) in cases {
        for method in ["POST", "PUT"] {
            let server = server(&[(status, "{}")]).await;
            let held = Held::new();
            let spec = json!({"method": method, "url": server.url});
            let error = apply(&http, &spec, &held).await.unwrap_err();
            assert_eq!((error.class, error.residue), (class, residue), "{status}: {error}");
            let seen = http.observe(&spec, &held.known(None), &held.context(1)).await;
            let unknown = method == "POST" && residue == Residue::Unknown;
            let asked = seen.as_ref().is_err_and(|error| error.code.as_deref() == Some("Uncertain"));
            assert_eq!(asked, unknown, "{method} {status}: {seen:?}");
            assert_eq!(seen == Ok(Observation::Absent), !unknown, "{method} {status}: {seen:?}");
        }
    }
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error =
        apply(&http, &json!({"method": "POST", "url": format!("http://{closed}/")}), &Held::new()).await.unwrap_err();
    assert_eq!((error.class, error.residue), (ErrorClass::Transient, Residue::None));
    for bad in [json!({"method": "P OST", "url": "http://127.0.0.1:1/"}), json!({"method": "GET", "url": "not a url"})]
    {
        let error = apply(&http, &bad, &Held::new()).await.unwrap_err();
        assert_eq!((error.class, error.residue), (ErrorClass::Permanent, Residue::None), "{error}");
    }
}

/// Proves that a look decides presence instead of the trail, and that undo ends with a look: waiting while it is still
/// found, gone with evidence afterwards; without an undo request what was sent blocks the rollback.
#[tokio::test]
async fn a_look_decides() {
    let (http, _folder) = kind("core.http");
    let held = Held::new();
    let looked = server(&[(404, ""), (200, r#"{"id": "t-1"}"#), (200, "{\"id\": 1}"), (404, "")]).await;
    let sent = server(&[(204, "")]).await;
    let spec = json!({
        "method": "POST", "url": sent.url, "outputs": {"id": "/id"},
        "look": {"method": "GET", "url": looked.url},
        "undo": {"method": "DELETE", "url": sent.url},
    });
    assert_eq!(observe(&http, &spec, &held).await, Observation::Absent);
    let seen = observe(&http, &spec, &held).await;
    assert!(matches!(seen, Observation::Present { outputs, .. } if outputs == json!({"status": 200, "id": "t-1"})));
    let undo = async |spec: &Value| http.undo(spec, &held.known(None), &held.context(1)).await.unwrap();
    assert!(matches!(undo(&spec).await, UndoProgress::Waiting { .. }));
    let UndoProgress::Gone { evidence } = undo(&spec).await else { panic!("not gone") };
    assert!(evidence.contains("204") && evidence.contains("gone"), "{evidence}");

    let spec = json!({"method": "POST", "url": sent.url});
    assert!(matches!(undo(&spec).await, UndoProgress::Gone { .. }), "it was never sent");
    apply(&http, &spec, &held).await.unwrap();
    assert!(matches!(undo(&spec).await, UndoProgress::Blocked { .. }));
    assert!(matches!(undo(&json!({"method": "GET", "url": sent.url})).await, UndoProgress::Gone { .. }));
}

/// Proves that a wait for a time survives any number of crashes: what counts is the noted beginning, on the engine's
/// clock; and that a wait on record is not waited for again.
#[tokio::test]
async fn a_wait_goes_on_after_a_crash() {
    let (wait, _folder) = kind("core.wait");
    let held = Held::new();
    let spec = json!({"seconds": 100});
    assert_eq!(observe(&wait, &spec, &held).await, Observation::Absent);
    let Progress::Waiting { poll_in, .. } = apply(&wait, &spec, &held).await.unwrap() else { panic!() };
    assert_eq!(poll_in, Duration::from_secs(100));
    held.pass(Duration::from_secs(60));
    assert!(
        matches!(observe(&wait, &spec, &held).await, Observation::Changing { poll_in, .. } if poll_in == Duration::from_secs(40))
    );
    // Applied again by another owner: the beginning stands.
    let Progress::Waiting { poll_in, .. } = apply(&wait, &spec, &held).await.unwrap() else { panic!() };
    assert_eq!(poll_in, Duration::from_secs(40));
    held.pass(Duration::from_secs(41));
    assert!(
        matches!(observe(&wait, &spec, &held).await, Observation::Present { outputs, .. } if outputs == json!({"waited_seconds": 101}))
    );
    let fresh = Held::new();
    let recorded =
        wait.observe(&spec, &fresh.known(Some(json!({"waited_seconds": 101}))), &fresh.context(1)).await.unwrap();
    assert!(matches!(recorded, Observation::Present { .. }));
    for bad in [json!({}), json!({"seconds": 1, "until_url": {"url": "http://127.0.0.1:1/"}})] {
        assert!(apply(&wait, &bad, &held).await.is_err());
    }
}

/// Proves that a wait for a URL ends when it answers as wanted, not before, and outlasts refused connections.
#[tokio::test]
async fn a_wait_for_a_url() {
    let (wait, _folder) = kind("core.wait");
    let held = Held::new();
    let server = server(&[(503, ""), (0, ""), (204, "")]).await;
    let spec = json!({"until_url": {"url": server.url, "status": 204}});
    assert_eq!(observe(&wait, &spec, &held).await, Observation::Absent);
    apply(&wait, &spec, &held).await.unwrap();
    for why in ["answers 503", "does not answer"] {
        let seen = observe(&wait, &spec, &held).await;
        assert!(matches!(&seen, Observation::Changing { reason, .. } if reason.contains(why)), "{seen:?}");
    }
    assert!(matches!(observe(&wait, &spec, &held).await, Observation::Present { .. }));
}

/// Proves that a run waits for its approval, that the first decision stands, that a rejection and a stranger's decision
/// are a human's matter, and that an approval of another run approves nothing.
#[tokio::test]
async fn an_approval_is_of_one_run() {
    let (approval, folder) = kind("core.approval");
    let decisions = ApprovalFolder(folder.path().join("approvals"));
    let decide = |run: &str, by: &str, approved: bool| {
        let at = "2026-05-04T10:00:01Z".parse().unwrap();
        let decision = Decision { approved, by: by.to_owned(), at, reason: Some("because".to_owned()) };
        decisions.decide(&RunId::new(run).unwrap(), &StepName::new("a.step").unwrap(), &decision).unwrap()
    };
    let held = Held::new();
    let spec = json!({"message": "go to production?", "approvers": ["ada", "bob"]});
    assert_eq!(observe(&approval, &spec, &held).await, Observation::Absent);
    assert!(decide("r0", "ada", true));
    let parks = apply(&approval, &spec, &held).await.unwrap_err();
    assert!(parks.is_awaited() && parks.message.contains("go to production?"), "{parks}");
    assert!(parks.remedy.is_some_and(|remedy| remedy.contains("platflow approve r1")));
    let open = json!({"message": "go to production?", "timeout_seconds": 600});
    let Progress::Waiting { reason, .. } = apply(&approval, &open, &held).await.unwrap() else { panic!() };
    assert!(reason.contains("go to production?"), "{reason}");
    assert!(matches!(observe(&approval, &open, &held).await, Observation::Changing { .. }));
    assert!(decide("r1", "ada", true));
    assert!(!decide("r1", "bob", false), "the first decision stands");
    let wanted = json!({"approved_by": "ada", "at": "2026-05-04T10:00:01Z", "reason": "because"});
    assert!(
        matches!(observe(&approval, &spec, &held).await, Observation::Present { outputs, .. } if outputs == wanted)
    );
    assert_eq!(apply(&approval, &spec, &held).await.unwrap(), Progress::Done { outputs: wanted.clone() });

    // The record of r1 in a later run: asked anew.
    let mut later = held.context(1);
    later.run = RunId::new("r2").unwrap();
    let known = held.known(Some(wanted));
    assert_eq!(approval.observe(&spec, &known, &later).await.unwrap(), Observation::Absent);
    assert!(decide("r2", "mallory", true));
    let error = approval.apply(&spec, &Observation::Absent, &known, &later).await.unwrap_err();
    assert_eq!((error.class, error.residue), (ErrorClass::NeedsHuman, Residue::None));
    later.run = RunId::new("r3").unwrap();
    assert!(decide("r3", "bob", false));
    let error = approval.apply(&spec, &Observation::Absent, &known, &later).await.unwrap_err();
    assert!(error.class == ErrorClass::NeedsHuman && error.message.contains("because"), "{error}");
}
