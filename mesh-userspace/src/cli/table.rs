//! Aligned tables for people.

use std::fmt::Write as _;

/// Between two columns.
const GAP: &str = "   ";

/// A cell: its text and what it means.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

/// What a cell means, shown by colour where there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
    /// Of little weight.
    Faint,
}

impl Tone {
    fn sgr(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

impl Cell {
    /// Text, to the left.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: clean(&text.into()),
            tone: Tone::Plain,
            right: false,
        }
    }

    /// A number, to the right.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is given numbers and temporaries"
    )]
    pub fn number(number: impl ToString) -> Self {
        Self {
            right: true,
            ..Self::new(number.to_string())
        }
    }

    /// With a meaning.
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// Rows below a heading.
#[derive(Debug)]
pub struct Table {
    heading: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns; without a heading line where there are none.
    pub fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self {
            heading: heading.into_iter().map(Cell::new).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Columns without a cell stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, each ending in a newline; `empty` where there are no rows.
    pub fn render(&self, colour: bool, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let heading = Some(&self.heading).filter(|heading| !heading.is_empty());
        let lines = || heading.into_iter().chain(&self.rows);
        let mut widths = Vec::new();
        for row in lines() {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        let mut out = String::new();
        for row in lines() {
            render_row(&mut out, row, &widths, colour);
        }
        out
    }
}

fn render_row(out: &mut String, row: &[Cell], widths: &[usize], colour: bool) {
    // What follows the last text on a line would be invisible: padding is written before text only.
    let mut owed = String::new();
    for (cell, width) in row.iter().zip(widths) {
        let pad = " ".repeat(width - cell.width());
        if cell.right {
            owed.push_str(&pad);
        }
        if !cell.text.is_empty() {
            out.push_str(&owed);
            owed.clear();
            paint(out, cell, colour);
        }
        if !cell.right {
            owed.push_str(&pad);
        }
        owed.push_str(GAP);
    }
    out.push('\n');
}

fn paint(out: &mut String, cell: &Cell, colour: bool) {
    match cell.tone.sgr().filter(|_| colour) {
        // Writing to a String does not fail.
        Some(sgr) => {
            let _ = write!(out, "\x1b[{sgr}m{}\x1b[0m", cell.text);
        }
        None => out.push_str(&cell.text),
    }
}

/// Names come from manifests: nothing in them may move the cursor or break a line.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new(["NAME", "BYTES", "WAY"]);
        table.row(["a".into(), Cell::number(7), "direct".into()]);
        table.row(["größer".into(), Cell::number(12_345), "".into()]);
        table.row(["c".into()]);
        assert_eq!(
            table.render(false, "none"),
            "NAME     BYTES   WAY\n\
             a            7   direct\n\
             größer   12345\n\
             c\n"
        );
    }

    #[test]
    fn facts_need_no_heading() {
        let mut table = Table::new([]);
        table.row(["way".into(), "agent".into()]);
        table.row(["action".into(), "route".into()]);
        assert_eq!(table.render(false, ""), "way      agent\naction   route\n");
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(
            Table::new(["NAME"]).render(false, "no services"),
            "no services\n"
        );
    }

    #[test]
    fn colour_changes_no_alignment() {
        let mut table = Table::new(["STATE", "WHY"]);
        table.row([Cell::new("ok").tone(Tone::Good), "fine".into()]);
        assert_eq!(
            table.render(true, ""),
            "STATE   WHY\n\x1b[32mok\x1b[0m      fine\n"
        );
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        let mut table = Table::new(["NAME"]);
        table.row([Cell::new("a\x1b[2Jb\nc")]);
        assert_eq!(table.render(true, ""), "NAME\na\u{fffd}[2Jb\u{fffd}c\n");
    }
}
