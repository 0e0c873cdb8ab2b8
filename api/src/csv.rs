//! Tables as CSV (RFC 4180), made so that no cell is a formula to a spreadsheet.

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

    /// A spreadsheet takes a cell that begins with one of these characters for a formula, also inside quotes.
    /// An apostrophe before it makes it text (OWASP, "CSV injection").
    fn text(&mut self, text: &str) {
        let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
        if !formula && !text.contains(['"', ',', '\r', '\n']) {
            return self.0.push_str(text);
        }
        self.0.push('"');
        if formula {
            self.0.push('\'');
        }
        self.0.push_str(&text.replace('"', "\"\""));
        self.0.push('"');
    }
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
        ];
        for (text, expected) in cases {
            let mut table = Table::new(["name", "tokens"]);
            table.row([Cell::Text(text), Cell::Number(-7)]);
            assert_eq!(table.0, format!("name,tokens\r\n{expected},-7\r\n"), "{text}");
        }
    }
}
