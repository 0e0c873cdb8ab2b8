//! `flagmeter alerts resend` and `test`: a worker sends, this waits for what comes of it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::deliveries::{self, Channel, Delivery, Kind, Wanted};

use super::{ChannelName, no_tenant};
use crate::database::failed;

/// The wait between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Send an alert again, and wait for what comes of it.
///
/// It has the same webhook-id as before, and is tried for 24 hours. Exit code 0 if every message was delivered, 1 if
/// not, or not yet.
#[derive(clap::Args)]
pub(super) struct ResendArguments {
    #[command(flatten)]
    common: Common,
    /// The alert's number, as `flagmeter alerts list` shows it [default: that of the newest threshold reached]
    #[arg(long, value_name = "NUMBER")]
    alert: Option<i64>,
}

/// Send a message that is marked as a test, and wait for what comes of it.
///
/// A worker sends it like any alert, so it proves the whole way; but it is tried once. Exit code 0 if every message was delivered, 1 if not.
#[derive(clap::Args)]
pub(super) struct TestArguments {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// The tenant's id: the name of its Tenant resource
    tenant: String,
    /// One channel only [default: every one that the tenant has and has not turned off]
    #[arg(long)]
    channel: Option<ChannelName>,
    /// How long to wait for a worker and for the receivers, 0 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    wait: u64,
}

pub(super) async fn resend(arguments: ResendArguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let ResendArguments { common, alert } = arguments;
    let tenant = &common.tenant;
    let exists = deliveries::exists(pool, tenant).await.map_err(failed(
        "the tenant could not be read",
        "is DATABASE_URL right, and the database migrated?",
    ))?;
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
    send(&common, alert, pool).await
}

pub(super) async fn test(arguments: TestArguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let common = arguments.common;
    let alert = deliveries::add_test(pool, &common.tenant, Clock::system().now()).await.map_err(failed(
        "the test could not be written",
        "DATABASE_URL needs the worker's role, or that of the tables' owner",
    ))?;
    send(&common, alert.with_context(|| no_tenant(&common.tenant))?, pool).await
}

async fn send(common: &Common, alert: i64, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let tenant = &common.tenant;
    let wanted = Wanted { tenant, alert, channel: common.channel.map(Channel::from) };
    let channels = deliveries::resend(pool, wanted, Clock::system().now()).await.map_err(failed(
        "the message could not be written",
        "DATABASE_URL needs the worker's role, or that of the tables' owner",
    ))?;
    if channels.is_empty() {
        bail!(
            "nothing to send: {tenant} has no alert {alert}, or no such channel that is turned on; see `flagmeter alerts list {tenant}`, and spec.alerts of the Tenant"
        );
    }
    let start = Instant::now();
    loop {
        let found = deliveries::find(pool, alert).await?;
        let sent: Vec<&Delivery> =
            found.iter().filter(|delivery| channels.contains(&delivery.channel)).collect();
        let settled = sent.iter().all(|delivery| is_told(delivery));
        if settled || start.elapsed() >= Duration::from_secs(common.wait) {
            for delivery in &sent {
                println!("alert {alert}, {}: {}", delivery.channel.as_str(), said(delivery));
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
