//! The ledger of ids that clients gave their events: an id counts once a tenant.

use std::collections::BTreeSet;

use flagmeter_core::event::{LedgerKey, Place};
use foldhash::{HashMap, HashSet};
use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::Row;
use super::copy::{self, Copy, instant};
use crate::{PgPool, StoreError};

/// What the ledger made of a batch's rows.
pub(super) struct Claimed<'a> {
    /// The rows that count.
    pub(super) rows: Vec<Row<'a>>,
    /// How many do not, because their id has been counted before.
    pub(super) repeated: u64,
    /// How many of those say something else than what was counted.
    pub(super) conflicting: u64,
}

/// The days of which the ledger needs a partition for these keys: those in their UUIDv7.
pub(super) fn days(keys: impl Iterator<Item = LedgerKey>) -> BTreeSet<Date> {
    let days: BTreeSet<i32> =
        keys.filter_map(|key| if let Place::Day(day) = key.place() { Some(day) } else { None }).collect();
    days.into_iter().map(date).collect()
}

/// The day of this number since 1970. A UUIDv7 holds no later one than a date can be.
fn date(day: i32) -> Date {
    Date::constant(1970, 1, 1).saturating_add(jiff::Span::new().days(day))
}

/// Makes the ledger's partition for `day`, if it is not there.
pub(super) async fn ensure_partition(pool: &PgPool, day: Date) -> Result<(), StoreError> {
    sqlx::query!("SELECT ensure_event_id_partition($1::date)", day.to_sqlx() as jiff_sqlx::Date)
        .execute(pool)
        .await
        .map(drop)
        .map_err(StoreError::postgres("make a partition of event_ids"))
}

/// What a batch's ids are taken for until the ledger has spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// None was counted before. Many are copied, which is several times as fast; one that was counted fails
    /// the transaction.
    New,
    /// Some were.
    Repeats,
}

/// A key of the ledger, and the place of the row that brings it.
struct Claim<'a> {
    key: (LedgerKey, &'a str),
    place: usize,
}

/// Claims the ids of `rows`. Of two rows with one id the first counts; rows without an id always do.
///
/// # Errors
///
/// Of [`StoreError::is_duplicate_key`] if an id was counted before and none was [`Expected`] to be.
pub(super) async fn claim<'a>(
    tx: &mut PgConnection,
    rows: Vec<Row<'a>>,
    expected: Expected,
) -> Result<Claimed<'a>, StoreError> {
    let mut claims: Vec<Claim<'_>> =
        rows.iter().enumerate().filter_map(|(place, row)| Some(Claim { key: key(row)?, place })).collect();
    if claims.is_empty() {
        return Ok(Claimed { rows, repeated: 0, conflicting: 0 });
    }
    // In the order of the keys, so that two workers never wait for each other in a circle.
    claims.sort_unstable_by_key(|claim| (claim.key, claim.place));
    let mut counts = vec![true; rows.len()];
    claims.dedup_by(|later, first| {
        let repeats = later.key == first.key;
        counts[later.place] &= !repeats;
        repeats
    });
    let parts = match expected {
        // Each part belongs to one partition, and they follow each other as the keys do.
        Expected::New => claims.chunk_by(|one, next| one.key.0.place() == next.key.0.place()).collect(),
        Expected::Repeats => vec![claims.as_slice()],
    };
    for part in parts {
        if expected == Expected::New && part.len() >= copy::LEAST_ROWS {
            copy_new(tx, part, &rows).await?;
        } else {
            let claimed = insert(tx, part, &rows).await?;
            for Claim { key: (id, tenant), place } in part {
                counts[*place] = claimed.contains(&(id.uuid(), (*tenant).to_owned()));
            }
        }
    }
    drop(claims);
    let mut counts = counts.into_iter();
    let (counting, repeats): (Vec<_>, Vec<_>) = rows.into_iter().partition(|_| counts.next() == Some(true));
    let repeated = repeats.len() as u64;
    let conflicting = record_conflicts(tx, &repeats).await?;
    Ok(Claimed { rows: counting, repeated, conflicting })
}

/// Where the ledger keeps a row's id; `None` if it has none.
fn key<'a>(row: &Row<'a>) -> Option<(LedgerKey, &'a str)> {
    Some((row.event.ledger_key()?, row.event.tenant.as_str()))
}

