//! `platflow secret`: who took which secret out, and when, is kept and can be read.

use platflow_tests::TestEnvironment;

/// Proves that each time a secret is taken out leaves a line with who and when, that `secret list` shows them to people
/// and to programs without any secret in them, and that a secret which was not shown leaves none.
#[test]
fn who_took_a_secret_out_is_listed() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", "300"]).expect_code(0);
    let list = || place.run(&["secret", "list", "aws-dev", "--output", "json"]).expect_code(0).json();
    assert_eq!(list()["accesses"], serde_json::json!([]));
    let share = place.run(&["secret", "show", "aws-dev", "vault/share-2"]).expect_code(0).stdout;
    place.run(&["secret", "show", "aws-dev", "argocd/admin-password"]).expect_code(0);
    place.run(&["secret", "show", "aws-dev", "no/such"]).expect_code(2);
    let listed = list();
    let accesses = listed["accesses"].as_array().expect("accesses");
    let names: Vec<_> = accesses.iter().map(|access| access["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["vault/share-2", "argocd/admin-password"], "oldest first");
    for access in accesses {
        assert!(access["who"].as_str().is_some_and(|who| who.contains('@')), "{access}");
        assert!(access["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{access}");
    }
    let text = place.run(&["secret", "list", "aws-dev"]).expect_code(0).stdout;
    assert!(text.contains("taken out:") && text.contains("by "), "{text}");
    assert!(!text.contains(share.trim()) && !listed.to_string().contains(share.trim()), "a share is shown");
}
