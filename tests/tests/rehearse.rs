//! `platflow rehearse` through the real binary: a sound runbook has no violations, an unsound one is found out with a seed
//! that shows how, and the whole shipped platform is crashed at every one of its journal's boundaries.

use platflow_report::Sweep;
use platflow_tests::scale::scale;
use platflow_tests::{Running, TestEnvironment, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Too long for a budget of a second.
const LONGER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");
const LIMIT: Duration = Duration::from_secs(60);

/// Two simulated steps and one real resource.
const SOUND: &str = r#"
workflow: small
environment: small
steps:
  greet:
    kind: core.exec
    spec: {command: [greet], outputs: {word: {type: string}}}
  group:
    kind: aws.log_group
    spec: {name: "/small/${steps.greet.outputs.word}", retention_days: 7}
  tell:
    kind: core.http
    needs: [group]
    spec: {method: POST, url: "https://example.com/done", outputs: {id: /id}}
"#;

/// Its program is said to be idempotent and is not: it adds a line to a file each time.
const UNSOUND: &str = r#"
workflow: twice
environment: twice
steps:
  group:
    kind: aws.log_group
    spec: {name: /twice/group, retention_days: 7}
  append:
    kind: core.exec
    needs: [group]
    rehearse: run
    spec:
      command: [sh, -c, "echo line >> $HOME/file; printf '{}'"]
      protocol: plain
      idempotent: true
      undo_command: [sh, -c, "rm -f $HOME/file"]
"#;

fn placed(runbook: &str) -> TestEnvironment {
    let place = TestEnvironment::new();
    std::fs::write(place.path().join("runbook.yaml"), runbook).expect("the runbook is written");
    place
}

fn covered(answer: &Value, kind: &str) -> (u64, u64) {
    let told = &answer["coverage"][kind];
    (told["covered"].as_u64().expect("a number"), told["of"].as_u64().expect("a number"))
}

/// Proves that a small runbook is rehearsed wholly: every boundary, both sides of every call, every step failing, every
/// profile and a second crash, both ways, without a violation; and that nothing touches the operator's state.
#[test]
fn a_sound_runbook_has_no_violations() {
    let place = placed(SOUND);
    let answer = place.run(&["rehearse", "./runbook.yaml", "--output", "json"]).expect_code(0).json();
    assert_eq!(answer["violations"], serde_json::json!([]), "{answer}");
    for kind in ["boundaries", "calls", "failures", "profiles"] {
        let (covered, of) = covered(&answer, kind);
        assert!(covered == of && of > 2, "{kind}: {answer}");
    }
    assert!(covered(&answer, "second_crashes").0 > 0, "some recoveries live long enough to die: {answer}");
    assert_eq!(answer["asked"], serde_json::json!({}), "nobody has to be asked");
    assert!(answer["cases"].as_u64().is_some_and(|cases| cases > 60), "{answer}");
    let list = place.run(&["list", "--output", "json"]).expect_code(0).json();
    assert_eq!(list["runs"], serde_json::json!([]), "a rehearsal leaves no run behind");
}

/// Proves that a budget that is much too short still takes every boundary of the journal once, half of them resumed and half
/// rolled back, says that it took longer, and takes next to nothing else.
#[test]
fn a_budget_takes_every_boundary_however_short_it_is() {
    let place = placed(SOUND);
    let answer = place.run(&["rehearse", "./runbook.yaml", "--budget", "1s", "--output", "json"]).expect_code(0).json();
    let (boundaries, of) = covered(&answer, "boundaries");
    assert!(boundaries == of && of > 4, "{answer}");
    assert_eq!(answer["complete"], true, "{answer}");
    let told = place.run(&["rehearse", LONGER, "--budget", "1s", "--workers", "1"]).expect_code(0);
    assert!(told.stderr.contains("the budget is spent"), "a cluster takes longer than that: {}", told.stderr);
    assert!(!told.stdout.contains("incomplete"), "{}", told.stdout);
    let line = told.stdout.lines().find(|line| line.contains("journal boundaries")).expect("a line about boundaries");
    let numbers: Vec<usize> =
        line.split(|one: char| !one.is_ascii_digit()).filter_map(|one| one.parse().ok()).collect();
    let [covered, of, resumed, rolled_back] = numbers[..] else { panic!("another form: {line}") };
    assert!(covered == of && of > 20 && resumed.abs_diff(rolled_back) <= 1 && resumed + rolled_back == of, "{line}");
    assert!(told.stdout.contains(&format!("{of} cases, 0 violation(s)")), "{}", told.stdout);
}

/// Proves that a step which is not what it says it is makes violations (exit 5), each with a seed, and that replaying a
/// seed shows that case step by step, with the same finding.
#[test]
fn an_unsound_program_is_found_out_and_replayed() {
    let place = placed(UNSOUND);
    let found = place.run(&["rehearse", "./runbook.yaml", "--output", "json"]).expect_code(5).json();
    let violations = found["violations"].as_array().expect("a list");
    let first = violations
        .iter()
        .find(|one| one["findings"][0]["found"].as_str().is_some_and(|text| text.contains("file")))
        .unwrap_or_else(|| panic!("{found}"));
    let seed = first["seed"].as_str().expect("a seed");
    let again = place.run(&["rehearse", "./runbook.yaml", "--replay", seed, "--output", "json"]).expect_code(5).json();
    assert_eq!(again["findings"], first["findings"], "{seed} is replayed");
    let story = again["story"].as_array().expect("a story");
    assert!(story.iter().any(|line| line.as_str().is_some_and(|line| line.contains("append"))), "{again}");
    let text = place.run(&["rehearse", "./runbook.yaml", "--replay", seed]).expect_code(5).stdout;
    assert!(text.contains("violation") && text.contains("expected"), "{text}");
    place.run(&["rehearse", "./runbook.yaml", "--replay", "j9999.r"]).expect_code(2);
    place.run(&["rehearse", "./runbook.yaml", "--replay", "nonsense"]).expect_code(2);
}

/// The folder that a rehearsal works in, as soon as it has one: it keeps a lock file open there.
fn folder_of(rehearsal: &Running) -> PathBuf {
    let files = format!("/proc/{}/fd", rehearsal.pid());
    let mut found = None;
    wait_for("the rehearsal's folder", LIMIT, || {
        let entries = std::fs::read_dir(&files).into_iter().flatten().flatten();
        found = entries
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .find(|path| path.ends_with("lock") && path.to_string_lossy().contains("platflow-rehearsal-"));
        found.is_some()
    });
    found.and_then(|path| path.parent().map(Path::to_owned)).expect("a lock lies in a folder")
}

/// Proves that an interrupted rehearsal ends without finishing what it was at and leaves nothing, and that what a killed
/// one leaves is swept by the next.
#[test]
fn nothing_is_left_of_an_interrupted_or_killed_rehearsal() {
    let place = placed(SOUND);
    let interrupted = place.start(&["rehearse", "deploy-aws-dev"]);
    let folder = folder_of(&interrupted);
    interrupted.signal("TERM");
    let ended = interrupted.wait();
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert!(!folder.exists(), "{} is left", folder.display());
    let mut killed = place.start(&["rehearse", "deploy-aws-dev"]);
    let folder = folder_of(&killed);
    killed.kill();
    assert!(folder.exists());
    place.run(&["rehearse", "./runbook.yaml", "--cases", "1"]).expect_code(0);
    assert!(!folder.exists(), "{} was not swept", folder.display());
}

/// Proves that the shipped platform, real steps over real SDK clients, ends in the undisturbed world, or in an empty one,
/// after a crash at every boundary of its journal, around calls, after failing steps, under every profile of faults and
/// after second crashes; each resumed and rolled back.
#[test]
fn the_shipped_platform_is_rehearsed() {
    let sweep = Sweep::begin("the shipped platform rehearsed");
    let cases = scale().of(520, 5_000);
    let place = TestEnvironment::new();
    let answer = place.run(&["rehearse", "deploy-aws-dev", "--cases", &cases.to_string(), "--output", "json"]);
    assert!([0, 5].contains(&answer.code), "{}", answer.stderr);
    let answer = answer.json();
    sweep.end(&answer["cases"], "--replay takes one", &answer["coverage"]);
    assert_eq!(answer["violations"], serde_json::json!([]));
    let (boundaries, of) = covered(&answer, "boundaries");
    assert_eq!(boundaries, of, "{answer}");
    // Some are not there on every stage (a call that another order of steps does not make), and there are about 2,250.
    assert!(answer["cases"].as_u64().is_some_and(|ran| ran >= 500), "{answer}");
}
