//! Where and how answers are written.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use serde_json::Value;

use super::{args::Format, yaml};

/// Standard output, in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    colour: bool,
}

impl Output {
    /// As asked; else a table on a terminal and JSON elsewhere. Colour on terminals only, and not where
    /// `NO_COLOR` (no-color.org) is set.
    pub fn new(asked: Option<Format>) -> Self {
        let terminal = io::stdout().is_terminal();
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        let default = if terminal {
            Format::Table
        } else {
            Format::Json
        };
        Self {
            format: asked.unwrap_or(default),
            colour: terminal && !unwanted,
        }
    }

    /// Whether people are to read it.
    pub fn is_table(self) -> bool {
        matches!(self.format, Format::Table)
    }

    /// Writes an answer: itself, or the table that is made of it (told whether to use colour).
    pub fn write<E: From<io::Error>>(
        self,
        value: &Value,
        table: impl FnOnce(bool) -> Result<String, E>,
    ) -> Result<(), E> {
        let text = match self.format {
            Format::Table => table(self.colour)?,
            Format::Json => format!("{value:#}\n"),
            Format::Yaml => yaml::to_string(value),
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }
}
