//! What could not be counted, with the reason. Nothing that was taken in is ever dropped.

use flagmeter_core::packed::Unreadable;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::Row;
use crate::{PgPool, StoreError};

/// Keeps `rows`, which are not counted for `reason`.
pub(super) async fn add(tx: &mut PgConnection, rows: &[Row<'_>], reason: &str) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let entries: Vec<String> = rows.iter().map(|row| row.entry_id.to_owned()).collect();
    let batches: Vec<Uuid> = rows.iter().map(|row| row.batch_id).collect();
    let tenants: Vec<String> = rows.iter().map(|row| row.event.tenant.to_string()).collect();
    let events: Vec<serde_json::Value> = rows.iter().map(as_json).collect();
    sqlx::query!(
        "INSERT INTO dead_letters (entry_id, batch_id, tenant, reason, event)
         SELECT entry_id, batch_id, tenant, $5, event
         FROM UNNEST($1::text[], $2::uuid[], $3::text[], $4::jsonb[])
              AS letter (entry_id, batch_id, tenant, event)",
        &entries,
        &batches,
        &tenants,
        &events,
        reason,
    )
    .execute(tx)
    .await
    .map(drop)
    .map_err(StoreError::postgres("keep events in dead_letters"))
}

fn as_json(row: &Row<'_>) -> serde_json::Value {
    json!({
        "id": row.id,
        "tenant": row.event.tenant,
        "feature": row.event.feature,
        "tokens": row.event.signed_tokens(),
        "timestamp": row.event.occurred_at,
        "receivedAt": row.received_at,
    })
}

/// Keeps an entry that cannot be read, once, however often it is delivered.
///
/// # Errors
///
/// [`StoreError::Postgres`]; nothing was kept, and the same call may be made again.
pub async fn add_unreadable(
    pool: &PgPool,
    entry_id: &str,
    payload: &[u8],
    reason: Unreadable,
) -> Result<(), StoreError> {
    let reason = match reason {
        Unreadable::Version(_) => "unknown_version",
        Unreadable::Checksum => "wrong_checksum",
        Unreadable::Malformed => "malformed",
    };
    sqlx::query!(
        "INSERT INTO dead_letters (entry_id, reason, payload)
         VALUES ($1, $2, $3)
         ON CONFLICT (entry_id) WHERE batch_id IS NULL DO NOTHING",
        entry_id,
        reason,
        payload,
    )
    .execute(pool)
    .await
    .map(drop)
    .map_err(StoreError::postgres("keep an entry in dead_letters"))
}
