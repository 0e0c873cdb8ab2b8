//! `cargo xtask up`: the whole system, from nothing to counted sample events.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use crate::account::Account;
use crate::assembly::{self, CONTROL_PLANE, RELEASE_STEPS, STORES};
use crate::binaries::{self, Executable};
use crate::cache::Cache;
use crate::environment::Environment;
use crate::machine;
use crate::ports::{self, Ports};
use crate::progress::Progress;
use crate::registry::{Entry, SUPERVISOR};
use crate::samples;
use crate::sink;
use crate::state::State;
use crate::supervision;
use crate::system::{System, Wish};
use crate::tools::{Search, Tool, Tools};
use crate::waiting::wait_for;

/// How long the background process may take to take over.
const HANDOVER_LIMIT: Duration = Duration::from_secs(20);

/// Every program that ships or runs what ships; xtask itself is running.
const BUILD: [&str; 5] = ["build", "--workspace", "--bins", "--exclude", "xtask"];

#[derive(Args)]
pub(crate) struct Options {
    /// Return once everything works; a process in the background keeps watch.
    #[arg(long)]
    detach: bool,
    /// Take alerts in Slack's place, and print them: those of the sample tenant acme-corp are sent there.
    ///
    /// With --detach they are in logs/slack-sink.log.
    #[arg(long)]
    slack_sink: bool,
    /// Forget the data of earlier runs.
    #[arg(long)]
    fresh: bool,
    /// Port of the API and the dashboard [default: that of the last run, else 3000].
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
}

pub(crate) fn run(folder: &Path, options: &Options) -> Result<ExitCode> {
    let progress = Progress::new();
    let mut state = State::at(folder);
    let Some(_lock) = state.lock()? else { return running_already(&state) };
    if state.registry().running(SUPERVISOR).is_some() {
        return running_already(&state);
    }
    if supervision::stop_all(&state, &progress) > 0 {
        progress.say("an earlier system had been left running; it is stopped now");
    }
    if options.fresh {
        state.clear()?;
        state = State::at(folder);
    }
    let _ = fs::remove_file(state.ended());
    // Whoever finds it would take this system for ready.
    let _ = fs::remove_file(state.env_json());

    let outcome = bring_up(&mut state, options, &progress).and_then(|(system, environment)| {
        announce(&state, &environment, options.detach);
        progress.say(&format!("up after {} s", progress.elapsed().as_secs()));
        if options.detach { hand_over(&state) } else { supervision::watch(&system) }
    });
    match outcome {
        Ok(()) if options.detach => Ok(ExitCode::SUCCESS),
        outcome => supervision::end(&state, &progress, outcome),
    }
}

fn bring_up(state: &mut State, options: &Options, progress: &Progress) -> Result<(System, Environment)> {
    let cache = Cache::open()?;
    let account = Account::choose()?;
    state.create(&account, &cache, progress)?;
    supervision::take_over(state)?;
    let search = Search::new(&cache, &Tool::SYSTEM)?;
    progress.expect(search.steps() + 1 + STORES.len() + CONTROL_PLANE.len() + RELEASE_STEPS);
    let (tools, executables) = fetch_and_build(search, progress)?;
    let wish = Wish { ports: Ports::USUAL, api_port: options.api_port, durable: true };
    let mut system = System::prepare(state.clone(), account, &wish, tools, progress)?;
    system.start_all(&STORES, progress)?;
    system.start_all(&CONTROL_PLANE, progress)?;
    let environment = assembly::release(&mut system, &executables, progress)?;
    if options.slack_sink {
        let port = start_sink(state, options.detach)?;
        samples::send_alerts_to(&system, port)?;
        progress.say(&format!("alerts of {} arrive at port {port} instead of Slack", samples::ALERTED));
    }
    Ok((system, environment))
}

