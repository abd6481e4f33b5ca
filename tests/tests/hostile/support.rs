//! A hostile process, and what its victims' kernels know of it.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::stage::DEADLINE;
use lab::{Pod, PodSpec, Stage, binaries, eventually};

/// What a container's root may: its network namespace is its own, the host is not.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+kill,+net_admin,+net_bind_service,+net_raw,\
                            +setfcap,+setgid,+setuid";
/// What connect() says where a policy refuses it.
pub const REFUSED: &str = "Operation not permitted";
/// In /proc/net/tcp: asked for, and not completed.
pub const SYN_RECEIVED: &str = "03";
/// In /proc/net/tcp.
pub const ESTABLISHED: &str = "01";

/// A stage whose servers let in whom `rule` says, and a pod `friend` with an identity of its own.
pub struct Scene {
    pub friend: Pod,
    pub stage: Stage,
}

impl Scene {
    pub fn new(name: &str, spec: &str) -> Result<Self> {
        let stage = Stage::new(name, &["v1"])?;
        let friend = stage
            .lab
            .pod(PodSpec::new("friend").service_account("friend"))?;
        let scene = Self { friend, stage };
        let enrolled = eventually(DEADLINE, || {
            let status = scene.stage.agent.get_json("/config_dump");
            status.is_ok_and(|dump| dump.to_string().contains("sa/friend"))
        });
        ensure!(enrolled, "the friend was not enrolled");
        if !spec.is_empty() {
            scene.rule(spec)?;
        }
        Ok(scene)
    }

    /// Puts a policy for the servers in force.
    pub fn rule(&self, spec: &str) -> Result<()> {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: guard}}\n\
             spec: {{selector: {{matchLabels: {{app: echo}}}}, {spec}}}\n"
        );
        let before = self.snapshot()?;
        self.stage.rules(&text)?;
        self.newer_than(before)
    }

    /// Takes it away.
    pub fn unrule(&self) -> Result<()> {
        let before = self.snapshot()?;
        self.stage.lab.manifests().remove("rules.yaml")?;
        self.newer_than(before)
    }

    fn snapshot(&self) -> Result<u64> {
        let dump = self.stage.agent.get_json("/config_dump")?;
        dump["version"].as_u64().context("no version")
    }

    /// The maps are written after that: what is dialled next may need to be dialled again.
    fn newer_than(&self, before: u64) -> Result<()> {
        let newer = eventually(DEADLINE, || {
            self.snapshot().is_ok_and(|version| version > before)
        });
        ensure!(newer, "the policy never came into force");
        Ok(())
    }

    pub fn server(&self) -> &Pod {
        &self.stage.servers[0]
    }

    /// Where the server answers.
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(self.server().address().into(), 8080)
    }

    /// How many SYNs to the server were refused.
    pub fn denied_syns(&self) -> Result<f64> {
        let labels = [("destination", "default/echo-v1"), ("place", "syn")];
        let metrics = self.stage.agent.metrics()?;
        Ok(metrics.sum("zerohop_denied_connections_total", &labels))
    }
}

/// A command that runs as a container's root does.
pub fn contained(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set", CAPABILITIES, "--no-new-privs", program])
        .args(words);
    command
}

/// Runs `lab-peer intruder dial` in a pod: what came of it.
pub fn dial(pod: &Pod, words: &[&str]) -> Result<String> {
    intrude(pod, "dial", words)
}

/// Dials until the answer is as wanted: a policy may not be in the maps yet.
pub fn dial_until(pod: &Pod, words: &[&str], wanted: &str) -> Result<()> {
    let mut last = String::new();
    eventually(DEADLINE, || {
        last = dial(pod, words).unwrap_or_else(|error| format!("{error:#}"));
        last.contains(wanted)
    })
    .then_some(())
    .with_context(|| format!("{words:?} from {pod} never was {wanted:?}, but {last:?}"))
}

/// Runs `lab-peer intruder` in a pod.
pub fn intrude(pod: &Pod, what: &str, words: &[&str]) -> Result<String> {
    let peer = binaries::find("lab-peer")?.display().to_string();
    let all = [&["intruder", what], words].concat();
    let report = pod.run(contained(&peer, &all), DEADLINE)?.json()?;
    Ok(report["outcome"].as_str().context("no outcome")?.to_owned())
}

/// A shell script of the pod's own root, which must succeed.
pub fn script(pod: &Pod, text: &str) -> Result<String> {
    let output = pod.run(contained("sh", &["-ec", text]), DEADLINE)?;
    Ok(output.success()?.stdout)
}

/// How many of a pod's sockets are in a state with an other end (`ADDRESS:PORT` as /proc/net/tcp has it).
pub fn sockets(pod: &Pod, state: &str, remote: SocketAddr) -> Result<usize> {
    let (file, address) = match remote {
        SocketAddr::V4(at) => {
            let word = u32::from_ne_bytes(at.ip().octets());
            ("/proc/thread-self/net/tcp", format!("{word:08X}"))
        }
        SocketAddr::V6(at) => {
            let words = at.ip().octets();
            let hex = words.chunks(4).map(|word| {
                let word: [u8; 4] = word.try_into().unwrap_or_default();
                format!("{:08X}", u32::from_ne_bytes(word))
            });
            ("/proc/thread-self/net/tcp6", hex.collect())
        }
    };
    let end = format!("{address}:{:04X}", remote.port());
    let table = pod.enter(|| std::fs::read_to_string(file))??;
    let of = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next() == Some(end.as_str()) && fields.next() == Some(state)
    };
    Ok(table.lines().filter(of).count())
}

/// Connections that the pod's kernel ever accepted.
pub fn accepted(pod: &Pod) -> Result<u64> {
    let text = pod.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = names.zip(values).context("no Tcp in /proc/net/snmp")?;
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = both
        .find(|(name, _)| *name == "PassiveOpens")
        .context("no PassiveOpens")?;
    Ok(value.parse()?)
}
