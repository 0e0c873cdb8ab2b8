//! The programs that the tests run, and what they answer.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

/// A program, by the environment variable that says where it is.
#[derive(Debug, Clone, Copy)]
pub enum Tool {
    /// helm, from `FLAGMETER_HELM`.
    Helm,
    /// kubectl, from `FLAGMETER_KUBECTL`; it talks to the server of `KUBECONFIG`.
    Kubectl,
}

/// How a program ended.
#[derive(Debug)]
pub struct Answer {
    /// Whether it ended with 0.
    pub succeeded: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Tool {
    /// Runs the program with `input` on its standard input, and waits for its end.
    ///
    /// # Panics
    ///
    /// If its variable is not set, or it cannot be started.
    #[must_use]
    pub fn run(self, arguments: &[&str], input: &str) -> Answer {
        let program = self.program();
        let failed = |error| panic!("failed to run {}: {error}", program.display());
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(failed);
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends before it has read everything says why on its standard error.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("failed to wait: {error}"));
        Answer {
            succeeded: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn program(self) -> OsString {
        match self {
            Self::Helm => variable("FLAGMETER_HELM", "the helm binary"),
            Self::Kubectl => {
                variable("KUBECONFIG", "the kubeconfig of the API server to test on");
                variable("FLAGMETER_KUBECTL", "the kubectl binary")
            }
        }
    }
}

impl Answer {
    /// The output of a program that succeeded.
    ///
    /// # Panics
    ///
    /// With what the program complained about, if it failed.
    #[must_use]
    pub fn expect_success(self, what: &str) -> String {
        assert!(self.succeeded, "failed to {what}:\n{}{}", self.stderr, self.stdout);
        self.stdout
    }

    /// The complaint of a program that failed.
    ///
    /// # Panics
    ///
    /// If the program succeeded.
    #[must_use]
    pub fn expect_refusal(self, what: &str) -> String {
        assert!(!self.succeeded, "it was possible to {what}:\n{}", self.stdout);
        self.stderr
    }
}

fn variable(name: &str, meaning: &str) -> OsString {
    env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set; it names {meaning}. `cargo xtask test chart` sets it."))
}
