//! A cursor over a document that knows its path, so that every complaint names field and line.
//!
//! [`Fields`] remembers which fields were asked for; what is left over at [`Fields::finish`] is
//! unknown, and is warned about.

mod duration;
mod suggest;
#[cfg(test)]
mod tests;
mod value;

use std::{
    cell::{Ref, RefCell},
    path::PathBuf,
    sync::Arc,
};

pub use duration::parse_duration;
pub use suggest::closest;
pub use value::Cursor;

use super::{
    model::Location,
    yaml::{Entry, Node},
};

/// Why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} (line {line}): {reason}")]
pub struct Rejection {
    /// Path of the field, `spec.http[0].route[1].weight`; empty for the document itself.
    pub field: String,
    /// 1-based.
    pub line: u32,
    /// What was found, what was expected, the mend.
    pub reason: String,
}

/// What a parser of some part of a document returns.
pub type Parsed<T> = Result<T, Rejection>;

/// What was noticed in a document that does not refuse it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Sentences, each with its line.
    pub warnings: Vec<String>,
    /// `spec.http[0].mirror (line 12)`.
    pub unsupported: Vec<String>,
}

/// What all cursors of one document share.
#[derive(Debug)]
pub struct Context {
    file: Arc<PathBuf>,
    findings: RefCell<Findings>,
}

impl Context {
    /// For a document of this file.
    pub fn new(file: Arc<PathBuf>) -> Self {
        Self {
            file,
            findings: RefCell::default(),
        }
    }

    /// A place in the document's file.
    pub fn location(&self, line: u32) -> Location {
        Location {
            file: Arc::clone(&self.file),
            line,
        }
    }

    /// Adds a warning: a sentence that names the line.
    pub fn warn(&self, warning: impl Into<String>) {
        self.findings.borrow_mut().warnings.push(warning.into());
    }

    /// Reports a field that is known and not acted on.
    pub fn unsupported(&self, field: &str, line: u32) {
        self.findings
            .borrow_mut()
            .unsupported
            .push(format!("{field} (line {line})"));
    }

    /// What was noticed so far.
    pub fn findings(&self) -> Ref<'_, Findings> {
        self.findings.borrow()
    }

    /// What was noticed, at the end.
    pub fn into_findings(self) -> Findings {
        self.findings.into_inner()
    }
}

/// A block of fields at a path.
#[derive(Debug)]
pub struct Fields<'a> {
    context: &'a Context,
    path: String,
    line: u32,
    entries: &'a [Entry],
    /// Every name that was asked for, present or not: the vocabulary for "did you mean".
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    /// The fields of a whole document; `None` where it is not a block of fields.
    pub fn of_document(context: &'a Context, node: &'a Node) -> Option<Self> {
        Cursor::new(context, String::new(), node, node.line)
            .fields()
            .ok()
    }

    fn new(context: &'a Context, path: String, line: u32, entries: &'a [Entry]) -> Self {
        Self {
            context,
            path,
            line,
            entries,
            known: RefCell::default(),
        }
    }

    /// What the cursors of this document share.
    pub fn context(&self) -> &'a Context {
        self.context
    }

    /// `spec.http[0]`; empty for the document itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// 1-based line on which the block begins.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Where the block begins.
    pub fn location(&self) -> Location {
        self.context.location(self.line)
    }

    /// Whether nothing at all is written here.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The path of a field of this block.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A field's value; `None` where it is absent or null.
    pub fn get(&self, name: &'static str) -> Option<Cursor<'a>> {
        self.get_or_null(name).filter(|cursor| !cursor.is_null())
    }

    /// A field's value, null too.
    pub fn get_or_null(&self, name: &'static str) -> Option<Cursor<'a>> {
        self.known.borrow_mut().push(name);
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some(Cursor::new(
            self.context,
            self.path_of(name),
            &entry.node,
            entry.line,
        ))
    }

    /// A field's value through a conversion; `None` where it is absent.
    pub fn optional<T>(
        &self,
        name: &'static str,
        convert: impl FnOnce(&Cursor<'a>) -> Parsed<T>,
    ) -> Parsed<Option<T>> {
        self.get(name).map(|cursor| convert(&cursor)).transpose()
    }

    /// A field's value through a conversion; refused where it is absent.
    pub fn required<T>(
        &self,
        name: &'static str,
        convert: impl FnOnce(&Cursor<'a>) -> Parsed<T>,
    ) -> Parsed<T> {
        match self.get(name) {
            Some(cursor) => convert(&cursor),
            None => Err(self.absent(name)),
        }
    }

    /// The items of a list through a conversion; empty where the list is absent.
    pub fn list<T>(
        &self,
        name: &'static str,
        convert: impl FnMut(&Cursor<'a>) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        match self.get(name) {
            Some(cursor) => cursor.items()?.iter().map(convert).collect(),
            None => Ok(Vec::new()),
        }
    }

    /// Reports a field that is known and not acted on; whether it is there.
    pub fn unsupported(&self, name: &'static str) -> bool {
        let Some(cursor) = self.get(name) else {
            return false;
        };
        self.context.unsupported(cursor.path(), cursor.line());
        true
    }

    /// [`Self::unsupported`] for each of the names; whether any of them is there.
    pub fn any_unsupported(&self, names: &[&'static str]) -> bool {
        names.iter().filter(|name| self.unsupported(name)).count() > 0
    }

    /// Takes note of names that need no attention.
    pub fn ignore(&self, names: &[&'static str]) {
        self.known.borrow_mut().extend_from_slice(names);
    }

    /// The fields that nobody asked for.
    pub fn unknown(&self) -> impl Iterator<Item = &'a Entry> {
        let known = self.known.borrow();
        let unknown: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| !known.contains(&entry.key.as_str()))
            .collect();
        unknown.into_iter()
    }

    /// Warns about the fields that nobody asked for.
    pub fn finish(&self) {
        self.finish_with(|_| None);
    }

    /// As [`Self::finish`], with a hint of the caller's where there is no similar name.
    pub fn finish_with(&self, hint: impl Fn(&str) -> Option<String>) {
        for entry in self.unknown() {
            let similar = closest(&entry.key, &self.known.borrow());
            let hint = match similar {
                Some(similar) => format!("; did you mean `{similar}`?"),
                None => hint(&entry.key).map_or_else(String::new, |hint| format!("; {hint}")),
            };
            let path = self.path_of(&entry.key);
            self.context.warn(format!(
                "unknown field `{path}` (line {}): ignored{hint}",
                entry.line
            ));
        }
    }

    /// Refuses a field that is needed: not there, or there with nothing in it.
    fn absent(&self, name: &str) -> Rejection {
        let mut from = self.entries.iter().skip_while(|entry| entry.key != name);
        if from.next().is_none() {
            return self.reject_at(name, "is missing");
        }
        let beside = from.next().map_or_else(String::new, |next| {
            format!("; line {} has `{}` beside it", next.line, next.key)
        });
        self.reject_at(
            name,
            format!("is empty: indent what belongs to it, below it{beside}"),
        )
    }

    /// Refuses the block.
    pub fn reject(&self, reason: impl Into<String>) -> Rejection {
        Rejection {
            field: self.path.clone(),
            line: self.line,
            reason: reason.into(),
        }
    }

    /// Refuses a field of the block, present or not.
    pub fn reject_at(&self, name: &str, reason: impl Into<String>) -> Rejection {
        let entry = self.entries.iter().find(|entry| entry.key == name);
        let line = entry.map_or(self.line, |entry| entry.line);
        Rejection {
            field: self.path_of(name),
            line,
            reason: reason.into(),
        }
    }
}
