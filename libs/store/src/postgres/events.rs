//! Raw events, by binary COPY into a partition a day.

use flagmeter_core::event::UsageEvent;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::Row;
use crate::{PgPool, StoreError};

/// What every binary COPY starts with: a signature, flags and the length of an extension
/// (PostgreSQL 18, "COPY", section "Binary Format").
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The number of columns that no row has: the end.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Columns a row.
const COLUMNS: [u8; 2] = 6_i16.to_be_bytes();

/// PostgreSQL counts microseconds from 2000-01-01T00:00Z; this is that instant since 1970.
const POSTGRES_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// A message to PostgreSQL is filled up to about this size.
const MESSAGE_BYTES: usize = 64 * 1024;

/// Makes the partition for `day`, if it is not there.
pub(super) async fn ensure_partition(pool: &PgPool, day: Date) -> Result<(), StoreError> {
    sqlx::query!("SELECT ensure_event_partitions($1::date, $1::date)", day.to_sqlx() as jiff_sqlx::Date)
        .execute(pool)
        .await
        .map(drop)
        .map_err(StoreError::postgres("make a partition of events"))
}

/// Writes `rows`.
pub(super) async fn copy(tx: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), StoreError> {
    let failed = StoreError::postgres("copy events");
    let mut copy = tx
        .copy_in_raw(
            "COPY events (id, tenant, feature, tokens, occurred_at, created_at) FROM STDIN (FORMAT binary)",
        )
        .await
        .map_err(&failed)?;
    let mut message = Vec::with_capacity(MESSAGE_BYTES + 512);
    message.extend_from_slice(HEADER);
    for row in rows {
        write(&mut message, row.id, row.event, row.received_at);
        if message.len() >= MESSAGE_BYTES {
            copy.send(message.as_slice()).await.map_err(&failed)?;
            message.clear();
        }
    }
    message.extend_from_slice(&TRAILER);
    copy.send(message.as_slice()).await.map_err(&failed)?;
    copy.finish().await.map(drop).map_err(&failed)
}

fn write(message: &mut Vec<u8>, id: Uuid, event: &UsageEvent, received_at: Timestamp) {
    message.extend_from_slice(&COLUMNS);
    field(message, id.as_bytes());
    field(message, event.tenant.as_str().as_bytes());
    field(message, event.feature.as_str().as_bytes());
    field(message, &event.signed_tokens().to_be_bytes());
    field(message, &instant(event.occurred_at));
    field(message, &instant(received_at));
}

fn field(message: &mut Vec<u8>, bytes: &[u8]) {
    // No field is longer than a feature's 128 bytes.
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(bytes);
}

fn instant(instant: Timestamp) -> [u8; 8] {
    (instant.as_microsecond() - POSTGRES_EPOCH_MICROSECONDS).to_be_bytes()
}
