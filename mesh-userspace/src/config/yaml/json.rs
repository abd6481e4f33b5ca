//! JSON (RFC 8259) to the same tree as YAML: one value, or several one after the other.
//!
//! YAML's parser would do for most of it, but not for surrogate pairs in escapes and tabs.

use std::collections::HashSet;

use super::{Entry, MAX_DEPTH, MAX_NODES, Node, Scalar, SyntaxError, Value};

/// Parses all values of a text whose first line is line `first_line` of its file.
pub fn parse(text: &str, first_line: u32) -> Result<Vec<Node>, SyntaxError> {
    let mut reader = Reader {
        rest: text,
        line: first_line,
        column: 1,
        nodes: 0,
    };
    let mut values = Vec::new();
    reader.skip_white();
    while !reader.rest.is_empty() {
        values.push(reader.value(0)?);
        reader.skip_white();
    }
    Ok(values)
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
    column: u32,
    nodes: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn skip_white(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.next();
        }
    }

    fn error(&self, reason: impl Into<String>) -> SyntaxError {
        SyntaxError {
            line: self.line,
            column: self.column,
            reason: reason.into(),
        }
    }

    fn expected(&self, what: &str) -> SyntaxError {
        let found = match self.peek() {
            Some(c) => format!("found `{}`", c.escape_debug()),
            None => "the text ends".to_owned(),
        };
        self.error(format!("not valid JSON: {found} where {what} is expected"))
    }

    fn expect(&mut self, wanted: char) -> Result<(), SyntaxError> {
        if self.peek() == Some(wanted) {
            self.next();
            Ok(())
        } else {
            Err(self.expected(&format!("`{wanted}`")))
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.error(format!("more than {MAX_NODES} values in one file")));
        }
        if depth >= MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (line, column) = (self.line, self.column);
        let value = match self.peek() {
            Some('{') => Value::Mapping(self.object(depth)?),
            Some('[') => Value::Sequence(self.array(depth)?),
            Some('"') => Value::Scalar(Scalar {
                text: self.string()?,
                plain: false,
            }),
            Some('-' | '0'..='9' | 'a'..='z') => Value::Scalar(self.word()?),
            _ => return Err(self.expected("a value")),
        };
        Ok(Node {
            value,
            line,
            column,
        })
    }

    fn object(&mut self, depth: usize) -> Result<Vec<Entry>, SyntaxError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys = HashSet::new();
        self.expect('{')?;
        self.skip_white();
        if self.peek() == Some('}') {
            self.next();
            return Ok(entries);
        }
        loop {
            self.skip_white();
            if self.peek() != Some('"') {
                return Err(self.expected("a key in double quotes"));
            }
            let line = self.line;
            let key = self.string()?;
            if !keys.insert(key.clone()) {
                return Err(self.error(format!("`{key}` is here twice in one object")));
            }
            self.skip_white();
            self.expect(':')?;
            self.skip_white();
            let node = self.value(depth + 1)?;
            entries.push(Entry { key, line, node });
            self.skip_white();
            match self.peek() {
                Some(',') => self.next(),
                Some('}') => {
                    self.next();
                    return Ok(entries);
                }
                _ => return Err(self.expected("`,` or `}`")),
            };
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Node>, SyntaxError> {
        let mut items = Vec::new();
        self.expect('[')?;
        self.skip_white();
        if self.peek() == Some(']') {
            self.next();
            return Ok(items);
        }
        loop {
            self.skip_white();
            items.push(self.value(depth + 1)?);
            self.skip_white();
            match self.peek() {
                Some(',') => self.next(),
                Some(']') => {
                    self.next();
                    return Ok(items);
                }
                _ => return Err(self.expected("`,` or `]`")),
            };
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<Scalar, SyntaxError> {
        let len = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')))
            .unwrap_or(self.rest.len());
        let word = &self.rest[..len];
        // serde_json knows JSON's number grammar to the letter.
        let known = matches!(word, "true" | "false" | "null")
            || serde_json::from_str::<serde_json::Number>(word).is_ok();
        if !known {
            return Err(self.expected("a number, true, false or null"));
        }
        let text = word.to_owned();
        self.rest = &self.rest[len..];
        self.column += len as u32;
        Ok(Scalar { text, plain: true })
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let mut text = String::new();
        self.expect('"')?;
        loop {
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(c) if c >= ' ' => text.push(c),
                Some(_) => return Err(self.error("not valid JSON: a string ends on its own line")),
                None => return Err(self.expected("the end of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        Ok(match self.next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let first = self.hex4()?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    self.expect('\\')?;
                    self.expect('u')?;
                    let second = self.hex4()?;
                    // Not a low surrogate: the sum below is no character, and is refused there.
                    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400);
                    low.map_or(0xd800, |low| 0x1_0000 + ((first - 0xd800) << 10) + low)
                } else {
                    first
                };
                char::from_u32(code)
                    .ok_or_else(|| self.error("not valid JSON: half of a surrogate pair"))?
            }
            _ => return Err(self.error("not valid JSON: an unknown escape in a string")),
        })
    }

    fn hex4(&mut self) -> Result<u32, SyntaxError> {
        let mut code = 0;
        for _ in 0..4 {
            match self.peek().and_then(|c| c.to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return Err(self.expected("a hexadecimal digit")),
            }
            self.next();
        }
        Ok(code)
    }
}
