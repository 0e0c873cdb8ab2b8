//! Thresholds that usage reaches: recorded in the transaction that changes usage or quota, with the messages that are
//! to be sent.
//!
//! Whoever asks holds the lock of the period's row in `usage_periods`, or that of the tenant against all who count. So
//! two never decide about one period at once, and what the table of alerts says is all that was recorded.

use std::collections::HashMap;

use flagmeter_core::period::BillingPeriod;
use flagmeter_core::rollup::PeriodBatch;
use flagmeter_core::threshold::{self, Kind, Recorded, Thresholds};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use super::billing;
use super::settings::{self, TenantSettings};
use super::totals::Total;
use crate::{PgPool, StoreError};

/// What was used in a period, and the quota that it is held against.
struct Held<'a> {
    tenant: &'a str,
    period: BillingPeriod,
    used: i64,
    quota: i64,
}

/// Records what a count has reached. `added` was added to the periods, which made them `totals`.
///
/// While nothing is newly reached this is arithmetic, without a statement.
pub(super) async fn watch(
    tx: &mut PgConnection,
    settings: &billing::Settings,
    added: &PeriodBatch,
    totals: &[Total],
) -> Result<(), StoreError> {
    let totals: HashMap<_, _> =
        totals.iter().map(|total| ((total.tenant.as_str(), total.period_start), total)).collect();
    for ((tenant, period), row) in added {
        let Some(total) = totals.get(&(tenant.as_str(), period.start)) else { continue };
        let TenantSettings { quota, thresholds, .. } = settings.of(tenant);
        let quota = total.monthly_quota.unwrap_or_else(|| quota.during(period, settings.read_at));
        let before = total.tokens.saturating_sub(row.sum.tokens);
        if thresholds.newly_reached(before, total.tokens, quota) {
            let held = Held { tenant: tenant.as_str(), period: *period, used: total.tokens, quota };
            record(tx, &held, thresholds).await?;
        }
    }
    Ok(())
}

