//! `cargo xtask bench` and `cargo xtask loadtest`: servers of their own, and the program that measures on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::account::Account;
use crate::assembly::{CONTROL_PLANE, STORES, during};
use crate::binaries::{self, Executable, cargo};
use crate::cache::Cache;
use crate::checkout;
use crate::execution::Execution;
use crate::ports::Ports;
use crate::progress::Progress;
use crate::servers::{Name, Postgres, Valkey};
use crate::state::State;
use crate::supervision;
use crate::system::{System, Wish};
use crate::tools::{Search, Tool};

/// A state of its own: what is measured shares no data with what somebody uses.
const FOLDER: &str = "target/bench-state";

/// Where the results of full runs are kept, in the checkout.
const RESULTS: &str = "loadtest/results";

/// Optimised, as they ship; the operator is on no event's path.
const BUILD: [&str; 10] = [
    "build",
    "--release",
    "--package",
    "flagmeter-api",
    "--package",
    "flagmeter-worker",
    "--package",
    "flagmeter",
    "--package",
    "loadtest",
];

/// The operator, and what measures it.
const BUILD_TENANTS: [&str; 7] =
    ["build", "--release", "--package", "flagmeter-operator", "--bins", "--bench", "tenants"];

/// How long the schema may take.
const MIGRATE_LIMIT: Duration = Duration::from_mins(2);

/// How long all measurements may take.
const MEASURE_LIMIT: Duration = Duration::from_hours(1);

#[derive(Args)]
pub(crate) struct Options {
    /// Few short runs, which find gross regressions only; results stay out of the checkout.
    #[arg(long)]
    quick: bool,
}

#[derive(Args)]
pub(crate) struct BenchOptions {
    #[command(flatten)]
    options: Options,
    /// Measure this alone: requests, counting, ledger or latency, whose results stay out of the checkout, or tenants:
    /// the operator with 2,000 Tenants applied at once, which is no part of the whole.
    #[arg(long, conflicts_with = "readme")]
    only: Option<String>,
    /// Measure nothing: write README.md's tables from the newest full results.
    #[arg(long, conflicts_with = "quick")]
    readme: bool,
}

/// The ratios to the baselines.
pub(crate) fn bench(options: &BenchOptions) -> Result<ExitCode> {
    if options.readme {
        let program = cargo(&["run", "--quiet", "--package", "loadtest", "--"]);
        return write_readme(program).map(|()| ExitCode::SUCCESS);
    }
    if options.only.as_deref() == Some("tenants") {
        return on_own_servers(|state, progress| tenants(state, options.options.quick, progress));
    }
    let only: Vec<&str> = options.only.iter().flat_map(|only| ["--only", only]).collect();
    measured("bench", options.options.quick, &only)
}

/// The ratios, in a few short rounds.
pub(crate) fn quick_bench() -> Result<ExitCode> {
    measure("bench", true, &[])
}

/// The prototype's profile, constant rates, and saturation.
pub(crate) fn loadtest(options: &Options) -> Result<ExitCode> {
    measured("profile", options.quick, &[])
}

/// Measures, and where that was all of it, writes README.md's tables.
fn measured(what: &str, quick: bool, arguments: &[&str]) -> Result<ExitCode> {
    let code = measure(what, quick, arguments)?;
    if is_whole(quick, arguments) {
        // In the same profile as was measured: it is built.
        write_readme(cargo(&["run", "--quiet", "--release", "--package", "loadtest", "--"]))?;
    }
    Ok(code)
}

fn write_readme(mut program: Command) -> Result<()> {
    program.arg("readme").arg("--readme").arg(checkout::path("README.md"));
    program.arg("--results").arg(checkout::path(RESULTS));
    Execution::new(program, MEASURE_LIMIT).run().map(drop)
}

/// Whether all is measured, at full length: only such results are kept in the checkout.
fn is_whole(quick: bool, arguments: &[&str]) -> bool {
    !quick && arguments.is_empty()
}

fn measure(what: &str, quick: bool, arguments: &[&str]) -> Result<ExitCode> {
    on_own_servers(|state, progress| on_stores(state, what, quick, arguments, progress))
}

fn on_own_servers(work: impl FnOnce(&mut State, &Progress) -> Result<ExitCode>) -> Result<ExitCode> {
    let progress = Progress::new();
    let state = State::at(Path::new(FOLDER));
    let Some(_lock) = state.lock()? else { bail!("something is measured already in this checkout") };
    supervision::stop_all(&state, &progress);
    state.clear()?;
    let mut state = State::at(Path::new(FOLDER));
    let outcome = work(&mut state, &progress);
    supervision::stop_all(&state, &progress);
    state.registry().remove(crate::registry::SUPERVISOR);
    // Gigabytes that nobody needs; what stays is removed by the next run.
    for name in ["postgres", "valkey", "etcd"] {
        let _ = fs::remove_dir_all(state.data(name));
    }
    if !matches!(outcome, Ok(ExitCode::SUCCESS)) {
        note!("the logs are in {}", state.logs().display());
    }
    outcome
}

