//! One document of a manifest file: from text to a typed object or a report that says why not.

mod salvage;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    fields::{Context, Fields, Findings, Parsed, Rejection},
    kinds::{self, Kind, Lookup},
    model::{Object, ObjectName, Report, State},
    yaml::{self, Chunk, Entry, Node, SyntaxError, Value},
};

/// The largest manifest file that is read, in bytes.
pub const MAX_FILE_SIZE: usize = 8 << 20;

/// What identifies an object across files and versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// As [`super::model::Spec::kind`] spells it.
    pub kind: &'static str,
    /// Namespace and name.
    pub name: ObjectName,
}

/// What a document is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// This object.
    Object(ObjectKey),
    /// Nothing that Zerohop acts on.
    Nothing,
    /// It is too broken to tell.
    Unclear {
        /// The kinds that it mentions; empty: it may be of any.
        kinds: Vec<String>,
        /// The names that it mentions, of objects or of something else.
        names: Vec<String>,
    },
}

/// A document that was read, whatever became of it.
#[derive(Debug, Clone)]
pub struct Document {
    /// Which object it is about.
    pub subject: Subject,
    /// The object, where it parsed and validated.
    pub object: Option<Arc<Object>>,
    /// What became of it.
    pub report: Report,
}

/// Reads the documents of a whole file.
pub fn read_file(file: &Arc<PathBuf>, content: &[u8]) -> Vec<Document> {
    match text(content) {
        Ok(text) => split(file, &text)
            .iter()
            .flat_map(|chunk| read_chunk(file, chunk))
            .collect(),
        Err(error) => vec![unreadable(file, error.line, error.reason)],
    }
}

/// The text of a file: UTF-8 without byte order mark, lines ended by `\n`.
pub fn text(content: &[u8]) -> Result<String, SyntaxError> {
    let refuse = |line, reason: String| {
        Err(SyntaxError {
            line,
            column: 1,
            reason,
        })
    };
    if content.len() > MAX_FILE_SIZE {
        let limit = MAX_FILE_SIZE >> 20;
        return refuse(1, format!("the file is larger than {limit} MiB: split it"));
    }
    if content.starts_with(&[0xff, 0xfe]) || content.starts_with(&[0xfe, 0xff]) {
        return refuse(1, "the file is UTF-16: save it as UTF-8".to_owned());
    }
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    match std::str::from_utf8(content) {
        Ok(text) if text.contains('\r') => Ok(text.replace("\r\n", "\n").replace('\r', "\n")),
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let before = &content[..error.valid_up_to()];
            let line = 1 + before.split(|byte| *byte == b'\n').count() as u32 - 1;
            refuse(
                line,
                "the file is not UTF-8 text: save it as UTF-8".to_owned(),
            )
        }
    }
}

/// Cuts a file's text into what is parsed on its own.
pub fn split<'a>(file: &Path, text: &'a str) -> Vec<Chunk<'a>> {
    if file
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
    {
        return vec![Chunk {
            text,
            line: 1,
            json: true,
        }];
    }
    yaml::chunks(text)
}

/// Reads one chunk: as a rule one document, more where it is a `List`.
pub fn read_chunk(file: &Arc<PathBuf>, chunk: &Chunk<'_>) -> Vec<Document> {
    let nodes = match yaml::parse(chunk) {
        Ok(nodes) => nodes,
        Err(error) => return vec![malformed(file, chunk, &error)],
    };
    let mut documents = Vec::new();
    for node in &nodes {
        read_node(file, node, &mut documents);
    }
    documents
}

/// The report of a file that could not be read at all.
pub fn unreadable(file: &Arc<PathBuf>, line: u32, reason: String) -> Document {
    let rejection = Rejection {
        field: String::new(),
        line,
        reason,
    };
    let identity = Identity {
        line,
        ..Identity::default()
    };
    identity.refused(file, rejection)
}

