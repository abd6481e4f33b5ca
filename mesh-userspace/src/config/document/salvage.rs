//! What a text that is no YAML seems to be about, picked from its lines.

/// What a document that can't be read says about itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// 0-based: the first line that says something.
    pub first_line: u32,
    /// `kind` at the left margin.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// Reads the lines at the left margin and those below `metadata`.
pub fn salvage(text: &str) -> Salvaged {
    let mut salvaged = Salvaged::default();
    let says_something = |line: &str| {
        let line = line.trim();
        !(line.is_empty() || line.starts_with('#') || line.starts_with("---"))
    };
    salvaged.first_line = text.lines().position(says_something).unwrap_or(0) as u32;
    let mut in_metadata = false;
    for line in text.lines() {
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim_start();
        if !indented && let Some(kind) = value_of(line, "kind") {
            kind.clone_into(&mut salvaged.kind);
        }
        if !indented && says_something(line) {
            in_metadata = line.trim_end() == "metadata:";
        } else if in_metadata && let Some(name) = value_of(line, "name") {
            name.clone_into(&mut salvaged.name);
        } else if in_metadata && let Some(namespace) = value_of(line, "namespace") {
            namespace.clone_into(&mut salvaged.namespace);
        }
    }
    salvaged
}

/// Every `kind` at the left margin: several where a separator got lost. Those further in are of
/// references to other objects.
pub fn kinds(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| value_of(line, "kind"))
        .map(str::to_owned)
        .collect()
}

/// Every `name` anywhere in the text, in flow style and JSON too.
pub fn names(text: &str) -> Vec<String> {
    let mut values: Vec<String> = text
        .match_indices("name")
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric()))
        .filter_map(|(at, _)| value_of(&text[at..], "name"))
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .collect();
    values.sort();
    values.dedup();
    values
}

/// The value on the line that the text begins with, where it begins with the key.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(key)?;
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
    let rest = rest.trim_start_matches(' ').strip_prefix(':')?;
    let value = rest.lines().next().unwrap_or_default().trim_start();
    let value = value.strip_prefix(['"', '\'']).unwrap_or(value);
    let end = value.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}' | ']'));
    Some(&value[..end.unwrap_or(value.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_document_is_still_recognised_by_its_lines() {
        let text = "---\n# x\nkind: Pod # y\nmetadata:\n  name: \"a\"\n  namespace: b\nspec: {\n";
        let expected = Salvaged {
            first_line: 2,
            kind: "Pod".to_owned(),
            namespace: "b".to_owned(),
            name: "a".to_owned(),
        };
        assert_eq!(salvage(text), expected);
    }

    #[test]
    fn names_are_found_in_every_style() {
        let text = "name: a\nmetadata: {name: b, hostname: c}\n{\"name\": \"d\"}\nname:\n";
        assert_eq!(names(text), ["a", "b", "d"]);
    }

    #[test]
    fn only_a_kind_at_the_margin_is_the_document_s_own() {
        let text = "kind: Pod\nref: {kind: Service}\n  kind: Node\nkind: 'Secret'\n";
        assert_eq!(kinds(text), ["Pod", "Secret"]);
    }
}
