//! Thresholds that usage reaches: recorded in the transaction that changes usage or quota, with the messages that are
//! to be sent.
//!
//! Whoever asks holds the lock of the period's row in `usage_periods`, or that of the tenant against all who count. So
//! two never decide about one period at once, and what the table of alerts says is all that was recorded.

use std::collections::HashMap;

use flagmeter_core::event::MAX_AGE;
use flagmeter_core::period::BillingPeriod;
use flagmeter_core::rollup::PeriodBatch;
use flagmeter_core::threshold::{self, Kind, Recorded, Thresholds};
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use super::billing;
use super::settings::{self, Columns, TenantSettings};
use super::totals::Total;
use super::turns::Turns;
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

/// Records what has been reached, or is out of reach again, in the tenant's periods that are not over at `since`. The
/// caller holds the tenant's row.
///
/// A period that is over at `now` is looked at only if a boost began or ended in it. Else all that was counted in it was
/// held against one quota; and thresholds that came later are none of its own.
pub(super) async fn review(
    tx: &mut PgConnection,
    tenant: &str,
    settings: &TenantSettings,
    since: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let periods = sqlx::query!(
        r#"SELECT period_start AS "start: jiff_sqlx::Timestamp",
                  period_end AS "end: jiff_sqlx::Timestamp",
                  total_tokens,
                  monthly_quota
           FROM usage_periods
           WHERE tenant = $1 AND period_end > $2::timestamptz
           ORDER BY period_start
           FOR NO KEY UPDATE"#,
        tenant,
        since.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(StoreError::postgres("read a tenant's open periods"))?;
    for row in periods {
        let period = BillingPeriod { start: row.start.to_jiff(), end: row.end.to_jiff() };
        if period.end > now || settings.quota.changes(period.start, period.end) {
            let quota = row.monthly_quota.unwrap_or_else(|| settings.quota.during(&period, now));
            record(tx, &Held { tenant, period, used: row.total_tokens, quota }, &settings.thresholds).await?;
        }
    }
    Ok(())
}

/// How long after an edge of a boost the tenant is looked at again. A batch that read the quota before the edge may
/// commit after a first look, which then saw less than it added; clocks differ; and an operator may write a boost just
/// as it begins. Nothing is recorded twice, however often it is looked for.
const LOOK_BACK: SignedDuration = SignedDuration::from_mins(5);

/// [`review`] for each tenant whose quota has changed by itself after `since`, or a bit before it, because a boost began
/// or ended. Answers how many there were. A tenant whose resource is gone is told nothing.
///
/// Tenants of which something was recorded lately are looked at again, too: what went to and fro then is recorded if it has
/// lasted.
///
/// Several may do so at once, and again: what is recorded is not recorded twice.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the other tenants were looked at, unless PostgreSQL is away, and the same call may be made
/// again.
pub async fn review_edges(pool: &PgPool, since: Timestamp, now: Timestamp) -> Result<usize, StoreError> {
    let since = since - LOOK_BACK;
    let mut turns = Turns::default();
    turns.took(review_each(pool, recently_recorded(pool).await?, now, now).await)?;
    let rows = sqlx::query!(
        "SELECT id, monthly_quota, quota_boosts
         FROM tenants
         WHERE quota_boosts <> '[]' AND detached_at IS NULL
         ORDER BY id"
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants' boosts"))?;
    let changed = rows
        .into_iter()
        .filter(|row| settings::quota(row.monthly_quota, row.quota_boosts.clone()).changes(since, now));
    let reviewed = turns.took(review_each(pool, changed.map(|row| row.id).collect(), since, now).await)?;
    turns.end()?;
    Ok(reviewed.unwrap_or_default())
}

/// Tenants of which something was recorded in the last [`LOOK_BACK`].
async fn recently_recorded(pool: &PgPool) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar!(
        "SELECT DISTINCT alerts.tenant
         FROM alerts
         JOIN tenants ON tenants.id = alerts.tenant
         WHERE alerts.created_at > clock_timestamp() - make_interval(secs => $1)
           AND alerts.kind <> 'test'
           AND tenants.detached_at IS NULL
         ORDER BY alerts.tenant",
        LOOK_BACK.as_secs_f64(),
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read of which tenants something was recorded lately"))
}

/// [`review`] for each tenant that has boosts or has reached a threshold, as far back as events may come late: for
/// whoever does not know since when nobody looked. Answers how many there were.
///
/// # Errors
///
/// Those of [`review_edges`].
pub async fn review_all(pool: &PgPool, now: Timestamp) -> Result<usize, StoreError> {
    let since = now - MAX_AGE;
    let rows = sqlx::query!(
        r#"SELECT tenants.id,
                  tenants.monthly_quota,
                  tenants.quota_boosts <> '[]' AS "is_boosted!",
                  tenants.thresholds,
                  COALESCE(max(usage_periods.total_tokens) FILTER (WHERE period_end > $1::timestamptz), 0) AS "used!"
           FROM tenants
           JOIN usage_periods ON usage_periods.tenant = tenants.id
           WHERE tenants.detached_at IS NULL AND usage_periods.period_end > $2::timestamptz
           GROUP BY tenants.id
           ORDER BY tenants.id"#,
        now.to_sqlx() as jiff_sqlx::Timestamp,
        since.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants' open periods"))?;
    let noteworthy = rows.into_iter().filter(|row| {
        let thresholds = settings::thresholds(row.thresholds.clone());
        row.is_boosted || thresholds.newly_reached(0, row.used, row.monthly_quota)
    });
    review_each(pool, noteworthy.map(|row| row.id).collect(), since, now).await
}

/// Every tenant gets its turn, even if another's fails. Then the first failure is the answer.
async fn review_each(
    pool: &PgPool,
    tenants: Vec<String>,
    since: Timestamp,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut turns = Turns::default();
    for tenant in &tenants {
        turns.took(review_one(pool, tenant, since, now).await)?;
    }
    turns.end()?;
    Ok(tenants.len())
}

async fn review_one(pool: &PgPool, tenant: &str, since: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    let failed = StoreError::postgres("review a tenant's thresholds");
    let mut tx = pool.begin().await.map_err(&failed)?;
    let row = sqlx::query_as!(
        Columns,
        "SELECT monthly_quota, quota_boosts, thresholds, billing_day, time_zone, calendars
         FROM tenants
         WHERE id = $1
         FOR SHARE",
        tenant,
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(&failed)?;
    if let Some(settings) = row.and_then(Columns::read) {
        review(&mut tx, tenant, &settings, since, now).await?;
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
    if !due.crossed_again.is_empty() {
        add_flaps(tx, held, &due.crossed_again).await?;
    }
    if !due.recovered.is_empty() {
        add_recoveries(tx, held, &due.recovered).await?;
    }
    Ok(())
}

/// What was recorded of a period, oldest first.
async fn recorded(tx: &mut PgConnection, held: &Held<'_>) -> Result<Vec<Recorded>, StoreError> {
    // By PostgreSQL's clock alone: those of the workers differ.
    let rows = sqlx::query!(
        r#"SELECT alerts.threshold,
                  alerts.monthly_quota,
                  alerts.kind,
                  COALESCE(told.created_at, alerts.created_at) > clock_timestamp() - make_interval(secs => $3)
                      AS "is_recent!"
           FROM alerts
           LEFT JOIN alerts AS told ON told.id = alerts.superseded_by
           WHERE alerts.tenant = $1 AND alerts.period_start = $2::timestamptz AND alerts.kind <> 'test'
           ORDER BY alerts.id"#,
        held.tenant,
        held.period.start.to_sqlx() as jiff_sqlx::Timestamp,
        threshold::FLAP.as_secs_f64(),
    )
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("read a period's alerts"))?;
    let recorded = rows.into_iter().map(|row| Recorded {
        threshold: row.threshold,
        quota: row.monthly_quota,
        kind: if row.kind == "crossed" { Kind::Crossed } else { Kind::Recovered },
        is_recent: row.is_recent,
    });
    Ok(recorded.collect())
}

/// Records crossings. The highest is told, on each channel that is on; the others name it.
async fn add_crossings(
    tx: &mut PgConnection,
    held: &Held<'_>,
    highest: i32,
    lower: &[i32],
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH recoveries AS (
             SELECT threshold, count(*)::integer AS number
             FROM alerts
             WHERE tenant = $1 AND period_start = $2::timestamptz AND kind = 'recovered'
             GROUP BY threshold
         ), told AS (
             INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind, episode)
             VALUES ($1, $2::timestamptz, $3::timestamptz, $4, $5, $6, 'crossed',
                     COALESCE((SELECT number FROM recoveries WHERE threshold = $4), 0))
             ON CONFLICT DO NOTHING
             RETURNING id
         ), others AS (
             INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind, episode,
                                 superseded_by)
             SELECT $1, $2::timestamptz, $3::timestamptz, lower.threshold, $5, $6, 'crossed',
                    COALESCE(recoveries.number, 0), told.id
             FROM told, UNNEST($7::integer[]) AS lower (threshold)
             LEFT JOIN recoveries ON recoveries.threshold = lower.threshold
             ON CONFLICT DO NOTHING
         )
         INSERT INTO alert_deliveries (alert, channel)
         SELECT told.id, alert_channels.channel
         FROM told, alert_channels
         WHERE alert_channels.tenant = $1",
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

/// Records crossings that are not told, since the same were only just. They name what was.
async fn add_flaps(tx: &mut PgConnection, held: &Held<'_>, thresholds: &[i32]) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind, episode,
                             superseded_by)
         SELECT $1, $2::timestamptz, $3::timestamptz, again.threshold, $5, $6, 'crossed',
                (SELECT count(*)::integer
                 FROM alerts
                 WHERE alerts.tenant = $1
                   AND alerts.period_start = $2::timestamptz
                   AND alerts.threshold = again.threshold
                   AND alerts.kind = 'recovered'),
                (SELECT COALESCE(superseded_by, id)
                 FROM alerts
                 WHERE alerts.tenant = $1
                   AND alerts.period_start = $2::timestamptz
                   AND alerts.threshold = again.threshold
                   AND alerts.monthly_quota = $5
                   AND alerts.kind = 'crossed'
                 ORDER BY id DESC
                 LIMIT 1)
         FROM UNNEST($4::integer[]) AS again (threshold)
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
    .map_err(StoreError::postgres("record that thresholds were crossed again"))
}

async fn add_recoveries(
    tx: &mut PgConnection,
    held: &Held<'_>,
    thresholds: &[i32],
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind, episode)
         SELECT $1, $2::timestamptz, $3::timestamptz, recovered.threshold, $5, $6, 'recovered',
                (SELECT count(*)::integer
                 FROM alerts
                 WHERE alerts.tenant = $1
                   AND alerts.period_start = $2::timestamptz
                   AND alerts.threshold = recovered.threshold
                   AND alerts.kind = 'recovered')
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
