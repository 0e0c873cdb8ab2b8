//! Raw events, by binary COPY into a partition a day.

use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use super::batch::Row;
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

/// Writes `rows`. What `meanwhile` does is done while PostgreSQL is at work on them.
pub(super) async fn copy<T>(
    tx: &mut PgConnection,
    rows: &[Row<'_>],
    meanwhile: impl FnOnce() -> T,
) -> Result<T, StoreError> {
    let mut copy = Copy::begin(
        tx,
        "COPY events (id, tenant, feature, tokens, occurred_at, created_at) FROM STDIN (FORMAT binary)",
        "copy events",
    )
    .await?;
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
    copy.flush().await?;
    let done = meanwhile();
    copy.finish().await?;
    Ok(done)
}
