//! How a command finds, starts, asks and stops a sandbox: a small client of the control endpoint, and the one place here
//! that starts a process.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use axum::body::{Body, to_bytes};

pub use crate::server::{Endpoints, endpoints_file};

const START_PATIENCE: Duration = Duration::from_secs(20);
const ASK_PATIENCE: Duration = Duration::from_secs(10);

/// Why a sandbox could not be reached or started.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// None runs there.
    #[error("no sandbox runs in {0}")]
    NotRunning(PathBuf),
    /// It did not come up.
    #[error("the sandbox did not start within {} s; its log is {log}", START_PATIENCE.as_secs())]
    NotStarted {
        /// Where its output went.
        log: PathBuf,
    },
    /// Files or the process failed.
    #[error("the sandbox cannot use {what}")]
    Io {
        /// What failed.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// It answered with a refusal.
    #[error("the sandbox refused: {0}")]
    Refused(String),
    /// It did not answer.
    #[error("the sandbox does not answer: {0}")]
    Silent(String),
}

/// How to start one.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Seed of a new world.
    pub seed: Option<u64>,
    /// Simulated seconds per real second.
    pub speed: Option<f64>,
    /// Version of this program: a running server of another version is stopped and started anew.
    pub version: String,
}

/// A running sandbox.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Where it answers.
    pub endpoints: Endpoints,
}

impl Sandbox {
    /// The sandbox that runs in a directory, if one does.
    ///
    /// # Errors
    /// None runs there.
    pub async fn find(directory: &Path) -> Result<Self, ControlError> {
        let missing = || ControlError::NotRunning(directory.to_owned());
        let file = std::fs::read(endpoints_file(directory)).map_err(|_| missing())?;
        let known: Endpoints = serde_json::from_slice(&file).map_err(|_| missing())?;
        let status = Self { endpoints: known.clone() }.ask("GET", "status", None).await.map_err(|_| missing())?;
        let endpoints: Endpoints = serde_json::from_value(status).map_err(|_| missing())?;
        if endpoints.pid == known.pid { Ok(Self { endpoints }) } else { Err(missing()) }
    }

