//! `setup`: finds or installs what building and testing need, and says which it did.

mod apt;
pub mod archive;
mod ebpf;
mod envoy;
pub mod machine;

use anyhow::{Result, bail};

pub use ebpf::{DEBIAN_CLIPPY, DEBIAN_RUSTC, Route};

use crate::shell;

const DENY_VERSION: &str = "0.20.2";

/// A program that is used, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

/// What the build, the lab, the demo and the tests call.
const TOOLS: [Tool; 3] = [
    Tool {
        program: "cc",
        package: "gcc",
    },
    Tool {
        program: "ip",
        package: "iproute2",
    },
    Tool {
        program: "curl",
        package: "curl",
    },
];

/// What only `bench l7` calls: load, backend and the proxies that it is compared with.
const BENCH_TOOLS: [Tool; 5] = [
    Tool {
        program: "nginx",
        package: "nginx-light",
    },
    Tool {
        program: "h2load",
        package: "nghttp2-client",
    },
    Tool {
        program: "wrk",
        package: "wrk",
    },
    Tool {
        program: "haproxy",
        package: "haproxy",
    },
    Tool {
        program: "iptables",
        package: "iptables",
    },
];

/// What only `bench apps` calls.
const APPS_TOOLS: [Tool; 4] = [
    Tool {
        program: "redis-server",
        package: "redis-server",
    },
    Tool {
        program: "redis-benchmark",
        package: "redis-tools",
    },
    Tool {
        program: "nginx",
        package: "nginx-light",
    },
    Tool {
        program: "wrk",
        package: "wrk",
    },
];

/// Everything that building, the demo and the tests need.
pub fn run() -> Result<()> {
    println!("setup: what building and testing need");
    tools(&TOOLS)?;
    ebpf::ensure()
}

/// Everything that `bench l7` needs besides; answers with Envoy's executable.
pub fn for_l7() -> Result<std::path::PathBuf> {
    println!("setup: what the benchmark compares with");
    tools(&BENCH_TOOLS)?;
    envoy::ensure()
}

/// Everything that `bench apps` needs besides.
pub fn for_apps() -> Result<()> {
    println!("setup: the applications");
    tools(&APPS_TOOLS)
}

/// The tool behind `check`'s licences, bans and sources.
pub fn cargo_deny() -> Result<()> {
    if let Some(path) = shell::find("cargo-deny") {
        found("cargo-deny", &path.display().to_string());
        return Ok(());
    }
    installing(
        "cargo-deny",
        &format!("{DENY_VERSION}; takes about three minutes"),
    );
    let mut cargo = shell::cargo();
    cargo.args([
        "install",
        "cargo-deny",
        "--version",
        DENY_VERSION,
        "--locked",
        "--quiet",
    ]);
    shell::run(cargo.env_remove("CARGO_TARGET_DIR"))
}

fn tools(tools: &[Tool]) -> Result<()> {
    let mut missing = Vec::new();
    for tool in tools {
        match shell::find(tool.program) {
            Some(path) => found(tool.program, &path.display().to_string()),
            None => missing.push(tool.package),
        }
    }
    apt::install(&missing)?;
    if let Some(tool) = tools
        .iter()
        .find(|tool| shell::find(tool.program).is_none())
    {
        bail!(
            "package {} is installed, yet there is no `{}` in PATH",
            tool.package,
            tool.program
        );
    }
    Ok(())
}

/// Says that something is there already.
fn found(what: &str, detail: &str) {
    println!("  ok       {what}: {detail}");
}

/// Says that something is being installed.
fn installing(what: &str, detail: &str) {
    println!("  install  {what}: {detail}");
}
