//! Cuts a file at its document separators, so that one malformed document costs only itself.

/// Part of a file between two separators: as a rule one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Its text, line ends as `\n`.
    pub text: &'a str,
    /// 1-based line of the file on which the text begins.
    pub line: u32,
    /// The whole of a `.json` file: YAML's laxer syntax is not wanted.
    pub json: bool,
}

/// Cuts a YAML text whose line ends are `\n`.
///
/// A line that begins with `---` and ends there or goes on with white space separates: YAML forbids
/// it inside quotes, and block scalars of mappings are indented (YAML 1.2.2, 6.8 and 9.1.2).
/// Directives (`%YAML 1.2`) stay with the document that they precede.
pub fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut start_line = 1;
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) && !only_directives(&text[start..offset]) {
            chunks.push(Chunk {
                text: &text[start..offset],
                line: start_line,
                json: false,
            });
            start = offset;
            start_line = index as u32 + 1;
        }
        offset += line.len();
    }
    chunks.push(Chunk {
        text: &text[start..],
        line: start_line,
        json: false,
    });
    chunks.retain(|chunk| !chunk.text.trim().is_empty());
    chunks
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n']))
}

/// At least one directive, and else nothing but comments and blank lines.
fn only_directives(text: &str) -> bool {
    let mut directives = text.lines().filter(|line| line.starts_with('%')).count();
    for line in text.lines() {
        let line = line.trim_start();
        if !(line.is_empty() || line.starts_with('#') || line.starts_with('%')) {
            directives = 0;
        }
    }
    directives > 0
}
