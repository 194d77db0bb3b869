//! `platflow destroy` and `platflow rollback` before other people's data: it is listed with owner and size, and only the
//! environment's name lets it go.

use platflow_tests::cluster::Cluster;
use platflow_tests::{TestEnvironment, wait_for};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Proves that a database's volume, made by nobody of ours in a namespace of ours, is listed with claim, size and volume
/// id before anything is touched, by `destroy`, by `rollback` of a finished run and by one that keeps the cluster but not
/// the namespace; and that it goes, told once more, when the environment's name is given.
#[test]
fn volumes_that_others_claimed_are_listed_and_want_the_environments_name() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", "300"]).expect_code(0);
    let run = place.newest_run().expect("a run");
    let cluster = Cluster::of(&place, "aws-dev");
    cluster.claim("platform-data", "postgres-0", "20Gi");
    wait_for("the volume", LIMIT, || cluster.volume_of("platform-data", "postgres-0").is_some());
    let volume = cluster.volume_of("platform-data", "postgres-0").expect("a volume");
    let volume = cluster.get(&format!("/api/v1/persistentvolumes/{volume}"));
    let id = volume["spec"]["csi"]["volumeHandle"].as_str().expect("an EBS volume").to_owned();
    let line = format!("platform-data/postgres-0, 20Gi, volume {id}");
    let before = place.world().shape();
    for command in [
        vec!["destroy", "aws-dev"],
        vec!["rollback", run.as_str()],
        vec!["rollback", run.as_str(), "--keep", "cluster.cluster"],
    ] {
        let refused = place.run(&command).expect_code(6);
        assert!(refused.stderr.contains(&line), "{command:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("--confirm aws-dev"), "{command:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("data-vault-0,"), "Vault's own volumes are its step's: {}", refused.stderr);
    }
    assert_eq!(before, place.world().shape(), "nothing was touched");
    let gone = place.run(&["destroy", "aws-dev", "--confirm", "aws-dev"]).expect_code(0);
    assert!(gone.stderr.contains(&line), "{}", gone.stderr);
    assert_eq!(place.world().count("ec2:volume"), 0);
    assert_eq!(place.world().resources.iter().filter(|one| one.kind == "ec2:volume").count(), 0);
}
