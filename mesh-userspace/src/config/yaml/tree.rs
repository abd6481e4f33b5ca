//! Parser events to a tree of nodes: aliases expanded, merge keys merged, duplicates refused.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::{Entry, MAX_DEPTH, MAX_NODES, Node, Scalar, SyntaxError, Value};

/// Parses all documents of a text whose first line is line `first_line` of its file.
pub fn parse(text: &str, first_line: u32) -> Result<Vec<Node>, SyntaxError> {
    let mut builder = Builder {
        first_line,
        ..Builder::default()
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_error(&error, text, first_line))?;
        builder.event(event, span.start)?;
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    first_line: u32,
    documents: Vec<Node>,
    open: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    /// Nodes of the current document, each alias counted as all that it stands for.
    nodes: usize,
}

/// A sequence or mapping whose end has not been seen.
struct Frame {
    line: u32,
    column: u32,
    anchor: usize,
    /// [`Builder::nodes`] before it began.
    nodes_before: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        keys: HashSet<String>,
        key: Option<Key>,
        merged: Vec<Node>,
    },
}

struct Key {
    text: String,
    line: u32,
    merge: bool,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Marker) -> Result<(), SyntaxError> {
        let (line, column) = self.position(at);
        match event {
            Event::DocumentStart(_) => {
                self.nodes = 0;
                self.anchors.clear();
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, line, column)?;
                let plain = plain(style, tag.as_deref(), line, column)?;
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain,
                };
                let node = Node {
                    value: Value::Scalar(scalar),
                    line,
                    column,
                };
                self.finished(node, anchor, 1)?;
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    let reason = "this alias stands for a value that contains it";
                    return Err(error(line, column, reason));
                };
                // Counted before it is copied: that is the whole defence against alias bombs.
                let size = *size;
                self.nodes += size;
                if self.nodes > MAX_NODES {
                    return Err(too_many(line, column));
                }
                let node = Node {
                    line,
                    column,
                    ..node.clone()
                };
                self.finished(node, 0, size)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(Content::Sequence(Vec::new()), anchor, tag, line, column)?;
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Mapping {
                    entries: Vec::new(),
                    keys: HashSet::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.open(content, anchor, tag, line, column)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.open.pop() else {
                    return Err(error(line, column, "a list or block ends that never began"));
                };
                let size = self.nodes - frame.nodes_before;
                let value = match frame.content {
                    Content::Sequence(items) => Value::Sequence(items),
                    Content::Mapping {
                        mut entries,
                        mut keys,
                        merged,
                        ..
                    } => {
                        merge(&mut entries, &mut keys, merged)?;
                        Value::Mapping(entries)
                    }
                };
                let node = Node {
                    value,
                    line: frame.line,
                    column: frame.column,
                };
                self.finished(node, frame.anchor, size)?;
            }
        }
        Ok(())
    }

    fn position(&self, at: Marker) -> (u32, u32) {
        (
            self.first_line + (at.line() as u32).saturating_sub(1),
            at.col() as u32 + 1,
        )
    }

    fn count(&mut self, nodes: usize, line: u32, column: u32) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            Err(too_many(line, column))
        } else {
            Ok(())
        }
    }

    fn open(
        &mut self,
        content: Content,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        line: u32,
        column: u32,
    ) -> Result<(), SyntaxError> {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "map" | "seq"))
        {
            return Err(unknown_tag(&tag, line, column));
        }
        if self.open.len() >= MAX_DEPTH {
            let reason = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(error(line, column, reason));
        }
        let nodes_before = self.nodes;
        self.count(1, line, column)?;
        self.open.push(Frame {
            line,
            column,
            anchor,
            nodes_before,
            content,
        });
        Ok(())
    }

    /// A complete node goes where it belongs: an item, a key, a key's value or a document.
    fn finished(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|frame| &mut frame.content) {
            None => self.documents.push(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping {
                entries,
                keys,
                key,
                merged,
            }) => match key.take() {
                None => *key = Some(new_key(node, keys, entries)?),
                Some(Key { merge: true, .. }) => merged.push(node),
                Some(Key { text, line, .. }) => entries.push(Entry {
                    key: text,
                    line,
                    node,
                }),
            },
        }
        Ok(())
    }
}

fn new_key(node: Node, keys: &mut HashSet<String>, entries: &[Entry]) -> Result<Key, SyntaxError> {
    let Value::Scalar(scalar) = node.value else {
        return Err(error(
            node.line,
            node.column,
            "a key must be a plain word, not a list or block",
        ));
    };
    if scalar.plain && scalar.text == "<<" {
        return Ok(Key {
            text: scalar.text,
            line: node.line,
            merge: true,
        });
    }
    if !keys.insert(scalar.text.clone()) {
        let first = entries.iter().find(|entry| entry.key == scalar.text);
        let first = first.map_or(node.line, |entry| entry.line);
        let reason = format!(
            "`{}` is here twice: first on line {first}; keep one of them",
            scalar.text
        );
        return Err(error(node.line, node.column, reason));
    }
    Ok(Key {
        text: scalar.text,
        line: node.line,
        merge: false,
    })
}

