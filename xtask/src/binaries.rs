//! FlagMeter's own programs: built by cargo, then linked into the state, where the process node runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::checkout;
use crate::execution::Execution;
use crate::progress::Step;
use crate::state::State;

/// How long a build may take, with nothing compiled yet and all to be downloaded.
const BUILD_LIMIT: Duration = Duration::from_hours(1);

/// Something that cargo built and that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Executable {
    /// The id of its package, as in `cargo metadata`.
    pub(crate) package: String,
    /// `lib`, `bin` or `test`.
    pub(crate) kind: String,
    /// The target's name.
    pub(crate) name: String,
    /// Whether it is a test harness.
    pub(crate) is_test: bool,
    pub(crate) path: PathBuf,
}

/// cargo in this checkout, with queries checked against .sqlx instead of some database.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    in_checkout(Command::new("cargo"), arguments)
}

/// A program of another toolchain, by the name that rustup has for it.
pub(crate) fn tool_of(toolchain: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, program]);
    in_checkout(command, arguments)
}

fn in_checkout(mut command: Command, arguments: &[&str]) -> Command {
    command
        .current_dir(checkout::root())
        .args(arguments)
        .env("SQLX_OFFLINE", "true")
        .env_remove("DATABASE_URL");
    // `cargo run` told xtask about xtask; another cargo would pass that on to build scripts.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(variable);
    }
    if checkout::variable("CI").is_some() {
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Builds what `arguments` say and returns what can be run.
pub(crate) fn build(arguments: &[&str], step: &Step<'_>) -> Result<Vec<Executable>> {
    let mut command = cargo(arguments);
    command.arg("--message-format=json-render-diagnostics");
    let note = |line: &str| {
        if !line.starts_with('{') {
            step.note(line);
        }
    };
    let finished = Execution::new(command, BUILD_LIMIT).on_line(&note).finish()?;
    if !finished.status.success() {
        let noise = |line: &&str| line.starts_with('{') || line.trim_start().starts_with("Compiling");
        let said: Vec<&str> = finished.lines.iter().map(String::as_str).filter(|line| !noise(line)).collect();
        bail!("cargo {} failed:\n{}", arguments.join(" "), said.join("\n"));
    }
    Ok(finished.stdout.lines().filter_map(executable).collect())
}

fn executable(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message.get("executable")?.as_str()?;
    let target = message.get("target")?;
    Some(Executable {
        package: message.get("package_id")?.as_str()?.to_owned(),
        kind: target.get("kind")?.get(0)?.as_str()?.to_owned(),
        name: target.get("name")?.as_str()?.to_owned(),
        is_test: message.get("profile")?.get("test")?.as_bool()?,
        path: path.into(),
    })
}

/// Puts the programs into the state: a rebuild then disturbs nothing that runs.
pub(crate) fn install(executables: &[Executable], state: &State) -> Result<()> {
    for executable in executables.iter().filter(|executable| executable.kind == "bin" && !executable.is_test)
    {
        let target = state.data("bin").join(&executable.name);
        place(&executable.path, &target)
            .with_context(|| format!("failed to put {} in its place", executable.name))?;
    }
    Ok(())
}

/// A second name for the file, or a copy where that is not possible.
fn place(source: &Path, target: &Path) -> std::io::Result<()> {
    let draft = target.with_added_extension("new");
    let _ = fs::remove_file(&draft);
    fs::hard_link(source, &draft).or_else(|_| fs::copy(source, &draft).map(drop))?;
    fs::rename(&draft, target)?;
    // Two names of one file are left as they are by a rename.
    let _ = fs::remove_file(&draft);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_run_is_read_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///x/api#flagmeter-api@0.1.0",
            "target":{"kind":["bin"],"name":"flagmeter-api"},"profile":{"test":false},"executable":"/t/flagmeter-api"}"#;
        let found = executable(line).unwrap();
        assert_eq!((found.name.as_str(), found.is_test), ("flagmeter-api", false));
        assert!(executable(&line.replace("\"/t/flagmeter-api\"", "null")).is_none());
        assert!(executable(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
