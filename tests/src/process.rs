//! A process with its output captured, a deadline on every wait, and death on drop.

use std::io::{self, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::poll::patient;
use crate::sys;

/// How often to look whether a process that is waited for has ended.
const POLL: Duration = Duration::from_millis(50);
/// How long to wait for the end of an ended process's output.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A child process. Killed on drop, and by the kernel if this process dies first.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Arc<Captured>,
    stderr: Arc<Captured>,
}

/// What a process that has ended left.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything that it wrote to its standard output.
    pub stdout: String,
    /// Everything that it wrote to its standard error.
    pub stderr: String,
}

#[derive(Debug, Default)]
struct Captured {
    stream: Mutex<Stream>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Stream {
    bytes: Vec<u8>,
    ended: bool,
}

impl Process {
    /// Starts `command` with its output captured and its input a pipe.
    pub fn start(mut command: Command) -> Result<Self> {
        sys::die_with_parent(&mut command);
        Self::start_prepared(command)
    }

    /// As [`Process::start`], for a command that already dies with this process.
    pub(crate) fn start_prepared(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn_for_ever(command).with_context(|| format!("start `{name}`"))?;
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let out = child.stdout.take().expect("invariant: stdout is piped");
        let err = child.stderr.take().expect("invariant: stderr is piped");
        capture(out, Arc::clone(&stdout));
        capture(err, Arc::clone(&stderr));
        Ok(Self {
            name,
            child,
            stdout,
            stderr,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output by now.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// How many lines it has written to its standard output by now: cheap, however many they are.
    pub fn lines(&self) -> usize {
        self.stdout.lines()
    }

    /// What it has written to its standard error by now.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The writing end of its standard input; `None` once taken. Dropping it is end of file.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits for `needle` in its standard output; fails with all output where it ends first.
    pub fn wait_stdout(&mut self, needle: &str, deadline: Duration) -> Result<()> {
        let deadline = patient(deadline);
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.stdout.wait_for(needle, POLL.min(left)) {
                return Ok(());
            }
            let ended = if self.wait_end(POLL.min(left))? {
                self.ended()?
            } else {
                None
            };
            if ended.is_some() || left.is_zero() {
                self.wait_streams(ended.is_some());
                if self.stdout.text().contains(needle) {
                    return Ok(());
                }
                bail!(
                    "`{}` did not print {needle:?} within {deadline:?} ({}), but:\n{}{}",
                    self.name,
                    ended.map_or("still running".to_owned(), |status| status.to_string()),
                    self.stdout(),
                    self.stderr()
                );
            }
        }
    }

    /// How it ended, `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("wait for `{}`", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        if self.ended()?.is_some() {
            bail!("`{}` has ended already", self.name);
        }
        sys::kill(self.id(), signal).with_context(|| format!("signal `{}`", self.name))
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("kill `{}`", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("wait for `{}`", self.name))
            .map(drop)
    }

    /// Waits until it has ended by itself; past the deadline it is killed and that is an error.
    pub fn wait(mut self, deadline: Duration) -> Result<Output> {
        // Whoever reads its input to the end must come to the end.
        drop(self.take_stdin());
        let deadline = patient(deadline);
        if !self.wait_end(deadline)? {
            self.kill()?;
            bail!(
                "`{}` was still running after {deadline:?}; it had printed:\n{}{}",
                self.name,
                self.stdout(),
                self.stderr()
            );
        }
        let status = self
            .child
            .wait()
            .with_context(|| format!("wait for `{}`", self.name))?;
        self.wait_streams(true);
        Ok(Output {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }

    /// Waits until it has ended; false where `deadline` passed first.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<bool> {
        let end = Instant::now() + deadline;
        loop {
            if self.ended()?.is_some() {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let pidfd = sys::pidfd(self.id()).with_context(|| format!("watch `{}`", self.name))?;
            sys::wait_readable(&pidfd, left).with_context(|| format!("watch `{}`", self.name))?;
        }
    }

    /// What an ended process wrote last may still be in the pipes. Not for ever: a grandchild may
    /// hold them open.
    fn wait_streams(&self, ended: bool) {
        if ended {
            self.stdout.wait_ended(LAST_WORDS);
            self.stderr.wait_ended(LAST_WORDS);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Fails with the output where the process did.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("{}\n{}{}", self.status, self.stdout, self.stderr)
    }

    /// The standard output as JSON; fails where the process did or wrote something else.
    pub fn json(self) -> Result<serde_json::Value> {
        let output = self.success()?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("not JSON: {}\n{}", output.stdout, output.stderr))
    }
}

impl Captured {
    fn lines(&self) -> usize {
        let stream = self.lock();
        stream.bytes.split(|byte| *byte == b'\n').count().max(1) - 1
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, needle: &str, timeout: Duration) -> bool {
        let found = |stream: &Stream| String::from_utf8_lossy(&stream.bytes).contains(needle);
        let (stream, _) = self
            .grown
            .wait_timeout_while(self.lock(), timeout, |stream| {
                !stream.ended && !found(stream)
            })
            .unwrap_or_else(PoisonError::into_inner);
        found(&stream)
    }

    fn wait_ended(&self, timeout: Duration) {
        drop(
            self.grown
                .wait_timeout_while(self.lock(), timeout, |stream| !stream.ended),
        );
    }
}

fn capture(mut stream: impl Read + Send + 'static, into: Arc<Captured>) {
    std::thread::spawn(move || {
        let mut chunk = [0; 16 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            into.lock().bytes.extend_from_slice(&chunk[..length]);
            into.grown.notify_all();
        }
        into.lock().ended = true;
        into.grown.notify_all();
    });
}

/// Spawns from a thread that lives as long as this process: the parent-death signal is sent when
/// the spawning *thread* ends, and a test's thread may end before what it started.
fn spawn_for_ever(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, result) = channel();
    spawner
        .send((command, answer))
        .map_err(|_| io::Error::other("the spawning thread is gone"))?;
    result
        .recv()
        .map_err(|_| io::Error::other("the spawning thread is gone"))?
}