/// YAML 1.1's `<<`, as Kubernetes' own reader does it: what is written out wins.
fn merge(
    entries: &mut Vec<Entry>,
    keys: &mut HashSet<String>,
    merged: Vec<Node>,
) -> Result<(), SyntaxError> {
    for node in merged {
        let sources = match node.value {
            Value::Sequence(items) => items,
            value => vec![Node { value, ..node }],
        };
        for source in sources {
            let Value::Mapping(inherited) = source.value else {
                let reason = "`<<` merges blocks of fields only";
                return Err(error(source.line, source.column, reason));
            };
            for entry in inherited {
                if keys.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
    }
    Ok(())
}

/// Whether the text may stand for a number, a boolean or null.
fn plain(
    style: ScalarStyle,
    tag: Option<&Tag>,
    line: u32,
    column: u32,
) -> Result<bool, SyntaxError> {
    let Some(tag) = tag else {
        return Ok(style == ScalarStyle::Plain);
    };
    if tag.is_yaml_core_schema() {
        match tag.suffix.as_str() {
            "str" => return Ok(false),
            "int" | "float" | "bool" | "null" => return Ok(true),
            _ => {}
        }
    }
    // The non-specific tag `!` means a string.
    if tag.suffix.is_empty() {
        return Ok(false);
    }
    Err(unknown_tag(tag, line, column))
}

fn unknown_tag(tag: &Tag, line: u32, column: u32) -> SyntaxError {
    error(
        line,
        column,
        format!("the YAML tag `{tag}` has no meaning in a manifest: remove it"),
    )
}

fn too_many(line: u32, column: u32) -> SyntaxError {
    let reason = format!("more than {MAX_NODES} values in one document, aliases expanded");
    error(line, column, reason)
}

fn error(line: u32, column: u32, reason: impl Into<String>) -> SyntaxError {
    SyntaxError {
        line,
        column,
        reason: reason.into(),
    }
}

/// The scanner's words, and where its cause is a common one, the mend.
fn scan_error(scan: &ScanError, text: &str, first_line: u32) -> SyntaxError {
    let marker = scan.marker();
    // At the end of the text the scanner may stand on the line after the last.
    let mut line = (marker.line() as u32).clamp(1, (text.lines().count() as u32).max(1));
    if scan.info().starts_with("simple key expect") {
        // The key that has no colon is what it read before.
        let before = text.lines().take(line as usize - 1).enumerate();
        let filled = before.filter(|(_, text)| !text.trim().is_empty()).last();
        line = filled.map_or(line, |(index, _)| index as u32 + 1);
    }
    let tab = tab_indentation(text, line);
    let reason = match (tab, mend(scan.info())) {
        (Some(_), _) => "indented with a tab: YAML wants spaces".to_owned(),
        (None, Some(mend)) => format!("not valid YAML: {mend} ({})", scan.info()),
        (None, None) => format!("not valid YAML: {}", scan.info()),
    };
    let column = if tab.is_some() {
        1
    } else {
        marker.col() as u32 + 1
    };
    error(first_line + tab.unwrap_or(line) - 1, column, reason)
}

/// The line, near the one that the scanner stumbled on, whose indentation has a tab.
fn tab_indentation(text: &str, line: u32) -> Option<u32> {
    // The scanner often notices at the end of the line before.
    let near = line.saturating_sub(1).max(1)..=line + 1;
    near.rev().find(|&line| {
        text.lines().nth(line as usize - 1).is_some_and(|line| {
            line.bytes()
                .take_while(|b| matches!(b, b' ' | b'\t'))
                .any(|b| b == b'\t')
        })
    })
}

/// What as a rule is behind the scanner's words.
fn mend(words: &str) -> Option<&'static str> {
    let mends = [
        ("recursion limit", "nested deeper than is allowed"),
        (
            "unknown anchor",
            "a value that begins with `*` must be in quotes",
        ),
        (
            "unknown escape",
            "in double quotes a `\\` must be doubled: use single quotes",
        ),
        ("quoted scalar", "a quote is not closed"),
        (
            "did not find expected key",
            "this line is not indented like its neighbours",
        ),
        (
            "block sequence entries",
            "this line is not indented like its neighbours",
        ),
        (
            "mapping values are not allowed",
            "a value with `: ` in it must be in quotes",
        ),
        (
            "simple key expect",
            "a field's name must be followed by `: `",
        ),
        ("flow sequence", "a `[` is not closed"),
        ("flow mapping", "a `{` is not closed"),
        ("illegal placement", "a `[` or `{` is not closed"),
        (
            "unexpected character",
            "a value that begins with this character must be in quotes",
        ),
    ];
    mends
        .iter()
        .find(|(part, _)| words.contains(part))
        .map(|(_, mend)| *mend)
}
