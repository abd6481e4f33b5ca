//! What the demo prints, and where it is in between.

use std::io::{IsTerminal, Write};

/// Standard output: in colour and with progress where a person looks on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    person: bool,
    colour: bool,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "1;32";
const CYAN: &str = "1;36";

impl Terminal {
    pub(super) fn new() -> Self {
        let person = std::io::stdout().is_terminal();
        Self {
            person,
            colour: person && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    pub(super) fn title(self, text: &str) {
        self.line(&self.paint(BOLD, text));
    }

    /// A scenario begins.
    pub(super) fn chapter(self, number: &str, title: &str) {
        self.blank();
        self.line(&format!(
            "{} {}",
            self.paint(CYAN, number),
            self.paint(BOLD, title)
        ));
    }

    /// A name and what it is.
    pub(super) fn field(self, name: &str, text: &str) {
        self.line(&format!(
            "  {} {text}",
            self.paint(DIM, &format!("{name:<6}"))
        ));
    }

    pub(super) fn verdict(self, holds: bool, text: &str) {
        let mark = if holds {
            self.paint(GREEN, "✔")
        } else {
            self.paint(RED, "✘")
        };
        self.line(&format!("  {mark} {text}"));
    }

    /// What takes a while; the next line takes its place.
    pub(super) fn progress(self, text: &str) {
        if self.person {
            say(&format!(
                "\r\x1b[K  {}",
                self.paint(DIM, &format!("… {text}"))
            ));
        }
    }

    /// What took a while is done.
    pub(super) fn done(self, text: &str) {
        self.line(&format!("  {text}"));
    }

    pub(super) fn note(self, text: &str) {
        self.line(&self.paint(DIM, text));
    }

    /// Commands to try, each with what it shows.
    pub(super) fn next_steps(self, steps: &[(&str, &str)]) {
        self.blank();
        self.line(&self.paint(BOLD, "What to try next"));
        for (command, shows) in steps {
            self.line(&format!("  {command}\n    {}", self.paint(DIM, shows)));
        }
    }

    pub(super) fn blank(self) {
        self.line("");
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn line(self, text: &str) {
        let clear = if self.person { "\r\x1b[K" } else { "" };
        say(&format!("{clear}{text}\n"));
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever closed the pipe does not want to read on; the exit status still tells.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