/// What a document says that it is, as far as it says it.
#[derive(Debug, Default)]
struct Identity {
    line: u32,
    kind: String,
    namespace: String,
    name: String,
}

impl Identity {
    fn of(node: &Node) -> Self {
        let metadata = node.get("metadata").map(|entry| &entry.node);
        let of_metadata = |key| {
            metadata
                .and_then(|node| node.text(key))
                .unwrap_or_default()
                .to_owned()
        };
        let mut identity = Self {
            line: node.line,
            kind: node.text("kind").unwrap_or_default().to_owned(),
            namespace: of_metadata("namespace"),
            name: of_metadata("name"),
        };
        identity.assume_namespace();
        identity
    }

    /// A namespaced object that names none is in `default`.
    fn assume_namespace(&mut self) {
        let named = !self.name.is_empty() && self.namespace.is_empty();
        if named && !kinds::is_cluster_scoped(&self.kind) {
            "default".clone_into(&mut self.namespace);
        }
    }

    /// The subject of a document that says no more than this.
    fn unclear(&self) -> Subject {
        let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Subject::Unclear {
            kinds: said(&self.kind).into_iter().collect(),
            names: said(&self.name).into_iter().collect(),
        }
    }

    fn refused(self, file: &Arc<PathBuf>, rejection: Rejection) -> Document {
        let subject = self.unclear();
        self.document(file, subject, None, Err(rejection), Findings::default())
    }

    fn document(
        self,
        file: &Arc<PathBuf>,
        subject: Subject,
        object: Option<Arc<Object>>,
        refused: Result<State, Rejection>,
        findings: Findings,
    ) -> Document {
        let (state, line, field, reason) = match refused {
            Ok(state) => (state, self.line, None, None),
            Err(Rejection {
                field,
                line,
                reason,
            }) => {
                let field = Some(field).filter(|field| !field.is_empty());
                (State::Rejected, line, field, Some(reason))
            }
        };
        let report = Report {
            file: file.display().to_string(),
            line,
            kind: self.kind,
            namespace: self.namespace,
            name: self.name,
            state,
            field,
            reason,
            warnings: findings.warnings,
            unsupported: findings.unsupported,
        };
        Document {
            subject,
            object,
            report,
        }
    }
}

fn read_node(file: &Arc<PathBuf>, node: &Node, documents: &mut Vec<Document>) {
    let list = node.text("kind").and_then(|kind| kind.strip_suffix("List"));
    let items = node.get("items").map(|entry| &entry.node.value);
    if let (Some(item_kind), Some(Value::Sequence(items))) = (list, items) {
        for item in items {
            documents.push(read_object(file, &with_type(item, item_kind, node)));
        }
    } else {
        documents.push(read_object(file, node));
    }
}

/// Items of a `ServiceList` and the like may leave out what the list's own kind says.
fn with_type(item: &Node, kind: &str, list: &Node) -> Node {
    let mut item = item.clone();
    if kind.is_empty() {
        return item;
    }
    if let Value::Mapping(entries) = &mut item.value
        && !entries.iter().any(|entry| entry.key == "kind")
    {
        let scalar = yaml::Scalar {
            text: kind.to_owned(),
            plain: false,
        };
        let node = Node {
            value: Value::Scalar(scalar),
            line: item.line,
            column: item.column,
        };
        entries.push(Entry {
            key: "kind".to_owned(),
            line: item.line,
            node,
        });
        if !entries.iter().any(|entry| entry.key == "apiVersion") {
            entries.extend(list.get("apiVersion").cloned());
        }
    }
    item
}

