//! The objects in force: the last good version of each, whatever is written into the files.
//!
//! The rules, for each reading of all files in the order of their paths:
//! 1. A good document puts its object in force.
//! 2. Of two good documents about one object the first is in force, the second is rejected.
//! 3. A rejected document whose object is known keeps the last good version of that object.
//! 4. A document so broken that nobody can tell which object it is about may be about any object
//!    that the file defined before and does not define now. Of those, the ones of the kinds that
//!    it mentions (if it does), and of these the ones whose names it mentions (if it does), stay
//!    in force until the document is mended or removed. A file that can't be read is such a
//!    document.
//! 5. Everything else that was in force is removed.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use super::{
    document::{self, Document, ObjectKey, Subject},
    folder::SourceFile,
    model::{Location, Object, Report, State},
};

/// What a reading of all files came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Everything in force, by kind, namespace and name. An object that did not change is the same
    /// `Arc` as in the reading before.
    pub objects: Vec<Arc<Object>>,
    /// One row per document, by file and line.
    pub reports: Vec<Report>,
    /// Whether `objects` differ from the reading before.
    pub changed: bool,
}

/// Keeps the last good version of every object across readings.
#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<Arc<PathBuf>, ParsedFile>,
    in_force: BTreeMap<ObjectKey, InForce>,
}

#[derive(Debug)]
struct ParsedFile {
    content: Arc<[u8]>,
    chunks: Vec<ParsedChunk>,
}

/// Kept so that an edit costs the parsing of the documents that it touches.
#[derive(Debug)]
struct ParsedChunk {
    line: u32,
    text: Box<str>,
    documents: Vec<Document>,
}

#[derive(Debug, Clone)]
struct InForce {
    object: Arc<Object>,
    /// The file and line that keep it in force; its own text may be gone by now.
    claim: Location,
}

/// A document of this reading, with the file that it stands in.
struct Row {
    file: Arc<PathBuf>,
    document: Document,
}

impl Store {
    /// Takes the present content of all files; what is not among them is gone.
    pub fn load(&mut self, mut files: Vec<SourceFile>) -> Outcome {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        let mut rows = self.parse(files);
        let mut now = claims(&mut rows, &self.in_force);
        self.keep_what_broken_documents_may_mean(&mut rows, &mut now);

        let same = |(old, new): ((&ObjectKey, &InForce), (&ObjectKey, &InForce))| {
            old.0 == new.0 && Arc::ptr_eq(&old.1.object, &new.1.object)
        };
        let changed = self.in_force.len() != now.len() || !self.in_force.iter().zip(&now).all(same);
        self.in_force = now;
        Outcome {
            objects: self
                .in_force
                .values()
                .map(|kept| Arc::clone(&kept.object))
                .collect(),
            reports: rows.into_iter().map(|row| row.document.report).collect(),
            changed,
        }
    }

    /// Documents of all files; those whose text is as before are not parsed again.
    fn parse(&mut self, files: Vec<SourceFile>) -> Vec<Row> {
        let mut before = std::mem::take(&mut self.files);
        let mut rows = Vec::new();
        for file in files {
            let old = before.remove(&file.path);
            let content = match file.content {
                Ok(content) => content,
                Err(reason) => {
                    let document = document::unreadable(&file.path, 1, reason);
                    rows.push(Row {
                        file: file.path,
                        document,
                    });
                    continue;
                }
            };
            let parsed = match old {
                Some(old) if old.content == content => old,
                old => parse_file(
                    &file.path,
                    content,
                    old.map_or_else(Vec::new, |old| old.chunks),
                ),
            };
            rows.extend(
                parsed
                    .chunks
                    .iter()
                    .flat_map(|chunk| &chunk.documents)
                    .map(|document| Row {
                        file: Arc::clone(&file.path),
                        document: document.clone(),
                    }),
            );
            self.files.insert(file.path, parsed);
        }
        rows
    }