/// Side by side where the machine bears it, else one after the other.
fn fetch_and_build(search: Search<'_>, progress: &Progress) -> Result<(Tools, Vec<Executable>)> {
    let build = || -> Result<Vec<Executable>> {
        let step = progress.step("FlagMeter's own programs (cargo build)");
        let executables = binaries::build(&BUILD, &step)?;
        step.done("");
        Ok(executables)
    };
    if !machine::bears_two_builds() {
        return Ok((search.fetch(progress)?, build()?));
    }
    thread::scope(|scope| {
        let tools = scope.spawn(|| search.fetch(progress));
        let executables = build();
        let tools = tools.join().map_err(|_| anyhow!("the thread that fetches tools panicked"))?;
        Ok((tools?, executables?))
    })
}

/// Lets a process in the background take over, and returns when it has.
fn hand_over(state: &State) -> Result<()> {
    let log = state.log(SUPERVISOR);
    let doing = || "failed to start the supervisor in the background";
    let file = OpenOptions::new().create(true).append(true).open(&log).with_context(doing)?;
    let mut supervisor = Command::new(std::env::current_exe()?)
        .arg("--state")
        .arg(state.folder())
        .arg("supervise")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(doing)?;
    let pid = supervisor.id().cast_signed();
    wait_for(
        "the supervisor to take over",
        HANDOVER_LIMIT,
        || Ok(()),
        || {
            if let Some(status) = supervisor.try_wait()? {
                bail!("it ended ({status}); see {}", log.display());
            }
            state
                .registry()
                .running(SUPERVISOR)
                .filter(|entry| entry.pid == pid)
                .context("it is not there yet")
        },
    )?;
    Ok(())
}

/// Starts the receiver of alerts, which `down` ends like every other process, and answers its port.
fn start_sink(state: &State, in_background: bool) -> Result<u16> {
    let doing = || "failed to start the receiver of alerts";
    let port = (sink::PORT..=u16::MAX).find(|port| ports::is_free(*port)).with_context(doing)?;
    let log = state.log(sink::NAME);
    let file = OpenOptions::new().create(true).append(true).open(&log).with_context(doing)?;
    let output = if in_background { Stdio::from(file.try_clone()?) } else { Stdio::inherit() };
    let child = Command::new(std::env::current_exe()?)
        .args(["slack-sink", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(file)
        .spawn()
        .with_context(doing)?;
    let entry = Entry::of(sink::NAME, child.id().cast_signed(), log).with_context(doing)?;
    state.registry().record(&entry)?;
    Ok(port)
}

/// What a second `up` says.
fn running_already(state: &State) -> Result<ExitCode> {
    let Ok(environment) = Environment::read(state) else {
        bail!("another `up` is bringing up the system in {}", state.folder().display());
    };
    say!("It is running already, in {}.", state.folder().display());
    announce(state, &environment, true);
    Ok(ExitCode::SUCCESS)
}

/// What a person needs next.
fn announce(state: &State, environment: &Environment, in_background: bool) {
    let url = &environment.api_url;
    let folder = state.shown();
    let (tenant, key) =
        environment.tenants.iter().next().map_or(("acme-corp", ""), |(name, tenant)| (name, &tenant.key));
    let stop = match (in_background, folder.as_str()) {
        (false, _) => "Ctrl-C here, or `cargo xtask down` elsewhere".to_owned(),
        (true, ".dev") => "cargo xtask down".to_owned(),
        (true, other) => format!("cargo xtask --state {other} down"),
    };
    say!(
        r#"
  Dashboard     {url}/   (user admin, password {token})
  Send usage    curl -sS {url}/events -H 'Authorization: Bearer {key}' \
                  --json '{{"tenant":"{tenant}","feature":"chat","tokens":1200}}'
  Read it       curl -sS {url}/usage/{tenant} -H 'Authorization: Bearer {key}'
  Tenants       . {folder}/env.sh && kubectl get tenants.flagmeter.dev -n {namespace}
  Logs          {logs}
  Stop          {stop}
"#,
        token = environment.admin_token,
        namespace = environment.namespace,
        logs = environment.logs.display(),
    );
}
