//! `core.exec` as the engine drives it: the protocol of the verbs, the trail of plain commands, the environment.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod core_fixture;

use core_fixture::{Held, settings, step};
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Observation, Progress, Step, UndoProgress};
use platflow_steps::guard_process::guard_main;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

#[test]
#[ignore = "started by the other tests of this file in a process of its own"]
fn played_by_the_guard() {
    assert_eq!(guard_main(&[]), 0);
}

fn exec(folder: &Path) -> Arc<dyn Step> {
    step("core.exec", settings(folder))
}

fn shell(script: &str, more: Value) -> Value {
    let mut spec = json!({"command": ["sh", "-c", script]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

async fn observe(exec: &Arc<dyn Step>, spec: &Value, held: &Arc<Held>) -> Result<Observation, StepError> {
    exec.observe(spec, &held.known(None), &held.context(1)).await
}

async fn apply(exec: &Arc<dyn Step>, spec: &Value, held: &Arc<Held>, attempt: u32) -> Result<Progress, StepError> {
    exec.apply(spec, &Observation::Absent, &held.known(None), &held.context(attempt)).await
}

/// Proves that a child sees PATH, HOME and LANG, the step's variables and the sandbox's, and nothing of ours.
#[tokio::test]
async fn a_child_sees_only_what_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"printf '{"names": "%s"}' "$(env | sort | tr '\n' ' ')""#;
    let mine = json!({"MINE": "1", "AWS_ENDPOINT_URL": "https://elsewhere", "LANG": "de"});
    let spec = shell(script, json!({"protocol": "plain", "environment": mine}));
    let Progress::Done { outputs } = apply(&exec(folder.path()), &spec, &Held::new(), 1).await.unwrap() else {
        panic!()
    };
    let seen: Vec<_> = outputs["names"].as_str().unwrap().split_whitespace().collect();
    // The shell adds variables of its own.
    let seen: Vec<_> = seen
        .into_iter()
        .filter(|line| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own)))
        .collect();
    let wanted = [
        "AWS_ENDPOINT_URL=http://127.0.0.1:1",
        "HOME=/nowhere",
        "LANG=de",
        "MINE=1",
        "PATH=/usr/local/bin:/usr/bin:/bin",
    ];
    assert_eq!(seen, wanted);
}

