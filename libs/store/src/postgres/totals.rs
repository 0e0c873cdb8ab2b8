//! What a count adds to: tokens by minute, by billing period, and by feature within it.
//!
//! Two workers nearly always meet in these rows, and whoever is second waits until the first has committed. So all
//! three tables are written by one statement, the last before the commit.

use flagmeter_core::rollup::{FeatureBatch, PeriodBatch, RollupBatch};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use crate::StoreError;

/// What a period came to by a count.
#[derive(Debug)]
pub(super) struct Total {
    pub(super) tenant: String,
    pub(super) period_start: Timestamp,
    pub(super) tokens: i64,
    /// The quota that it is held against, if it is over and the tenant has another by now.
    pub(super) monthly_quota: Option<i64>,
}

/// Adds a batch, folded in three ways, and answers what its periods come to now. After an error the caller's
/// transaction can only be rolled back.
///
/// `MERGE` looks first and writes then, which costs a fifth less than `ON CONFLICT` and half the WAL where the row is
/// there already, as it nearly always is. A row that another transaction adds at the same moment is a duplicate key
/// ([`StoreError::is_duplicate_key`]): begun anew, the transaction finds it.
///
/// The rows of a table are locked in the order of their keys, and the tables always in the same order, since it is
/// always the same plan: two workers never wait for each other in a circle.
pub(super) async fn add(
    tx: &mut PgConnection,
    rollups: &RollupBatch,
    periods: &PeriodBatch,
    features: &FeatureBatch,
) -> Result<Vec<Total>, StoreError> {
    let minutes = rollups.rows();
    let minute_tenants: Vec<&str> = minutes.clone().map(|((tenant, ..), _)| tenant.as_str()).collect();
    let minute_features: Vec<&str> = minutes.clone().map(|((_, feature, _), _)| feature.as_str()).collect();
    let minute_starts: Vec<_> = minutes.clone().map(|((.., minute), _)| minute.start().to_sqlx()).collect();
    let minute_tokens: Vec<i64> = minutes.map(|(_, sum)| sum.tokens).collect();

    let period_tenants: Vec<&str> = periods.keys().map(|(tenant, _)| tenant.as_str()).collect();
    let period_starts: Vec<_> = periods.keys().map(|(_, period)| period.start.to_sqlx()).collect();
    let period_ends: Vec<_> = periods.keys().map(|(_, period)| period.end.to_sqlx()).collect();
    let period_tokens: Vec<i64> = periods.values().map(|row| row.sum.tokens).collect();
    let period_events: Vec<i64> = periods.values().map(|row| row.sum.events).collect();
    let last_minutes: Vec<_> = periods.values().map(|row| row.last_minute.start().to_sqlx()).collect();

    let share_tenants: Vec<&str> = features.keys().map(|(tenant, ..)| tenant.as_str()).collect();
    let share_starts: Vec<_> = features.keys().map(|(_, period, _)| period.start.to_sqlx()).collect();
    let share_features: Vec<&str> = features.keys().map(|(.., feature)| feature.as_str()).collect();
    let share_tokens: Vec<i64> = features.values().map(|sum| sum.tokens).collect();

    sqlx::query!(
        // A reader of the periods asks for what changed since it last looked, so their time is that of the write
        // and not of the transaction's start.
        r#"WITH minutes AS (
             MERGE INTO rollups AS total
             USING (
                 SELECT tenant, feature, minute, tokens
                 FROM UNNEST($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
                      AS batch (tenant, feature, minute, tokens)
                 ORDER BY tenant, feature, minute
             ) AS batch
             ON (total.tenant, total.feature, total.minute) = (batch.tenant, batch.feature, batch.minute)
             WHEN MATCHED THEN
                 UPDATE SET total_tokens = total.total_tokens + batch.tokens, updated_at = now()
             WHEN NOT MATCHED THEN
                 INSERT (tenant, feature, minute, total_tokens)
                 VALUES (batch.tenant, batch.feature, batch.minute, batch.tokens)
         ), shares AS (
             MERGE INTO usage_features AS total
             USING (
                 SELECT tenant, period_start, feature, tokens
                 FROM UNNEST($5::text[], $6::timestamptz[], $7::text[], $8::bigint[])
                      AS batch (tenant, period_start, feature, tokens)
                 ORDER BY tenant, period_start, feature
             ) AS batch
             ON (total.tenant, total.period_start, total.feature)
                = (batch.tenant, batch.period_start, batch.feature)
             WHEN MATCHED THEN
                 UPDATE SET total_tokens = total.total_tokens + batch.tokens, updated_at = clock_timestamp()
             WHEN NOT MATCHED THEN
                 INSERT (tenant, period_start, feature, total_tokens, updated_at)
                 VALUES (batch.tenant, batch.period_start, batch.feature, batch.tokens, clock_timestamp())
         )
         MERGE INTO usage_periods AS total
         USING (
             SELECT tenant, period_start, period_end, tokens, events, minute
             FROM UNNEST($9::text[], $10::timestamptz[], $11::timestamptz[], $12::bigint[], $13::bigint[],
                         $14::timestamptz[])
                  AS batch (tenant, period_start, period_end, tokens, events, minute)
             ORDER BY tenant, period_start
         ) AS batch
         ON (total.tenant, total.period_start) = (batch.tenant, batch.period_start)
         WHEN MATCHED THEN
             UPDATE SET total_tokens = total.total_tokens + batch.tokens,
                        events       = total.events + batch.events,
                        last_minute  = GREATEST(total.last_minute, batch.minute),
                        updated_at   = clock_timestamp()
         WHEN NOT MATCHED THEN
             INSERT (tenant, period_start, period_end, total_tokens, events, last_minute, updated_at)
             VALUES (batch.tenant, batch.period_start, batch.period_end, batch.tokens, batch.events, batch.minute,
                     clock_timestamp())
         RETURNING total.tenant AS "tenant!",
                   total.period_start AS "period_start!: jiff_sqlx::Timestamp",
                   total.total_tokens AS "total_tokens!",
                   total.monthly_quota"#,
        &minute_tenants as &[&str],
        &minute_features as &[&str],
        &minute_starts as &[jiff_sqlx::Timestamp],
        &minute_tokens,
        &share_tenants as &[&str],
        &share_starts as &[jiff_sqlx::Timestamp],
        &share_features as &[&str],
        &share_tokens,
        &period_tenants as &[&str],
        &period_starts as &[jiff_sqlx::Timestamp],
        &period_ends as &[jiff_sqlx::Timestamp],
        &period_tokens,
        &period_events,
        &last_minutes as &[jiff_sqlx::Timestamp],
    )
    .map(|row| Total {
        tenant: row.tenant,
        period_start: row.period_start.to_jiff(),
        tokens: row.total_tokens,
        monthly_quota: row.monthly_quota,
    })
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("add to the totals"))
}
