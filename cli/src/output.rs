//! What is printed, for a reader who may have gone: `flagmeter tenants list | head` is no failure.
//!
//! Everything goes through here: `print!` and `println!` panic when nobody reads any more. What a command does is done
//! all the same, and its exit code is that of what it did.

use std::io::{self, ErrorKind, Write};

use anyhow::Context as _;
use serde::Serialize;

/// How a command prints what it has to tell.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Form {
    /// Print JSON instead of text
    ///
    /// One document, whose fields are named in camelCase. Fields may be added; programs ignore those that they do not
    /// know.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints `text`.
///
/// # Errors
///
/// It could not be written, for another reason than that nobody reads it.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write(&mut io::stdout().lock(), text).context("failed to write to standard output")
}

/// Prints `value` as JSON.
///
/// # Errors
///
/// As [`print`].
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Tells the person something beside what is printed. There is nobody to be told if it cannot be written.
pub(crate) fn note(text: &str) {
    let _ = write(&mut io::stderr().lock(), text);
}

fn write(to: &mut impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Lines of columns that are as wide as what is in them, with two spaces between. The last column is not filled up.
pub(crate) fn columns<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let header = header.map(str::to_owned);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(&header).chain(rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that nobody reads, or another fault.
    struct Faulty(ErrorKind);

    impl Write for Faulty {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_who_reads_is_no_fault_and_a_full_disk_is_one() {
        assert!(write(&mut Faulty(ErrorKind::BrokenPipe), "x").is_ok());
        assert_eq!(
            write(&mut Faulty(ErrorKind::StorageFull), "x").unwrap_err().kind(),
            ErrorKind::StorageFull
        );
    }

    #[test]
    fn a_column_is_as_wide_as_what_is_in_it() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text =
            columns(["ID", "NAMESPACE", "STATE"], &[row(["acme-corp", "shop", ""]), row(["ü", "b", "c d"])]);
        assert_eq!(text, "ID         NAMESPACE  STATE\nacme-corp  shop\nü          b          c d\n");
    }
}
