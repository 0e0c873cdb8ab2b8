//! Test programs, built once with one set of features, then run layer by layer.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::ground::Ground;
use super::report::Tally;
use super::workspace::{Package, Workspace};
use super::{Layer, fuzz, lint};
use crate::binaries::{self, Executable, cargo};
use crate::checkout;
use crate::execution::{Execution, Finished};
use crate::machine;
use crate::progress::Progress;
use crate::tools::time_zones;

/// How long one test program may run. Each test has its own, shorter, deadlines.
const LIMIT: Duration = Duration::from_mins(20);

/// Programs and tests in one go, so that every dependency is compiled once. xtask is apart: it is running,
/// and its few dependencies are compiled already, for itself.
const BUILDS: [&[&str]; 2] = [
    &["build", "--workspace", "--bins", "--tests", "--exclude", "xtask"],
    &["test", "--package", "xtask", "--no-run"],
];

/// All that was built, and where it belongs.
pub(crate) struct Suites {
    workspace: Workspace,
    pub(crate) executables: Vec<Executable>,
}

impl Suites {
    pub(crate) fn build(progress: &Progress) -> Result<Self> {
        let workspace = Workspace::read()?;
        let homeless =
            |package: &&Package| Layer::ALL.iter().all(|layer| !layer.packages().contains(&&*package.name));
        if let Some(package) = workspace.packages.iter().find(homeless) {
            bail!("the package {} belongs to no layer of `cargo xtask test`", package.name);
        }
        progress.expect(1);
        let step = progress.step("programs and tests (cargo build)");
        let mut executables = Vec::new();
        for arguments in BUILDS {
            executables.extend(binaries::build(arguments, &step)?);
        }
        step.done("");
        Ok(Self { workspace, executables })
    }

    /// Runs the tests of a layer's packages, in the order in which the layer names them; with `only`, those whose
    /// name contains it.
    pub(crate) fn run(
        &self,
        layer: Layer,
        only: Option<&str>,
        ground: &Ground<'_>,
        progress: &Progress,
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        for name in layer.packages() {
            let tests = self.executables.iter().filter_map(|executable| {
                let package = self.workspace.package(&executable.package)?;
                (executable.is_test && package.name == *name).then_some((package, executable))
            });
            let mut tests: Vec<_> = tests.collect();
            if tests.is_empty() {
                bail!("there are no tests of {name}, which the layer {} is about", layer.name());
            }
            tests.sort_by_key(|(_, executable)| (executable.kind.clone(), executable.name.clone()));
            for (package, executable) in tests {
                let mut command = Command::new(&executable.path);
                command.arg(format!("--test-threads={}", layer.threads())).args(only);
                tell(&mut command, package, ground)?;
                let title = format!("{name} ({} {})", executable.kind, executable.name);
                tally += run(command, &title, progress)?;
            }
        }
        if layer == Layer::Rules && only.is_none() {
            let mut examples =
                cargo(&["test", "--workspace", "--exclude", "xtask", "--doc", "--no-fail-fast"]);
            examples.env("RUSTDOCFLAGS", "");
            tally += run(examples, "examples in the documentation", progress)?;
            tally += lint::one("billing periods, as another program finds them", progress, |note| {
                let mut vectors = Command::new(checkout::path("dev/billing-vectors"));
                vectors.env("PYTHONTZPATH", time_zones::provide(ground.cache(), progress)?);
                lint::run(vectors, note)
            });
            tally += fuzz::run(progress);
        }
        Ok(tally)
    }
}

fn tell(command: &mut Command, package: &Package, ground: &Ground<'_>) -> Result<()> {
    command
        .current_dir(package.folder())
        .env("CARGO_MANIFEST_DIR", package.folder())
        .env_remove("DATABASE_URL");
    ground.tell(command)
}

/// Runs one program and prints how it went: a line if it went well, all it said if not.
fn run(command: Command, title: &str, progress: &Progress) -> Result<Tally> {
    let started = Instant::now();
    let step = progress.silent(title);
    let finished = Execution::new(command, LIMIT).on_line(&|line| step.note(line)).finish();
    step.done("");
    let seconds = started.elapsed().as_secs_f32();
    let Finished { status, lines, .. } = match finished {
        Ok(finished) => finished,
        Err(error) => {
            crate::interrupt::check()?;
            say!("  FAILED  {title} ({seconds:.1} s)\n{error:#}\n");
            return Ok(Tally::FAILED);
        }
    };
    let said = Tally::of_output(lines.iter().map(String::as_str));
    let mut tally = said.unwrap_or_default();
    if !status.success() && tally.failed == 0 {
        // It died before it could count, or could not even begin.
        tally.failed = 1;
    }
    if tally.failed > 0 {
        say!(
            "  FAILED  {title}: {} of {} ({seconds:.1} s, {status})",
            tally.failed,
            tally.passed + tally.failed
        );
        say!("{}\n", lines.join("\n"));
    } else if tally.passed + tally.skipped > 0 {
        say!("  ok      {title}: {} passed ({seconds:.1} s)", tally.passed);
    }
    Ok(tally)
}

impl Layer {
    /// How many tests run at once. Those of one system or one cluster restart its parts, so one.
    fn threads(self) -> usize {
        match self {
            Self::System => 1,
            _ => machine::cores().clamp(2, 8),
        }
    }
}
