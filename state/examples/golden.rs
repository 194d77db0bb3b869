//! Makes the file that `tests/golden.rs` opens: runs of the real engine in the model world, one in each state, and secrets.
//!
//! It uses only what every released version has, so that `tests/golden/make` can run it on the sources of any of them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a tool for tests fails by panicking")]

use platflow_engine::clock::Clock;
use platflow_engine::destroy::Literal;
use platflow_engine::drive::{DriveOutcome, Engine, Settings, StartRun, Unobserved, abandon};
use platflow_engine::event::{Direction, Ending};
use platflow_engine::failure::{ErrorClass, Residue};
use platflow_engine::journal::{Journal, Owner};
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::model::generate;
use platflow_engine::model::kinds::{self, Habit};
use platflow_engine::model::world::{Fault, Moment, World};
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId};
use platflow_engine::plan::{OnFailure, Plan};
use platflow_engine::secret::SecretStore;
use platflow_state::{Store, StoreSettings};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

struct Place {
    store: Arc<Store>,
    world: Arc<World>,
    engine: Engine,
}

impl Place {
    fn new(store: &Arc<Store>) -> Self {
        let clock = Arc::new(SimulatedClock::default());
        let world = Arc::new(World::new(Arc::clone(&clock)));
        let engine = Engine {
            journal: Arc::clone(store) as Arc<dyn Journal>,
            catalog: kinds::catalog(&world, generate::habits().unwrap(), false),
            clock: clock as Arc<dyn Clock>,
            resolver: Arc::new(Literal),
            observer: Arc::new(Unobserved),
            settings: Settings::default(),
        };
        Self { store: Arc::clone(store), world, engine }
    }

    /// Starts a run; none when its process died.
    async fn run(&self, name: &str, policy: OnFailure) -> Option<DriveOutcome> {
        let new = StartRun {
            id: RunId::new(name).unwrap(),
            plan: plan(name),
            environment_uid: uid(name),
            target: json!({"world": "golden"}),
            owner: owner(),
            on_failure: policy,
            destroy: None,
        };
        let (lease, mut run) = self.engine.start(new).await.unwrap();
        tokio::select! {
            biased;
            () = self.world.death.notified() => None,
            outcome = self.engine.drive(&lease, &mut run, CancellationToken::new()) => Some(outcome.unwrap()),
        }
    }

    async fn back(&self, name: &str) -> Option<DriveOutcome> {
        let direction: Direction = serde_json::from_value(
            json!({"direction": "backward", "cause": "operator", "confirmed": true, "keep": []}),
        )
        .unwrap();
        let id = RunId::new(name).unwrap();
        let (lease, mut run) = self.engine.resume(&id, &owner(), Some(direction)).await.unwrap();
        tokio::select! {
            biased;
            () = self.world.death.notified() => None,
            outcome = self.engine.drive(&lease, &mut run, CancellationToken::new()) => Some(outcome.unwrap()),
        }
    }

    fn fail(&self) {
        self.world.fail(Fault {
            step: "chain.step-3".parse().unwrap(),
            call: None,
            class: ErrorClass::Permanent,
            residue: Residue::Unknown,
            landed: true,
            times: 1,
        });
    }
}

/// Of another host than any that opens the file.
fn owner() -> Owner {
    Owner {
        host: "golden".to_owned(),
        pid: 4_242,
        process_started: 1,
        boot_id: "golden".to_owned(),
        user: "operator".to_owned(),
    }
}

fn uid(name: &str) -> EnvironmentUid {
    EnvironmentUid::new(format!("uid-{name}")).unwrap()
}

/// A chain of every habit, in an environment of the run's name.
fn plan(name: &str) -> Plan {
    let mut steps: Vec<platflow_engine::plan::PlannedStep> = Vec::new();
    for (number, habit) in Habit::ALL.into_iter().enumerate() {
        let needs: Vec<_> = steps.last().map(|last| last.name.clone()).into_iter().collect();
        let name = format!("chain.step-{number}");
        steps.push(generate::step(&name, habit, json!({"size": number, "zone": "a"}), &needs).unwrap());
    }
    Plan { environment: EnvironmentName::new(name).unwrap(), ..generate::plan(steps).unwrap() }
}

async fn fill(store: &Arc<Store>) {
    let done = Some(DriveOutcome::Finished(Ending::Done));
    let undone = Some(DriveOutcome::Finished(Ending::RolledBack));
    assert_eq!(Place::new(store).run("done", OnFailure::Park).await, done);

    let place = Place::new(store);
    place.fail();
    let parked = place.run("parked", OnFailure::Park).await;
    assert!(matches!(parked, Some(DriveOutcome::Parked(_))), "{parked:?}");

    let place = Place::new(store);
    place.fail();
    assert_eq!(place.run("rolled-back", OnFailure::Rollback).await, undone);

    let place = Place::new(store);
    place.world.die_at(4, Moment::After);
    assert_eq!(place.run("crashed", OnFailure::Park).await, None);

    let place = Place::new(store);
    assert_eq!(place.run("rolling-back", OnFailure::Park).await, done);
    place.world.die_at(2, Moment::After);
    assert_eq!(place.back("rolling-back").await, None);

    let place = Place::new(store);
    place.fail();
    let parked = place.run("abandoned", OnFailure::Park).await;
    assert!(matches!(parked, Some(DriveOutcome::Parked(_))), "{parked:?}");
    let journal = Arc::clone(&place.store) as Arc<dyn Journal>;
    let id = RunId::new("abandoned").unwrap();
    abandon(&journal, &id, &owner(), place.engine.clock.now()).await.unwrap();

    for name in ["vault/share-1", "vault/share-2"] {
        store.put_secret(&uid("done"), name, format!("sealed {name}").as_bytes(), false).await.unwrap();
    }
}

fn main() {
    let Some(path) = std::env::args().nth(1) else { panic!("the file to make is missing") };
    let executor = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Store::open(Path::new(&path), StoreSettings::default()).unwrap();
    executor.block_on(fill(&store));
    // The tasks of crashed drives hold the store as well; the last one to go moves the log into the file.
    drop(executor);
    drop(store);
}
