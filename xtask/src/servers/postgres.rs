//! PostgreSQL 18: what is kept.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::Server;
use crate::execution::Execution;
use crate::process;
use crate::settings::Settings;
use crate::system::System;

/// How long initdb or one call of psql may take.
const LIMIT: Duration = Duration::from_mins(2);

/// The server; its data are in `postgres` of the state.
pub(crate) struct Postgres;

impl Postgres {
    /// How a role reaches a database.
    pub(crate) fn url(settings: &Settings, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", settings.ports.postgres)
    }

    /// How the superuser reaches the database that holds no tables.
    pub(crate) fn superuser_url(settings: &Settings) -> String {
        Self::url(settings, "postgres", &settings.secrets.postgres, "postgres")
    }

    /// Runs statements as the superuser; they go in by standard input, since some hold passwords.
    pub(crate) fn execute(system: &System, database: &str, statements: &str) -> Result<String> {
        let mut psql = Command::new(system.settings.tools.postgres("psql")?);
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
        ])
        .args([&system.settings.ports.postgres.to_string(), "-d", database, "-f", "-"])
        .env("PGPASSWORD", &system.settings.secrets.postgres)
        .env("PGCONNECT_TIMEOUT", "5")
        .env("PGOPTIONS", "-c client_min_messages=warning");
        Execution::new(psql, LIMIT).input(statements).run()
    }
}

impl Server for Postgres {
    fn purpose(&self) -> &'static str {
        "what is counted"
    }

    fn address(&self, system: &System) -> String {
        format!("127.0.0.1:{}", system.settings.ports.postgres)
    }

    fn prepare(&self, system: &System) -> Result<()> {
        let data = system.state.data("postgres");
        if !data.join("PG_VERSION").exists() {
            return initialise(system, &data);
        }
        let version = fs::read_to_string(data.join("PG_VERSION"))?;
        if version.trim() != "18" {
            bail!("{} was made by PostgreSQL {}: use --fresh to begin anew", data.display(), version.trim());
        }
        end_left_over(&data);
        Ok(())
    }

    fn command(&self, system: &System) -> Result<Command> {
        let mut command = system.command(&system.settings.tools.postgres("postgres")?);
        let port = format!("port={}", system.settings.ports.postgres);
        let on = if system.settings.durable { "on" } else { "off" };
        let fsync = format!("fsync={on}");
        let full_page_writes = format!("full_page_writes={on}");
        command.arg("-D").arg(system.state.data("postgres"));
        for setting in [
            port.as_str(),
            &fsync,
            &full_page_writes,
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // One pool a process of FlagMeter, and the tests' databases side by side.
            "max_connections=200",
            // The counters and the newest leaves of the ledger; for the rest the kernel's cache is as good, and
            // gives memory back.
            "shared_buffers=64MB",
            "max_wal_size=8GB",
            "wal_compression=off",
            "log_line_prefix=%m [%p] %u@%d ",
        ] {
            command.args(["-c", setting]);
        }
        Ok(command)
    }

    fn probe(&self, system: &System) -> Result<()> {
        Self::execute(system, "postgres", "SELECT 1;").map(drop)
    }

    /// Roles and the database, with the passwords as the settings have them now. The names are this
    /// function's own and passwords are made of characters that need no quoting.
    fn settle(&self, system: &System) -> Result<()> {
        let secrets = &system.settings.secrets;
        let roles = [
            ("flagmeter", &secrets.flagmeter),
            ("flagmeter_api", &secrets.flagmeter_api),
            ("flagmeter_worker", &secrets.flagmeter_worker),
            ("flagmeter_operator", &secrets.flagmeter_operator),
        ];
        let role = |(role, password)| {
            format!(
                "SELECT 'CREATE ROLE {role}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') \\gexec\n\
                 ALTER ROLE {role} LOGIN PASSWORD '{password}';\n"
            )
        };
        let database = "SELECT 'CREATE DATABASE flagmeter OWNER flagmeter'
            WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'flagmeter') \\gexec\n";
        let statements: Vec<String> = roles.map(role).into_iter().chain([database.to_owned()]).collect();
        Self::execute(system, "postgres", &statements.concat()).map(drop)
    }

    /// The fast shutdown, which does not wait for clients.
    fn stop_signal(&self) -> Signal {
        Signal::SIGINT
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// Makes the data folder all at once, so that an interrupted attempt is not taken for data.
fn initialise(system: &System, data: &Path) -> Result<()> {
    let draft = system.state.data("postgres.new");
    let _ = fs::remove_dir_all(&draft);
    let password = system.state.data("postgres.password");
    system.account.write_secret(&password, &system.settings.secrets.postgres)?;
    let mut initdb = system.command(&system.settings.tools.postgres("initdb")?);
    initdb
        .args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-sync",
            "--no-instructions",
        ])
        // The same order and the same letters on every system.
        .args(["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"])
        .args([Path::new("--pwfile"), &password, Path::new("--pgdata"), &draft]);
    let outcome = Execution::new(initdb, LIMIT).run();
    let _ = fs::remove_file(&password);
    outcome?;
    let _ = fs::remove_dir_all(data);
    fs::rename(&draft, data).context("failed to put PostgreSQL's data in their place")
}

/// Ends a server that still runs on these data although the registry lost it, and forgets the pid file of
/// one that does not: its pid may be somebody else's by now, and PostgreSQL would refuse to start.
fn end_left_over(data: &Path) {
    let file = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&file) else { return };
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    if let Some(pid) = pid
        && let Some(started) = process::started(pid)
        && process::command_line(pid).is_some_and(|line| line.contains(&data.display().to_string()))
    {
        process::stop(pid, &started, Signal::SIGINT, Duration::from_secs(30));
    }
    let _ = fs::remove_file(file);
}
