//! `flagmeter alerts list`.

use std::process::ExitCode;

use anyhow::bail;
use flagmeter_core::number::grouped;
use flagmeter_core::quota;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::deliveries::{self, Alert, Delivery, Kind};

use crate::database::{READS, failed};
use crate::no_tenant;
use crate::output::{self, Form};

/// List a tenant's alerts and what became of their messages
///
/// The newest first, a line for each message.
#[derive(clap::Args)]
#[command(after_long_help = "Exit code 0; 1 if there is no such tenant.")]
pub(super) struct Arguments {
    /// The tenant's id: the name of its Tenant resource
    tenant: String,
    /// How many alerts at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let alerts = deliveries::list(pool, &arguments.tenant, arguments.limit.into()).await.map_err(failed(
        pool,
        "the alerts could not be read",
        READS,
    ))?;
    if alerts.is_empty() && !deliveries::exists(pool, &arguments.tenant).await? {
        bail!(no_tenant(&arguments.tenant));
    }
    if arguments.form.json {
        output::print_json(&alerts)?;
    } else if alerts.is_empty() {
        output::print(&format!("{} has had no alerts\n", arguments.tenant))?;
    } else {
        output::print(&table(&alerts))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The table's columns; the last has what there is to say of a message.
const HEADER: [&str; 9] =
    ["ALERT", "AT", "WHAT", "USED", "QUOTA", "USED%", "CHANNEL", "STATE", "TRIES  DETAIL"];

fn table(alerts: &[Alert]) -> String {
    let header = line(HEADER.map(str::to_owned));
    std::iter::once(header).chain(alerts.iter().flat_map(rows)).collect()
}

fn rows(alert: &Alert) -> Vec<String> {
    let what = match alert.kind {
        Kind::Crossed => format!("reached {} %", alert.threshold),
        Kind::Recovered => format!("below {} %", alert.threshold),
        Kind::Test => "test".to_owned(),
    };
    let row = |channel: &str, state: &str, detail: String| {
        line([
            alert.id.to_string(),
            alert.created_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            what.clone(),
            grouped(alert.total_tokens),
            grouped(alert.monthly_quota),
            quota::percent(alert.total_tokens, alert.monthly_quota).to_string(),
            channel.to_owned(),
            state.to_owned(),
            detail,
        ])
    };
    if alert.deliveries.is_empty() {
        let detail = alert.superseded_by.map(|other| format!("sent with alert {other}"));
        return vec![row("-", "-", detail.unwrap_or_default())];
    }
    let of = |delivery: &Delivery| {
        row(
            delivery.channel.as_str(),
            &delivery.state,
            format!("{:>5}  {}", delivery.attempts, detail(delivery)),
        )
    };
    alert.deliveries.iter().map(of).collect()
}

fn detail(delivery: &Delivery) -> String {
    let next = (delivery.state == "pending")
        .then(|| format!("next try {}", delivery.next_attempt_at.strftime("%H:%M:%SZ")));
    let error = delivery.last_error.clone();
    next.into_iter().chain(error).collect::<Vec<_>>().join("; ")
}

fn line([alert, at, what, used, quota, percent, channel, state, detail]: [String; 9]) -> String {
    let text = format!(
        "{alert:>6}  {at:<20}  {what:<13} {used:>17} {quota:>17} {percent:>6}  {channel:<8} {state:<10} {detail}"
    );
    format!("{}\n", text.trim_end())
}
