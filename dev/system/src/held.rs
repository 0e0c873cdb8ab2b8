//! What is done and not ended in PostgreSQL while a test looks at what waits for it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

/// A transaction that is open until this is dropped; then it is undone.
pub struct Held {
    psql: Child,
    /// PostgreSQL's process that has it: what is waited for by whoever waits.
    pub backend: u32,
}

impl Held {
    /// Runs `statement` in a transaction of the psql that `command` starts.
    pub(crate) fn start(mut command: Command, statement: &str) -> Self {
        let mut psql = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = psql.stdin.as_mut().unwrap();
        write!(input, "BEGIN;\n{statement};\nSELECT pg_backend_pid();\n").unwrap();
        let line = BufReader::new(psql.stdout.take().unwrap()).lines().next();
        let backend = line.unwrap_or_else(|| panic!("failed: {statement}")).unwrap().parse().unwrap();
        Self { psql, backend }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // At the end of its input psql goes, and the transaction with it.
        drop(self.psql.stdin.take());
        let _ = self.psql.wait();
    }
}
