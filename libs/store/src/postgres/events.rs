//! Raw events, by binary COPY into a partition a day.
//!
//! The partition is named: a tenth of a COPY's time would go into finding it for each row.

use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use super::batch::{Row, day_of, unix_day};
use super::copy::{Copy, instant};
use crate::{PgPool, StoreError};

/// Makes the partition for `day`, if it is not there.
pub(super) async fn ensure_partition(pool: &PgPool, day: Date) -> Result<(), StoreError> {
    sqlx::query!("SELECT ensure_event_partitions($1::date, $1::date)", day.to_sqlx() as jiff_sqlx::Date)
        .execute(pool)
        .await
        .map(drop)
        .map_err(StoreError::postgres("make a partition of events"))
}

/// Writes `rows`. What `meanwhile` does is done while PostgreSQL is at work on the last of them.
pub(super) async fn copy<T>(
    tx: &mut PgConnection,
    rows: &[Row<'_>],
    meanwhile: impl FnOnce() -> T,
) -> Result<T, StoreError> {
    // Entries come in the order in which they were received, so this is one day, and two around midnight.
    let mut days = rows.chunk_by(|one, next| unix_day(one.received_at) == unix_day(next.received_at));
    let Some(last) = days.next_back() else { return Ok(meanwhile()) };
    for day in days {
        begin(tx, day).await?.finish().await?;
    }
    let mut copy = begin(tx, last).await?;
    copy.flush().await?;
    let done = meanwhile();
    copy.finish().await?;
    Ok(done)
}

/// Copies `rows`, of which there are some and all were received on one day, but for the end.
async fn begin<'connection>(
    tx: &'connection mut PgConnection,
    rows: &[Row<'_>],
) -> Result<Copy<'connection>, StoreError> {
    let table = format!("events_{}", day_of(rows[0].received_at).strftime("%Y%m%d"));
    let columns = "id, tenant, feature, tokens, occurred_at, created_at";
    let mut copy = Copy::begin(tx, &table, columns, "copy events").await?;
    for Row { event, id, received_at, .. } in rows {
        copy.row([
            id.as_bytes(),
            event.tenant.as_str().as_bytes(),
            event.feature.as_str().as_bytes(),
            &event.signed_tokens().to_be_bytes(),
            &instant(event.occurred_at),
            &instant(*received_at),
        ])
        .await?;
    }
    Ok(copy)
}
