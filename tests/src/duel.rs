//! The same script over an accelerated connection and over plain TCP: every answer of the kernel is
//! compared. An answer that is documented to differ must differ exactly so, or the row fails: a kernel
//! that mends it is noticed.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::{Agent, AgentOptions, Lab, Pod, PodSpec};

mod end;
mod puppet;
mod scene;

pub use end::End;
pub use puppet::Puppet;
pub use scene::Scene;

/// What the sockets of a play are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They block; the pods say `zerohop.dev/acceleration: on`.
    Blocking,
    /// They do not; the pods say nothing.
    NonBlocking,
}

/// A script and what is known of it.
pub struct Row {
    name: &'static str,
    modes: Vec<Mode>,
    script: fn(&Scene<'_>) -> Result<()>,
    differences: Vec<Difference>,
}

/// An answer that redirection changes, and that `docs/limits.md` names.
struct Difference {
    mode: Option<Mode>,
    label: &'static str,
    redirected: &'static str,
}

/// What the kernel answered, in order: (label, answer).
type Answers = Vec<(String, String)>;

/// A lab with a client and a server for each mode, and for plain TCP.
pub struct Arena {
    /// The agent.
    pub agent: Agent,
    pods: Vec<Pod>,
    _lab: Lab,
}

impl Row {
    /// A row that is the same in both modes, with acceleration or without.
    pub fn new(name: &'static str, script: fn(&Scene<'_>) -> Result<()>) -> Self {
        Self {
            name,
            modes: vec![Mode::Blocking, Mode::NonBlocking],
            script,
            differences: Vec::new(),
        }
    }

    /// In one mode only.
    #[must_use]
    pub fn only(mut self, mode: Mode) -> Self {
        self.modes = vec![mode];
        self
    }

    /// Where redirected, the answer at `label` is another than plain TCP's.
    #[must_use]
    pub fn differs(mut self, label: &'static str, redirected: &'static str) -> Self {
        self.differences.push(Difference {
            mode: None,
            label,
            redirected,
        });
        self
    }

    /// As [`Row::differs`], in one mode.
    #[must_use]
    pub fn differs_in(mut self, mode: Mode, label: &'static str, redirected: &'static str) -> Self {
        self.differences.push(Difference {
            mode: Some(mode),
            label,
            redirected,
        });
        self
    }
}

impl Arena {
    /// An arena whose agent is ready.
    pub fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let mut pods = Vec::new();
        for setting in ["on", "auto", "off"] {
            for side in ["client", "server"] {
                let spec = PodSpec::new(format!("{side}-{setting}"))
                    .app(side, "v1")
                    .annotation("zerohop.dev/acceleration", setting);
                pods.push(lab.pod(spec)?);
            }
        }
        Ok(Self {
            agent: Agent::start(&lab, &AgentOptions::default())?,
            pods,
            _lab: lab,
        })
    }

    /// Plays every row in each of its modes, with acceleration and without; fails with all that is not as
    /// it should be.
    pub fn play(&self, rows: &[Row]) -> Result<()> {
        let mut problems = String::new();
        for row in rows {
            for &mode in &row.modes {
                let what = format!("{}, {mode:?}", row.name);
                let run = |accelerated| {
                    self.scene(row, mode, accelerated).with_context(|| {
                        let way = if accelerated { "accelerated" } else { "plain" };
                        format!("{what}, {way}")
                    })
                };
                match run(false).and_then(|plain| Ok((plain, run(true)?))) {
                    Ok((plain, redirected)) => {
                        compare(&what, row, mode, &plain, &redirected, &mut problems);
                    }
                    Err(error) => {
                        let _ = writeln!(problems, "{error:#}");
                    }
                }
            }
        }
        assert!(problems.is_empty(), "{problems}\n{}", self.agent.log());
        Ok(())
    }

    fn scene(&self, row: &Row, mode: Mode, accelerated: bool) -> Result<Answers> {
        let setting = match (accelerated, mode) {
            (false, _) => "off",
            (true, Mode::Blocking) => "on",
            (true, Mode::NonBlocking) => "auto",
        };
        let pod = |side: &str| {
            let name = format!("{side}-{setting}");
            let found = self.pods.iter().find(|pod| pod.name() == name);
            found.with_context(|| format!("no pod {name}"))
        };
        let scene = Scene::new(
            &self.agent,
            pod("client")?,
            pod("server")?,
            mode,
            accelerated,
        )?;
        let played = (row.script)(&scene);
        let answers = scene.answers();
        played.with_context(|| format!("after {answers:#?}"))?;
        Ok(answers)
    }
}

fn compare(
    what: &str,
    row: &Row,
    mode: Mode,
    plain: &Answers,
    redirected: &Answers,
    problems: &mut String,
) {
    if plain.len() != redirected.len() {
        let _ = writeln!(problems, "{what}: other steps: {plain:#?} {redirected:#?}");
        return;
    }
    for ((label, by_tcp), (_, answer)) in plain.iter().zip(redirected) {
        let documented = row.differences.iter().find(|difference| {
            difference.label == label && difference.mode.is_none_or(|only| only == mode)
        });
        match documented {
            None if by_tcp != answer => {
                let _ = writeln!(
                    problems,
                    "{what}: {label}: TCP {by_tcp}, redirected {answer}"
                );
            }
            Some(difference) if difference.redirected != answer => {
                let _ = writeln!(
                    problems,
                    "{what}: {label}: TCP {by_tcp}, redirected {answer}, documented {}",
                    difference.redirected
                );
            }
            Some(_) if by_tcp == answer => {
                let _ = writeln!(
                    problems,
                    "{what}: {label}: {answer} both ways: no longer a difference"
                );
            }
            _ => {}
        }
    }
    for difference in &row.differences {
        let here = difference.mode.is_none_or(|only| only == mode);
        if here && !plain.iter().any(|(label, _)| label == difference.label) {
            let _ = writeln!(problems, "{what}: no step is called {}", difference.label);
        }
    }
}
