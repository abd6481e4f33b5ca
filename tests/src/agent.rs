//! An agent on a lab's node: start, ask, stop, and leave nothing pinned.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::host::{BPFFS, NETNS_DIR};
use crate::metrics::Metrics;
use crate::process::{Output, Process};
use crate::traffic::{self, Traffic};
use crate::{Lab, binaries, poll, reaper};

/// How long an agent may take until it is ready, on a busy machine and in a debug build.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long an agent may take to drain and stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long `meshctl` may take.
const CLI_DEADLINE: Duration = Duration::from_secs(20);
/// How long one answer of the admin port may take.
const ADMIN_DEADLINE: Duration = Duration::from_secs(10);

/// How an agent is to be started; the default is as a user would, on the lab's node.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// `--admin`; a free port of 127.0.0.1 by default.
    pub admin: Option<SocketAddr>,
    /// `--config-dir`; the lab's folder by default.
    pub config_dir: Option<PathBuf>,
    /// `--workers`; one by default, as the labs share the machine.
    pub workers: Option<u32>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// More environment.
    pub environment: Vec<(String, String)>,
    /// A program and its arguments that run the agent: `setpriv --reuid 65534`.
    pub under: Vec<String>,
}

/// A running agent. Dropping it stops it and removes what it pinned.
#[derive(Debug)]
pub struct Agent {
    lab: String,
    process: Option<Process>,
    admin: SocketAddr,
    binary: PathBuf,
}

impl AgentOptions {
    /// With one more argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

impl Agent {
    /// Starts an agent and waits until it is ready.
    pub fn start(lab: &Lab, options: &AgentOptions) -> Result<Self> {
        let mut agent = Self::launch(lab, options)?;
        agent.wait_ready(READY_DEADLINE)?;
        Ok(agent)
    }

    /// Starts an agent and does not wait.
    pub fn launch(lab: &Lab, options: &AgentOptions) -> Result<Self> {
        let admin = match options.admin {
            Some(admin) => admin,
            None => free_port()?,
        };
        let binary = binaries::find("mesh-agent")?;
        let process = Process::start(Self::command(lab, options, admin)?)?;
        reaper::register_process(lab.id(), process.id());
        Ok(Self {
            lab: lab.id().to_owned(),
            process: Some(process),
            admin,
            binary,
        })
    }

    /// The command that [`Agent::launch`] runs, with its admin port.
    pub fn command(lab: &Lab, options: &AgentOptions, admin: SocketAddr) -> Result<Command> {
        let binary = binaries::find("mesh-agent")?;
        let mut words = options.under.iter().map(OsString::from).collect::<Vec<_>>();
        words.push(binary.into_os_string());
        let mut command = Command::new(&words[0]);
        let config_dir = options
            .config_dir
            .as_deref()
            .unwrap_or(lab.manifests().dir());
        command
            .args(&words[1..])
            .arg("run")
            .arg("--config-dir")
            .arg(config_dir)
            .args(["--node-name", lab.id()])
            .args(["--admin", &admin.to_string()])
            .arg("--cgroup")
            .arg(lab.cgroup())
            .arg("--host-netns")
            .arg(Path::new(NETNS_DIR).join(lab.node_netns()))
            .args(["--bpffs", BPFFS, "--log-format", "text"])
            .args(["--workers", &options.workers.unwrap_or(1).to_string()])
            .args(&options.arguments)
            .envs(options.environment.iter().map(|(key, value)| (key, value)));
        Ok(command)
    }

    /// Waits until `/readyz` says 200; an agent that ends before is an error with its log.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<()> {
        let mut last = String::new();
        let ready = poll::eventually(deadline, || {
            match self.get("/readyz") {
                Ok((200, _)) => return true,
                Ok((status, body)) => last = format!("{status} {body}"),
                Err(error) => last = format!("{error:#}"),
            }
            !self.is_running()
        });
        ensure!(
            ready && self.is_running(),
            "the agent is not ready ({}): {last}\nits log:\n{}",
            if self.is_running() {
                "still running"
            } else {
                "ended"
            },
            self.log()
        );
        Ok(())
    }

