//! Harness of the end-to-end tests: the real binary in a sealed directory, its exit code, its JSON, its sandbox's world.
//!
//! Nothing of the surroundings leaks in (empty environment, own HOME and state), and nothing stays behind: the sandbox
//! that a test started is stopped with it.

pub mod asking;
pub mod cluster;
pub mod durable;
pub mod fault_proxy;
pub mod misconfigured;
pub mod scale;
pub mod strace;
pub mod world;

use platflow_sandbox::control::Sandbox;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A sealed place to run the binary in.
#[derive(Debug)]
pub struct TestEnvironment {
    directory: tempfile::TempDir,
    program: PathBuf,
    variables: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// What was run, for messages.
    pub command: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n--- stdout\n{}\n--- stderr\n{}", self.command, self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}\n{}", self.command, self.stdout, self.stderr))
    }
}

/// A running binary; killed with SIGKILL when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    /// Lines of standard output, once somebody reads them while it runs.
    lines: Option<Receiver<String>>,
    /// What was read of them.
    read: String,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and wait for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name (`STOP`, `CONT`, `INT`, `TERM`).
    #[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {}", self.command);
    }

    /// SIGKILL at the moment when it has printed its n-th line; true if it was still running then. With `--output jsonl`
    /// every line is an event of the journal that is durable.
    pub fn kill_after_lines(&mut self, lines: u64, limit: Duration) -> bool {
        let running = self.read_lines(lines, limit) && self.ended().is_none();
        self.kill();
        running
    }

    /// Reads that many lines of its standard output; false if it ends before.
    ///
    /// # Panics
    /// When nothing is printed for longer than `limit`.
    pub fn read_lines(&mut self, lines: u64, limit: Duration) -> bool {
        let receiver = self.lines.get_or_insert_with(|| lines_of(self.child.stdout.take()));
        for _ in 0..lines {
            match receiver.recv_timeout(limit) {
                Ok(line) => self.read.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("{}: no line in {limit:?}", self.command),
            }
        }
        true
    }

    /// Reads lines of its standard output until one is as wanted; false if it ends before.
    ///
    /// # Panics
    /// When nothing is printed for longer than `limit`.
    pub fn read_until(&mut self, wanted: impl Fn(&str) -> bool, limit: Duration) -> bool {
        loop {
            let before = self.read.len();
            if !self.read_lines(1, limit) {
                return false;
            }
            if self.read.get(before..).is_some_and(&wanted) {
                return true;
            }
        }
    }

    /// Reads its standard error until a line contains `words`; false if it ends before. The rest is read by `wait`.
    pub fn read_error_until(&mut self, words: &str) -> bool {
        let Some(pipe) = self.child.stderr.as_mut() else { return false };
        let (mut line, mut byte) = (Vec::new(), [0]);
        while pipe.read(&mut byte).is_ok_and(|read| read == 1) {
            line.push(byte[0]);
            if byte[0] == b'\n' {
                if String::from_utf8_lossy(&line).contains(words) {
                    return true;
                }
                line.clear();
            }
        }
        false
    }

    /// Lets go of its standard output, as `head` does: what it prints from now on finds no reader.
    pub fn close_stdout(&mut self) {
        self.child.stdout = None;
    }

    /// Stops reading the lines of its standard output; the pipe breaks with the next line that it prints.
    pub fn close_lines(&mut self) {
        // The thread that reads ends when it finds nobody to tell; its end of the pipe goes with it.
        self.lines = Some(std::sync::mpsc::channel().1);
    }

    /// Has it ended?
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits for the end and collects the output.
    #[must_use]
    pub fn wait(mut self) -> Finished {
        let mut child = std::mem::replace(&mut self.child, inert());
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let reader = std::thread::spawn(move || read_all(stderr));
        let rest = match self.lines.take() {
            Some(lines) => lines.iter().collect(),
            None => read_all(stdout),
        };
        let stdout = std::mem::take(&mut self.read) + &rest;
        let status = child.wait().expect("a child of ours");
        let stderr = reader.join().expect("the reader does not panic");
        Finished { command: self.command.clone(), code: status.code().unwrap_or(-1), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
fn inert() -> Child {
    Command::new("true").stdout(Stdio::null()).spawn().expect("true")
}

/// The lines of a pipe, read as they come so that its writer is never held up.
fn lines_of(pipe: Option<ChildStdout>) -> Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let Some(pipe) = pipe else { return };
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { break };
            if sender.send(line + "\n").is_err() {
                break;
            }
        }
    });
    receiver
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The binary under test: built by `./test` in the same profile as the tests.
fn program() -> PathBuf {
    let this = std::env::current_exe().expect("a path of this test");
    let profile = this.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let program = profile.join("platflow");
    assert!(program.exists(), "{} is not built: run the tests by ./test", program.display());
    program
}

