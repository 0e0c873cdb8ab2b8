//! `cargo xtask`: what people who develop FlagMeter, and CI, do with it.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod output;

mod account;
mod assembly;
mod binaries;
mod cache;
mod certificates;
mod checkout;
mod command;
mod environment;
mod execution;
mod interrupt;
mod kubectl;
mod machine;
mod ports;
mod process;
mod progress;
mod query_data;
mod registry;
mod release;
mod samples;
mod secret;
mod servers;
mod settings;
mod sink;
mod state;
mod supervision;
mod system;
mod tools;
mod waiting;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Run, test and stop FlagMeter on this machine
///
/// Everything listens on loopback and runs without root and without containers. What is missing is
/// fetched once into a cache outside the checkout: `$FLAGMETER_CACHE`, or the user's cache folder.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    /// Folder of the running system: its data, logs, env.json and env.sh.
    #[arg(long, global = true, value_name = "DIR", default_value = ".dev")]
    state: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Brings up the whole system: PostgreSQL, Valkey, a Kubernetes control plane, the chart, sample
    /// tenants and events.
    ///
    /// Stays in the foreground and watches over every part until Ctrl-C, which stops them all.
    Up(command::up::Options),
    /// Stops everything, also what a killed `up` left behind.
    Down {
        /// Forget the data too.
        #[arg(long)]
        purge: bool,
    },
    /// Shows every part: where it listens, since when it runs, its memory, its health.
    ///
    /// Ends with 0 if all runs, with 3 if not.
    Status,
    /// Restarts one server without `up` taking it for a failure.
    Restart {
        /// Which one.
        name: servers::Name,
        /// End it with SIGKILL, as a crash would.
        #[arg(long)]
        kill: bool,
        /// For how many seconds it stays away in between.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        away: u64,
    },
    /// Finds or fetches the servers and tools that `up` and `test` need, and says where each is.
    Tools,
    /// Runs the tests of the named layers, or of all, in the order in which the layers build on each other.
    Test {
        /// lint, rules, store, operator, system, chart, speed.
        layers: Vec<command::test::Layer>,
        /// Only the tests whose name contains this.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },
    /// Measures the ratios to the baselines, and writes the table in README.md.
    ///
    /// On servers of its own, in release builds. A full run fails if a floor is missed, a quick one if half of it is.
    Bench(command::measure::BenchOptions),
    /// Runs the prototype's five-minute profile, constant rates and saturation, and checks that nothing was lost.
    Loadtest(command::measure::Options),
    /// Writes .sqlx anew, from the queries and the migrations as they are.
    Sqlx,
    /// Takes alerts in Slack's place, for `up --slack-sink`.
    #[command(hide = true)]
    SlackSink {
        #[arg(long)]
        port: u16,
    },
    /// Keeps watch over a system that `up --detach` brought up.
    #[command(hide = true)]
    Supervise,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = interrupt::listen().and_then(|()| match arguments.command {
        Command::Up(options) => command::up::run(&arguments.state, &options),
        Command::Down { purge } => command::down::run(&arguments.state, purge),
        Command::Status => command::status::run(&arguments.state),
        Command::Restart { name, kill, away } => {
            command::restart::run(&arguments.state, name, kill, Duration::from_secs(away))
        }
        Command::Tools => command::tools::run(),
        Command::Test { layers, only } => command::test::run(&layers, only.as_deref()),
        Command::Bench(options) => command::measure::bench(&options),
        Command::Loadtest(options) => command::measure::loadtest(&options),
        Command::Sqlx => command::sqlx::run(),
        Command::SlackSink { port } => sink::run(port).map(|()| ExitCode::SUCCESS),
        Command::Supervise => command::supervise::run(&arguments.state),
    });
    outcome.unwrap_or_else(|error| {
        if output::is_closed() {
            return ExitCode::from(output::NOT_READ);
        }
        note!("\nerror: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The command, and all below it.
    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let below = command.get_subcommands().flat_map(all);
        std::iter::once(command.clone()).chain(below).collect()
    }

    #[test]
    fn no_line_of_help_is_wider_than_100_columns() {
        let mut command = Arguments::command();
        command.build();
        for mut command in all(&command) {
            let name = command.get_bin_name().unwrap_or_default().to_owned();
            for help in [command.render_help(), command.render_long_help()] {
                let help = help.to_string();
                let widest = help.lines().max_by_key(|line| line.chars().count()).unwrap();
                assert!(widest.chars().count() <= 100, "{name}: {widest}");
            }
        }
    }
}
