//! What commands print: a table for people, JSON for programs.
//!
//! Enters: rows, and texts out of manifests and clusters, which anybody may have written. Leaves: lines that do no more to
//! a terminal than show themselves.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

/// Prints a result as JSON on standard output.
///
/// # Errors
/// Standard output is closed.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    text_out(&text)
}

/// Prints lines on standard output.
///
/// # Errors
/// Standard output is closed.
pub fn text_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Columns of which each is as wide as its widest cell.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
enum Row {
    Cells(Vec<String>),
    /// Text below a row, wrapped and indented.
    Note(String),
}

/// Where a note begins, and where its lines end.
const INDENT: &str = "    ";
const WIDTH: usize = 112;

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![Row::Cells(head.iter().map(|cell| (*cell).to_owned()).collect())] }
    }

    pub fn row(&mut self, cells: &[&str]) {
        self.rows.push(Row::Cells(cells.iter().map(|cell| plain(cell)).collect()));
    }

    pub fn note(&mut self, text: &str) {
        self.rows.push(Row::Note(plain(text)));
    }

    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            let Row::Cells(cells) = row else { continue };
            for (column, cell) in cells.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(column) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            match row {
                Row::Cells(cells) => {
                    let mut line = String::new();
                    for (cell, width) in cells.iter().zip(&widths) {
                        let _ = write!(line, "{cell:<width$}   ");
                    }
                    text.push_str(line.trim_end());
                    text.push('\n');
                }
                Row::Note(note) => text.push_str(&wrapped(note)),
            }
        }
        text
    }
}

/// A text as indented lines of readable length.
pub fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH - INDENT.len() {
            let _ = writeln!(lines, "{INDENT}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(lines, "{INDENT}{line}");
    }
    lines
}

/// Without characters that a terminal obeys, or that change the order of what is read.
pub fn plain(text: &str) -> String {
    let obeyed = |character: char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if obeyed(character) { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_notes_wrapped() {
        let mut table = Table::new(&["KIND", "NAME"]);
        table.row(&["Pod", "a"]);
        table.row(&["Deployment", "b"]);
        table.note(&"word ".repeat(30));
        let text = table.render();
        assert!(text.starts_with("KIND         NAME\nPod          a\nDeployment   b\n    word word"), "{text}");
        assert!(text.lines().all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn a_terminal_obeys_nothing_that_a_manifest_says() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c\n"), "a [2Jb c ");
    }
}
