//! What could not be counted, with the reason. It is kept for a time and up to a size; then its sums are.

use flagmeter_core::packed::Unreadable;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::Row;
use super::retention::{ROWS_AT_ONCE, STATEMENTS_AT_ONCE, Window};
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

/// Keeps an entry that cannot be read, once, however often it is delivered. Answers whether it was new.
///
/// # Errors
///
/// [`StoreError::Postgres`]; nothing was kept, and the same call may be made again.
pub async fn add_unreadable(
    pool: &PgPool,
    entry_id: &str,
    payload: &[u8],
    reason: Unreadable,
) -> Result<bool, StoreError> {
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
    .map(|done| done.rows_affected() == 1)
    .map_err(StoreError::postgres("keep an entry in dead_letters"))
}

/// Forgets letters from before `before`, and the oldest of those that take more than `budget` bytes together. How many
/// there were of a tenant is remembered as long as there is the tenant.
pub(super) async fn forget(pool: &PgPool, before: Timestamp, budget: u64) -> Result<(), StoreError> {
    let excess = first_within(pool, budget).await?;
    let mut forgotten = 0;
    for _ in 0..STATEMENTS_AT_ONCE {
        let gone = forget_some(pool, before, excess).await?;
        forgotten += gone;
        if gone < ROWS_AT_ONCE {
            break;
        }
    }
    if forgotten > 0 {
        tracing::warn!(letters = forgotten, "forgot dead letters beyond their age or their bytes");
    }
    Ok(())
}

/// The id of the oldest letter of those that `budget` bytes have room for; 0 if there is room for all.
async fn first_within(pool: &PgPool, budget: u64) -> Result<i64, StoreError> {
    // The file is never smaller than what is in it, and mostly that answers the question.
    sqlx::query_scalar!(
        r#"SELECT CASE
               WHEN pg_total_relation_size('dead_letters') <= $1 THEN 0
               ELSE COALESCE((
                   SELECT max(id) + 1
                   FROM (
                       SELECT id, sum(bytes) OVER (ORDER BY id DESC) AS sum
                       FROM (
                           -- Of a row itself and its places in the indexes, and of what it holds.
                           SELECT id,
                                  300 + COALESCE(pg_column_size(event), 0) + COALESCE(pg_column_size(payload), 0) AS bytes
                           FROM dead_letters
                       ) AS letters
                   ) AS sums
                   WHERE sum > $1
               ), 0)
           END AS "id!""#,
        i64::try_from(budget).unwrap_or(i64::MAX),
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("measure the dead letters"))
}

/// Forgets some letters that are from before `before` or have a smaller id than `first`; answers how many.
async fn forget_some(pool: &PgPool, before: Timestamp, first: i64) -> Result<i64, StoreError> {
    sqlx::query_scalar!(
        r#"WITH gone AS (
               DELETE FROM dead_letters
               WHERE ctid = ANY (ARRAY(
                   SELECT ctid FROM dead_letters WHERE created_at < $1::timestamptz OR id < $2 LIMIT $3
               ))
               RETURNING tenant, (event ->> 'tokens')::numeric AS tokens
           ), summed AS (
               INSERT INTO forgotten (tenant, source, events, tokens)
               SELECT tenant, 'dead_letters', count(*), COALESCE(sum(tokens), 0)
               FROM gone
               WHERE EXISTS (SELECT FROM tenants WHERE id = gone.tenant)
               GROUP BY tenant
               ORDER BY tenant
               ON CONFLICT (tenant, source) DO UPDATE
               SET events = forgotten.events + EXCLUDED.events, tokens = forgotten.tokens + EXCLUDED.tokens
           )
           SELECT count(*) AS "gone!" FROM gone"#,
        before.to_sqlx() as jiff_sqlx::Timestamp,
        first,
        ROWS_AT_ONCE,
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("forget dead letters"))
}

/// What there is of them.
pub(super) async fn window(pool: &PgPool) -> Result<Window, StoreError> {
    let row = sqlx::query!(
        r#"SELECT (SELECT created_at FROM dead_letters ORDER BY id LIMIT 1) AS "since: jiff_sqlx::Timestamp",
                  pg_total_relation_size('dead_letters') AS "bytes!""#
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("measure the dead letters"))?;
    Ok(Window { since: row.since.map(jiff_sqlx::Timestamp::to_jiff), bytes: row.bytes })
}