fn read_object(file: &Arc<PathBuf>, node: &Node) -> Document {
    let identity = Identity::of(node);
    let context = Context::new(Arc::clone(file));
    let Some(root) = Fields::of_document(&context, node) else {
        let reason = format!(
            "the document is {}, but must be a block of fields",
            node.describe()
        );
        let rejection = Rejection {
            field: String::new(),
            line: node.line,
            reason,
        };
        return identity.refused(file, rejection);
    };
    match recognise(&root) {
        Err(rejection) => identity.refused(file, rejection),
        Ok(Recognised::Ignored(reason)) => ignored(identity, file, reason, Findings::default()),
        Ok(Recognised::Kind(kind, api_version)) => {
            read_kind(file, identity, kind, &api_version, &root)
        }
    }
}

enum Recognised {
    Kind(&'static Kind, String),
    Ignored(String),
}

fn recognise(root: &Fields<'_>) -> Parsed<Recognised> {
    let not_a_manifest = |name: &str, reason: Rejection| {
        if root.get("kind").is_none() && root.get("apiVersion").is_none() {
            let reason = "has neither `apiVersion` nor `kind`: this is no Kubernetes object";
            return Rejection {
                field: String::new(),
                ..root.reject_at(name, reason)
            };
        }
        reason
    };
    let kind = root
        .required("kind", super::fields::Cursor::filled_string)
        .map_err(|rejection| not_a_manifest("kind", rejection))?;
    let api_version = root.required("apiVersion", super::fields::Cursor::filled_string)?;
    Ok(match kinds::look_up(&api_version, &kind) {
        Lookup::Known(kind) => Recognised::Kind(kind, api_version),
        Lookup::OtherVersion { known } => Recognised::Ignored(format!(
            "{kind} is known in {}, not in {api_version}: change its apiVersion",
            known.join(", ")
        )),
        Lookup::Other { similar } => {
            let hint = similar.map_or_else(String::new, |name| format!(": did you mean {name}?"));
            Recognised::Ignored(format!(
                "Zerohop does not act on {kind} of {api_version}{hint}"
            ))
        }
    })
}

fn read_kind(
    file: &Arc<PathBuf>,
    mut identity: Identity,
    kind: &'static Kind,
    api_version: &str,
    root: &Fields<'_>,
) -> Document {
    let context = root.context();
    let mut subject = identity.unclear();
    let parsed = kinds::metadata(root, kind, api_version).and_then(|meta| {
        identity.namespace = meta.name.namespace.to_string();
        identity.name = meta.name.name.to_string();
        subject = Subject::Object(ObjectKey {
            kind: kind.name,
            name: meta.name.clone(),
        });
        let spec = (kind.parse)(root, &meta)?;
        Ok(spec.map(|spec| Object { meta, spec }))
    });
    let findings = context.findings().clone();
    match parsed {
        Ok(Ok(object)) => {
            let object = Some(Arc::new(object));
            identity.document(file, subject, object, Ok(State::Applied), findings)
        }
        Ok(Err(kinds::NotActedOn(reason))) => ignored(identity, file, reason, findings),
        Err(rejection) => identity.document(file, subject, None, Err(rejection), findings),
    }
}

fn ignored(
    identity: Identity,
    file: &Arc<PathBuf>,
    reason: String,
    findings: Findings,
) -> Document {
    let mut document =
        identity.document(file, Subject::Nothing, None, Ok(State::Ignored), findings);
    document.report.reason = Some(reason);
    document
}

/// A document that is no YAML: what it is about is picked from its lines.
fn malformed(file: &Arc<PathBuf>, chunk: &Chunk<'_>, error: &SyntaxError) -> Document {
    let salvaged = salvage::salvage(chunk.text);
    let mut identity = Identity {
        line: chunk.line + salvaged.first_line,
        kind: salvaged.kind,
        namespace: salvaged.namespace,
        name: salvaged.name,
    };
    identity.assume_namespace();
    let subject = Subject::Unclear {
        kinds: salvage::kinds(chunk.text),
        names: salvage::names(chunk.text),
    };
    let reason = format!("{} (column {})", error.reason, error.column);
    let rejection = Rejection {
        field: String::new(),
        line: error.line,
        reason,
    };
    identity.document(file, subject, None, Err(rejection), Findings::default())
}
