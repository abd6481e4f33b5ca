//! The command line of `meshctl`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::values;

/// Looks into a Zerohop agent, its configuration and its BPF maps.
#[derive(Debug, Parser)]
#[command(
    name = "meshctl",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What is asked.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How the answer is written [default: table on a terminal, json elsewhere]
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Where the agent answers, HOST:PORT
    #[arg(
        long,
        global = true,
        env = "MESH_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:15000",
        value_parser = values::host_and_port
    )]
    pub admin: String,
    /// Where bpffs is mounted
    #[arg(
        long,
        global = true,
        env = "MESH_BPFFS",
        value_name = "DIR",
        default_value = "/sys/fs/bpf"
    )]
    pub bpffs: PathBuf,
    /// Whose maps, where several agents run on this machine [default: the only one there is, else the
    /// host name]
    #[arg(
        long,
        global = true,
        env = "MESH_NODE_NAME",
        value_name = "NAME",
        value_parser = values::node_name
    )]
    pub node_name: Option<String>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// What is asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Can this machine run the agent: kernel, privileges, cgroup, bpffs, self-test
    Check,
    /// The agent: version, uptime, snapshot, pods, acceleration
    Status,
    /// What became of each document of the configuration
    Config {
        /// Only this kind, in any case, or its short name: service, vs
        kind: Option<String>,
        /// Only this one: NAME or NAMESPACE/NAME
        #[arg(requires = "kind")]
        name: Option<String>,
    },
    /// Services with their ports, endpoints and the way to them
    Services,
    /// Pods, local or not
    Workloads,
    /// The rules that requests meet, resolved
    Routes,
    /// What would happen to a request, by the very functions that the proxy calls
    Explain(ExplainArgs),
    /// Open connections: who, to whom, which way, accelerated or why not
    Connections,
    /// Connections opened, closed, failed, denied: what the agent holds of them
    Events {
        /// Go on with what happens, until interrupted. Opens, closes and failures are told only while
        /// somebody follows
        #[arg(short, long)]
        follow: bool,
    },
    /// The BPF maps, typed, straight from bpffs: works without an agent
    #[command(subcommand)]
    Maps(MapsCommand),
    /// Validate manifests offline: no agent, no privilege
    Analyze(AnalyzeArgs),
    /// The kill switch: takes effect on live connections without losing a byte
    Acceleration {
        /// What it shall be, or `status` to ask
        #[arg(value_enum)]
        state: AccelerationCommand,
    },
    /// Print a completion script for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// The query of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The client, NAMESPACE/POD
    #[arg(
        long,
        value_name = "NAMESPACE/POD",
        value_parser = values::namespaced_name,
        required_unless_present = "gateway"
    )]
    pub from: Option<String>,
    /// A Gateway that the request arrives at
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        value_parser = values::namespaced_name
    )]
    pub gateway: Option<String>,
    /// Read the manifests of this folder; no agent is asked
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// The request's method
    #[arg(
        short = 'X',
        long = "request",
        value_name = "METHOD",
        default_value = "GET"
    )]
    pub method: String,
    /// A header of the request; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = values::header)]
    pub headers: Vec<(String, String)>,
    /// What is dialled
    #[arg(
        value_name = "URL",
        help = "What is dialled: http://HOST:PORT/PATH, https://HOST, or tcp://HOST:PORT"
    )]
    pub url: String,
}

/// What is validated.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct AnalyzeArgs {
    /// Manifests, or folders of them
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A folder of manifests
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
}

/// What is asked of the maps.
#[derive(Debug, Subcommand)]
pub enum MapsCommand {
    /// All pinned maps with their sizes
    List,
    /// Every entry of a map
    Dump {
        /// As `maps list` shows it
        name: String,
    },
    /// One entry of a map
    Get {
        /// As `maps list` shows it
        name: String,
        /// As `maps dump` shows it
        key: String,
    },
}

/// What is asked of the kill switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccelerationCommand {
    /// Redirect between the sockets of this node
    On,
    /// Plain TCP for all
    Off,
    /// Only ask
    Status,
}

/// The shells that completion is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}
