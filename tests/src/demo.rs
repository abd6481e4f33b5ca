//! The demo: Bookinfo in a lab, the tutorials' rules one after the other, and what the kernel saw.
//!
//! Every scenario says what was asked for, what the requests saw and whether that is it. The demo
//! holds only where all of them do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bookinfo::deploy::Bookinfo;
use crate::{Agent, AgentOptions, Lab, Pod, PodSpec, binaries, eventually, reaper};

mod figures;
mod scenarios;
mod terminal;
mod visits;

use terminal::Terminal;

/// How long a rule may take to be in effect before the demo gives up on it.
const EFFECT_DEADLINE: Duration = Duration::from_secs(10);
/// The file of the rules in the lab's folder.
const RULES: &str = "rules.yaml";

/// What the demo is to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Leave everything up until Ctrl-C.
    pub stay: bool,
    /// How many requests a scenario sends.
    pub requests: u64,
}

/// The stage: what the scenarios play on.
#[derive(Debug)]
struct Demo {
    // Dropped in this order: the agent stops before its node goes.
    agent: Agent,
    bookinfo: Bookinfo,
    /// Who looks at Bookinfo's page.
    visitor: Pod,
    lab: Lab,
    terminal: Terminal,
    requests: u64,
}

/// What a scenario showed.
#[derive(Debug)]
struct Seen {
    /// One line each.
    lines: Vec<String>,
    holds: bool,
}

/// Runs the demo; true where every verdict holds.
pub fn run(options: Options) -> Result<bool> {
    let started = Instant::now();
    let terminal = Terminal::new();
    terminal.title("Zerohop: a service mesh without sidecars, on this machine's own kernel");
    for binary in ["mesh-agent", "meshctl", "lab-peer"] {
        binaries::find(binary)?;
    }
    let demo = set_up(terminal, options.requests)?;
    let mut failed = Vec::new();
    let scenarios = scenarios::all();
    for (index, scenario) in scenarios.iter().enumerate() {
        terminal.chapter(
            &format!("{}/{}", index + 1, scenarios.len()),
            scenario.title,
        );
        if !demo.play(scenario)? {
            failed.push(scenario.title);
        }
    }
    terminal.chapter("✚", "What the kernel says");
    if !demo.judge(&figures::show(&demo)?) {
        failed.push("what the kernel says");
    }
    terminal.blank();
    let seconds = started.elapsed().as_secs();
    if failed.is_empty() {
        terminal.verdict(true, &format!("every verdict holds ({seconds} s)"));
    } else {
        terminal.verdict(false, &format!("not as asked: {}", failed.join("; ")));
    }
    if options.stay {
        demo.stay()?;
    } else {
        terminal.next_steps(&[
            (
                "cargo xtask demo --stay",
                "the same, left up, with commands to try",
            ),
            ("cargo xtask test", "every behaviour, with real sockets"),
            (
                "cargo xtask bench",
                "what it costs, against Envoy and others",
            ),
        ]);
    }
    Ok(failed.is_empty())
}

fn set_up(terminal: Terminal, requests: u64) -> Result<Demo> {
    let started = Instant::now();
    terminal.progress("making a node: namespaces, cgroups, Bookinfo's servers");
    let lab = Lab::new("demo")?;
    let bookinfo = Bookinfo::deploy(&lab)?;
    let visitor = lab.pod(PodSpec::new("visitor").app("visitor", "v1"))?;
    lab.publish()?;
    let pods: Vec<_> = bookinfo.pods().iter().map(Pod::name).collect();
    terminal.done(&format!(
        "{} pods, each a namespace and a cgroup ({} ms): {}",
        pods.len() + 1,
        started.elapsed().as_millis(),
        pods.join(" ")
    ));
    let started = Instant::now();
    terminal.progress("starting the agent");
    let agent = Agent::start(&lab, &AgentOptions::default())?;
    terminal.done(&format!(
        "one agent, no sidecar: ready after {} ms, {} resident",
        started.elapsed().as_millis(),
        figures::resident(agent.id())
    ));
    Ok(Demo {
        agent,
        bookinfo,
        visitor,
        lab,
        terminal,
        requests,
    })
}

impl Demo {
    /// Applies a scenario's rules, looks, and says what came of it.
    fn play(&self, scenario: &scenarios::Scenario) -> Result<bool> {
        let effect = self.apply(scenario)?;
        self.terminal
            .field("asked", &format!("{}{effect}", scenario.asked));
        Ok(self.judge(&(scenario.look)(self)?))
    }

    /// Writes the rules and waits until they are in effect; says how long that took.
    fn apply(&self, scenario: &scenarios::Scenario) -> Result<String> {
        let Some(rules) = scenario.rules else {
            return Ok(String::new());
        };
        let written = Instant::now();
        self.lab.manifests().write(RULES, &rules())?;
        let mut last = None;
        let question = &scenario.question;
        let in_effect = eventually(EFFECT_DEADLINE, || {
            last = self
                .agent
                .query(question.from, question.headers, question.url)
                .ok();
            last.as_ref().is_some_and(question.is_in_effect)
        });
        if in_effect {
            return Ok(format!(
                "  (in effect after {} ms)",
                written.elapsed().as_millis()
            ));
        }
        // Not the end: what the requests see is the verdict.
        let last = last.unwrap_or(Value::Null);
        Ok(format!(
            "  (not in effect after {EFFECT_DEADLINE:?}: {last})"
        ))
    }

    fn judge(&self, seen: &Seen) -> bool {
        for (index, line) in seen.lines.iter().enumerate() {
            self.terminal
                .field(if index == 0 { "seen" } else { "" }, line);
        }
        self.terminal.verdict(
            seen.holds,
            if seen.holds {
                "as asked"
            } else {
                "not as asked"
            },
        );
        seen.holds
    }

    /// Leaves everything up until Ctrl-C.
    fn stay(&self) -> Result<()> {
        let signals = reaper::take_signals()?;
        let node = self.lab.id();
        let meshctl = format!(
            "{} --admin {}",
            binaries::find("meshctl")?.display(),
            self.agent.admin()
        );
        self.terminal.next_steps(&[
            ("cargo xtask exec productpage -- curl -s http://reviews:9080/reviews/0", "from inside a pod"),
            (
                "cargo xtask exec visitor -- curl -s -H 'cookie: session=jason' http://productpage:9080/productpage",
                "the whole page, as jason",
            ),
            (&format!("$EDITOR {}/{RULES}", self.lab.manifests().dir().display()), "change the rules: in effect when you save"),
            (&format!("{meshctl} connections"), "who speaks to whom, which way, accelerated or why not"),
            (
                &format!("{meshctl} explain --from default/productpage-v1 -H 'end-user: jason' http://reviews:9080/reviews/0"),
                "what would happen to a request",
            ),
            (&format!("{meshctl} --node-name {node} maps dump traffic"), "the kernel's own count"),
            (&format!("{meshctl} acceleration off"), "the kill switch"),
        ]);
        self.terminal.note("Ctrl-C ends it and removes everything.");
        signals.recv().context("wait for Ctrl-C")?;
        self.terminal.blank();
        Ok(())
    }
}
