//! A guest: qemu with a deadline, and what the guest says on its serial console.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::setup::machine::Qemu;

/// The prefix of what is said to us; everything else is output of something.
const MARK: &str = "@zerohop ";

/// What to boot.
pub struct Boot<'a> {
    /// The kernel.
    pub vmlinuz: &'a Path,
    /// The file system.
    pub initramfs: &'a Path,
    /// Everything that the guest printed goes here.
    pub console: PathBuf,
    /// How long it may take.
    pub deadline: Duration,
}

/// A scenario that ran.
#[derive(Debug, PartialEq, Eq)]
pub struct Scenario {
    /// `binary::test`.
    pub name: String,
    /// How it ended.
    pub passed: bool,
}

/// What a guest said.
#[derive(Debug, Default)]
pub struct Account {
    /// `uname -r`.
    pub release: String,
    /// What `meshctl check -o json` found, and its exit status.
    pub check: Option<(Vec<Value>, i32)>,
    /// What the agent printed where the check failed, and its exit status.
    pub agent: Option<(String, i32)>,
    /// Pins that the agent left where it could not start.
    pub pins: Option<u32>,
    /// The scenarios that ran.
    pub scenarios: Vec<Scenario>,
    /// Those that did not run: they are about acceleration, which stays off on this kernel.
    pub skipped: Vec<String>,
    /// What kept the guest itself from working.
    pub broken: Vec<String>,
    /// It came to its end.
    pub done: bool,
}

/// Who listens to the console.
#[derive(Default)]
struct Ear {
    account: Account,
    /// What was printed since a section began, while it lasts.
    section: Option<String>,
}

impl Account {
    /// Of a guest that never was.
    pub fn broken(error: &anyhow::Error) -> Self {
        Self {
            broken: vec![format!("{error:#}")],
            ..Self::default()
        }
    }
}

impl Ear {
    /// Takes a line of the console. True: worth showing to whoever waits.
    fn hear(&mut self, line: &str) -> bool {
        // The terminal's carriage returns; the kernel may have printed before it on the same line.
        let line = line.trim_end_matches('\r');
        let Some((_, said)) = line.split_once(MARK) else {
            if let Some(section) = &mut self.section {
                section.push_str(line);
                section.push('\n');
            }
            return false;
        };
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "kernel" => rest.clone_into(&mut self.account.release),
            "broken" => self.account.broken.push(rest.to_owned()),
            "check-begin" | "agent-begin" => {
                self.section = Some(String::new());
                return false;
            }
            "check-end" => match serde_json::from_str(&self.end_section()) {
                Ok(findings) => self.account.check = Some((findings, rest.parse().unwrap_or(-1))),
                Err(error) => self
                    .account
                    .broken
                    .push(format!("meshctl check -o json: {error}")),
            },
            "agent-end" => {
                self.account.agent = Some((self.end_section(), rest.parse().unwrap_or(-1)));
            }
            "pins" => self.account.pins = rest.trim().parse().ok(),
            "passed" | "failed" => {
                let name = rest.split(' ').next().unwrap_or_default().to_owned();
                let passed = word == "passed";
                self.account.scenarios.push(Scenario { name, passed });
            }
            "skipped" => self.account.skipped.push(rest.to_owned()),
            "done" => self.account.done = true,
            _ => return false,
        }
        true
    }

    fn end_section(&mut self) -> String {
        self.section.take().unwrap_or_default()
    }
}

/// Boots, listens until the guest switches itself off, and answers with what it said.
pub fn run(qemu: &Qemu, boot: &Boot<'_>) -> Result<Account> {
    let mut console = File::create(&boot.console)
        .with_context(|| format!("create {}", boot.console.display()))?;
    let mut command = qemu.command();
    command.args([
        "-machine",
        "pc,accel=tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "3072",
    ]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    command.args([
        "-nic",
        "none",
        "-nodefaults",
        "-no-reboot",
        "-no-user-config",
    ]);
    command.arg("-kernel").arg(boot.vmlinuz);
    command.arg("-initrd").arg(boot.initramfs);
    command.args([
        "-append",
        "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off",
    ]);
    let mut qemu = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start setpriv (util-linux)")?;
    let output = qemu.stdout.take().expect("invariant: stdout is a pipe");
    let (lines, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if lines
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let end = Instant::now() + boot.deadline;
    let mut ear = Ear::default();
    loop {
        match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(console, "{line}").context("write the console's log")?;
                if ear.hear(&line) {
                    let said = line.split_once(MARK).map_or("", |(_, said)| said);
                    println!("    {}", said.trim_end());
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                qemu.kill().context("kill qemu")?;
                ear.account
                    .broken
                    .push(format!("not done after {:?}", boot.deadline));
                break;
            }
        }
    }
    let mut account = ear.account;
    let ended = qemu.wait_with_output().context("wait for qemu")?;
    if account.release.is_empty() && !ended.status.success() {
        bail!(
            "qemu ended with {}: {}\n{}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr).trim(),
            fs::read_to_string(&boot.console).unwrap_or_default()
        );
    }
    if !account.done && account.broken.is_empty() {
        account.broken.push("ended before it was done".into());
    }
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_heard() {
        let mut ear = Ear::default();
        let console = "SeaBIOS\r\n@zerohop kernel 6.1.0\r\n@zerohop check-begin\r\n[{\"name\":\"x\"}]\r\n\
                       @zerohop check-end 0\r\n@zerohop passed tcp::a 3\r\n[ 1.0] @zerohop failed tcp::b 4\r\n\
                       why\r\n@zerohop failed-end\r\n@zerohop done\r";
        for line in console.split('\n') {
            ear.hear(line);
        }
        let account = ear.account;
        assert_eq!(account.release, "6.1.0");
        let (findings, status) = account.check.expect("a check");
        assert_eq!((findings[0]["name"].as_str(), status), (Some("x"), 0));
        let ended: Vec<_> = account
            .scenarios
            .iter()
            .map(|one| (one.name.as_str(), one.passed))
            .collect();
        assert_eq!(ended, [("tcp::a", true), ("tcp::b", false)]);
        assert!(account.done && account.broken.is_empty());
    }
}
