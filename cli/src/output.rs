//! What is printed, for a reader who may have gone: `flagmeter crd | head` is no failure.

use std::io::{self, ErrorKind, Write as _};

/// Prints `text`.
///
/// # Errors
///
/// It could not be written, for another reason than that nobody reads it any more.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
