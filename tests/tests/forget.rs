//! `platflow forget` as the way out of what no command takes back.

use platflow_tests::TestEnvironment;

const RUNBOOK: &str = "\
workflow: by-hand
description: A command that nothing takes back.
environment: by-hand
steps:
  mark:
    kind: core.exec
    spec: {protocol: plain, command: [touch, made-by-hand]}
";

/// Proves that the rollback of a command without an undo stops with exit 6 and prints commands that exist: the step is
/// struck off by the one, and the run ends by the other.
#[test]
fn a_command_that_is_taken_back_by_hand_is_struck_off_as_printed() {
    let place = TestEnvironment::new();
    let file = place.path().join("by-hand.yaml");
    std::fs::write(&file, RUNBOOK).expect("a runbook");
    place.run(&["run", &file.display().to_string(), "--sandbox", "--speed", "400"]).expect_code(0);
    let run = place.newest_run().expect("a run");
    let stopped = place.run(&["rollback", &run]).expect_code(6).stderr;
    let keep = format!("platflow rollback {run} --keep mark --confirm by-hand");
    let forget = "platflow forget by-hand --step mark --confirm by-hand";
    let resume = format!("platflow resume {run}");
    for command in [keep.as_str(), forget, &resume] {
        assert!(stopped.contains(command), "{command}: {stopped}");
    }
    for command in [forget, &resume] {
        let arguments: Vec<&str> = command.split(' ').skip(1).collect();
        place.run(&arguments).expect_code(0);
    }
    let status = place.run(&["status", &run, "--output", "json"]).expect_code(0).json();
    assert_eq!(status["status"], "rolled-back", "{status}");
}
