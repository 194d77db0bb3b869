//! A stage: one embedded sandbox with its clients, reused by many cases, and the folder that each case lives in. A case
//! begins by setting the stage to a moment and ends with nothing left of it.

use crate::failure::{CommandError, ExitCode};
use crate::rehearsal::clock::RehearsalClock;
use crate::rehearsal::folder::failed;
use crate::rehearsal::journal::{Filming, MortalJournal};
use crate::rehearsal::kinds::{Troubles, Watch, watched};
use crate::rehearsal::moment::{Files, Made, Moment, Things, make_folder};
use crate::rehearsal::recorder::Recorder;
use crate::sandbox_host;
use crate::settings::Settings;
use crate::target::Target;
use crate::views::event_text;
use crate::wiring;
use platflow_engine::clock::Clock;
use platflow_engine::drive::{Engine, Observer};
use platflow_engine::event::Event;
use platflow_engine::journal::{Owner, Sequence};
use platflow_engine::name::{EnvironmentUid, RunId, StepName};
use platflow_engine::plan::Plan;
use platflow_engine::secret::SecretStore;
use platflow_sandbox::clock::wall_ms;
use platflow_sandbox::embedded::Embedded;
use platflow_sandbox::virtual_time::VirtualTime;
use platflow_sandbox::world::World;
use platflow_state::{Store, StoreSettings};
use platflow_steps::aws::{AwsClients, AwsSettings};
use platflow_steps::sealing::{Keystore, Sealer};
use platflow_workflows::Resolver;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Notify;

/// Seed of every world that is rehearsed in: a case differs from the undisturbed run by what goes wrong in it alone.
const WORLD_SEED: u64 = 1;

/// A process that closed its file is waited for so many turns: what it had under way was cut off.
const CLOSING_TURNS: u32 = 20_000;

/// What is rehearsed.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// The compiled runbook.
    pub(crate) plan: Plan,
    /// Steps whose programs and requests are executed.
    pub(crate) real: Arc<BTreeSet<StepName>>,
    /// The rehearsed environment.
    pub(crate) uid: EnvironmentUid,
    /// The rehearsed run.
    pub(crate) run: RunId,
}

/// See the file.
pub(crate) struct Stage {
    pub(crate) script: Arc<Script>,
    pub(crate) embedded: Arc<Embedded>,
    pub(crate) time: Arc<VirtualTime>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) troubles: Troubles,
    pub(crate) target: Value,
    settings: Settings,
    aws: Arc<AwsClients>,
    identity: age::x25519::Identity,
    folder: PathBuf,
}

/// One process of a case: its store, its engine.
pub(crate) struct Process {
    pub(crate) store: Arc<Store>,
    pub(crate) journal: Arc<MortalJournal>,
    pub(crate) keystore: Arc<Keystore>,
    pub(crate) engine: Engine,
}

/// Tells the story of a replay.
struct Narrator {
    recorder: Arc<Recorder>,
    time: Arc<VirtualTime>,
}

impl Observer for Narrator {
    fn committed(&self, sequence: Sequence, event: &Event) {
        let now = jiff::Timestamp::from_millisecond(self.time.now_ms()).unwrap_or(jiff::Timestamp::MAX);
        self.recorder.say(|| format!("{:>5}  {}  {}", sequence, now.strftime("%H:%M:%S"), event_text::describe(event)));
    }
}

impl Stage {
    /// Sets a stage up in a folder of its own. Call it inside the runtime that the cases are to run in.
    pub(crate) async fn set_up(
        script: Arc<Script>,
        settings: &Settings,
        folder: PathBuf,
    ) -> Result<Self, CommandError> {
        let copies = folder.join("copies");
        make_folder(&copies).map_err(failed("make its folder"))?;
        let time = Arc::new(VirtualTime::starting_at(wall_ms()));
        let recorder = Arc::new(Recorder::default());
        let embedded = Embedded::start(WORLD_SEED, Arc::clone(&time), recorder.clone(), env!("CARGO_PKG_VERSION"))
            .await
            .map_err(|error| CommandError::new(ExitCode::Internal, "the sandbox could not start").caused_by(error))?;
        let endpoints = embedded.endpoints().clone();
        let region = sandbox_host::DEFAULT_REGION;
        let mut aws = AwsSettings::sandbox(&endpoints.aws_url, region);
        aws.address_url = Some(sandbox_host::address_url(&endpoints));
        let aws = AwsClients::connect(aws)
            .await
            .map_err(|error| wiring::internal("no client of the sandbox")(error.into()))?;
        let target = Target::Sandbox {
            world_id: endpoints.world_id.clone(),
            account: endpoints.account.clone(),
            region: region.to_owned(),
        };
        let target = target
            .to_value()
            .map_err(|error| CommandError::new(ExitCode::Internal, "the target cannot be written").caused_by(error))?;
        let case = folder.join("case");
        let mut settings = settings.clone();
        settings.state_directory = case.clone();
        settings.second_key_store = case.join("files").join("keys");
        settings.inherited_environment.retain(|name, _| name == "PATH");
        settings.inherited_environment.insert("HOME".to_owned(), case.join("files/home").display().to_string());
        Ok(Self {
            script,
            embedded: Arc::new(embedded),
            time,
            recorder,
            troubles: Troubles::default(),
            target,
            settings,
            aws,
            identity: age::x25519::Identity::generate(),
            folder,
        })
    }

