//! What is printed, for a reader who may have gone: `cargo xtask status | head` is no failure.
//!
//! Everything goes through [`say!`] and [`note!`]: `println!` panics when nobody reads any more. A command whose reader
//! has gone ends in order, as after Ctrl-C, and says nothing about it.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::interrupt;

/// The exit code of a command that ended because nobody read: that of SIGPIPE to a shell.
pub(crate) const NOT_READ: u8 = 141;

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Prints a line.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::write_line(format_args!($($text)*)) };
}

/// Writes a line to standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::write_note(format_args!($($text)*)) };
}

pub(crate) fn write_line(text: Arguments<'_>) {
    if is_gone(&mut std::io::stdout().lock(), text) {
        CLOSED.store(true, Ordering::Relaxed);
        interrupt::request();
    }
}

pub(crate) fn write_note(text: Arguments<'_>) {
    // There is nobody to be told if it cannot be written.
    let _ = is_gone(&mut std::io::stderr().lock(), text);
}

/// Whether nobody reads what is printed.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Writes a line, and answers whether its reader has gone.
fn is_gone(to: &mut impl Write, text: Arguments<'_>) -> bool {
    let written = writeln!(to, "{text}").and_then(|()| to.flush());
    written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    struct Pipe(Option<ErrorKind>, Vec<u8>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.map_or_else(|| self.1.write(bytes), |fault| Err(fault.into()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_has_gone_is_noticed_and_nothing_else_is_taken_for_it() {
        let mut read = Pipe(None, Vec::new());
        assert!(!is_gone(&mut read, format_args!("a {}", "line")));
        assert_eq!(read.1, b"a line\n");
        assert!(is_gone(&mut Pipe(Some(ErrorKind::BrokenPipe), Vec::new()), format_args!("x")));
        assert!(!is_gone(&mut Pipe(Some(ErrorKind::StorageFull), Vec::new()), format_args!("x")));
    }
}
