//! Two plainer ways to write events into PostgreSQL, which count nothing.

use anyhow::{Context as _, Result};
use flagmeter_core::event::UsageEvent;
use flagmeter_core::packed::Batch;
use flagmeter_store::PgPool;
use uuid::Uuid;

/// What a binary COPY starts with (PostgreSQL 18, "COPY").
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Microseconds from 1970 to PostgreSQL's 2000.
const EPOCH: i64 = 946_684_800_000_000;

/// A message is filled up to about this size.
const MESSAGE_BYTES: usize = 64 << 10;

/// Makes the tables that the baselines write, empty.
pub(crate) async fn prepare(pool: &PgPool) -> Result<()> {
    for statement in [
        "DROP TABLE IF EXISTS bench_heap, bench_keyed",
        "CREATE TABLE bench_heap (id uuid, tenant text, feature text, tokens bigint, occurred_at timestamptz,
            created_at timestamptz)",
        "CREATE TABLE bench_keyed (id uuid PRIMARY KEY, tenant text, feature text, tokens bigint,
            occurred_at timestamptz, created_at timestamptz)",
    ] {
        sqlx::query(statement).execute(pool).await.context("failed to make the baselines' tables")?;
    }
    Ok(())
}

/// Forgets what the baselines wrote.
pub(crate) async fn clear(pool: &PgPool) -> Result<()> {
    sqlx::query("TRUNCATE bench_heap, bench_keyed")
        .execute(pool)
        .await
        .map(drop)
        .context("failed to truncate")
}

/// Forgets their tables.
pub(crate) async fn remove(pool: &PgPool) -> Result<()> {
    sqlx::query("DROP TABLE IF EXISTS bench_heap, bench_keyed")
        .execute(pool)
        .await
        .map(drop)
        .context("failed to remove the baselines' tables")
}

/// Raw binary COPY into a heap without a key: the fastest that PostgreSQL takes rows.
pub(crate) async fn copy(pool: &PgPool, batches: &[Batch]) -> Result<u64> {
    let mut connection = pool.acquire().await?;
    let mut copy = connection.copy_in_raw("COPY bench_heap FROM STDIN (FORMAT binary)").await?;
    let mut message = Vec::with_capacity(MESSAGE_BYTES + 512);
    message.extend_from_slice(HEADER);
    for batch in batches {
        let created_at = (batch.received_at.as_microsecond() - EPOCH).to_be_bytes();
        for (index, event) in batch.events.iter().enumerate() {
            write(&mut message, batch.event_id(index), event, created_at);
            if message.len() >= MESSAGE_BYTES {
                copy.send(message.as_slice()).await?;
                message.clear();
            }
        }
    }
    message.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(message.as_slice()).await?;
    Ok(copy.finish().await?)
}

fn write(message: &mut Vec<u8>, id: Uuid, event: &UsageEvent, created_at: [u8; 8]) {
    message.extend_from_slice(&6_i16.to_be_bytes());
    let occurred_at = (event.occurred_at.as_microsecond() - EPOCH).to_be_bytes();
    let fields: [&[u8]; 6] = [
        id.as_bytes(),
        event.tenant.as_str().as_bytes(),
        event.feature.as_str().as_bytes(),
        &event.tokens.get().to_be_bytes(),
        &occurred_at,
        &created_at,
    ];
    for field in fields {
        // The longest is a feature of 128 bytes.
        message.extend_from_slice(&i32::try_from(field.len()).unwrap_or(i32::MAX).to_be_bytes());
        message.extend_from_slice(field);
    }
}

/// One INSERT from arrays, each row with a unique id: the usual way to be exactly once.
pub(crate) async fn unnest(pool: &PgPool, batches: &[Batch]) -> Result<u64> {
    let rows = || batches.iter().flat_map(|batch| &batch.events);
    let ids: Vec<Uuid> =
        batches.iter().flat_map(|batch| (0..batch.events.len()).map(|index| batch.event_id(index))).collect();
    let tenants: Vec<&str> = rows().map(|event| event.tenant.as_str()).collect();
    let features: Vec<&str> = rows().map(|event| event.feature.as_str()).collect();
    let tokens: Vec<i64> = rows().map(|event| event.tokens.get()).collect();
    let done = sqlx::query(
        "INSERT INTO bench_keyed (id, tenant, feature, tokens, occurred_at, created_at)
         SELECT id, tenant, feature, tokens, now(), now()
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bigint[]) AS row (id, tenant, feature, tokens)
         ON CONFLICT DO NOTHING",
    )
    .bind(ids)
    .bind(tenants)
    .bind(features)
    .bind(tokens)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
