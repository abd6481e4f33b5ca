//! The path that the upstream sees.

use crate::config::model::{HttpRewrite, StringMatch};

/// Path and query after a rewrite; `None` where the rewrite says nothing about them.
///
/// `rewrite.uri` replaces the prefix that matched, the whole path of an exact or regex match, and the
/// first `/` where the route was entered without a URI match. It is a plain replacement, as Envoy's:
/// `/` for the prefix `/api` makes `//x` of `/api/x`. The query stays.
pub fn apply_rewrite(
    rewrite: &HttpRewrite,
    matched: Option<&StringMatch>,
    path_and_query: &str,
) -> Option<String> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let mut rewritten = if let Some((pattern, replacement)) = &rewrite.uri_regex {
        pattern.replace_all(path, replacement.as_str()).into_owned()
    } else {
        let replacement = rewrite.uri.as_deref()?;
        let rest = match matched {
            Some(StringMatch::Exact(_) | StringMatch::Regex(_)) => "",
            // By length: with ignoreUriCase the prefix may be spelled otherwise.
            Some(StringMatch::Prefix(prefix)) => path.get(prefix.len()..).unwrap_or_default(),
            None => path.strip_prefix('/').unwrap_or_default(),
        };
        format!("{replacement}{rest}")
    };
    if !rewritten.starts_with('/') {
        rewritten.insert(0, '/');
    }
    if let Some(query) = query {
        rewritten.push('?');
        rewritten.push_str(query);
    }
    Some(rewritten)
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn uri(replacement: &str) -> HttpRewrite {
        HttpRewrite {
            uri: Some(replacement.to_owned()),
            ..HttpRewrite::default()
        }
    }

    #[test]
    fn what_matched_is_replaced_and_the_query_stays() {
        let prefix = |text: &str| Some(StringMatch::Prefix(text.to_owned()));
        let exact = Some(StringMatch::Exact("/a".to_owned()));
        let regex = Some(StringMatch::Regex(
            Regex::new("^(?:/a.*)$").expect("a pattern"),
        ));
        for (replacement, matched, before, after) in [
            ("/v1", prefix("/api"), "/api/x?q=1", "/v1/x?q=1"),
            ("/v1/", prefix("/api/"), "/api/x", "/v1/x"),
            ("/", prefix("/api"), "/api/x", "//x"),
            ("/", prefix("/api/"), "/api/x", "/x"),
            ("/v2", prefix("/v1"), "/v1example", "/v2example"),
            ("/x", prefix("/API"), "/api/y", "/x/y"),
            ("/new", exact, "/a?b", "/new?b"),
            ("/new", regex, "/abc?x=/a", "/new?x=/a"),
            ("/v2", None, "/foo", "/v2foo"),
            ("/v2/", None, "/foo", "/v2/foo"),
            ("v2/", prefix("/api/"), "/api/foo", "/v2/foo"),
        ] {
            assert_eq!(
                apply_rewrite(&uri(replacement), matched.as_ref(), before).as_deref(),
                Some(after),
                "{replacement} for {matched:?} in {before}"
            );
        }
    }

    #[test]
    fn a_pattern_rewrites_the_path_and_not_the_query() {
        let pattern = Regex::new("^/service/([^/]+)(/.*)$").expect("a pattern");
        let rewrite = HttpRewrite {
            uri_regex: Some((pattern, "${2}/instance/${1}".to_owned())),
            ..HttpRewrite::default()
        };
        let apply = |path| apply_rewrite(&rewrite, None, path);
        assert_eq!(
            apply("/service/foo/v1/api?x=/service/y/").as_deref(),
            Some("/v1/api/instance/foo?x=/service/y/")
        );
        assert_eq!(apply("/other").as_deref(), Some("/other"));
    }

    #[test]
    fn an_authority_alone_leaves_the_path() {
        let rewrite = HttpRewrite {
            authority: Some("other".to_owned()),
            ..HttpRewrite::default()
        };
        assert_eq!(apply_rewrite(&rewrite, None, "/a"), None);
    }
}