/// Proves the verbs end to end with a program that keeps its thing in a file: absent, made once, present with outputs,
/// changed elsewhere, gone; each request carries identity and a token that a second attempt repeats.
#[tokio::test]
async fn a_program_speaks_the_verbs() {
    let folder = tempfile::tempdir().unwrap();
    let exec = exec(folder.path());
    let script = r#"
        request=$(cat); printf '%s\n' "$request" >> requests
        case "$request" in
          *'"verb":"observe"'*) if [ -e thing ]; then printf '{"state":"present","outputs":{"id":"thing-1"}}'; else printf '{"state":"absent"}'; fi ;;
          *'"verb":"apply"'*) touch thing; printf '{"progress":"done","outputs":{"id":"thing-1"}}' ;;
          *'"verb":"undo"'*) rm -f thing; printf '{"progress":"gone","evidence":"the file is not there"}' ;;
        esac"#;
    let spec =
        shell(script, json!({"directory": folder.path(), "input": {"size": 3}, "outputs": {"id": {"type": "string"}}}));
    let held = Held::new();
    assert_eq!(observe(&exec, &spec, &held).await.unwrap(), Observation::Absent);
    let made = apply(&exec, &spec, &held, 1).await.unwrap();
    assert_eq!(made, Progress::Done { outputs: json!({"id": "thing-1"}) });
    apply(&exec, &spec, &held, 2).await.unwrap();
    let seen = observe(&exec, &spec, &held).await.unwrap();
    assert!(matches!(seen, Observation::Present { outputs, .. } if outputs == json!({"id": "thing-1"})));
    let undone = exec.undo(&spec, &held.known(None), &held.context(2)).await.unwrap();
    assert_eq!(undone, UndoProgress::Gone { evidence: "the file is not there".to_owned() });
    assert_eq!(observe(&exec, &spec, &held).await.unwrap(), Observation::Absent);

    let requests = std::fs::read_to_string(folder.path().join("requests")).unwrap();
    let requests: Vec<Value> = requests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verbs: Vec<_> = requests.iter().map(|request| request["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["observe", "apply", "apply", "observe", "undo", "observe"]);
    let [_, first, second, ..] = requests.as_slice() else { panic!() };
    assert_eq!((&first["spec"], &first["step"], &first["attempt"]), (&json!({"size": 3}), &json!("a.step"), &json!(1)));
    assert_eq!(first["environment"], json!({"name": "aws-dev", "uid": "uid1"}));
    assert_eq!(first["token"].as_str().unwrap().len(), 52);
    assert_eq!(first["token"], second["token"]);
}

/// Proves how a program's answers become failures: its own error with class and residue, an exit code with the end of
/// stderr, an answer that is not understood, a missing or mistyped output, and a spec that contradicts itself.
#[tokio::test]
async fn failures_keep_their_class() {
    let folder = tempfile::tempdir().unwrap();
    let exec = exec(folder.path());
    let told =
        r#"printf '{"error":{"class":"quota","residue":"none","message":"too many things","code":"E7"}}'; exit 1"#;
    let cases = [
        (told, json!({}), ErrorClass::Quota, Residue::None, "too many things"),
        ("echo first >&2; echo 'no disk' >&2; exit 4", json!({}), ErrorClass::Permanent, Residue::Unknown, "no disk"),
        ("echo not json", json!({}), ErrorClass::Permanent, Residue::Unknown, "not understood"),
        (
            "printf '{\"progress\":\"done\",\"extra\":1}'",
            json!({}),
            ErrorClass::Permanent,
            Residue::Unknown,
            "not understood",
        ),
        (
            "printf '{\"progress\":\"done\"}'",
            json!({"outputs": {"id": {}}}),
            ErrorClass::Permanent,
            Residue::Unknown,
            "\"id\"",
        ),
        (
            "printf '{\"progress\":\"done\",\"outputs\":{\"id\":1}}'",
            json!({"outputs": {"id": {"type": "string"}}}),
            ErrorClass::Permanent,
            Residue::Unknown,
            "declared type",
        ),
        ("true", json!({"stdin": "x"}), ErrorClass::Permanent, Residue::None, "stdin"),
        ("true", json!({"protocol": "plain", "input": 1}), ErrorClass::Permanent, Residue::None, "input"),
        ("true", json!({"colour": "red"}), ErrorClass::Permanent, Residue::None, "colour"),
        ("exit 9", json!({"protocol": "plain"}), ErrorClass::Permanent, Residue::Unknown, "failed"),
        (
            "true",
            json!({"protocol": "plain", "directory": "/nowhere"}),
            ErrorClass::Permanent,
            Residue::None,
            "started",
        ),
    ];
    for (script, more, class, residue, text) in cases {
        let error = apply(&exec, &shell(script, more), &Held::new(), 1).await.unwrap_err();
        assert_eq!((error.class, error.residue), (class, residue), "{script}: {error}");
        assert!(error.message.contains(text), "{script}: {error}");
    }
}

/// Proves the trail of a plain command, cut after every note: before it begins it is absent; begun without an end it is
/// unknown (absent if it may run twice); done it is present; failed it may be tried again. It runs exactly once.
#[tokio::test]
async fn a_plain_command_is_never_guessed_about() {
    let folder = tempfile::tempdir().unwrap();
    let exec = exec(folder.path());
    let script = "echo ran >> runs; printf '{\"id\": 7}'";
    let spec =
        shell(script, json!({"protocol": "plain", "directory": folder.path(), "outputs": {"id": {"type": "integer"}}}));
    let held = Held::new();
    assert_eq!(observe(&exec, &spec, &held).await.unwrap(), Observation::Absent);
    assert_eq!(apply(&exec, &spec, &held, 1).await.unwrap(), Progress::Done { outputs: json!({"id": 7}) });
    let seen = observe(&exec, &spec, &held).await.unwrap();
    assert!(
        matches!(&seen, Observation::Present { outputs, differences, .. } if *outputs == json!({"id": 7}) && differences.is_empty())
    );

    let mut changed = spec.clone();
    changed["environment"] = json!({"A": "b"});
    let seen = observe(&exec, &changed, &held).await.unwrap();
    assert!(matches!(&seen, Observation::Present { differences, .. } if differences.len() == 1), "{seen:?}");

    // A crash after `started`: the end is not on record.
    held.notes.lock().unwrap().remove("ended");
    let asked = observe(&exec, &spec, &held).await.unwrap_err();
    assert_eq!((asked.class, asked.code.as_deref()), (ErrorClass::NeedsHuman, Some("Uncertain")), "{asked}");
    assert!(asked.remedy.as_ref().is_some_and(|remedy| remedy.contains("idempotent")), "{asked}");
    let mut repeatable = spec.clone();
    repeatable["idempotent"] = json!(true);
    assert_eq!(observe(&exec, &repeatable, &held).await.unwrap(), Observation::Absent);

    let fails = shell("exit 1", json!({"protocol": "plain"}));
    apply(&exec, &fails, &held, 2).await.unwrap_err();
    assert_eq!(observe(&exec, &fails, &held).await.unwrap(), Observation::Absent);
    assert_eq!(std::fs::read_to_string(folder.path().join("runs")).unwrap(), "ran\n");
}

/// Proves the undo of a plain command: nothing to do if it never began, blocked without an undo command, and with one
/// gone (twice is fine), after which it counts as absent.
#[tokio::test]
async fn a_plain_command_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let exec = exec(folder.path());
    let held = Held::new();
    let spec = shell("touch thing", json!({"protocol": "plain", "directory": folder.path()}));
    let undo = async |spec: &Value| exec.undo(spec, &held.known(None), &held.context(1)).await.unwrap();
    assert!(matches!(undo(&spec).await, UndoProgress::Gone { .. }));
    apply(&exec, &spec, &held, 1).await.unwrap();
    assert!(matches!(undo(&spec).await, UndoProgress::Blocked { .. }));
    let mut with = spec.clone();
    with["undo_command"] = json!(["rm", "thing"]);
    assert!(matches!(undo(&with).await, UndoProgress::Gone { .. }));
    assert!(!folder.path().join("thing").exists());
    assert!(matches!(undo(&with).await, UndoProgress::Gone { .. }));
    assert_eq!(observe(&exec, &spec, &held).await.unwrap(), Observation::Absent);
}

/// Proves that a lost lease stops a command in the middle, that this is not noted as an end, and that nothing begins
/// without a lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_stops_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let exec = exec(folder.path());
    let held = Held::new();
    let begun = folder.path().join("begun");
    let spec = shell("touch begun; sleep 1000", json!({"protocol": "plain", "directory": folder.path()}));
    let (lost, running, watched) = (Arc::clone(&held), Arc::clone(&exec), spec.clone());
    let task = tokio::spawn(async move { apply(&running, &watched, &lost, 1).await });
    core_fixture::until("the command runs", || begun.exists()).await;
    assert!(matches!(observe(&exec, &spec, &held).await.unwrap(), Observation::Changing { .. }));
    *held.lease.lock().unwrap() = None;
    let error = task.await.unwrap().unwrap_err();
    assert_eq!(error.code.as_deref(), Some("Stale"));
    assert_eq!(observe(&exec, &spec, &held).await.unwrap_err().code.as_deref(), Some("Uncertain"));
    std::fs::remove_file(&begun).unwrap();
    assert!(apply(&exec, &spec, &held, 2).await.is_err());
    assert!(!begun.exists());
}