    /// Rule 4.
    fn keep_what_broken_documents_may_mean(
        &self,
        rows: &mut [Row],
        now: &mut BTreeMap<ObjectKey, InForce>,
    ) {
        for Row { file, document } in rows {
            let Subject::Unclear { kinds, names } = &document.subject else {
                continue;
            };
            let missing: Vec<(&ObjectKey, &InForce)> = self
                .in_force
                .iter()
                .filter(|(key, _)| !now.contains_key(key))
                // A folder that can't be listed stands for the files in it.
                .filter(|(_, kept)| kept.claim.file.starts_with(file.as_ref()))
                .filter(|(key, _)| kinds.is_empty() || kinds.iter().any(|kind| kind == key.kind))
                .collect();
            let named = |key: &ObjectKey| names.iter().any(|name| **name == *key.name.name);
            let any_named = missing.iter().any(|(key, _)| named(key));
            let kept: Vec<_> = missing
                .into_iter()
                .filter(|(key, _)| named(key) || !any_named)
                .collect();
            if kept.is_empty() {
                continue;
            }
            let names: Vec<String> = kept
                .iter()
                .take(5)
                .map(|(key, _)| format!("{} {}", key.kind, key.name))
                .collect();
            let more = if kept.len() > names.len() {
                ", …"
            } else {
                ""
            };
            add_to_reason(
                &mut document.report,
                &format!(
                    "the last good version stays in force: {}{more}",
                    names.join(", ")
                ),
            );
            now.extend(
                kept.into_iter()
                    .map(|(key, kept)| (key.clone(), kept.clone())),
            );
        }
    }
}

/// Rules 1, 2 and 3.
fn claims(rows: &mut [Row], before: &BTreeMap<ObjectKey, InForce>) -> BTreeMap<ObjectKey, InForce> {
    let good: HashSet<ObjectKey> = rows
        .iter()
        .filter(|row| row.document.object.is_some())
        .filter_map(|row| match &row.document.subject {
            Subject::Object(key) => Some(key.clone()),
            _ => None,
        })
        .collect();
    let mut now: BTreeMap<ObjectKey, InForce> = BTreeMap::new();
    for Row { file, document } in rows {
        let Subject::Object(key) = &document.subject else {
            continue;
        };
        let claim = Location {
            file: Arc::clone(file),
            line: document.report.line,
        };
        match (&document.object, now.get(key), before.get(key)) {
            (Some(object), None, _) => {
                now.insert(
                    key.clone(),
                    InForce {
                        object: Arc::clone(object),
                        claim,
                    },
                );
            }
            (Some(_), Some(first), _) => {
                let report = &mut document.report;
                report.state = State::Rejected;
                report.field = Some("metadata.name".to_owned());
                report.reason = Some(format!(
                    "{} {} is already defined at {}, which is in force: remove or \
                     rename one of them",
                    key.kind, key.name, first.claim
                ));
            }
            // A new broken document does not take an object away from a good one elsewhere.
            (None, None, Some(kept)) if kept.claim.file == *file || !good.contains(key) => {
                let last_good = &kept.object.meta.location;
                add_to_reason(
                    &mut document.report,
                    &format!("the last good version (read at {last_good}) stays in force"),
                );
                now.insert(
                    key.clone(),
                    InForce {
                        object: Arc::clone(&kept.object),
                        claim,
                    },
                );
            }
            (None, _, _) => {}
        }
    }
    now
}

fn add_to_reason(report: &mut Report, more: &str) {
    let reason = report.reason.get_or_insert_default();
    if !reason.is_empty() {
        reason.push_str("; ");
    }
    reason.push_str(more);
}

fn parse_file(path: &Arc<PathBuf>, content: Arc<[u8]>, old: Vec<ParsedChunk>) -> ParsedFile {
    let text = match document::text(&content) {
        Ok(text) => text,
        Err(error) => {
            let documents = vec![document::unreadable(path, error.line, error.reason)];
            let chunks = vec![ParsedChunk {
                line: 0,
                text: Box::default(),
                documents,
            }];
            return ParsedFile { content, chunks };
        }
    };
    let mut old: BTreeMap<u32, ParsedChunk> =
        old.into_iter().map(|chunk| (chunk.line, chunk)).collect();
    let parse = |chunk: &super::yaml::Chunk<'_>| match old.remove(&chunk.line) {
        Some(old) if *old.text == *chunk.text => old,
        _ => ParsedChunk {
            line: chunk.line,
            text: chunk.text.into(),
            documents: document::read_chunk(path, chunk),
        },
    };
    let chunks = document::split(path, &text).iter().map(parse).collect();
    ParsedFile { content, chunks }
}