impl Default for TestEnvironment {
    fn default() -> Self {
        Self::new()
    }
}

impl TestEnvironment {
    /// An empty place.
    #[must_use]
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            program: program(),
            variables: Vec::new(),
        }
    }

    /// A copy of this place as it lies there; its sandbox must be stopped, and only one of the copies may serve at a time:
    /// they have the same ports on record.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut copy = Self::new();
        copy.variables.clone_from(&self.variables);
        copy_folder(self.path(), copy.path());
        copy
    }

    /// The directory everything of this environment lies in.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The state directory of the binary.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Sets an environment variable for every command from now on.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command with these arguments and nothing of the surroundings.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("PLATFLOW_STATE", self.state())
            .env("NO_COLOR", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.finish(self.command(arguments), arguments)
    }

    /// Runs a prepared command to the end.
    #[must_use]
    pub fn finish(&self, mut command: Command, arguments: &[&str]) -> Finished {
        let output = command.output().expect("the binary starts");
        Finished {
            command: format!("platflow {}", arguments.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a prepared command, whose standard output goes elsewhere, to the end.
    #[must_use]
    pub fn finish_as_prepared(&self, mut command: Command, arguments: &[&str]) -> Finished {
        let child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        Running { child, command: format!("platflow {}", arguments.join(" ")), lines: None, read: String::new() }.wait()
    }

    /// Starts and does not wait.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_prepared(self.command(arguments), arguments)
    }

    /// Starts a prepared command and does not wait.
    #[must_use]
    pub fn start_prepared(&self, mut command: Command, arguments: &[&str]) -> Running {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        Running { child, command: format!("platflow {}", arguments.join(" ")), lines: None, read: String::new() }
    }

    /// The newest run's id.
    #[track_caller]
    #[must_use]
    pub fn newest_run(&self) -> Option<String> {
        let runs = self.run(&["list", "--output", "json"]);
        if runs.code != 0 {
            return None;
        }
        runs.json()["runs"][0]["id"].as_str().map(str::to_owned)
    }

    /// The sandbox's world.
    #[track_caller]
    #[must_use]
    pub fn world(&self) -> world::World {
        world::World::new(&self.run(&["sandbox", "world", "--output", "json"]).expect_code(0).json())
    }

    /// From now on the sandbox refuses an access key as `expired` or `unknown`; takes it again with none.
    #[track_caller]
    pub fn refuse_key(&self, access_key: &str, refused_as: Option<&str>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let sandbox = Sandbox::find(&self.state().join("sandbox")).await.expect("a running sandbox");
            let body = serde_json::json!({"access_key": access_key, "refused_as": refused_as});
            sandbox.ask("POST", "credentials", Some(body)).await.expect("the sandbox does as it is told");
        });
    }

    /// Mutating calls that the sandbox has answered, smoke's apart.
    #[track_caller]
    #[must_use]
    pub fn counters(&self) -> Value {
        let counters = self.run(&["sandbox", "counters", "--output", "json"]).expect_code(0).json();
        assert!(counters["mutating"]["outside_smoke"].is_u64(), "the counters have another shape: {counters}");
        counters
    }
}

/// Copies a folder with everything in it, permissions too.
///
/// # Panics
/// When a file cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    let permissions = std::fs::metadata(from).expect("a folder").permissions();
    std::fs::set_permissions(to, permissions).expect("permissions");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

impl Drop for TestEnvironment {
    fn drop(&mut self) {
        let _ = self.run(&["sandbox", "stop"]);
    }
}

/// Waits until `condition` holds; fails after `limit` of real time.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "{what} did not happen within {limit:?}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the interval between two looks at a condition of another process")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
