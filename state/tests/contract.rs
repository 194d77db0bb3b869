//! The contract of the journal port, proven on every implementation: whatever holds for one must hold for the others.
//!
//! What only the SQLite file can do (damage, several processes, death) has test files of its own.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

mod fixture;

use fixture::{environment, event, finish, new_run, note, owner, recorded, run, step, target, uid};
use platflow_engine::journal::{Batch, Journal, JournalError, RecordChange, RunStatus, StepRow};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

type Made = Arc<dyn Journal>;

/// Proves that a created run reads back whole: plan, digest, payloads, owner, hold, first event.
async fn a_created_run_reads_back_whole(journal: Made) {
    let new = new_run("r1", "aws-dev");
    let lease = journal.create_run(new.clone()).await.unwrap();
    assert_eq!((lease.run.clone(), lease.epoch, lease.head), (run("r1"), 1, 1));

    let loaded = journal.load(&run("r1")).await.unwrap();
    assert_eq!(loaded.plan, new.plan);
    assert_eq!(loaded.plan_digest, new.plan_digest);
    assert_eq!(loaded.run_payload, b"{\"direction\":\"forward\"}");
    assert!(loaded.steps.is_empty());
    let summary = loaded.summary;
    assert_eq!(summary.workflow, new.plan.workflow);
    assert_eq!((summary.environment, summary.environment_uid), (environment("aws-dev"), uid("aws-dev")));
    assert_eq!((summary.status, summary.destroy, summary.head), (RunStatus::Running, false, 1));
    assert_eq!(summary.created_at, new.at);
    assert_eq!(summary.owner, Some(owner()));
    assert!(summary.owner_live);

    let row = journal.environment(&environment("aws-dev")).await.unwrap().unwrap();
    assert_eq!((row.uid, row.target, row.held_by), (uid("aws-dev"), target(), Some(run("r1"))));
    let events = journal.events(&run("r1"), 0, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].sequence, events[0].kind.as_str()), (1, "run-started"));
    assert_eq!(events[0].payload, b"{\"event\":\"run-started\"}");
}

