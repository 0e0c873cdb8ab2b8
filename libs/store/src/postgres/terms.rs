//! What a count depends on, as the operator changes it: quota, thresholds and calendar, with all that follows.

use flagmeter_core::calendar::Calendar;
use flagmeter_core::event::MAX_AGE;
use flagmeter_core::period::BillingPeriod;
use flagmeter_core::quota::{Boost, Quota};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::json;
use sqlx::PgConnection;

use super::settings::{self, Columns, TenantSettings};
use super::{alerts, recount};
use crate::StoreError;

/// What is wanted.
pub(super) struct Wanted<'a> {
    pub(super) monthly_quota: i64,
    pub(super) boosts: &'a [Boost],
    pub(super) thresholds: &'a [i32],
    pub(super) billing_day: i16,
    pub(super) time_zone: &'a str,
}

/// Reads the settings that are in force, and locks the tenant's row against all who count: those who do have
/// committed, and whoever comes waits. `None` if there is no such row.
pub(super) async fn lock(tx: &mut PgConnection, tenant: &str) -> Result<Option<TenantSettings>, StoreError> {
    sqlx::query_as!(
        Columns,
        "SELECT monthly_quota, quota_boosts, thresholds, billing_day, time_zone, calendars
         FROM tenants
         WHERE id = $1
         FOR NO KEY UPDATE",
        tenant,
    )
    .fetch_optional(tx)
    .await
    .map(|row| row.and_then(Columns::read))
    .map_err(StoreError::postgres("lock a tenant's row"))
}

/// Puts `wanted` in force at `now`, in place of `former`. The caller holds the tenant's row, which has the wanted
/// quota, billing day and zone already.
///
/// - Another calendar makes the open period anew.
/// - A period that is over, by that calendar too, keeps the quota that it had.
/// - Usage is held against the quota that there is now, whether it is lower or higher.
pub(super) async fn put(
    tx: &mut PgConnection,
    tenant: &str,
    former: Option<TenantSettings>,
    wanted: &Wanted<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    // The database has just refused any day that is none.
    let Some(asked) = settings::calendar(wanted.billing_day, wanted.time_zone, json!([])) else {
        return Ok(());
    };
    let quota = Quota { base: wanted.monthly_quota, boosts: wanted.boosts.to_vec() };
    let changed = former.as_ref().and_then(|former| former.calendar.changed(asked.terms().clone(), now));
    let is_changed = changed.is_some();
    let same = former.as_ref().map(|former| former.calendar.clone());
    let calendar = changed.or(same).unwrap_or(asked);
    let thresholds = settings::thresholds(wanted.thresholds.to_vec());
    sqlx::query!(
        "UPDATE tenants
         SET thresholds   = $2,
             quota_boosts = $3,
             calendars    = $4
         WHERE id = $1",
        tenant,
        thresholds.percents(),
        json!(quota.boosts),
        json!(settings::entries(&calendar)),
    )
    .execute(&mut *tx)
    .await
    .map_err(StoreError::postgres("write a tenant's terms"))?;
    if is_changed && let Some(since) = calendar.history().last().and_then(|(since, _)| since) {
        recount::open_period(tx, tenant, since, &calendar).await?;
    }
    // After that: a piece of the open period may be over by it.
    if let Some(former) = former.filter(|former| former.quota != quota) {
        keep_quota(tx, tenant, &former.quota, &calendar, now).await?;
    }
    let settings = TenantSettings { quota, thresholds, calendar };
    alerts::review(tx, tenant, &settings, now, now).await
}

/// The most periods that events which come late may belong to. A month has one; changes of the calendar make more.
const LATE_PERIODS: usize = 100;

/// Writes `quota` to the periods that are over and have had no other, so that an event that comes late is held
/// against it. Those in which nothing was used get a row for it, as far back as events may come late.
async fn keep_quota(
    tx: &mut PgConnection,
    tenant: &str,
    quota: &Quota,
    calendar: &Calendar,
    now: Timestamp,
) -> Result<(), StoreError> {
    let failed = StoreError::postgres("keep the quota of periods that are over");
    let mut late = calendar.periods(now - MAX_AGE, now, LATE_PERIODS);
    late.retain(|period| period.end <= now);
    let starts: Vec<_> = late.iter().map(|period| period.start.to_sqlx()).collect();
    let ends: Vec<_> = late.iter().map(|period| period.end.to_sqlx()).collect();
    sqlx::query!(
        "INSERT INTO usage_periods (tenant, period_start, period_end, total_tokens, events, last_minute)
         SELECT $1, late.period_start, late.period_end, 0, 0, late.period_start
         FROM UNNEST($2::timestamptz[], $3::timestamptz[]) AS late (period_start, period_end)
         ON CONFLICT DO NOTHING",
        tenant,
        &starts as &[jiff_sqlx::Timestamp],
        &ends as &[jiff_sqlx::Timestamp],
    )
    .execute(&mut *tx)
    .await
    .map_err(&failed)?;
    let periods = sqlx::query!(
        r#"SELECT period_start AS "start: jiff_sqlx::Timestamp", period_end AS "end: jiff_sqlx::Timestamp"
           FROM usage_periods
           WHERE tenant = $1 AND period_end <= $2::timestamptz AND monthly_quota IS NULL"#,
        tenant,
        now.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .map(|row| BillingPeriod { start: row.start.to_jiff(), end: row.end.to_jiff() })
    .fetch_all(&mut *tx)
    .await
    .map_err(&failed)?;
    let starts: Vec<_> = periods.iter().map(|period| period.start.to_sqlx()).collect();
    let quotas: Vec<i64> = periods.iter().map(|period| quota.during(period, now)).collect();
    sqlx::query!(
        "UPDATE usage_periods
         SET monthly_quota = former.quota
         FROM UNNEST($2::timestamptz[], $3::bigint[]) AS former (period_start, quota)
         WHERE usage_periods.tenant = $1 AND usage_periods.period_start = former.period_start",
        tenant,
        &starts as &[jiff_sqlx::Timestamp],
        &quotas,
    )
    .execute(tx)
    .await
    .map(drop)
    .map_err(&failed)
}

#[cfg(test)]
mod tests;
