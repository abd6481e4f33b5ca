//! `spec.http[].match[]`: which requests a route takes.

use crate::config::{
    fields::{Cursor, Fields, Parsed, Rejection},
    kinds::istio,
    model::{HttpMatch, StringMatch},
};

/// How large a compiled regular expression may become, in bytes.
const REGEX_SIZE: usize = 1 << 20;

/// A name with its condition; `None`: being there is enough.
type Named = (String, Option<StringMatch>);

/// Reads a match block; `None` where it has a condition that is not supported, because without
/// that condition it would take requests that it should not.
pub fn http_match(cursor: &Cursor<'_>) -> Parsed<Option<HttpMatch>> {
    let fields = cursor.fields()?;
    let headers = headers(&fields, "headers")?;
    let without_headers = headers_without(&fields)?;
    let found = HttpMatch {
        name: fields.optional("name", Cursor::string)?,
        uri: text(&fields, "uri")?,
        ignore_uri_case: fields
            .optional("ignoreUriCase", Cursor::boolean)?
            .unwrap_or(false),
        scheme: text(&fields, "scheme")?,
        method: text(&fields, "method")?,
        authority: text(&fields, "authority")?,
        query_params: query_params(&fields)?,
        port: fields.optional("port", Cursor::port)?,
        source_labels: fields
            .optional("sourceLabels", Cursor::string_map)?
            .unwrap_or_default(),
        source_namespace: fields.optional("sourceNamespace", Cursor::filled_string)?,
        gateways: istio::gateways(&fields)?,
        headers: Vec::new(),
        without_headers: Vec::new(),
    };
    fields.unsupported("statPrefix");
    fields.finish_with(|name| {
        matches!(name, "exact" | "prefix" | "regex")
            .then(|| "it belongs below `uri` or a header's name: indent it".to_owned())
    });
    Ok(headers
        .zip(without_headers)
        .map(|(headers, without_headers)| HttpMatch {
            headers,
            without_headers,
            ..found
        }))
}

/// A condition on the request line; an empty one says nothing.
fn text(fields: &Fields<'_>, name: &'static str) -> Parsed<Option<StringMatch>> {
    let Some(cursor) = fields.get(name) else {
        return Ok(None);
    };
    let found = string_match(&cursor)?;
    if found.is_none() {
        cursor.context().warn(format!(
            "`{}` (line {}) is empty: it matches all",
            cursor.path(),
            cursor.line()
        ));
    }
    Ok(found)
}

/// `{exact | prefix | regex: …}`; `None` for `{}`.
fn string_match(cursor: &Cursor<'_>) -> Parsed<Option<StringMatch>> {
    let fields = cursor.fields().map_err(|mut rejection| {
        rejection
            .reason
            .push_str(": one of `exact`, `prefix`, `regex`");
        rejection
    })?;
    let exact = fields.optional("exact", Cursor::string)?;
    let prefix = fields.optional("prefix", Cursor::string)?;
    let pattern = fields.optional("regex", regex)?;
    // A misspelt condition would match everything: too dangerous for a warning.
    if let Some(unknown) = fields.unknown().next() {
        return Err(fields.reject_at(
            &unknown.key,
            "is unknown here: use `exact`, `prefix` or `regex`",
        ));
    }
    match (exact, prefix, pattern) {
        (None, None, None) => Ok(None),
        (Some(exact), None, None) => Ok(Some(StringMatch::Exact(exact))),
        (None, Some(prefix), None) => Ok(Some(StringMatch::Prefix(prefix))),
        (None, None, Some(pattern)) => Ok(Some(StringMatch::Regex(pattern))),
        _ => Err(cursor.reject("has more than one of `exact`, `prefix` and `regex`: keep one")),
    }
}

/// Compiles a regular expression that must match the whole value.
fn regex(cursor: &Cursor<'_>) -> Parsed<regex::Regex> {
    let pattern = cursor.filled_string()?;
    if pattern == "*" {
        return Err(cursor.reject(
            "`*` is no regular expression: write `.*`, or `{}` for any value that is there",
        ));
    }
    compile(cursor, &pattern)?;
    // Compiled alone first: the parentheses must not make sense of unbalanced ones.
    compile(cursor, &format!("^(?:{pattern})$"))
}

/// Compiles a regular expression as it stands.
pub fn compile(cursor: &Cursor<'_>, pattern: &str) -> Parsed<regex::Regex> {
    regex::RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(|error| {
            let text = match error {
                regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
                // The crate draws a picture over several lines; the last one says it.
                error => {
                    let text = error.to_string();
                    let last = text.lines().last().unwrap_or_default().trim();
                    last.strip_prefix("error: ").unwrap_or(last).to_owned()
                }
            };
            cursor.reject(format!("is no regular expression (RE2 syntax): {text}"))
        })
}

/// Conditions on headers; `None` where one of them is not supported.
fn headers(fields: &Fields<'_>, name: &'static str) -> Parsed<Option<Vec<Named>>> {
    conditions(fields, name, string_match)
}

fn headers_without(fields: &Fields<'_>) -> Parsed<Option<Vec<Named>>> {
    conditions(fields, "withoutHeaders", |cursor| {
        // Only here is `regex: "*"` a spelling of "any value" (istio-semantics: Matching).
        let any = cursor
            .fields()?
            .get("regex")
            .and_then(|regex| regex.string().ok());
        if any.as_deref() == Some("*") {
            Ok(None)
        } else {
            string_match(cursor)
        }
    })
}

fn conditions(
    fields: &Fields<'_>,
    name: &'static str,
    condition: impl Fn(&Cursor<'_>) -> Parsed<Option<StringMatch>>,
) -> Parsed<Option<Vec<Named>>> {
    let Some(cursor) = fields.get(name) else {
        return Ok(Some(Vec::new()));
    };
    let mut found = Vec::new();
    let mut supported = true;
    for (header, value) in cursor.entries()? {
        if value.is_null() {
            return Err(empty(&cursor, &value));
        }
        if header.starts_with('@') {
            value.context().unsupported(value.path(), value.line());
            supported = false;
            continue;
        }
        let condition = condition(&value)?;
        if matches!(header, "uri" | "scheme" | "method" | "authority") {
            value.context().warn(format!(
                "`{}` (line {}) is ignored, as in Istio: use the field `{header}` beside \
                 `{name}`",
                value.path(),
                value.line()
            ));
            continue;
        }
        match http::HeaderName::from_bytes(header.as_bytes()) {
            Ok(header) => found.push((header.as_str().to_owned(), condition)),
            Err(_) => return Err(value.reject(format!("{header:?} is no name of a header"))),
        }
    }
    Ok(supported.then_some(found))
}

fn query_params(fields: &Fields<'_>) -> Parsed<Vec<Named>> {
    let Some(cursor) = fields.get("queryParams") else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (name, value) in cursor.entries()? {
        if value.is_null() {
            return Err(empty(&cursor, &value));
        }
        found.push((name.to_owned(), string_match(&value)?));
    }
    Ok(found)
}

/// A name without a condition, which as a rule stands one level too far out.
fn empty(block: &Cursor<'_>, value: &Cursor<'_>) -> Rejection {
    let beside = block
        .entries()
        .unwrap_or_default()
        .into_iter()
        .find(|(name, beside)| {
            matches!(*name, "exact" | "prefix" | "regex") && beside.line() > value.line()
        });
    value.reject(match beside {
        Some((name, beside)) => format!(
            "is empty: indent `{name}` (line {}) below it",
            beside.line()
        ),
        None => "is empty: write `{}` to match any value that is there".to_owned(),
    })
}