/// Proves that appends extend the journal in order, pages join without gap or overlap, and the fold keeps the last row.
async fn appends_extend_the_journal_in_order(journal: Made) {
    let lease = journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    let mut head = lease.head;
    for number in 0..25 {
        head = journal.append(&lease, head, note(&format!("note {number}"))).await.unwrap();
    }
    assert_eq!(head, 26);
    let mut read = Vec::new();
    let mut after = 0;
    loop {
        let page = journal.events(&run("r1"), after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.sequence;
        read.extend(page);
    }
    assert_eq!(read.iter().map(|event| event.sequence).collect::<Vec<_>>(), (1..=26).collect::<Vec<_>>());
    let texts: Vec<_> = read.iter().skip(1).map(|event| String::from_utf8(event.payload.clone()).unwrap()).collect();
    assert_eq!(texts, (0..25).map(|number| format!("note {number}")).collect::<Vec<_>>());
    let loaded = journal.load(&run("r1")).await.unwrap();
    assert_eq!(loaded.summary.head, 26);
    assert_eq!(loaded.steps, vec![(step("network.vpc"), b"note 24".to_vec())]);
    assert_eq!(journal.append(&lease, head, Batch::default()).await.unwrap(), head);
}

/// Proves that an append after a sequence that is not the last is refused whole: events, rows, status, record, hold.
async fn a_stale_sequence_is_refused_whole(journal: Made) {
    let lease = journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    for expected in [0, 2, 99] {
        let batch = Batch {
            events: vec![event("run-finished", None, "x")],
            steps: vec![StepRow { step: step("a"), state: "verified", payload: b"x".to_vec() }],
            record: vec![RecordChange::Put(Box::new(recorded("a", "r1", 0)))],
            status: Some(RunStatus::Done),
            run_payload: Some(b"x".to_vec()),
            releases_environment: true,
        };
        let refused = journal.append(&lease, expected, batch).await.unwrap_err();
        assert!(matches!(refused, JournalError::Stale { .. }), "{refused}");
        let loaded = journal.load(&run("r1")).await.unwrap();
        assert_eq!((loaded.summary.head, loaded.summary.status), (1, RunStatus::Running));
        assert!(loaded.steps.is_empty());
        assert_eq!(loaded.run_payload, b"{\"direction\":\"forward\"}");
        assert!(journal.record(&uid("aws-dev")).await.unwrap().is_empty());
        let row = journal.environment(&environment("aws-dev")).await.unwrap().unwrap();
        assert_eq!(row.held_by, Some(run("r1")));
    }
}

/// Proves that an unfinished run, parked ones included, holds its environment; that the refusal names it and its status;
/// that the final status of any kind lets go.
async fn an_unfinished_run_holds_its_environment(journal: Made) {
    for (number, ending) in [RunStatus::Done, RunStatus::RolledBack, RunStatus::Abandoned].into_iter().enumerate() {
        let id = format!("r{number}");
        let lease = journal.create_run(new_run(&id, "aws-dev")).await.unwrap();
        let parked =
            Batch { events: vec![event("run-parked", None, "x")], status: Some(RunStatus::Parked), ..Batch::default() };
        let head = journal.append(&lease, lease.head, parked).await.unwrap();
        journal.release(&lease).await.unwrap();
        let refused = journal.create_run(new_run("other", "aws-dev")).await.unwrap_err();
        assert!(
            matches!(&refused, JournalError::EnvironmentHeld { run: by, status: RunStatus::Parked, .. } if *by == run(&id)),
            "{refused}"
        );
        assert!(matches!(journal.load(&run("other")).await, Err(JournalError::NotFound { .. })));
        let lease = journal.acquire(&run(&id), &owner()).await.unwrap();
        assert_eq!(lease.head, head);
        journal.append(&lease, head, finish(ending)).await.unwrap();
        journal.release(&lease).await.unwrap();
        assert_eq!(journal.environment(&environment("aws-dev")).await.unwrap().unwrap().held_by, None);
    }
}

/// Proves that an environment is pinned to its uid and target, and that the refusal says what is recorded.
async fn an_environment_is_pinned(journal: Made) {
    let lease = journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    journal.append(&lease, 1, finish(RunStatus::Done)).await.unwrap();
    let mut other_account = new_run("r2", "aws-dev");
    other_account.target = json!({"account": "999999999999", "region": "eu-central-1"});
    let refused = journal.create_run(other_account).await.unwrap_err();
    let JournalError::OtherTarget { recorded, wanted, .. } = &refused else { panic!("{refused}") };
    assert!(recorded.contains("111122223333") && wanted.contains("999999999999"), "{refused}");
    let mut other_uid = new_run("r3", "aws-dev");
    other_uid.environment_uid = uid("somebody-else");
    let refused = journal.create_run(other_uid).await.unwrap_err();
    assert!(matches!(refused, JournalError::OtherTarget { .. }), "{refused}");
    assert!(journal.create_run(new_run("r4", "aws-dev")).await.is_ok());
}

/// Proves that a taken run id is refused and that the refusal leaves no trace: the new environment is not even on record.
async fn a_taken_run_id_is_refused(journal: Made) {
    journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    assert!(journal.create_run(new_run("r1", "aws-staging")).await.is_err());
    assert_eq!(journal.environment(&environment("aws-staging")).await.unwrap(), None);
    assert_eq!(journal.list(None, 10).await.unwrap().len(), 1);
}

/// Proves that a live owner is named in the refusal, that release hands over at once with a higher epoch, and that the
/// earlier owner is fenced out of the journal and told so by its lease.
async fn an_earlier_owner_is_fenced_out(journal: Made) {
    let first = journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    assert!(journal.lease_left(&first).unwrap() > Duration::ZERO);
    let refused = journal.acquire(&run("r1"), &owner()).await.unwrap_err();
    let JournalError::Owned { run: of, owner: named, .. } = &refused else { panic!("{refused}") };
    assert_eq!((of, named.as_ref()), (&run("r1"), &owner()));

    journal.release(&first).await.unwrap();
    assert!(!journal.list(None, 1).await.unwrap()[0].owner_live);
    let second = journal.acquire(&run("r1"), &owner()).await.unwrap();
    assert_eq!((second.epoch, second.head), (2, 1));
    let refused = journal.append(&first, 1, note("late")).await.unwrap_err();
    assert!(matches!(refused, JournalError::Stale { ours: 1, current: 2, .. }), "{refused}");
    assert!(matches!(journal.lease_left(&first), Err(JournalError::Stale { .. })));
    assert_eq!(journal.append(&second, 1, note("ours")).await.unwrap(), 2);
    // Letting go of a lease that is lost already is no error and takes nothing from the present owner.
    journal.release(&first).await.unwrap();
    assert_eq!(journal.append(&second, 2, note("still ours")).await.unwrap(), 3);
    assert!(journal.lease_left(&second).unwrap() > Duration::ZERO);
}

/// Proves that a released lease appends nothing more.
async fn a_released_lease_appends_nothing(journal: Made) {
    let lease = journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    journal.release(&lease).await.unwrap();
    assert!(matches!(journal.append(&lease, 1, note("late")).await, Err(JournalError::Stale { .. })));
    assert!(matches!(journal.lease_left(&lease), Err(JournalError::Stale { .. })));
}

/// Proves that of many who want one free run at the same moment exactly one gets it.
async fn of_many_who_acquire_one_wins(journal: Made) {
    let mut lease = journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    for _ in 0..20 {
        journal.release(&lease).await.unwrap();
        let tries: Vec<_> = (0..8)
            .map(|_| {
                let journal = Arc::clone(&journal);
                tokio::spawn(async move { journal.acquire(&run("r1"), &owner()).await })
            })
            .collect();
        let mut won = Vec::new();
        for attempt in tries {
            match attempt.await.unwrap() {
                Ok(lease) => won.push(lease),
                Err(refused) => assert!(matches!(refused, JournalError::Owned { .. }), "{refused}"),
            }
        }
        assert_eq!(won.len(), 1);
        let next = won.remove(0);
        assert_eq!(next.epoch, lease.epoch + 1);
        lease = next;
    }
}

/// Proves prefix look-up: a whole id wins over longer ones, a unique prefix is enough, others are named, newest first.
async fn a_run_is_found_by_prefix(journal: Made) {
    for (number, id) in ["abc", "abcd", "abx", "zz"].into_iter().enumerate() {
        journal.create_run(new_run(id, &format!("env{number}"))).await.unwrap();
    }
    assert_eq!(journal.find("abc").await.unwrap(), run("abc"));
    assert_eq!(journal.find("abcd").await.unwrap(), run("abcd"));
    assert_eq!(journal.find("z").await.unwrap(), run("zz"));
    let JournalError::Ambiguous { matches, .. } = journal.find("ab").await.unwrap_err() else { panic!() };
    assert_eq!(matches, vec![run("abx"), run("abcd"), run("abc")]);
    for missing in ["q", "abcde", "%", "a_c", "Z"] {
        assert!(matches!(journal.find(missing).await, Err(JournalError::NotFound { .. })), "{missing}");
    }
}

/// Proves that lists are newest first, by environment when asked, and limited.
async fn lists_are_newest_first(journal: Made) {
    for number in 0..6 {
        let lease = journal
            .create_run(new_run(&format!("r{number}"), if number % 2 == 0 { "even" } else { "odd" }))
            .await
            .unwrap();
        journal.append(&lease, 1, finish(RunStatus::Done)).await.unwrap();
    }
    let ids = |rows: Vec<platflow_engine::journal::RunSummary>| {
        rows.into_iter().map(|row| row.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(journal.list(None, 100).await.unwrap()), "r5 r4 r3 r2 r1 r0");
    assert_eq!(ids(journal.list(Some(&environment("odd")), 2).await.unwrap()), "r5 r3");
    assert_eq!(ids(journal.list(Some(&environment("none")), 2).await.unwrap()), "");
}

/// Proves the environment's record: put replaces, gone leaves only the generation, both with the batch they came in.
async fn the_record_follows_the_batches(journal: Made) {
    let lease = journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    let put = |name: &str, generation| RecordChange::Put(Box::new(recorded(name, "r1", generation)));
    let with = |record| Batch { record, ..Batch::default() };
    journal.append(&lease, 1, with(vec![put("b", 0), put("a", 0), put("a", 3)])).await.unwrap();
    assert_eq!(journal.record(&uid("aws-dev")).await.unwrap(), vec![recorded("a", "r1", 3), recorded("b", "r1", 0)]);
    assert!(journal.generations(&uid("aws-dev")).await.unwrap().is_empty());
    let gone = RecordChange::Gone { step: step("a"), next_generation: 4 };
    journal.append(&lease, 1, with(vec![gone])).await.unwrap();
    assert_eq!(journal.record(&uid("aws-dev")).await.unwrap(), vec![recorded("b", "r1", 0)]);
    assert_eq!(journal.generations(&uid("aws-dev")).await.unwrap(), vec![(step("a"), 4)]);
    assert!(journal.record(&uid("other")).await.unwrap().is_empty());
}

/// Proves that a finished run can be taken up again (to be rolled back), holds its environment meanwhile, and lets go of
/// it when it is left as it was; and that it is refused while a newer run holds the environment.
async fn a_finished_run_can_be_taken_up_again(journal: Made) {
    let lease = journal.create_run(new_run("r1", "aws-dev")).await.unwrap();
    journal.append(&lease, 1, finish(RunStatus::Done)).await.unwrap();
    journal.release(&lease).await.unwrap();
    let again = journal.acquire(&run("r1"), &owner()).await.unwrap();
    let refused = journal.create_run(new_run("r2", "aws-dev")).await.unwrap_err();
    assert!(matches!(refused, JournalError::EnvironmentHeld { .. }), "{refused}");
    journal.release(&again).await.unwrap();
    journal.create_run(new_run("r2", "aws-dev")).await.unwrap();
    let refused = journal.acquire(&run("r1"), &owner()).await.unwrap_err();
    assert!(matches!(&refused, JournalError::EnvironmentHeld { run: by, .. } if *by == run("r2")), "{refused}");
}

/// Proves that what is not there is said to be not there.
async fn the_unknown_is_not_found(journal: Made) {
    let missing = run("nope");
    assert!(matches!(journal.load(&missing).await, Err(JournalError::NotFound { .. })));
    assert!(matches!(journal.events(&missing, 0, 1).await, Err(JournalError::NotFound { .. })));
    assert!(matches!(journal.acquire(&missing, &owner()).await, Err(JournalError::NotFound { .. })));
    assert_eq!(journal.environment(&environment("nope")).await.unwrap(), None);
}

/// Proves that appends of many runs at once all land, each in its own order, though they share transactions.
async fn many_runs_append_at_once(journal: Made) {
    let mut tasks = Vec::new();
    for number in 0..32 {
        let journal = Arc::clone(&journal);
        tasks.push(tokio::spawn(async move {
            let id = format!("r{number}");
            let lease = journal.create_run(new_run(&id, &format!("env{number}"))).await.unwrap();
            let mut head = lease.head;
            for turn in 0..20 {
                // Every third append is a refused one: it must not take its neighbours in the transaction along.
                if turn % 3 == 0 {
                    assert!(journal.append(&lease, head + 1, note("wrong")).await.is_err());
                }
                head = journal.append(&lease, head, note(&format!("{number} {turn}"))).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for number in 0..32 {
        let events = journal.events(&run(&format!("r{number}")), 1, 100).await.unwrap();
        let texts: Vec<_> = events.iter().map(|event| String::from_utf8(event.payload.clone()).unwrap()).collect();
        assert_eq!(texts, (0..20).map(|turn| format!("{number} {turn}")).collect::<Vec<_>>());
    }
}

macro_rules! contract {
    ($($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_kept, journal) = make();
                super::$name(journal).await;
            }
        )*
    };
}

macro_rules! on {
    ($implementation:ident, $make:item) => {
        mod $implementation {
            use super::*;
            $make
            contract! {
                a_created_run_reads_back_whole
                appends_extend_the_journal_in_order
                a_stale_sequence_is_refused_whole
                an_unfinished_run_holds_its_environment
                an_environment_is_pinned
                a_taken_run_id_is_refused
                an_earlier_owner_is_fenced_out
                a_released_lease_appends_nothing
                of_many_who_acquire_one_wins
                a_run_is_found_by_prefix
                lists_are_newest_first
                the_record_follows_the_batches
                a_finished_run_can_be_taken_up_again
                the_unknown_is_not_found
                many_runs_append_at_once
            }
        }
    };
}

on!(
    sqlite,
    fn make() -> (tempfile::TempDir, Made) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = platflow_state::Store::open(&path, platflow_state::StoreSettings::default()).unwrap();
        (folder, store)
    }
);

on!(
    memory,
    fn make() -> ((), Made) {
        let clock = Arc::new(platflow_engine::clock::ScaledClock::real());
        ((), Arc::new(platflow_engine::memory::MemoryJournal::new(clock)))
    }
);
