//! Makes a tenant's open period anew, after a change of its calendar.

use flagmeter_core::calendar::Calendar;
use flagmeter_core::recount::{Counted, Minutes, Recounted, recount};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use crate::StoreError;

/// The most periods that are made of one. It lasted a month or two, so there are three at most.
const PERIODS: usize = 100;

/// Puts what was counted in the periods from `since` on into those of `calendar`, whose first begins then too.
///
/// The caller holds the tenant's row against all who count, so nothing is added meanwhile.
pub(super) async fn open_period(
    tx: &mut PgConnection,
    tenant: &str,
    since: Timestamp,
    calendar: &Calendar,
) -> Result<(), StoreError> {
    let Some((counted, newest)) = take(tx, tenant, since).await? else { return Ok(()) };
    let periods = calendar.periods(since, newest.max(since), PERIODS);
    let starts: Vec<_> = periods.iter().map(|period| period.start.to_sqlx()).collect();
    let ends: Vec<_> = periods.iter().map(|period| period.end.to_sqlx()).collect();
    let minutes = sqlx::query!(
        r#"SELECT periods.period_start AS "period_start!: jiff_sqlx::Timestamp",
                  rollups.feature,
                  sum(rollups.total_tokens)::bigint AS "tokens!",
                  max(rollups.minute) AS "last_minute!: jiff_sqlx::Timestamp"
           FROM UNNEST($2::timestamptz[], $3::timestamptz[]) AS periods (period_start, period_end)
           JOIN rollups ON rollups.minute >= periods.period_start AND rollups.minute < periods.period_end
           WHERE rollups.tenant = $1
           GROUP BY periods.period_start, rollups.feature"#,
        tenant,
        &starts as &[jiff_sqlx::Timestamp],
        &ends as &[jiff_sqlx::Timestamp],
    )
    .map(|row| Minutes {
        period_start: row.period_start.to_jiff(),
        feature: row.feature,
        tokens: row.tokens,
        last_minute: row.last_minute.to_jiff(),
    })
    .fetch_all(&mut *tx)
    .await
    .map_err(StoreError::postgres("sum a tenant's minutes"))?;
    put(tx, tenant, &recount(&periods, &counted, minutes)).await
}

/// Takes away what was counted in the periods from `since` on. Answers it, with the newest minute in it; `None` if
/// there was nothing.
async fn take(
    tx: &mut PgConnection,
    tenant: &str,
    since: Timestamp,
) -> Result<Option<(Counted, Timestamp)>, StoreError> {
    let failed = StoreError::postgres("take away a tenant's open period");
    let periods = sqlx::query!(
        r#"DELETE FROM usage_periods
           WHERE tenant = $1 AND period_start >= $2::timestamptz
           RETURNING events, last_minute AS "last_minute: jiff_sqlx::Timestamp""#,
        tenant,
        since.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(&failed)?;
    let Some(newest) = periods.iter().map(|row| row.last_minute.to_jiff()).max() else {
        return Ok(None);
    };
    let mut counted = Counted { events: periods.iter().map(|row| row.events).sum(), ..Counted::default() };
    let features = sqlx::query!(
        "DELETE FROM usage_features
         WHERE tenant = $1 AND period_start >= $2::timestamptz
         RETURNING feature, total_tokens",
        tenant,
        since.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(tx)
    .await
    .map_err(&failed)?;
    for row in features {
        *counted.features.entry(row.feature).or_default() += row.total_tokens;
    }
    Ok(Some((counted, newest)))
}

async fn put(tx: &mut PgConnection, tenant: &str, periods: &[Recounted]) -> Result<(), StoreError> {
    let failed = StoreError::postgres("put a tenant's open period");
    for recounted in periods {
        let start = recounted.period.start.to_sqlx();
        sqlx::query!(
            "INSERT INTO usage_periods
                 (tenant, period_start, period_end, total_tokens, events, last_minute, updated_at)
             VALUES ($1, $2::timestamptz, $3::timestamptz, $4, $5, $6::timestamptz, clock_timestamp())",
            tenant,
            start as jiff_sqlx::Timestamp,
            recounted.period.end.to_sqlx() as jiff_sqlx::Timestamp,
            recounted.tokens(),
            recounted.events,
            recounted.last_minute.to_sqlx() as jiff_sqlx::Timestamp,
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        let (features, tokens): (Vec<String>, Vec<i64>) = recounted.features.clone().into_iter().unzip();
        sqlx::query!(
            "INSERT INTO usage_features (tenant, period_start, feature, total_tokens, updated_at)
             SELECT $1, $2::timestamptz, features.feature, features.tokens, clock_timestamp()
             FROM UNNEST($3::text[], $4::bigint[]) AS features (feature, tokens)",
            tenant,
            start as jiff_sqlx::Timestamp,
            &features,
            &tokens,
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
    }
    Ok(())
}
