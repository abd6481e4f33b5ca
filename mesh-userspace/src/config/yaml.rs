//! Text to a tree that remembers lines: the YAML and JSON documents of a manifest file.
//!
//! A malformed document costs only itself: the text is cut at its `---` lines before it is parsed.
//! What is read is bounded in depth and in nodes, aliases counted as what they stand for.

mod json;
mod number;
mod split;
#[cfg(test)]
mod tests;
mod tree;

pub use number::{Scalar, ScalarKind, shorten};
pub use split::{Chunk, chunks};

/// How deep mappings and sequences may be nested.
pub const MAX_DEPTH: usize = 100;

/// How many nodes one document may have after its aliases are expanded.
pub const MAX_NODES: usize = 500_000;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// 1-based line in the file.
    pub line: u32,
    /// 1-based column.
    pub column: u32,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone)]
pub enum Value {
    /// A single value; null is one too.
    Scalar(Scalar),
    /// In the order written.
    Sequence(Vec<Node>),
    /// In the order written; keys are unique.
    Mapping(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// 1-based line of the key.
    pub line: u32,
    /// The value.
    pub node: Node,
}

impl Node {
    /// Whether it is YAML's null: `null`, `~` or nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null)
    }

    /// The value of a key, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text of a key's value, where that is a scalar other than null.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.node.value {
            Value::Scalar(scalar) if scalar.kind() != ScalarKind::Null => Some(&scalar.text),
            _ => None,
        }
    }

    /// What a message calls it: `a list`, `the number 5`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Scalar(scalar) => scalar.describe(),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a block of fields".to_owned(),
        }
    }
}

/// Why a document could not be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct SyntaxError {
    /// 1-based line in the file.
    pub line: u32,
    /// 1-based column.
    pub column: u32,
    /// What is wrong, and the mend.
    pub reason: String,
}

/// Parses one [`Chunk`] into its documents; empty ones are left out.
pub fn parse(chunk: &Chunk<'_>) -> Result<Vec<Node>, SyntaxError> {
    if let Some(error) = control_character(chunk) {
        return Err(error);
    }
    let mut nodes = if looks_like_json(chunk.text) {
        match json::parse(chunk.text, chunk.line) {
            Ok(nodes) => nodes,
            // Braces open a YAML flow mapping too, with laxer rules than JSON's.
            Err(error) => match tree::parse(chunk.text, chunk.line) {
                Ok(nodes) if !chunk.json => nodes,
                _ => return Err(error),
            },
        }
    } else if chunk.json && !chunk.text.trim().is_empty() {
        json::parse(chunk.text, chunk.line)?
    } else {
        tree::parse(chunk.text, chunk.line)?
    };
    nodes.retain(|node| !node.is_null());
    Ok(nodes)
}

fn looks_like_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// The parser takes NUL for the end of the text: what follows would be lost in silence.
fn control_character(chunk: &Chunk<'_>) -> Option<SyntaxError> {
    let forbidden = |c: char| (c < ' ' && c != '\t' && c != '\n') || c == '\u{7f}';
    let (index, found) = chunk.text.char_indices().find(|&(_, c)| forbidden(c))?;
    let before = &chunk.text[..index];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some(SyntaxError {
        line: chunk.line + before.matches('\n').count() as u32,
        column: before[line_start..].chars().count() as u32 + 1,
        reason: format!(
            "the control character U+{:04X} is not allowed in YAML",
            found as u32
        ),
    })
}