/// The operator with many Tenants, on a real API server.
fn tenants(state: &mut State, quick: bool, progress: &Progress) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let account = Account::choose()?;
    state.create(&account, &cache, progress)?;
    supervision::take_over(state)?;
    let search = Search::new(&cache, &Tool::SYSTEM)?;
    let servers: Vec<Name> = [Name::Postgres].into_iter().chain(CONTROL_PLANE).collect();
    progress.expect(search.steps() + 1 + servers.len());
    let tools = search.fetch(progress)?;
    let step = progress.step("the operator (cargo build --release)");
    let executables = binaries::build(&BUILD_TENANTS, &step)?;
    step.done("");
    let wish = Wish { ports: Ports::out_of_the_way(), api_port: None, durable: true };
    let system = System::prepare(state.clone(), account, &wish, tools, progress)?;
    system.start_all(&servers, progress)?;

    let found = executables.iter().find(|executable| executable.kind == "bench");
    let mut benchmark = Command::new(&found.context("cargo did not build the benchmark")?.path);
    if quick {
        benchmark.args(["--tenants", "200", "--edits", "50", "--resync-seconds", "10"]);
    }
    let results = if quick { state.folder().join("results") } else { checkout::path(RESULTS) };
    benchmark.arg("--results").arg(results);
    benchmark.env("DATABASE_URL", Postgres::superuser_url(&system.settings));
    benchmark.env("KUBECONFIG", state.kubeconfig());
    let watch = || system.check_all(&servers);
    let finished =
        Execution::new(benchmark, MEASURE_LIMIT).on_line(&|line| say!("{line}")).watched(&watch).finish()?;
    Ok(if finished.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn on_stores(
    state: &mut State,
    what: &str,
    quick: bool,
    arguments: &[&str],
    progress: &Progress,
) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let account = Account::choose()?;
    state.create(&account, &cache, progress)?;
    supervision::take_over(state)?;
    let search = Search::new(&cache, &[Tool::Postgres, Tool::Valkey])?;
    progress.expect(search.steps() + 2 + STORES.len());
    let tools = search.fetch(progress)?;
    let step = progress.step("FlagMeter's own programs (cargo build --release)");
    let executables = binaries::build(&BUILD, &step)?;
    step.done("");
    // What waits for the disk in production waits for it here.
    let wish = Wish { ports: Ports::out_of_the_way(), api_port: None, durable: true };
    let system = System::prepare(state.clone(), account, &wish, tools, progress)?;
    system.start_all(&STORES, progress)?;
    let database =
        Postgres::url(&system.settings, "flagmeter", &system.settings.secrets.flagmeter, "flagmeter");
    during(progress.step("schema (flagmeter migrate)"), |_| {
        let mut migrate = Command::new(program(&executables, "flagmeter")?);
        migrate.arg("migrate").env("DATABASE_URL", &database);
        Execution::new(migrate, MIGRATE_LIMIT).run().map(|_| "")
    })?;
    // What fills tables has them written to disk before it measures.
    Postgres::execute(&system, "postgres", "GRANT pg_checkpoint TO flagmeter;")?;

    let results =
        if is_whole(quick, arguments) { checkout::path(RESULTS) } else { state.folder().join("results") };
    let mut loadtest = Command::new(program(&executables, "loadtest")?);
    loadtest.arg(what).args(quick.then_some("--quick")).args(arguments);
    for (flag, name) in [("--postgres-pid", Name::Postgres), ("--valkey-pid", Name::Valkey)] {
        let entry = system.state.registry().running(name.as_str());
        let entry = entry.with_context(|| format!("{} does not run", name.as_str()))?;
        loadtest.arg(flag).arg(entry.pid.to_string());
    }
    loadtest.arg("--logs").arg(state.logs()).arg("--results").arg(results);
    loadtest.env("DATABASE_URL", &database).env("VALKEY_URL", Valkey::url(&system.settings));
    let watch = || system.check_all(&STORES);
    let finished =
        Execution::new(loadtest, MEASURE_LIMIT).on_line(&|line| say!("{line}")).watched(&watch).finish()?;
    Ok(if finished.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn program(executables: &[Executable], name: &str) -> Result<PathBuf> {
    let found = executables.iter().find(|executable| executable.kind == "bin" && executable.name == name);
    found.map(|executable| executable.path.clone()).with_context(|| format!("cargo did not build {name}"))
}