    /// Where it answers.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id, 0 once stopped.
    pub fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::id)
    }

    /// What it has logged by now.
    pub fn log(&self) -> String {
        self.process
            .as_ref()
            .map(Process::stderr)
            .unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        let ended = self.process.as_mut().map(Process::ended);
        matches!(ended, Some(Ok(None)))
    }

    /// GETs `path` of the admin port: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http_ask(self.admin, "GET", path, "")
    }

    /// GETs `path` of the admin port, which must be 200 and JSON.
    pub fn get_json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path)?;
        ensure!(status == 200, "GET {path}: {status} {body}");
        serde_json::from_str(&body).with_context(|| format!("GET {path} is not JSON: {body}"))
    }

    /// One scrape.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "GET /metrics: {status} {body}");
        Ok(Metrics::parse(&body))
    }

    /// Runs `meshctl` against this agent.
    pub fn meshctl(&self, arguments: &[&str]) -> Result<Output> {
        self.start_meshctl(arguments)?.wait(CLI_DEADLINE)
    }

    /// Starts `meshctl` against this agent, and does not wait.
    pub fn start_meshctl(&self, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(binaries::find("meshctl")?);
        command
            .args(["--admin", &self.admin.to_string(), "--bpffs", BPFFS])
            .args(["--node-name", &self.lab])
            .args(arguments);
        Process::start(command)
    }

    /// Runs `meshctl … -o json`, which must succeed.
    pub fn meshctl_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut words = arguments.to_vec();
        words.extend(["-o", "json"]);
        self.meshctl(&words)?
            .json()
            .with_context(|| format!("meshctl {}", words.join(" ")))
    }

    /// What `meshctl explain` answers to a GET by `from` (`namespace/pod`).
    pub fn explain(&self, from: &str, headers: &[&str], url: &str) -> Result<Value> {
        let mut words = vec!["explain", "--from", from];
        for header in headers {
            words.extend(["-H", header]);
        }
        words.push(url);
        self.meshctl_json(&words)
    }

    /// As [`Agent::explain`], asked of the admin port: quick enough to poll.
    pub fn query(&self, from: &str, headers: &[(&str, &str)], url: &str) -> Result<Value> {
        let query = json!({"from": from, "method": "GET", "url": url, "headers": headers});
        let (status, body) = http_ask(self.admin, "POST", "/explain", &query.to_string())?;
        ensure!(status == 200, "POST /explain {query}: {status} {body}");
        serde_json::from_str(&body).with_context(|| format!("POST /explain is not JSON: {body}"))
    }

    /// The kernel's count of connections and bytes.
    pub fn traffic(&self) -> Result<Vec<Traffic>> {
        traffic::parse(&self.meshctl_json(&["maps", "dump", "traffic"])?)
    }

    /// The open connections.
    pub fn connections(&self) -> Result<Vec<Value>> {
        let list = self.meshctl_json(&["connections"])?;
        serde_json::from_value(list).context("meshctl connections is no list")
    }

    /// Polls `meshctl config` until the object `kind name` has one of `states`; gives its entry.
    pub fn wait_config(&self, kind: &str, name: &str, states: &[&str]) -> Result<Value> {
        let mut last = Value::Null;
        poll::eventually_some(READY_DEADLINE, || {
            let list = self.meshctl_json(&["config"]).ok()?;
            let entry = list.as_array()?.iter().find(|entry| {
                entry["kind"] == kind
                    && entry["name"] == name
                    && states.iter().any(|state| entry["state"] == *state)
            });
            let found = entry.cloned();
            last = list;
            found
        })
        .with_context(|| format!("{kind} {name} never was {states:?}, but: {last:#}"))
    }

    /// Sends SIGTERM and waits until it has ended: how it did, and its whole log.
    pub fn stop(&mut self) -> Result<Output> {
        let mut process = self
            .process
            .take()
            .context("the agent is stopped already")?;
        process.signal(libc::SIGTERM)?;
        self.wait_process(process)
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Result<Output> {
        let process = self
            .process
            .take()
            .context("the agent is stopped already")?;
        self.wait_process(process)
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        let process = self.process.as_mut().context("the agent is stopped")?;
        process.signal(signal)
    }

    /// Kills it without a word; what it pinned stays.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self
            .process
            .take()
            .context("the agent is stopped already")?;
        reaper::forget_process(&self.lab, process.id());
        process.kill()
    }

    /// Runs `mesh-agent uninstall` for this node: how it ended.
    pub fn uninstall(&self) -> Result<ExitStatus> {
        let mut command = Command::new(&self.binary);
        command.args(["uninstall", "--node-name", &self.lab, "--bpffs", BPFFS]);
        let output = Process::start(command)?.wait(CLI_DEADLINE)?;
        if !output.status.success() {
            bail!("mesh-agent uninstall: {}\n{}", output.status, output.stderr);
        }
        Ok(output.status)
    }

    fn wait_process(&self, process: Process) -> Result<Output> {
        let pid = process.id();
        let output = process.wait(STOP_DEADLINE);
        reaper::forget_process(&self.lab, pid);
        output
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the agent of {}:\n{}", self.lab, self.log());
        }
        // One that has ended may have a successor, whose pins they are now. If not, the lab's end
        // removes them.
        if self.is_running()
            && let Err(error) = self.stop().and_then(|_| self.uninstall())
        {
            eprintln!("stop the agent of {}: {error:#}", self.lab);
        }
    }
}

/// The exit code, 128 and the signal's number where a signal ended it (as a shell says it).
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind 127.0.0.1:0")?;
    listener.local_addr().context("read the bound port")
}

/// Asks the HTTP server `address`: status and body of the answer.
fn http_ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let what = || format!("{method} http://{address}{path}");
    let mut stream =
        TcpStream::connect_timeout(&address, poll::patient(ADMIN_DEADLINE)).with_context(what)?;
    stream
        .set_read_timeout(Some(poll::patient(ADMIN_DEADLINE)))
        .with_context(what)?;
    // HTTP/1.0: no chunks, and the end of the connection is the end of the body.
    let head = format!(
        "{method} {path} HTTP/1.0
Host: {address}
Content-Type: application/json
\
         Content-Length: {}

",
        body.len()
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .with_context(what)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(what)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(what)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((
        status.with_context(|| format!("{}: {head}", what()))?,
        body.to_owned(),
    ))
}
