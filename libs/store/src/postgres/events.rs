//! Raw events: many by binary COPY into a partition a day, few by one INSERT.
//!
//! A COPY names its partition: a tenth of its time would go into finding it for each row.

use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::{Row, day_of, unix_day};
use super::copy::{self, Copy, instant};
use crate::{PgPool, StoreError};

/// Makes the partition for `day`, if it is not there.
pub(super) async fn ensure_partition(pool: &PgPool, day: Date) -> Result<(), StoreError> {
    sqlx::query!("SELECT ensure_event_partitions($1::date, $1::date)", day.to_sqlx() as jiff_sqlx::Date)
        .execute(pool)
        .await
        .map(drop)
        .map_err(StoreError::postgres("make a partition of events"))
}

/// Writes `rows`. What `meanwhile` does is done while PostgreSQL is at work on the last of them, if they are many.
pub(super) async fn add<T>(
    tx: &mut PgConnection,
    rows: &[Row<'_>],
    meanwhile: impl FnOnce() -> T,
) -> Result<T, StoreError> {
    // Entries come in the order in which they were received, so this is one day, and two around midnight.
    let mut days = rows.chunk_by(|one, next| unix_day(one.received_at) == unix_day(next.received_at));
    let Some(last) = days.next_back() else { return Ok(meanwhile()) };
    for day in days {
        if day.len() < copy::LEAST_ROWS {
            insert(tx, day).await?;
        } else {
            begin(tx, day).await?.finish().await?;
        }
    }
    if last.len() < copy::LEAST_ROWS {
        insert(tx, last).await?;
        return Ok(meanwhile());
    }
    let mut copy = begin(tx, last).await?;
    copy.flush().await?;
    let done = meanwhile();
    copy.finish().await?;
    Ok(done)
}

/// Writes few rows, by one statement.
async fn insert(tx: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let tenants: Vec<&str> = rows.iter().map(|row| row.event.tenant.as_str()).collect();
    let features: Vec<&str> = rows.iter().map(|row| row.event.feature.as_str()).collect();
    let tokens: Vec<i64> = rows.iter().map(|row| row.event.signed_tokens()).collect();
    let occurred: Vec<_> = rows.iter().map(|row| row.event.occurred_at.to_sqlx()).collect();
    let received: Vec<_> = rows.iter().map(|row| row.received_at.to_sqlx()).collect();
    sqlx::query!(
        "INSERT INTO events (id, tenant, feature, tokens, occurred_at, created_at)
         SELECT *
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[])",
        &ids,
        &tenants as &[&str],
        &features as &[&str],
        &tokens,
        &occurred as &[jiff_sqlx::Timestamp],
        &received as &[jiff_sqlx::Timestamp],
    )
    .execute(tx)
    .await
    .map(drop)
    .map_err(StoreError::postgres("insert events"))
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
