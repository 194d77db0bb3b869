//! Giving an environment's name to another uid: only while nobody holds it and nothing is on record for it.

mod fixture;

use fixture::{environment, finish, new_run, recorded, step, uid};
use platflow_engine::journal::{Batch, Journal, RecordChange, RunStatus};
use platflow_state::{Store, StoreSettings};

/// Proves that a held environment and one with something on record keep their uid, that a free one takes another under
/// which a run starts, and that what was remembered of dead resources under the earlier uid does not hinder it.
#[tokio::test]
async fn only_a_free_environment_takes_another_uid() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db"), StoreSettings::default()).unwrap();
    let name = environment("aws-dev");
    assert!(!store.adopt_environment(&name, &uid("other")).await.unwrap(), "there is none yet");
    let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
    assert!(!store.adopt_environment(&name, &uid("other")).await.unwrap(), "it is held");

    let with = |record| Batch { record: vec![record], ..Batch::default() };
    let put = RecordChange::Put(Box::new(recorded("network.vpc", "r1", 0)));
    store.append(&lease, 1, with(put)).await.unwrap();
    store.append(&lease, 1, finish(RunStatus::Abandoned)).await.unwrap();
    assert!(!store.adopt_environment(&name, &uid("other")).await.unwrap(), "something is on record");
    assert_eq!(store.environment(&name).await.unwrap().unwrap().uid, uid("aws-dev"));

    store.release(&lease).await.unwrap();
    let again = store.create_run(new_run("r2", "aws-dev")).await.unwrap();
    let forgotten = RecordChange::Forgotten { step: step("network.vpc"), next_generation: 4 };
    store.append(&again, 1, with(forgotten)).await.unwrap();
    store.append(&again, 1, finish(RunStatus::Done)).await.unwrap();
    store.release(&again).await.unwrap();
    assert!(store.adopt_environment(&name, &uid("other")).await.unwrap());
    assert_eq!(store.environment(&name).await.unwrap().unwrap().uid, uid("other"));
    assert!(store.generations(&uid("other")).await.unwrap().is_empty());
    assert!(store.create_run(new_run("r3", "aws-dev")).await.is_err(), "the earlier uid is another's now");
    let mut taken_over = new_run("r4", "aws-dev");
    taken_over.environment_uid = uid("other");
    store.create_run(taken_over).await.unwrap();
}