/// Records what has been reached, or is out of reach again, in the tenant's periods that are not over at `now`. The
/// caller holds the tenant's row.
pub(super) async fn review(
    tx: &mut PgConnection,
    tenant: &str,
    settings: &TenantSettings,
    now: Timestamp,
) -> Result<(), StoreError> {
    let periods = sqlx::query!(
        r#"SELECT period_start AS "start: jiff_sqlx::Timestamp",
                  period_end AS "end: jiff_sqlx::Timestamp",
                  total_tokens
           FROM usage_periods
           WHERE tenant = $1 AND period_end > $2::timestamptz
           ORDER BY period_start
           FOR NO KEY UPDATE"#,
        tenant,
        now.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(StoreError::postgres("read a tenant's open periods"))?;
    for row in periods {
        let period = BillingPeriod { start: row.start.to_jiff(), end: row.end.to_jiff() };
        let quota = settings.quota.during(&period, now);
        record(tx, &Held { tenant, period, used: row.total_tokens, quota }, &settings.thresholds).await?;
    }
    Ok(())
}

/// [`review`] for each tenant whose quota has changed by itself after `since`, because a boost began or ended; without
/// `since`, for each that has boosts or has reached a threshold. Answers how many there were.
///
/// Several may do so at once, and again: what is recorded is not recorded twice.
///
/// # Errors
///
/// [`StoreError::Postgres`]; tenants that were looked at by then are done, and the same call may be made again.
pub async fn review_boosts(
    pool: &PgPool,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let due = match since {
        Some(since) => changed_by_themselves(pool, since, now).await?,
        None => noteworthy(pool, now).await?,
    };
    for tenant in &due {
        review_one(pool, tenant, now).await?;
    }
    Ok(due.len())
}

async fn changed_by_themselves(
    pool: &PgPool,
    since: Timestamp,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, monthly_quota, quota_boosts FROM tenants WHERE quota_boosts <> '[]' ORDER BY id"
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants' boosts"))?;
    let changed = |row: &_| {
        let (base, boosts): &(i64, serde_json::Value) = row;
        settings::quota(*base, boosts.clone()).changes(since, now)
    };
    let rows = rows.into_iter().map(|row| (row.id, (row.monthly_quota, row.quota_boosts)));
    Ok(rows.filter(|(_, row)| changed(row)).map(|(id, _)| id).collect())
}

async fn noteworthy(pool: &PgPool, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query!(
        "SELECT tenants.id, tenants.monthly_quota, tenants.quota_boosts, tenants.thresholds, usage_periods.total_tokens
         FROM tenants
         JOIN usage_periods ON usage_periods.tenant = tenants.id
         WHERE usage_periods.period_end > $1::timestamptz
         ORDER BY tenants.id",
        now.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants' open periods"))?;
    let rows = rows.into_iter().filter(|row| {
        let boosted = row.quota_boosts.as_array().is_some_and(|boosts| !boosts.is_empty());
        boosted
            || settings::thresholds(row.thresholds.clone()).newly_reached(
                0,
                row.total_tokens,
                row.monthly_quota,
            )
    });
    let mut ids: Vec<String> = rows.map(|row| row.id).collect();
    ids.dedup();
    Ok(ids)
}

async fn review_one(pool: &PgPool, tenant: &str, now: Timestamp) -> Result<(), StoreError> {
    let failed = StoreError::postgres("review a tenant's thresholds");
    let mut tx = pool.begin().await.map_err(&failed)?;
    let row = sqlx::query!(
        "SELECT monthly_quota, quota_boosts, thresholds, billing_day, time_zone, calendars
         FROM tenants
         WHERE id = $1
         FOR SHARE",
        tenant,
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(&failed)?;
    let settings = row.and_then(|row| {
        Some(TenantSettings {
            quota: settings::quota(row.monthly_quota, row.quota_boosts),
            thresholds: settings::thresholds(row.thresholds),
            calendar: settings::calendar(row.billing_day, &row.time_zone, row.calendars)?,
        })
    });
    if let Some(settings) = settings {
        review(&mut tx, tenant, &settings, now).await?;
    }
    tx.commit().await.map_err(&failed)
}

/// Records what is due of a period.
async fn record(tx: &mut PgConnection, held: &Held<'_>, thresholds: &Thresholds) -> Result<(), StoreError> {
    let recorded = recorded(tx, held).await?;
    let due = threshold::due(held.used, held.quota, thresholds, &recorded);
    if let Some((highest, lower)) = due.crossed.split_first() {
        add_crossings(tx, held, *highest, lower).await?;
    }
    if !due.recovered.is_empty() {
        add_recoveries(tx, held, &due.recovered).await?;
    }
    Ok(())
}

/// What was recorded of a period, oldest first.
async fn recorded(tx: &mut PgConnection, held: &Held<'_>) -> Result<Vec<Recorded>, StoreError> {
    let rows = sqlx::query!(
        "SELECT threshold, monthly_quota, kind
         FROM alerts
         WHERE tenant = $1 AND period_start = $2::timestamptz AND kind <> 'test'
         ORDER BY id",
        held.tenant,
        held.period.start.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("read a period's alerts"))?;
    let record = |kind: &str, threshold, quota| {
        let kind = if kind == "crossed" { Kind::Crossed } else { Kind::Recovered };
        Recorded { threshold, quota, kind }
    };
    Ok(rows.into_iter().map(|row| record(&row.kind, row.threshold, row.monthly_quota)).collect())
}

/// Records crossings. The highest is told, on each channel that is on; the others name it.
async fn add_crossings(
    tx: &mut PgConnection,
    held: &Held<'_>,
    highest: i32,
    lower: &[i32],
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH told AS (
             INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind)
             VALUES ($1, $2::timestamptz, $3::timestamptz, $4, $5, $6, 'crossed')
             ON CONFLICT DO NOTHING
             RETURNING id
         ), others AS (
             INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind, superseded_by)
             SELECT $1, $2::timestamptz, $3::timestamptz, lower.threshold, $5, $6, 'crossed', told.id
             FROM told, UNNEST($7::integer[]) AS lower (threshold)
             ON CONFLICT DO NOTHING
         )
         INSERT INTO alert_deliveries (alert, channel)
         SELECT told.id, channels.channel
         FROM told, (
             SELECT 'slack' AS channel FROM slack_webhooks WHERE tenant = $1 AND enabled
             UNION ALL
             SELECT 'webhook' FROM webhooks WHERE tenant = $1 AND enabled
         ) AS channels",
        held.tenant,
        held.period.start.to_sqlx() as jiff_sqlx::Timestamp,
        held.period.end.to_sqlx() as jiff_sqlx::Timestamp,
        highest,
        held.quota,
        held.used,
        lower,
    )
    .execute(tx)
    .await
    .map(drop)
    .map_err(StoreError::postgres("record that thresholds were crossed"))
}

async fn add_recoveries(
    tx: &mut PgConnection,
    held: &Held<'_>,
    thresholds: &[i32],
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind)
         SELECT $1, $2::timestamptz, $3::timestamptz, recovered.threshold, $5, $6, 'recovered'
         FROM UNNEST($4::integer[]) AS recovered (threshold)
         ON CONFLICT DO NOTHING",
        held.tenant,
        held.period.start.to_sqlx() as jiff_sqlx::Timestamp,
        held.period.end.to_sqlx() as jiff_sqlx::Timestamp,
        thresholds,
        held.quota,
        held.used,
    )
    .execute(tx)
    .await
    .map(drop)
    .map_err(StoreError::postgres("record that thresholds are out of reach again"))
}

#[cfg(test)]
mod tests;
