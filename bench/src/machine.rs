//! What ran: the machine and the versions, for whoever reads the figures later.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::peer::watch::now_nanoseconds;
use crate::sys;

/// The machine, the kernel and this project's commit.
pub fn describe() -> Value {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": sys::cores(),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "congestionControl": "cubic in every pod",
        "commit": first_line(Command::new("git").args(["describe", "--always", "--dirty"])),
        "unixTime": now_nanoseconds() / 1_000_000_000,
    })
}

/// The first line that a program prints about its version.
pub fn version(program: &Path, flag: &str) -> String {
    first_line(Command::new(program).arg(flag))
}

fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return "unknown".to_owned();
    };
    // nginx -v writes to its standard error.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("unknown")
        .trim()
        .to_owned()
}

fn field(text: &str, name: &str) -> String {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default();
    line.split_once(':')
        .map_or("unknown", |(_, value)| value.trim())
        .to_owned()
}
