//! The ledger of ids that clients gave their events: an id counts once a tenant.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use flagmeter_core::event::EventId;
use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::{Row, day_of};
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

/// The days of which the ledger needs a partition for `rows`: those in their UUIDv7.
pub(super) fn days<'a>(ids: impl Iterator<Item = EventId> + 'a) -> BTreeSet<Date> {
    ids.filter_map(EventId::made_at).map(day_of).collect()
}

/// Makes the ledger's partition for `day`, if it is not there.
pub(super) async fn ensure_partition(pool: &PgPool, day: Date) -> Result<(), StoreError> {
    sqlx::query!("SELECT ensure_event_id_partition($1::date)", day.to_sqlx() as jiff_sqlx::Date)
        .execute(pool)
        .await
        .map(drop)
        .map_err(StoreError::postgres("make a partition of event_ids"))
}

/// Claims the ids of `rows`. Of two rows with one id the first counts; rows without an id always do.
pub(super) async fn claim<'a>(tx: &mut PgConnection, rows: Vec<Row<'a>>) -> Result<Claimed<'a>, StoreError> {
    // The first row of each key, in the order of the keys: two workers never wait for each other in a circle.
    let mut firsts = BTreeMap::new();
    for row in &rows {
        if let Some(id) = row.event.counts_once_as() {
            firsts.entry((id.ledger_key(), row.event.tenant.as_str())).or_insert(row);
        }
    }
    if firsts.is_empty() {
        return Ok(Claimed { rows, repeated: 0, conflicting: 0 });
    }
    let ids: Vec<Uuid> = firsts.keys().map(|(id, _)| *id).collect();
    let tenants: Vec<String> = firsts.keys().map(|(_, tenant)| (*tenant).to_owned()).collect();
    let received: Vec<_> = firsts.values().map(|row| row.received_at.to_sqlx()).collect();
    let contents: Vec<i32> = firsts.values().map(|row| row.content()).collect();
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
    .fetch_all(&mut *tx)
    .await
    .map_err(StoreError::postgres("claim the clients' event ids"))?;
    let mut claimed: HashSet<(Uuid, String)> = claimed.into_iter().map(|row| (row.id, row.tenant)).collect();
    let (counting, repeats): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| match row.event.counts_once_as() {
            None => true,
            // `remove` is true once a key, for the first row that brings it.
            Some(id) => claimed.remove(&(id.ledger_key(), row.event.tenant.to_string())),
        });
    let repeated = repeats.len() as u64;
    let conflicting = record_conflicts(tx, &repeats).await?;
    Ok(Claimed { rows: counting, repeated, conflicting })
}

/// Keeps the first of the repeats that say something else than what was counted under their id; answers
/// how many there are.
async fn record_conflicts(tx: &mut PgConnection, repeats: &[Row<'_>]) -> Result<u64, StoreError> {
    let key =
        |row: &Row<'_>| row.event.counts_once_as().map(|id| (id.ledger_key(), row.event.tenant.to_string()));
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
    let conflicting: Vec<&Row<'_>> = repeats.iter().filter(differs).collect();
    for row in &conflicting {
        // A client that does this is broken, so this is rare, and one statement each will do.
        sqlx::query!(
            "INSERT INTO event_conflicts (tenant, id, feature, tokens, occurred_at, received_at)
             VALUES ($1, $2, $3, $4, $5::timestamptz, $6::timestamptz)
             ON CONFLICT DO NOTHING",
            row.event.tenant.as_str(),
            row.id,
            row.event.feature.as_str(),
            row.event.tokens.get(),
            row.event.occurred_at.to_sqlx() as jiff_sqlx::Timestamp,
            row.received_at.to_sqlx() as jiff_sqlx::Timestamp,
        )
        .execute(&mut *tx)
        .await
        .map_err(StoreError::postgres("keep a conflicting event"))?;
    }
    Ok(conflicting.len() as u64)
}
