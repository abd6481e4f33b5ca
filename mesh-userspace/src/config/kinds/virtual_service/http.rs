//! `spec.http[]`: one HTTP route.

use super::{actions, headers, leave_out, matching, retry};
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    kinds::istio,
    model::{HttpRoute, HttpRouteDestination},
};

/// Reads a route; `None` where it can't be served without something unsupported.
pub fn route(cursor: &Cursor<'_>) -> Parsed<Option<HttpRoute>> {
    let fields = cursor.fields()?;
    let name = fields
        .optional("name", Cursor::string)?
        .filter(|name| !name.is_empty());
    let matches = fields.list("match", matching::http_match)?;
    let destinations = destinations(&fields)?;
    let redirect = fields.optional("redirect", actions::redirect)?;
    let direct_response = fields.optional("directResponse", actions::direct_response)?;
    let rewrite = fields.optional("rewrite", actions::rewrite)?;
    let timeout = fields.optional("timeout", Cursor::duration)?;
    let retries = fields.optional("retries", retry::retries)?;
    let fault = fields.optional("fault", actions::fault)?;
    let headers = headers::headers(&fields)?;
    let delegate = fields.unsupported("delegate");
    fields.any_unsupported(&[
        "mirror",
        "mirrors",
        "mirrorPercent",
        // The name that Istio's first releases had, still in its schema.
        "mirror_percent",
        "mirrorPercentage",
        "corsPolicy",
    ]);
    fields.finish_with(|name| {
        matches!(name, "uri" | "method" | "authority" | "queryParams")
            .then(|| "it belongs to an item of `match`: indent it below one".to_owned())
    });
    exclusive(&fields)?;

    if delegate {
        leave_out(cursor, "`delegate` is not supported");
        return Ok(None);
    }
    let conditional = !matches.is_empty();
    let matches: Vec<_> = matches.into_iter().flatten().collect();
    if conditional && matches.is_empty() {
        leave_out(cursor, "none of its matches is supported");
        return Ok(None);
    }
    // The inner None: an answer that would be wrong without an unsupported part.
    if matches!(redirect, Some(None)) || matches!(direct_response, Some(None)) {
        leave_out(cursor, "its answer is not supported");
        return Ok(None);
    }
    Ok(Some(HttpRoute {
        location: cursor.location(),
        name,
        matches,
        destinations,
        redirect: redirect.flatten(),
        direct_response: direct_response.flatten(),
        rewrite,
        timeout,
        retries,
        fault,
        headers,
    }))
}

/// What can't be said of one and the same route.
fn exclusive(fields: &Fields<'_>) -> Parsed<()> {
    let has = |name| fields.get(name).is_some();
    let route = fields
        .optional("route", Cursor::items)?
        .is_some_and(|items| !items.is_empty());
    let answers = ["redirect", "directResponse", "delegate"]
        .into_iter()
        .filter(|name| has(name));
    let mut answers: Vec<&str> = answers.collect();
    if route {
        answers.insert(0, "route");
    }
    match answers.as_slice() {
        [] => {
            let strayed = fields
                .unknown()
                .find(|entry| matches!(entry.key.as_str(), "destination" | "host" | "weight"));
            let hint = strayed.map_or_else(String::new, |entry| {
                format!(
                    ": `{}` (line {}) belongs to an item of `route`",
                    entry.key, entry.line
                )
            });
            Err(fields.reject(format!(
                "says nothing to do: it needs `route`, `redirect`, `directResponse` or \
                 `delegate`{hint}"
            )))
        }
        ["route" | "delegate"] => Ok(()),
        [answer] => {
            let meaningless = ["fault", "rewrite"].into_iter().find(|name| has(name));
            match meaningless {
                Some(name) => Err(fields.reject_at(
                    name,
                    format!("can't be combined with `{answer}`: nothing is forwarded there"),
                )),
                None => Ok(()),
            }
        }
        [first, second, ..] => Err(fields.reject_at(
            second,
            format!("can't be combined with `{first}`: keep one of them"),
        )),
    }
}

fn destinations(fields: &Fields<'_>) -> Parsed<Vec<HttpRouteDestination>> {
    let destinations = fields.list("route", |item| {
        let fields = item.fields()?;
        let destination = HttpRouteDestination {
            destination: fields.required("destination", istio::destination)?,
            weight: fields.optional("weight", Cursor::unsigned)?.unwrap_or(0),
            headers: headers::headers(&fields)?,
        };
        fields.finish_with(|name| {
            matches!(name, "host" | "subset" | "port")
                .then(|| "indent it below `destination`".to_owned())
        });
        Ok(destination)
    })?;
    if let Some(list) = fields.get("route") {
        let weights: Vec<u32> = destinations.iter().map(|route| route.weight).collect();
        istio::weights(&list, &weights)?;
    }
    Ok(destinations)
}
