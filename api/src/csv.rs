//! Tables as CSV (RFC 4180), made so that no cell is a formula to a spreadsheet.

use std::borrow::Cow;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// A table whose first row names its columns.
pub(crate) struct Table(String);

/// A cell.
pub(crate) enum Cell<'a> {
    /// Text, whoever chose it.
    Text(&'a str),
    /// A number.
    Number(i128),
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<const COLUMNS: usize>(names: [&str; COLUMNS]) -> Self {
        let mut table = Self(String::new());
        table.row(names.map(Cell::Text));
        table
    }

    /// Adds a row.
    pub(crate) fn row<const COLUMNS: usize>(&mut self, cells: [Cell<'_>; COLUMNS]) {
        for (column, cell) in cells.into_iter().enumerate() {
            if column > 0 {
                self.0.push(',');
            }
            match cell {
                Cell::Number(number) => self.0.push_str(&number.to_string()),
                Cell::Text(text) => self.text(text),
            }
        }
        self.0.push_str("\r\n");
    }

    /// Writes `text` so that no spreadsheet takes any of it for a formula, in whatever way it splits the line.
    fn text(&mut self, text: &str) {
        let guarded = guarded(text);
        if guarded == text && !text.contains(['"', ',', ';', '\t', '\r', '\n']) {
            return self.0.push_str(text);
        }
        self.0.push('"');
        self.0.push_str(&guarded.replace('"', "\"\""));
        self.0.push('"');
    }
}

/// `text` with an apostrophe before everything that a spreadsheet might take for a formula: a cell that begins with one of
/// `=`, `+`, `-`, `@`, also inside quotes (OWASP, "CSV injection").
///
/// Where commas are decimal points, spreadsheets split lines at semicolons, and some do at tabs. To them quotes in the
/// middle of a cell are no quotes, so that what comes after such a character, or in a new line, begins a cell too.
fn guarded(text: &str) -> Cow<'_, str> {
    let mut guarded = String::new();
    let mut rest = text;
    let mut begins = true;
    while let Some(first) = rest.chars().next() {
        // Quotes and spaces before it are skipped by some.
        if begins && rest.trim_start_matches(['"', ' ']).starts_with(['=', '+', '-', '@']) {
            guarded.push('\'');
        }
        // At the beginning, a tab and a line break are skipped by some as well.
        if begins && rest.len() == text.len() && matches!(first, '\t' | '\r' | '\n') {
            guarded.push('\'');
        }
        guarded.push(first);
        begins = matches!(first, ';' | '\t' | '\r' | '\n');
        rest = &rest[first.len_utf8()..];
    }
    if guarded.len() == text.len() { text.into() } else { guarded.into() }
}

impl IntoResponse for Table {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_is_never_a_formula() {
        let cases = [
            ("gpt-4 turbo", "gpt-4 turbo"),
            ("", ""),
            ("a,b", r#""a,b""#),
            (r#"say "hi""#, r#""say ""hi""""#),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("=1+1", r#""'=1+1""#),
            ("+1", r#""'+1""#),
            ("-1", r#""'-1""#),
            ("@SUM(A1)", r#""'@SUM(A1)""#),
            (r#"=HYPERLINK("http://a.test","b")"#, r#""'=HYPERLINK(""http://a.test"",""b"")""#),
            ("a=1", "a=1"),
            ("a;=1+1", r#""a;'=1+1""#),
            ("a;+1", r#""a;'+1""#),
            ("a;-1", r#""a;'-1""#),
            ("a;@SUM(A1)", r#""a;'@SUM(A1)""#),
            ("a\t=1+1", "\"a\t'=1+1\""),
            ("a\n=1+1", "\"a\n'=1+1\""),
            (r#"a;"=1+1""#, r#""a;'""=1+1""""#),
            ("a; =1", r#""a;' =1""#),
            (";;=1", r#"";;'=1""#),
            ("=a;=b", r#""'=a;'=b""#),
            (" =1", r#""' =1""#),
            ("a;b", r#""a;b""#),
            ("a;b=1-2", r#""a;b=1-2""#),
            ("gpt-4", "gpt-4"),
        ];
        for (text, expected) in cases {
            let mut table = Table::new(["name", "tokens"]);
            table.row([Cell::Text(text), Cell::Number(-7)]);
            assert_eq!(table.0, format!("name,tokens\r\n{expected},-7\r\n"), "{text}");
        }
    }
}
