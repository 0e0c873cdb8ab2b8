//! `flagmeter alerts resend` and `test`: a worker sends, this waits for what comes of it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::deliveries::{self, Channel, Delivery, Kind, Test, Wanted};
use serde_json::json;

use super::ChannelName;
use crate::database::{READS, WRITES, failed};
use crate::no_tenant;
use crate::output::{self, Form};

/// The wait between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Send an alert again, and wait for what comes of it
///
/// It has the same webhook-id as before, and is tried for 24 hours.
#[derive(clap::Args)]
#[command(after_long_help = "Exit code 0: every message was delivered. 1: one was not, or not yet.")]
pub(super) struct ResendArguments {
    #[command(flatten)]
    common: Common,
    /// The alert's number [default: that of the newest threshold reached]
    ///
    /// `flagmeter alerts list` shows it.
    #[arg(long, value_name = "NUMBER")]
    alert: Option<i64>,
}

/// Send a test to a tenant's channels, and wait for what comes of it
///
/// A worker sends it like any alert, so it tests the path end to end; but it is tried once, and marked as a test.
#[derive(clap::Args)]
#[command(after_long_help = "Exit code 0: every message was delivered. 1: one was not.")]
pub(super) struct TestArguments {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// The tenant's id: the name of its Tenant resource
    tenant: String,
    /// One channel only [default: every one that is turned on]
    #[arg(long)]
    channel: Option<ChannelName>,
    /// How long to wait for a worker and for the receivers, 0 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    wait: u64,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn resend(arguments: ResendArguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let ResendArguments { common, alert } = arguments;
    let tenant = &common.tenant;
    let exists = deliveries::exists(pool, tenant).await;
    let exists = exists.map_err(failed(pool, "the tenant could not be read", READS))?;
    if !exists {
        bail!(no_tenant(tenant));
    }
    let alert = if let Some(alert) = alert {
        alert
    } else {
        let recent = deliveries::list(pool, tenant, 1_000).await?;
        // Recoveries are not told. Of several thresholds reached at once, one is told in place of the others.
        let newest = recent.iter().find(|alert| alert.kind == Kind::Crossed && alert.superseded_by.is_none());
        newest
            .with_context(|| format!("{tenant} has had no alerts; `flagmeter alerts test` sends a test"))?
            .id
    };
    let channel = common.channel.map(Channel::from);
    let sent = deliveries::resend(pool, Wanted { tenant, alert, channel }, Clock::system().now()).await;
    let channels = sent.map_err(failed(pool, "the message could not be written", WRITES))?;
    if channels.is_empty() {
        if deliveries::is_alert_of(pool, alert, tenant).await? {
            bail!(no_channel(tenant, channel));
        }
        bail!(
            "nothing was sent: {tenant} has no alert {alert}; `flagmeter alerts list {tenant}` lists those it has"
        );
    }
    wait(&common, alert, &channels, pool).await
}

pub(super) async fn test(arguments: TestArguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let common = arguments.common;
    let channel = common.channel.map(Channel::from);
    let sent = deliveries::send_test(pool, &common.tenant, channel, Clock::system().now()).await;
    match sent.map_err(failed(pool, "the test could not be written", WRITES))? {
        Test::NoTenant => bail!(no_tenant(&common.tenant)),
        Test::NoChannel => bail!(no_channel(&common.tenant, channel)),
        Test::Sent { alert, channels } => wait(&common, alert, &channels, pool).await,
    }
}

fn no_channel(tenant: &str, channel: Option<Channel>) -> String {
    let (channel, field) = match channel {
        None => ("channel", "spec.alerts.slack or spec.alerts.webhook"),
        Some(Channel::Slack) => ("Slack channel", "spec.alerts.slack"),
        Some(Channel::Webhook) => ("webhook", "spec.alerts.webhook"),
    };
    format!(
        "nothing was sent: {tenant} has no {channel} that is turned on; set {field} of the Tenant {tenant}"
    )
}

/// Waits for what comes of an alert's messages to `channels`, and prints it.
async fn wait(common: &Common, alert: i64, channels: &[Channel], pool: &PgPool) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    loop {
        let found = deliveries::find(pool, alert).await?;
        let sent: Vec<&Delivery> =
            found.iter().filter(|delivery| channels.contains(&delivery.channel)).collect();
        let settled = sent.iter().all(|delivery| is_told(delivery));
        if settled || start.elapsed() >= Duration::from_secs(common.wait) {
            if common.form.json {
                output::print_json(&json!({ "alert": alert, "deliveries": sent }))?;
            } else {
                let line = |delivery: &&Delivery| {
                    format!("alert {alert}, {}: {}\n", delivery.channel.as_str(), said(delivery))
                };
                output::print(&sent.iter().map(line).collect::<String>())?;
            }
            let delivered =
                sent.len() == channels.len() && sent.iter().all(|delivery| delivery.state == "delivered");
            return Ok(if delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Whether there is something to say of the message: it ended, or an attempt failed.
fn is_told(delivery: &Delivery) -> bool {
    delivery.state != "pending" || delivery.last_error.is_some()
}

fn said(delivery: &Delivery) -> String {
    let why = delivery.last_error.as_deref();
    match (delivery.state.as_str(), why) {
        ("pending", None) => {
            "no worker has sent it yet; is one running? It is sent as soon as one is".to_owned()
        }
        ("pending", Some(why)) => format!("not yet: {why}; it is tried again"),
        (state, Some(why)) => format!("{state}: {why}"),
        (state, None) => state.to_owned(),
    }
}
