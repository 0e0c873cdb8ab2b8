//! Some seconds of fuzzing, where there is a compiler that can link a fuzzer: a nightly one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::lint;
use super::report::Tally;
use crate::binaries;
use crate::checkout;
use crate::execution::Execution;
use crate::progress::Progress;

/// How long each target is fuzzed. Whoever wants more has cargo-fuzz.
const SECONDS: u32 = 10;

/// How long it may take to ask a compiler something.
const LIMIT: Duration = Duration::from_mins(1);

/// What makes a program one that can be fuzzed; cargo-fuzz sets the same.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Cdebug-assertions";

/// Fuzzes each target in `fuzz/`. The build, which is kept, and each target count as one.
pub(super) fn run(progress: &Progress) -> Tally {
    let Some(nightly) = nightly() else {
        say!("  skipped fuzzing: no nightly compiler: not fuzzed");
        return Tally::default();
    };
    let mut built = None;
    let mut tally = lint::one("fuzz targets (nightly compiler)", progress, |note| {
        built = Some(build(&nightly, note)?);
        Ok(())
    });
    for (name, program) in built.unwrap_or_default() {
        tally += lint::one(&format!("fuzz target {name}"), progress, |note| {
            let corpus = folder().join("corpus").join(&name);
            fs::create_dir_all(&corpus)?;
            let mut fuzzer = Command::new(program);
            fuzzer.arg(format!("-max_total_time={SECONDS}")).arg("-print_final_stats=1");
            fuzzer.arg(format!("-artifact_prefix={}/{name}-", folder().display())).arg(corpus);
            lint::run(fuzzer, note)
        });
    }
    tally
}

/// A nightly compiler's name, if rustup has one.
fn nightly() -> Option<String> {
    let mut list = Command::new("rustup");
    list.args(["toolchain", "list"]);
    let list = Execution::new(list, LIMIT).run().ok()?;
    let mut names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.find(|name| name.starts_with("nightly")).map(str::to_owned)
}

/// Builds the targets, and returns their names and programs.
fn build(nightly: &str, note: &dyn Fn(&str)) -> Result<Vec<(String, PathBuf)>> {
    let host = binaries::tool_of(nightly, "rustc", &["--print", "host-tuple"]);
    let host = Execution::new(host, LIMIT).run()?;
    let host = host.trim();
    // With a target named, the flags are not for build scripts, which nobody fuzzes.
    let arguments =
        ["build", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", host];
    let mut cargo = binaries::tool_of(nightly, "cargo", &arguments);
    cargo.arg("--target-dir").arg(folder()).env("RUSTFLAGS", FLAGS);
    lint::run(cargo, note)?;
    let sources = checkout::path("fuzz/fuzz_targets");
    let sources = fs::read_dir(&sources).with_context(|| format!("failed to read {}", sources.display()))?;
    let mut targets = Vec::new();
    for source in sources {
        let path = source?.path();
        let name = path.file_stem().context("a target has no name")?.to_string_lossy().into_owned();
        targets.push((name.clone(), folder().join(host).join("release").join(name)));
    }
    targets.sort();
    Ok(targets)
}

/// Where builds, what was found interesting, and what failed are kept.
fn folder() -> PathBuf {
    checkout::path("target/fuzz")
}
