//! `headers` of a route or a destination: what is edited in the request and the response.

use http::{HeaderName, HeaderValue};

use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::{HeaderOperations, Headers},
};

/// Reads the field `headers` of a block; nothing where it is absent.
pub fn headers(fields: &Fields<'_>) -> Parsed<Headers> {
    let headers = fields.optional("headers", |cursor| {
        let fields = cursor.fields()?;
        let headers = Headers {
            request: fields.optional("request", operations)?.unwrap_or_default(),
            response: fields.optional("response", operations)?.unwrap_or_default(),
        };
        fields.finish_with(|name| {
            matches!(name, "set" | "add" | "remove")
                .then(|| "indent it below `request` or `response`".to_owned())
        });
        Ok(headers)
    })?;
    Ok(headers.unwrap_or_default())
}

fn operations(cursor: &Cursor<'_>) -> Parsed<HeaderOperations> {
    let fields = cursor.fields()?;
    let mut operations = HeaderOperations::default();
    if let Some(set) = fields.get("set") {
        for (name, value) in set.entries()? {
            // Pseudo-headers exist in requests; their only one that can be said here is the host.
            if name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority") {
                operations.authority = Some(value.filled_string()?);
            } else {
                operations.set.extend(edit(name, &value)?);
            }
        }
    }
    if let Some(add) = fields.get("add") {
        for (name, value) in add.entries()? {
            operations.add.extend(edit(name, &value)?);
        }
    }
    operations.remove = fields
        .list("remove", |item| header_name(&item.filled_string()?, item))?
        .into_iter()
        .flatten()
        .collect();
    fields.finish();
    Ok(operations)
}

fn edit(name: &str, cursor: &Cursor<'_>) -> Parsed<Option<(HeaderName, HeaderValue)>> {
    let Some(name) = header_name(name, cursor)? else {
        return Ok(None);
    };
    let text = if cursor.is_null() {
        String::new()
    } else {
        cursor.string()?
    };
    match HeaderValue::from_str(&text) {
        Ok(value) => Ok(Some((name, value))),
        Err(_) => Err(cursor.reject("has a character that no header value may have")),
    }
}

/// `None`, with a warning, for those that can't be edited.
fn header_name(name: &str, cursor: &Cursor<'_>) -> Parsed<Option<HeaderName>> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        cursor.context().warn(format!(
            "`{}` (line {}): {name} can't be edited here: ignored; use `set` on the request, or \
             `rewrite.authority`",
            cursor.path(),
            cursor.line()
        ));
        return Ok(None);
    }
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Ok(Some(name)),
        Err(_) => Err(cursor.reject(format!("{name:?} is no name of a header"))),
    }
}
