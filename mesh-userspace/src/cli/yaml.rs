//! JSON values as YAML: block style, strings quoted wherever a reader could take them for something else.

use std::fmt::Write as _;

use serde_json::Value;

/// The document, ending in a newline.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        Value::Object(fields) if !fields.is_empty() => mapping(&mut out, fields, 0),
        scalar => {
            inline(&mut out, scalar);
            out.push('\n');
        }
    }
    out
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (i, item) in items.iter().enumerate() {
        // The first item's place is already indented by its parent's "- ".
        if i > 0 || !out.ends_with("- ") {
            push_indent(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Array(items) if !items.is_empty() => sequence(out, items, indent + 2),
            Value::Object(fields) if !fields.is_empty() => mapping(out, fields, indent + 2),
            scalar => {
                inline(out, scalar);
                out.push('\n');
            }
        }
    }
}

fn mapping(out: &mut String, fields: &serde_json::Map<String, Value>, indent: usize) {
    for (i, (key, value)) in fields.iter().enumerate() {
        if i > 0 || !out.ends_with("- ") {
            push_indent(out, indent);
        }
        string(out, key);
        out.push(':');
        match value {
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, indent);
            }
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                mapping(out, fields, indent + 2);
            }
            scalar => {
                out.push(' ');
                inline(out, scalar);
                out.push('\n');
            }
        }
    }
}

fn push_indent(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A scalar, or an empty collection.
fn inline(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => string(out, text),
        // JSON's spelling of these is YAML's.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn string(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    // Double-quoted YAML has every escape of JSON; what JSON leaves bare and YAML does not allow
    // (C1 controls, the byte order mark) is escaped here.
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) <= 0xffff => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
}

/// YAML 1.2, production 1, without line breaks of YAML 1.1.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// Narrow on purpose: words, paths and host names. Everything else is quoted.
fn is_plain(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c));
    first && rest && !is_reserved(text)
}

/// What YAML 1.1 or 1.2 reads as a boolean or null.
fn is_reserved(text: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests;
