//! Tokens by billing period, and by feature within it, as readers ask for them: they are written with the count
//! ([`totals`](super::totals)), so that a reader never sums.

use flagmeter_core::period::BillingPeriod;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;

use super::settings;
use crate::{PgPool, StoreError};

/// A tenant's total in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeriodRow {
    /// The tenant.
    pub tenant: String,
    /// The period's first instant.
    pub period_start: Timestamp,
    /// Tokens.
    pub total_tokens: i64,
    /// The start of the newest minute with usage.
    pub last_minute: Timestamp,
}

/// A feature's share of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureRow {
    /// The tenant.
    pub tenant: String,
    /// The period's first instant.
    pub period_start: Timestamp,
    /// The feature.
    pub feature: String,
    /// Tokens.
    pub total_tokens: i64,
}

/// Rows of both, seen at one instant: in periods that are not over, the features add up to the total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRows {
    /// When, by PostgreSQL's clock: what is committed later may have been written since.
    pub read_at: Timestamp,
    /// Totals.
    pub periods: Vec<PeriodRow>,
    /// Shares.
    pub features: Vec<FeatureRow>,
}

/// The rows that were written since `since` by PostgreSQL's clock, or all of them: totals of periods that end after
/// `ended`, and shares of those that end after `now`.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn changed(
    pool: &PgPool,
    ended: Timestamp,
    now: Timestamp,
    since: Option<Timestamp>,
) -> Result<UsageRows, StoreError> {
    let failed = StoreError::postgres("read the usage");
    // One picture of both tables.
    let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(&failed)?;
    let since = since.unwrap_or(Timestamp::UNIX_EPOCH).to_sqlx();
    let now = now.to_sqlx();
    let read_at = sqlx::query_scalar!(r#"SELECT now() AS "now!: jiff_sqlx::Timestamp""#)
        .fetch_one(&mut *tx)
        .await
        .map_err(&failed)?;
    let periods = sqlx::query!(
        r#"SELECT tenant,
                  period_start AS "period_start: jiff_sqlx::Timestamp",
                  total_tokens,
                  last_minute AS "last_minute: jiff_sqlx::Timestamp"
           FROM usage_periods
           WHERE period_end > $1::timestamptz AND updated_at > $2::timestamptz"#,
        ended.to_sqlx() as jiff_sqlx::Timestamp,
        since as jiff_sqlx::Timestamp,
    )
    .map(|row| PeriodRow {
        tenant: row.tenant,
        period_start: row.period_start.to_jiff(),
        total_tokens: row.total_tokens,
        last_minute: row.last_minute.to_jiff(),
    })
    .fetch_all(&mut *tx)
    .await
    .map_err(&failed)?;
    let features = sqlx::query!(
        r#"SELECT features.tenant,
                  features.period_start AS "period_start: jiff_sqlx::Timestamp",
                  features.feature,
                  features.total_tokens
           FROM usage_features AS features
           JOIN usage_periods AS periods USING (tenant, period_start)
           -- One statement writes both. Without the period's own time all features that ever were would be read.
           WHERE periods.period_end > $1::timestamptz
             AND periods.updated_at > $2::timestamptz
             AND features.updated_at > $2::timestamptz"#,
        now as jiff_sqlx::Timestamp,
        since as jiff_sqlx::Timestamp,
    )
    .map(|row| FeatureRow {
        tenant: row.tenant,
        period_start: row.period_start.to_jiff(),
        feature: row.feature,
        total_tokens: row.total_tokens,
    })
    .fetch_all(&mut *tx)
    .await
    .map_err(&failed)?;
    tx.commit().await.map_err(&failed)?;
    Ok(UsageRows { read_at: read_at.to_jiff(), periods, features })
}

/// How a reading of one tenant's periods begins: of one picture, and ended before the request that waits for it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '4s'";

/// A period of one tenant, with everything that is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Its first instant.
    pub start: Timestamp,
    /// The first instant of the next.
    pub end: Timestamp,
    /// Tokens.
    pub total_tokens: i64,
    /// Events, those that take another back among them.
    pub events: i64,
    /// Tokens by feature, in the order of their names; they add up to the total.
    pub features: Vec<(String, i64)>,
}