    /// Where a case lives.
    fn case(&self) -> PathBuf {
        self.folder.join("case")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.case().join("state.db")
    }

    /// Files of programs, and the second store of keys.
    pub(crate) fn files(&self) -> PathBuf {
        self.case().join("files")
    }

    pub(crate) fn copies(&self) -> PathBuf {
        self.folder.join("copies")
    }

    fn clear(&self) -> Result<(), CommandError> {
        let case = self.case();
        if case.exists() {
            std::fs::remove_dir_all(&case).map_err(failed("clear its folder"))?;
        }
        make_folder(&self.files().join("home")).map_err(failed("make its folder"))
    }

    fn place(&self, world: World, now_ms: i64, things: Things, made: Made) {
        self.recorder.restore(&world.counters, things, made);
        self.embedded.replace(world, now_ms);
        *self.troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    /// An empty world, no state file.
    pub(crate) fn empty(&self) -> Result<(), CommandError> {
        self.clear()?;
        self.place(World::new(WORLD_SEED), wall_ms(), Things::new(), Made::new());
        Ok(())
    }

    /// A moment of the undisturbed run, as a process that died at it left it.
    pub(crate) fn restore(&self, moment: &Moment) -> Result<(), CommandError> {
        self.clear()?;
        std::fs::copy(&moment.state, self.state_file()).map_err(failed("copy a state file"))?;
        moment.files.write(&self.files()).map_err(failed("write its files"))?;
        self.place((*moment.world).clone(), moment.now_ms, moment.things.clone(), moment.made.clone());
        Ok(())
    }

    /// A new process opens the state file.
    pub(crate) fn open(&self, film: bool, dies_after: Option<u64>) -> Result<Process, CommandError> {
        let store = Store::open(&self.state_file(), StoreSettings::default()).map_err(wiring::journal_error)?;
        let filming =
            film.then(|| Filming { embedded: Arc::clone(&self.embedded), recorder: Arc::clone(&self.recorder) });
        let journal = Arc::new(MortalJournal {
            store: Arc::clone(&store),
            time: Arc::clone(&self.time),
            filming,
            dies_after,
            commits: AtomicU64::new(0),
            death: Notify::new(),
        });
        let secrets: Arc<dyn SecretStore> = store.clone();
        let sealer = Sealer::new(self.identity.clone(), &[])
            .map_err(|error| wiring::internal("a throw-away identity could not be used")(error.into()))?;
        let keystore = Arc::new(Keystore::new(secrets, Some(self.settings.second_key_store.clone()), sealer));
        let mut child = sandbox_host::variables(self.embedded.endpoints());
        child.insert("PLATFLOW_REHEARSAL".to_owned(), "1".to_owned());
        let core = wiring::core_settings(&self.settings, child);
        let catalog = wiring::catalog(&self.aws, &keystore, core)?;
        let watch = Watch {
            time: Arc::clone(&self.time),
            embedded: Arc::clone(&self.embedded),
            recorder: Arc::clone(&self.recorder),
            troubles: Arc::clone(&self.troubles),
            real: Arc::clone(&self.script.real),
        };
        let clock: Arc<dyn Clock> = Arc::new(RehearsalClock(Arc::clone(&self.time)));
        let narrator = Narrator { recorder: Arc::clone(&self.recorder), time: Arc::clone(&self.time) };
        let engine = Engine {
            journal: journal.clone(),
            catalog: watched(&catalog, &watch),
            clock,
            resolver: Arc::new(Resolver),
            observer: Arc::new(narrator),
            settings: platflow_engine::drive::Settings {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            },
        };
        Ok(Process { store, journal, keystore, engine })
    }

    /// Files of the case as they are.
    pub(crate) fn read_files(&self) -> Result<Files, CommandError> {
        Files::read(&self.files()).map_err(failed("read its files"))
    }
}

impl Process {
    /// The process is gone: what it had under way is cut off, its locks fall, its lease stays as it was.
    pub(crate) async fn end(self) -> Result<(), CommandError> {
        let Self { store, journal, keystore, engine } = self;
        drop((journal, keystore, engine));
        for _ in 0..CLOSING_TURNS {
            if Arc::strong_count(&store) == 1 {
                drop(store);
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
        Err(CommandError::new(ExitCode::Internal, "a rehearsed process did not end"))
    }
}

/// An owner that no process stands behind: once its lock is gone it is proven dead.
pub(crate) fn owner(number: u32) -> Result<Owner, CommandError> {
    let this = wiring::this_process()?;
    Ok(Owner { pid: u32::MAX - number, process_started: 1, ..this })
}
