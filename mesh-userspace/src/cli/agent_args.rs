//! The command line of `mesh-agent`.

use std::{ffi::OsString, net::SocketAddr, num::NonZeroUsize, path::PathBuf};

use clap::{
    ArgAction, Args, Parser, Subcommand, ValueEnum,
    builder::{FalseyValueParser, PossibleValuesParser, TypedValueParser},
};

use super::{
    exit::{self, ExitStatus},
    values,
};
use crate::config::model::Acceleration;

/// Zerohop's node agent: a service mesh data plane without sidecars.
#[derive(Debug, Parser)]
#[command(
    name = "mesh-agent",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct AgentCli {
    /// What to do.
    #[command(subcommand)]
    pub command: AgentCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Run the agent of one node, until SIGTERM or SIGINT
    Run(Box<RunArgs>),
    /// Detach and remove everything that an agent has pinned: connections go as if it had never been
    Uninstall(UninstallArgs),
}

/// The flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Read manifests from this folder, and watch it for changes
    #[arg(long, env = "MESH_CONFIG_DIR", value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Read the same objects from the Kubernetes API (not in this version)
    #[arg(
        long,
        env = "MESH_KUBERNETES",
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    pub kubernetes: bool,
    /// How to reach the Kubernetes API from outside a cluster
    #[arg(long, env = "MESH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Which pods are local: those whose spec.nodeName is this [default: host name]
    #[arg(long, env = "MESH_NODE_NAME", value_name = "NAME", value_parser = values::node_name)]
    pub node_name: Option<String>,
    /// Health, metrics, dump, explain
    #[arg(
        long,
        env = "MESH_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:15000"
    )]
    pub admin: SocketAddr,
    /// Where bpffs is, or shall be mounted
    #[arg(
        long,
        env = "MESH_BPFFS",
        value_name = "DIR",
        default_value = "/sys/fs/bpf"
    )]
    pub bpffs: PathBuf,
    /// The cgroup v2 folder whose processes are seen [default: found in /proc/mounts]
    #[arg(long, env = "MESH_CGROUP", value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// The host's network namespace, where pods with zerohop.dev/cgroup run [default: the agent's own]
    #[arg(
        long,
        env = "MESH_HOST_NETNS",
        value_name = "PATH",
        default_value = "/proc/self/ns/net"
    )]
    pub host_netns: PathBuf,
    /// Data threads [default: the cores that it may use]
    #[arg(long, env = "MESH_WORKERS", value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// Move bytes from socket to socket; auto: where this kernel passes the self-test
    #[arg(
        long,
        env = "MESH_ACCELERATION",
        value_name = "WHEN",
        default_value = "auto",
        value_parser = PossibleValuesParser::new(["auto", "on", "off"])
            .try_map(|text| values::acceleration(&text))
    )]
    pub acceleration: Acceleration,
    /// Make a BPF map for so many entries: room for more connections, or less memory (docs/bpf-maps.md)
    #[arg(
        long,
        env = "MESH_MAP_CAPACITY",
        value_name = "NAME=N",
        value_delimiter = ',',
        value_parser = values::map_capacity
    )]
    pub map_capacity: Vec<(String, u32)>,
    /// Where an agent runs for this node, take over from it without a gap: it gives its listeners to this one,
    /// finishes what it has begun, and ends
    #[arg(
        long,
        env = "MESH_TAKEOVER",
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    pub takeover: bool,
    /// What to do once another agent has taken over: exit with status 0, or wait for SIGTERM (where the
    /// process would be started again, as in a DaemonSet)
    #[arg(
        long,
        env = "MESH_HANDED_OVER",
        value_name = "WHAT",
        default_value = "exit",
        value_enum
    )]
    pub handed_over: HandedOver,
    /// The folder below BPFFS/zerohop that is pinned in: for tests of what happens between two layouts
    #[arg(long, env = "MESH_LAYOUT", value_name = "NAME", hide = true, value_parser = values::layout)]
    pub layout: Option<String>,
    /// Answer pods' queries for the mesh's names; off: their own resolvers do
    #[arg(
        long,
        env = "MESH_DNS",
        value_name = "WHEN",
        default_value = "on",
        value_enum
    )]
    pub dns: Switch,
    /// How the log on standard error is written
    #[arg(
        long,
        env = "MESH_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        value_enum
    )]
    pub log_format: LogFormat,
    /// off, error, warn, info, debug, trace, or directives like info,zerohop=debug
    #[arg(
        long,
        env = "MESH_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_parser = values::log_level
    )]
    pub log_level: String,
}

/// The flags of `uninstall`.
#[derive(Debug, Clone, Args)]
pub struct UninstallArgs {
    /// Where bpffs is mounted
    #[arg(
        long,
        env = "MESH_BPFFS",
        value_name = "DIR",
        default_value = "/sys/fs/bpf"
    )]
    pub bpffs: PathBuf,
    /// Whose [default: host name]
    #[arg(long, env = "MESH_NODE_NAME", value_name = "NAME", value_parser = values::node_name)]
    pub node_name: Option<String>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Done.
    On,
    /// Not done.
    Off,
}

/// What an agent does that is not needed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HandedOver {
    /// It ends.
    Exit,
    /// It waits until it is told to.
    Wait,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object per line.
    Json,
}

/// Where the objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder of manifests.
    Folder(PathBuf),
}

/// Why the flags make no sense together. The exit status is [`ExitStatus::Usage`].
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// No source was named.
    #[error(
        "no configuration named: name a folder of manifests with --config-dir DIR or MESH_CONFIG_DIR"
    )]
    NoSource,
    /// The source is not built yet.
    #[error("--kubernetes: not in this version; use --config-dir DIR or MESH_CONFIG_DIR")]
    NoKubernetes,
    /// The host's name cannot name a node.
    #[error(
        "the host's name cannot name this node ({0}): name it with --node-name or MESH_NODE_NAME"
    )]
    HostName(String),
}

/// Parses the command line; where it cannot, or where help was asked for, the text is already printed
/// and the status is what the process should end with.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<AgentCommand, ExitStatus> {
    exit::parse::<AgentCli>(arguments).map(|cli| cli.command)
}

impl RunArgs {
    /// Where the objects come from.
    pub fn source(&self) -> Result<Source, UsageError> {
        if self.kubernetes || self.kubeconfig.is_some() {
            return Err(UsageError::NoKubernetes);
        }
        self.config_dir
            .clone()
            .map(Source::Folder)
            .ok_or(UsageError::NoSource)
    }

    /// The node's name: as given, else the host's.
    pub fn node_name(&self) -> Result<String, UsageError> {
        name_or_host(self.node_name.as_deref())
    }
}

impl UninstallArgs {
    /// The node's name: as given, else the host's.
    pub fn node_name(&self) -> Result<String, UsageError> {
        name_or_host(self.node_name.as_deref())
    }
}

fn name_or_host(name: Option<&str>) -> Result<String, UsageError> {
    const HOST_NAME: &str = "/proc/sys/kernel/hostname";
    match name {
        Some(name) => Ok(name.to_owned()),
        None => std::fs::read_to_string(HOST_NAME)
            .map_err(|e| UsageError::HostName(format!("reading {HOST_NAME}: {e}")))
            .and_then(|name| values::node_name(name.trim()).map_err(UsageError::HostName)),
    }
}

#[cfg(test)]
mod tests;