/// Adds ids that are new, all of one partition.
async fn copy_new(tx: &mut PgConnection, claims: &[Claim<'_>], rows: &[Row<'_>]) -> Result<(), StoreError> {
    let table = match claims[0].key.0.place() {
        Place::Day(day) => format!("event_ids_{}", date(day).strftime("%Y%m%d")),
        Place::Reversals => "event_ids_reversals".to_owned(),
        Place::Others => "event_ids_others".to_owned(),
    };
    let columns = "id, tenant, received_at, content";
    let mut copy = Copy::begin(tx, &table, columns, "add the clients' event ids").await?;
    for Claim { key: (id, tenant), place } in claims {
        let row = &rows[*place];
        let (received_at, content) = (instant(row.received_at), row.content().to_be_bytes());
        copy.row([id.uuid().as_bytes(), tenant.as_bytes(), &received_at, &content]).await?;
    }
    copy.finish().await
}

/// Adds those ids that are new; answers which those are. An insert waits for another transaction that holds
/// the same key.
async fn insert(
    tx: &mut PgConnection,
    claims: &[Claim<'_>],
    rows: &[Row<'_>],
) -> Result<HashSet<(Uuid, String)>, StoreError> {
    let ids: Vec<Uuid> = claims.iter().map(|claim| claim.key.0.uuid()).collect();
    let tenants: Vec<String> = claims.iter().map(|claim| claim.key.1.to_owned()).collect();
    let received: Vec<_> = claims.iter().map(|claim| rows[claim.place].received_at.to_sqlx()).collect();
    let contents: Vec<i32> = claims.iter().map(|claim| rows[claim.place].content()).collect();
    let claimed = sqlx::query!(
        "INSERT INTO event_ids (id, tenant, received_at, content)
         SELECT id, tenant, received_at, content
         FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::integer[])
              AS event (id, tenant, received_at, content)
         ORDER BY id, tenant
         ON CONFLICT DO NOTHING
         RETURNING id, tenant",
        &ids,
        &tenants,
        &received as &[jiff_sqlx::Timestamp],
        &contents,
    )
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("claim the clients' event ids"))?;
    Ok(claimed.into_iter().map(|row| (row.id, row.tenant)).collect())
}

/// Keeps the first of the repeats that say something else than what was counted under their id; answers
/// how many there are.
async fn record_conflicts(tx: &mut PgConnection, repeats: &[Row<'_>]) -> Result<u64, StoreError> {
    let key = |row: &Row<'_>| key(row).map(|(id, tenant)| (id.uuid(), tenant.to_owned()));
    let (ids, tenants): (Vec<Uuid>, Vec<String>) = repeats.iter().filter_map(key).unzip();
    if ids.is_empty() {
        return Ok(0);
    }
    let counted = sqlx::query!(
        "SELECT id, tenant, content
         FROM event_ids
         WHERE (id, tenant) IN (SELECT id, tenant FROM UNNEST($1::uuid[], $2::text[]) AS event (id, tenant))",
        &ids,
        &tenants,
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(StoreError::postgres("compare repeated events"))?;
    let counted: HashMap<_, _> = counted.into_iter().map(|row| ((row.id, row.tenant), row.content)).collect();
    let differs = |row: &&Row<'_>| {
        key(row).is_some_and(|key| counted.get(&key).is_some_and(|content| *content != row.content()))
    };
    let mut conflicting: Vec<&Row<'_>> = repeats.iter().filter(differs).collect();
    let number = conflicting.len() as u64;
    if number == 0 {
        return Ok(0);
    }
    // Of several under one id the first stays. In the order of their keys, so that two workers never wait for each
    // other in a circle.
    conflicting.sort_by_key(|row| (row.event.tenant.as_str(), row.id));
    conflicting.dedup_by_key(|row| (row.event.tenant.as_str(), row.id));
    let tenants: Vec<&str> = conflicting.iter().map(|row| row.event.tenant.as_str()).collect();
    let ids: Vec<Uuid> = conflicting.iter().map(|row| row.id).collect();
    let features: Vec<&str> = conflicting.iter().map(|row| row.event.feature.as_str()).collect();
    let tokens: Vec<i64> = conflicting.iter().map(|row| row.event.tokens.get()).collect();
    let occurred: Vec<_> = conflicting.iter().map(|row| row.event.occurred_at.to_sqlx()).collect();
    let received: Vec<_> = conflicting.iter().map(|row| row.received_at.to_sqlx()).collect();
    sqlx::query!(
        "INSERT INTO event_conflicts (tenant, id, feature, tokens, occurred_at, received_at)
         SELECT tenant, id, feature, tokens, occurred_at, received_at
         FROM UNNEST($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[])
              AS event (tenant, id, feature, tokens, occurred_at, received_at)
         ORDER BY tenant, id
         ON CONFLICT DO NOTHING",
        &tenants as &[&str],
        &ids,
        &features as &[&str],
        &tokens,
        &occurred as &[jiff_sqlx::Timestamp],
        &received as &[jiff_sqlx::Timestamp],
    )
    .execute(tx)
    .await
    .map_err(StoreError::postgres("keep conflicting events"))?;
    Ok(number)
}