    /// The sandbox of a directory, started if none runs. `program` is called as `program sandbox serve --directory …`.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn ensure_started(
        program: &Path,
        directory: &Path,
        options: &StartOptions,
    ) -> Result<Self, ControlError> {
        // The state directory is made on the way, and is nobody else's to read.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| ControlError::Io { what: directory.display().to_string(), source })?;
        let _lock = lock(directory).await?;
        if let Ok(running) = Self::find(directory).await {
            if running.endpoints.version == options.version {
                return Ok(running);
            }
            running.stop(directory).await?;
        }
        let log = directory.join("sandbox.log");
        spawn(program, directory, options, &log)?;
        wait(START_PATIENCE, || async { Self::find(directory).await.ok() })
            .await
            .ok_or(ControlError::NotStarted { log })
    }

    /// Stops it; the world is kept.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn stop(&self, directory: &Path) -> Result<(), ControlError> {
        // A server that ends may close the connection before its answer is out: what counts is that it is gone.
        let told = self.ask("POST", "shutdown", Some(json!({}))).await;
        if let Err(ControlError::Refused(refused)) = told {
            return Err(ControlError::Refused(refused));
        }
        wait(ASK_PATIENCE, || async { Self::find(directory).await.is_err().then_some(()) })
            .await
            .ok_or_else(|| ControlError::Silent("it was told to stop and still runs".to_owned()))
    }

    /// Forgets the world and starts an empty one.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn reset(&self, seed: Option<u64>) -> Result<Value, ControlError> {
        self.ask("POST", "reset", Some(json!({"seed": seed}))).await
    }

    /// Every resource.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn world(&self) -> Result<Value, ControlError> {
        self.ask("GET", "world", None).await
    }

    /// Calls answered so far.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn counters(&self) -> Result<Value, ControlError> {
        self.ask("GET", "counters", None).await
    }

    /// Adds a fault rule, in the words of [`crate::faults::Rule`].
    ///
    /// # Errors
    /// The rule cannot be read.
    pub async fn fault(&self, rule: &str) -> Result<Value, ControlError> {
        self.ask("POST", "faults", Some(json!({"rule": rule}))).await
    }

    /// Draws faults from a profile, in the words of [`crate::faults::Profile`].
    ///
    /// # Errors
    /// There is no such profile.
    pub async fn follow(&self, profile: &str) -> Result<Value, ControlError> {
        self.ask("POST", "faults", Some(json!({"profile": profile}))).await
    }

    /// Leaves behind what controllers and half-done deletions leave; answers the ids.
    ///
    /// # Errors
    /// There is no such kind, or nothing to hang it on; the refusal names all kinds.
    pub async fn leak(&self, kind: &str) -> Result<Value, ControlError> {
        self.ask("POST", "leak", Some(json!({"type": kind}))).await
    }

    /// Makes a resource of somebody else; answers the ids.
    ///
    /// # Errors
    /// There is no such kind, or nothing to hang it on; the refusal names all kinds.
    pub async fn plant_foreign(&self, kind: &str, name: &str) -> Result<Value, ControlError> {
        self.ask("POST", "foreign", Some(json!({"type": kind, "name": name}))).await
    }

    /// Makes the account differ from an ordinary one in the fields that are given; answers all of them.
    ///
    /// # Errors
    /// A field that does not exist, or a value that does not fit.
    pub async fn shape(&self, fields: Value) -> Result<Value, ControlError> {
        self.ask("POST", "account", Some(fields)).await
    }

    /// Forgets all fault rules and the profile.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn clear_faults(&self) -> Result<Value, ControlError> {
        self.ask("DELETE", "faults", None).await
    }

    /// Simulated time (Unix milliseconds) and speed.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn clock(&self) -> Result<(i64, f64), ControlError> {
        let answer = self.ask("GET", "clock", None).await?;
        let time = answer.get("now_ms").and_then(Value::as_i64).zip(answer.get("speed").and_then(Value::as_f64));
        time.ok_or_else(|| ControlError::Silent("its clock cannot be read".to_owned()))
    }

    /// Moves simulated time: another speed, or a jump forward.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn set_clock(&self, speed: Option<f64>, advance_ms: i64) -> Result<Value, ControlError> {
        self.ask("POST", "clock", Some(json!({"speed": speed, "advance_ms": advance_ms}))).await
    }

    /// One request to the control endpoint.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, ControlError> {
        tokio::time::timeout(ASK_PATIENCE, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| Err(ControlError::Silent("no answer in time".to_owned())))
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, ControlError> {
        let silent = |error: &dyn std::fmt::Display| ControlError::Silent(error.to_string());
        let authority = self.endpoints.aws_url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&authority).await.map_err(|error| silent(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| silent(&error))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/_sandbox/{path}"))
            .header("host", &authority)
            .body(Body::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .map_err(|error| silent(&error))?;
        let response = sender.send_request(request).await.map_err(|error| silent(&error))?;
        let status = response.status();
        let bytes =
            to_bytes(Body::new(response.into_body()), 256 * 1024 * 1024).await.map_err(|error| silent(&error))?;
        drop(sender);
        driver.abort();
        if !status.is_success() {
            return Err(ControlError::Refused(String::from_utf8_lossy(&bytes).trim().to_owned()));
        }
        serde_json::from_slice(&bytes).map_err(|error| silent(&error))
    }
}

/// Asks again and again until there is an answer or patience ends.
async fn wait<T, F: Future<Output = Option<T>>>(patience: Duration, mut ask: impl FnMut() -> F) -> Option<T> {
    tokio::time::timeout(patience, async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    })
    .await
    .ok()
}

/// Two commands that start a sandbox in one directory do so one after the other.
async fn lock(directory: &Path) -> Result<File, ControlError> {
    let path = directory.join("start.lock");
    let failed = |source| ControlError::Io { what: path.display().to_string(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    let locked = wait(START_PATIENCE, || async { file.try_lock().ok() }).await;
    locked.map(|()| file).ok_or_else(|| failed(std::io::ErrorKind::TimedOut.into()))
}

#[expect(clippy::disallowed_methods, reason = "the one place that starts the sandbox's process")]
fn spawn(program: &Path, directory: &Path, options: &StartOptions, log: &Path) -> Result<(), ControlError> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |source| ControlError::Io { what, source }
    };
    let output = File::options().create(true).append(true).open(log).map_err(failed(log))?;
    let errors = output.try_clone().map_err(failed(log))?;
    let mut command = std::process::Command::new(program);
    command.args(["sandbox", "serve", "--directory"]).arg(directory);
    if let Some(seed) = options.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    if let Some(speed) = options.speed {
        command.arg("--speed").arg(speed.to_string());
    }
    // A group of its own: an interrupt at the terminal is for the command, not for the world.
    command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    command.spawn().map(drop).map_err(failed(program))
}
