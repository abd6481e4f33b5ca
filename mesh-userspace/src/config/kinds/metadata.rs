//! `metadata`, and what to tell somebody whose indentation got lost.

use super::Kind;
use crate::config::{
    fields::{Cursor, Fields, Parsed, Rejection},
    model::{Meta, ObjectName},
};

/// Reads `metadata` of a document whose kind is known.
pub fn metadata(root: &Fields<'_>, kind: &Kind, api_version: &str) -> Parsed<Meta> {
    let Some(metadata) = root.optional("metadata", Cursor::fields)? else {
        return Err(missing_name(root, kind, None));
    };
    let Some(name) = metadata.get("name") else {
        return Err(missing_name(root, kind, Some(&metadata)));
    };
    let checked = |cursor: &Cursor<'_>| {
        let name = cursor.filled_string()?;
        match wrong_name(&name) {
            Some(reason) => Err(cursor.reject(reason)),
            None => Ok(name),
        }
    };
    let name = checked(&name)?;
    let namespace = metadata.optional("namespace", |cursor| {
        if cursor.string()?.is_empty() {
            Ok(String::new())
        } else {
            checked(cursor)
        }
    })?;
    let namespace = match namespace {
        _ if kind.cluster_scoped => String::new(),
        Some(namespace) if !namespace.is_empty() => namespace,
        _ => "default".to_owned(),
    };
    Ok(Meta {
        api_version: api_version.to_owned(),
        name: ObjectName::new(namespace, name),
        labels: metadata
            .optional("labels", Cursor::string_map)?
            .unwrap_or_default(),
        annotations: metadata
            .optional("annotations", Cursor::string_map)?
            .unwrap_or_default(),
        creation_timestamp: metadata.optional("creationTimestamp", Cursor::string)?,
        location: root.location(),
    })
}

/// What is wrong with an object's name (RFC 1123, as the Kubernetes API has it).
fn wrong_name(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: char| c == '-' || c == '.';
    if name.len() > 253 {
        Some("is longer than 253 characters".to_owned())
    } else if !name.chars().all(allowed) || name.starts_with(edge) || name.ends_with(edge) {
        Some(format!(
            "{name:?} is no name of an object: use lower-case letters, digits, `-` and `.`, \
             beginning and ending with a letter or digit"
        ))
    } else {
        None
    }
}

/// The name is not where it belongs; where else it is says what happened.
fn missing_name(root: &Fields<'_>, kind: &Kind, metadata: Option<&Fields<'_>>) -> Rejection {
    let mut line = root
        .get_or_null("metadata")
        .map_or(root.line(), |cursor| cursor.line());
    let strayed = |names: &[&str]| -> Vec<_> {
        root.unknown()
            .filter(|entry| names.contains(&entry.key.as_str()))
            .collect()
    };
    let why = if let Some(name) = strayed(&["name"]).first() {
        line = name.line;
        format!(
            "line {line} has `name` at the top level; indent it by two spaces, below `metadata`"
        )
    } else if metadata.is_some_and(|metadata| metadata.get("generateName").is_some()) {
        "`generateName` needs the Kubernetes API, give it a name of its own".to_owned()
    } else {
        format!("every {} needs a name", kind.name)
    };
    let of_spec = strayed(kind.spec_fields);
    let likewise = if of_spec.is_empty() {
        String::new()
    } else {
        let list: Vec<String> = of_spec
            .iter()
            .map(|entry| format!("`{}` (line {})", entry.key, entry.line))
            .collect();
        format!(
            "; likewise {} at the top level: indent below `spec`",
            list.join(", ")
        )
    };
    let reason = format!("is missing: {why}{likewise}");
    Rejection {
        field: "metadata.name".to_owned(),
        line,
        reason,
    }
}
