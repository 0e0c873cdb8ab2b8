//! `flagmeter usage`: what a tenant has used.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use flagmeter_core::number::grouped;
use flagmeter_core::quota;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::usage::{self, Open};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::database::{READS, failed};
use crate::output::{self, Form};

/// Show what a tenant has used in its open billing period
///
/// Tokens, the quota, what remains of it, when it resets, and the tokens of each feature, as PostgreSQL has them. Events
/// that still wait in the queue are not in it. A tenant whose resource is gone has its usage as well.
#[derive(clap::Args)]
#[command(after_long_help = "Exit code 0; 1 if there is no such tenant.\n\n\
    Examples:\n  flagmeter usage acme-corp\n  flagmeter usage acme-corp --json | jq .remainingTokens")]
pub(crate) struct Arguments {
    /// The tenant's id: the name of its Tenant resource
    tenant: String,
    #[command(flatten)]
    form: Form,
}

pub(crate) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    let open = usage::open(pool, &arguments.tenant, now).await.map_err(failed(
        pool,
        "the usage could not be read",
        READS,
    ))?;
    let Some(open) = open else { bail!(crate::no_tenant(&arguments.tenant)) };
    if arguments.form.json {
        output::print_json(&as_json(&arguments.tenant, &open, now))?;
    } else {
        output::print(&text(&arguments.tenant, &open))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The names are those of `GET /usage`.
fn as_json(tenant: &str, open: &Open, now: Timestamp) -> Value {
    let features =
        open.features.iter().map(|(feature, total)| json!({ "feature": feature, "totalTokens": total }));
    json!({
        "tenant": tenant,
        "totalTokens": open.total_tokens,
        "quotaPercent": quota::percent(open.total_tokens, open.monthly_quota),
        "monthlyQuota": open.monthly_quota,
        "baseQuota": open.base_quota,
        "remainingTokens": quota::remaining(open.total_tokens, open.monthly_quota),
        "periodStart": open.period.start,
        "periodEnd": open.period.end,
        "asOf": now,
        "features": features.collect::<Vec<_>>(),
    })
}

fn text(tenant: &str, open: &Open) -> String {
    let (used, quota) = (open.total_tokens, open.monthly_quota);
    let boosts = if quota == open.base_quota {
        String::new()
    } else {
        format!(" ({} and the boosts that hold now)", grouped(open.base_quota))
    };
    let mut text = format!("{tenant} has used {} %\n\n", quota::percent(used, quota));
    for (label, value) in [
        ("used", grouped(used)),
        ("quota", grouped(quota) + &boosts),
        ("remaining", grouped(quota::remaining(used, quota))),
        ("since", open.period.start.to_string()),
        ("resets", open.period.end.to_string()),
    ] {
        let _ = writeln!(text, "{label:<10} {value}");
    }
    if !open.features.is_empty() {
        let rows: Vec<_> =
            open.features.iter().map(|(feature, total)| [feature.clone(), grouped(*total)]).collect();
        let _ = write!(text, "\n{}", output::columns(["FEATURE", "TOKENS"], &rows));
    }
    text
}
