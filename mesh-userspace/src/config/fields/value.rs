//! One value of a document and its typed readings.

use std::{fmt, net::IpAddr, ops::RangeInclusive, time::Duration};

use super::{Context, Fields, Parsed, Rejection, closest, parse_duration};
use crate::config::{
    model::{Labels, Location},
    yaml::{Node, Scalar, ScalarKind, Value, shorten},
};

/// A value at a path.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    context: &'a Context,
    path: String,
    node: &'a Node,
    line: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(context: &'a Context, path: String, node: &'a Node, line: u32) -> Self {
        Self {
            context,
            path,
            node,
            line,
        }
    }

    /// What the cursors of this document share.
    pub fn context(&self) -> &'a Context {
        self.context
    }

    /// `spec.http[0].timeout`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// 1-based line of the field's name, or of the item in a list.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Where it stands.
    pub fn location(&self) -> Location {
        self.context.location(self.line)
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.node.is_null()
    }

    /// Refuses it.
    pub fn reject(&self, reason: impl Into<String>) -> Rejection {
        Rejection {
            field: self.path.clone(),
            line: self.line,
            reason: reason.into(),
        }
    }

    /// Refuses it for being of another type.
    fn expected(&self, what: impl fmt::Display) -> Rejection {
        self.reject(format!("is {}, but must be {what}", self.node.describe()))
    }

    fn scalar(&self, what: &str) -> Parsed<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) if !self.is_null() => Ok(scalar),
            _ => Err(self.expected(what)),
        }
    }

    /// A text. Plain numbers and booleans are refused, as the Kubernetes API does.
    pub fn string(&self) -> Parsed<String> {
        let scalar = self.scalar("a text")?;
        if scalar.kind() != ScalarKind::String {
            let found = scalar.describe();
            return Err(self.reject(format!(
                "is {found}, but must be a text: put it in quotes, \"{}\"",
                scalar.text
            )));
        }
        Ok(scalar.text.clone())
    }

    /// A text with something in it.
    pub fn filled_string(&self) -> Parsed<String> {
        let text = self.string()?;
        if text.is_empty() {
            Err(self.reject("must not be empty"))
        } else {
            Ok(text)
        }
    }

    /// `true` or `false`; YAML 1.1's `yes`, `no`, `on` and `off` too.
    pub fn boolean(&self) -> Parsed<bool> {
        let scalar = self.scalar("true or false")?;
        match scalar.text.as_str() {
            "true" | "True" | "TRUE" | "yes" | "Yes" | "on" | "On" if scalar.plain => Ok(true),
            "false" | "False" | "FALSE" | "no" | "No" | "off" | "Off" if scalar.plain => Ok(false),
            "true" | "false" => {
                Err(self.reject("is a text, but must be true or false: remove the quotes"))
            }
            _ => Err(self.expected("true or false")),
        }
    }

    /// A whole number in a range.
    pub fn integer(&self, range: RangeInclusive<i64>) -> Parsed<i64> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let scalar = self.scalar(&what)?;
        if scalar.kind() == ScalarKind::String {
            let unquoted = Scalar {
                text: scalar.text.clone(),
                plain: true,
            };
            return Err(match unquoted.integer() {
                Some(_) if !scalar.plain => {
                    self.reject(format!("is a text, but must be {what}: remove the quotes"))
                }
                _ => self.expected(&what),
            });
        }
        let digits = scalar.text.trim_start_matches(['-', '+']);
        if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(self.reject(format!(
                "is {}, which YAML readers take for an octal number or not: remove the leading 0",
                scalar.text
            )));
        }
        scalar
            .integer()
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.expected(&what))
    }

    /// A whole number from 0.
    pub fn unsigned(&self) -> Parsed<u32> {
        let number = self.integer(0..=i64::from(i32::MAX))?;
        Ok(u32::try_from(number).expect("invariant: the range was checked"))
    }

    /// A TCP port.
    pub fn port(&self) -> Parsed<u16> {
        let number = self.integer(1..=65535)?;
        Ok(u16::try_from(number).expect("invariant: the range was checked"))
    }

    /// A number in a range, whole or not.
    pub fn number(&self, range: RangeInclusive<f64>) -> Parsed<f64> {
        let what = format!("a number from {} to {}", range.start(), range.end());
        let scalar = self.scalar(&what)?;
        let unquoted = Scalar {
            text: scalar.text.clone(),
            plain: true,
        };
        if !scalar.plain && unquoted.number().is_some() {
            return Err(self.reject(format!("is a text, but must be {what}: remove the quotes")));
        }
        scalar
            .number()
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.expected(&what))
    }

    /// A duration of at least 1 ms, in whole milliseconds.
    pub fn duration(&self) -> Parsed<Duration> {
        let scalar = self.scalar("a duration such as 10s")?;
        if scalar.kind() == ScalarKind::Number {
            return Err(self.reject(format!(
                "is the number {0}, but must be a duration: give it a unit, `{0}s`",
                scalar.text
            )));
        }
        let duration = parse_duration(&scalar.text).map_err(|reason| self.reject(reason))?;
        if duration < Duration::from_millis(1) {
            return Err(self.reject(format!(
                "is {}, but must be at least 1ms: leave the field out for none",
                shorten(&scalar.text)
            )));
        }
        if duration.subsec_nanos() % 1_000_000 != 0 {
            return Err(self.reject(format!(
                "is {}, finer than a millisecond: round it",
                shorten(&scalar.text)
            )));
        }
        Ok(duration)
    }

    /// One of a list of spellings.
    pub fn one_of<T: Copy>(&self, choices: &[(&'static str, T)]) -> Parsed<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let scalar = self.scalar(&format!("one of {}", names.join(", ")))?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == scalar.text) {
            return Ok(*value);
        }
        let hint = closest(&scalar.text, &names)
            .map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        Err(self.reject(format!(
            "is `{}`, but must be one of {}{hint}",
            shorten(&scalar.text),
            names.join(", ")
        )))
    }

    /// An IPv4 or IPv6 address.
    pub fn address(&self) -> Parsed<IpAddr> {
        let text = self.string()?;
        text.parse()
            .map_err(|_| self.reject(format!("{text:?} is no IP address")))
    }

    /// A block of fields.
    pub fn fields(&self) -> Parsed<Fields<'a>> {
        match &self.node.value {
            Value::Mapping(entries) => Ok(Fields::new(
                self.context,
                self.path.clone(),
                self.line,
                entries,
            )),
            Value::Sequence(_) => Err(self.reject(
                "is a list, but must be a block of fields: remove the `-` before its first field",
            )),
            Value::Scalar(_) => Err(self.expected("a block of fields: indent them below it")),
        }
    }

    /// The items of a list.
    pub fn items(&self) -> Parsed<Vec<Cursor<'a>>> {
        let Value::Sequence(items) = &self.node.value else {
            return Err(self.expected("a list: begin each item with `- `"));
        };
        let items = items.iter().enumerate().map(|(index, node)| {
            Cursor::new(
                self.context,
                format!("{}[{index}]", self.path),
                node,
                node.line,
            )
        });
        Ok(items.collect())
    }

    /// The names and values of a block whose names are the user's own, null values too.
    pub fn entries(&self) -> Parsed<Vec<(&'a str, Cursor<'a>)>> {
        let fields = self.fields()?;
        let entries = fields.entries.iter().map(|entry| {
            let path = format!("{}[{}]", self.path, shorten(&entry.key));
            (
                entry.key.as_str(),
                Cursor::new(self.context, path, &entry.node, entry.line),
            )
        });
        Ok(entries.collect())
    }

    /// A list of texts.
    pub fn strings(&self) -> Parsed<Vec<String>> {
        self.items()?.iter().map(Cursor::string).collect()
    }

    /// Names to texts, as labels are.
    pub fn string_map(&self) -> Parsed<Labels> {
        let text = |cursor: &Cursor<'_>| {
            if cursor.is_null() {
                Ok(String::new())
            } else {
                cursor.string()
            }
        };
        let entries = self.entries()?;
        entries
            .iter()
            .map(|(name, value)| Ok(((*name).to_owned(), text(value)?)))
            .collect()
    }
}
