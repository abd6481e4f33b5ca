//! What the kinds of `security.istio.io` have in common.

use super::istio;
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::Labels,
};

/// `spec` of a security document.
pub enum Beside<'a> {
    /// It is there.
    Spec(Fields<'a>),
    /// Nothing is: the API takes that for an empty one.
    Nothing,
}

/// `spec`, which may be absent; what stands beside it by mistake refuses the document, for a policy that
/// lost its indentation would be another policy.
pub fn spec<'a>(root: &Fields<'a>, spec_fields: &[&'static str]) -> Parsed<Beside<'a>> {
    let written = root.get("spec").is_some();
    let strayed = root
        .unknown()
        .any(|entry| spec_fields.contains(&entry.key.as_str()));
    if written || strayed {
        return istio::spec(root, spec_fields).map(Beside::Spec);
    }
    root.ignore(&["spec", "status", "metadata"]);
    root.finish();
    Ok(Beside::Nothing)
}

/// `selector.matchLabels`.
pub fn selector(spec: &Fields<'_>) -> Parsed<Labels> {
    let labels = spec.optional("selector", |selector| {
        let fields = selector.fields()?;
        let labels = fields.optional("matchLabels", |labels| {
            for (key, value) in labels.entries()? {
                if key.is_empty() || key.contains('*') {
                    return Err(value.reject("a label's name is neither empty nor a wildcard"));
                }
            }
            Cursor::string_map(labels)
        })?;
        fields.finish_with(|name| {
            (name != "matchExpressions").then(|| "indent labels below `matchLabels`".to_owned())
        });
        Ok(labels.unwrap_or_default())
    })?;
    Ok(labels.unwrap_or_default())
}
