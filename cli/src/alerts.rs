//! `flagmeter alerts`: which alerts a tenant had, what became of their messages, and to send one.

mod list;
mod send;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use flagmeter_store::PgPool;
use flagmeter_store::postgres::deliveries::Channel;

/// List a tenant's alerts, send one again, or test its channels
///
/// A worker sends: `resend` and `test` ask for it, and wait for what comes of it.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(list::Arguments),
    Resend(send::ResendArguments),
    Test(send::TestArguments),
}

/// A way to a receiver
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ChannelName {
    /// spec.alerts.slack
    Slack,
    /// spec.alerts.webhook
    Webhook,
}

impl From<ChannelName> for Channel {
    fn from(name: ChannelName) -> Self {
        match name {
            ChannelName::Slack => Self::Slack,
            ChannelName::Webhook => Self::Webhook,
        }
    }
}

pub(crate) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::List(arguments) => list::run(arguments, pool).await,
        Command::Resend(arguments) => send::resend(arguments, pool).await,
        Command::Test(arguments) => send::test(arguments, pool).await,
    }
}
