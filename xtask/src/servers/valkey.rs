//! Valkey 9: the queue.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Server;
use crate::settings::Settings;
use crate::system::System;
use crate::tools::Tool;

const TIMEOUT: Duration = Duration::from_secs(2);

/// The server; its data are in `valkey` of the state.
pub(crate) struct Valkey;

impl Valkey {
    /// How clients reach it.
    pub(crate) fn url(settings: &Settings) -> String {
        format!("redis://:{}@127.0.0.1:{}", settings.secrets.valkey, settings.ports.valkey)
    }
}

impl Server for Valkey {
    fn purpose(&self) -> &'static str {
        "the queue of events"
    }

    fn address(&self, system: &System) -> String {
        format!("127.0.0.1:{}", system.settings.ports.valkey)
    }

    fn prepare(&self, system: &System) -> Result<()> {
        let folder = system.state.data("valkey");
        system.account.make_folder(&folder, 0o700)?;
        // A file, since an argument with the password could be seen by every user of the machine.
        let configuration = format!(
            "# What FlagMeter needs of its queue: an acknowledged write is on disk, and nothing is ever evicted.\n\
             appendonly yes\n\
             appendfsync always\n\
             maxmemory 512mb\n\
             maxmemory-policy noeviction\n\
             save \"\"\n\
             bind 127.0.0.1\n\
             port {}\n\
             requirepass {}\n\
             dir \"{}\"\n\
             daemonize no\n\
             logfile \"\"\n",
            system.settings.ports.valkey,
            system.settings.secrets.valkey,
            folder.display(),
        );
        system.account.write_secret(&folder.join("valkey.conf"), &configuration)
    }

    fn command(&self, system: &System) -> Result<Command> {
        let mut command = system.command(system.settings.tools.path(Tool::Valkey)?);
        command.arg(system.state.data("valkey").join("valkey.conf"));
        Ok(command)
    }

    fn probe(&self, system: &System) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, system.settings.ports.valkey));
        let mut connection =
            TcpStream::connect_timeout(&address, TIMEOUT).context("Valkey accepts no connection")?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        write!(connection, "AUTH {}\r\nPING\r\nQUIT\r\n", system.settings.secrets.valkey)?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).context("Valkey does not answer")?;
        if answer.starts_with("+OK\r\n+PONG") {
            return Ok(());
        }
        bail!("Valkey answers {:?}", answer.lines().next().unwrap_or_default())
    }
}