/// The periods of `tenant` that have begun by `now` and in which something was counted, newest first, at
/// most `limit`, all seen at one instant.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn periods(
    pool: &PgPool,
    tenant: &str,
    now: Timestamp,
    limit: u16,
) -> Result<Vec<Period>, StoreError> {
    let failed = StoreError::postgres("read a tenant's periods");
    let mut tx = pool.begin_with(BEGIN).await.map_err(&failed)?;
    let mut periods = sqlx::query!(
        r#"SELECT period_start AS "start: jiff_sqlx::Timestamp",
                  period_end AS "end: jiff_sqlx::Timestamp",
                  total_tokens,
                  events
           FROM usage_periods
           WHERE tenant = $1 AND period_start <= $2::timestamptz
             -- Some have a row only for the quota that they had.
             AND (events <> 0 OR total_tokens <> 0)
           ORDER BY period_start DESC
           LIMIT $3"#,
        tenant,
        now.to_sqlx() as jiff_sqlx::Timestamp,
        i64::from(limit),
    )
    .map(|row| Period {
        start: row.start.to_jiff(),
        end: row.end.to_jiff(),
        total_tokens: row.total_tokens,
        events: row.events,
        features: Vec::new(),
    })
    .fetch_all(&mut *tx)
    .await
    .map_err(&failed)?;
    let starts: Vec<_> = periods.iter().map(|period| period.start.to_sqlx()).collect();
    let features = sqlx::query!(
        r#"SELECT array_position($2::timestamptz[], period_start) AS "place!", feature, total_tokens
           FROM usage_features
           WHERE tenant = $1 AND period_start = ANY($2::timestamptz[])
           ORDER BY feature"#,
        tenant,
        &starts as &[jiff_sqlx::Timestamp],
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(&failed)?;
    tx.commit().await.map_err(&failed)?;
    for row in features {
        let index = usize::try_from(row.place - 1).ok();
        if let Some(period) = index.and_then(|index| periods.get_mut(index)) {
            period.features.push((row.feature, row.total_tokens));
        }
    }
    Ok(periods)
}

/// What a tenant has used in the period that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The period.
    pub period: BillingPeriod,
    /// Tokens a billing period, with the boosts that hold now.
    pub monthly_quota: i64,
    /// The same without boosts.
    pub base_quota: i64,
    /// Tokens.
    pub total_tokens: i64,
    /// Tokens by feature, in the order of their names; they add up to the total.
    pub features: Vec<(String, i64)>,
}

/// What `tenant` has used in the period that is open at `now`; `None` if there is no such tenant.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn open(pool: &PgPool, tenant: &str, now: Timestamp) -> Result<Option<Open>, StoreError> {
    let failed = StoreError::postgres("read a tenant's usage");
    let Some(settings) = settings::find(pool, tenant).await.map_err(&failed)? else { return Ok(None) };
    let period = settings.calendar.period(now);
    // The newest in which something was counted may be an earlier one.
    let newest = periods(pool, tenant, now, 1).await?.pop().filter(|newest| newest.start == period.start);
    let (total_tokens, features) =
        newest.map(|newest| (newest.total_tokens, newest.features)).unwrap_or_default();
    let (monthly_quota, base_quota) = (settings.quota.at(now), settings.quota.base);
    Ok(Some(Open { period, monthly_quota, base_quota, total_tokens, features }))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::postgres::batch::Counter;
    use crate::testing::{add_tenant, entry, event};

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn periods_are_a_tenants_own_the_newest_first_and_none_that_has_not_begun(pool: PgPool) {
        add_tenant(&pool, "acme").await;
        add_tenant(&pool, "globex").await;
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let used = |feature: &str, tokens: i64, instant: &str| flagmeter_core::event::UsageEvent {
            feature: feature.try_into().unwrap(),
            occurred_at: at(instant),
            ..event("acme", tokens)
        };
        // Clocks differ, so an event of the next period may come before that has begun.
        let events = [
            used("f", 1, "2026-06-30T23:59:59Z"),
            used("f", 2, "2026-07-01T00:01:00Z"),
            used("g", 4, "2026-05-31T12:00:00Z"),
            used("f", 8, "2026-05-01T00:00:00Z"),
            event("globex", 16),
        ];
        Counter::new(pool.clone()).apply(&[entry(1, events)]).await.unwrap();
        let period = |start: &str, end: &str, events: i64, features: &[(&str, i64)]| Period {
            start: at(start),
            end: at(end),
            total_tokens: features.iter().map(|(_, tokens)| tokens).sum(),
            events,
            features: features.iter().map(|(feature, tokens)| ((*feature).to_owned(), *tokens)).collect(),
        };
        let may = period("2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z", 2, &[("f", 8), ("g", 4)]);
        let june = period("2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z", 1, &[("f", 1)]);
        let july = period("2026-07-01T00:00:00Z", "2026-08-01T00:00:00Z", 1, &[("f", 2)]);
        let begun = at("2026-07-01T00:00:00Z");
        let before = begun - SignedDuration::from_micros(1);
        assert_eq!(periods(&pool, "acme", before, 12).await.unwrap(), [june.clone(), may]);
        assert_eq!(periods(&pool, "acme", begun, 2).await.unwrap(), [july, june]);
        assert_eq!(periods(&pool, "nobody", begun, 12).await.unwrap(), []);

        let open_at = async |tenant, instant| open(&pool, tenant, at(instant)).await.unwrap();
        let june = open_at("acme", "2026-06-30T23:59:59Z").await.unwrap();
        assert_eq!((june.total_tokens, june.monthly_quota, june.base_quota), (1, 1_000_000, 1_000_000));
        assert_eq!(june.features, [("f".to_owned(), 1)]);
        assert_eq!((june.period.start, june.period.end), (at("2026-06-01T00:00:00Z"), begun));
        let empty = open_at("acme", "2026-08-15T00:00:00Z").await.unwrap();
        assert_eq!((empty.total_tokens, empty.features), (0, Vec::new()), "not that of July");
        assert_eq!(open_at("nobody", "2026-06-15T00:00:00Z").await, None);
    }
}
