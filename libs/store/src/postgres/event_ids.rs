//! The ledger of ids that clients gave their events: an id counts once a tenant.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::Row;
use crate::StoreError;

/// The rows that count, and how many do not because their id has been counted before. Of two rows
/// with one id the first counts. Rows without a client's id always do.
pub(super) async fn claim<'a>(
    tx: &mut PgConnection,
    rows: Vec<Row<'a>>,
) -> Result<(Vec<Row<'a>>, u64), StoreError> {
    let with_id = rows.iter().filter(|row| row.event.id.is_some());
    let (ids, tenants): (Vec<Uuid>, Vec<String>) =
        with_id.map(|row| (row.id, row.event.tenant.to_string())).unzip();
    if ids.is_empty() {
        return Ok((rows, 0));
    }
    let mut claimed: HashSet<(Uuid, String)> = sqlx::query!(
        "INSERT INTO event_ids (id, tenant)
         SELECT DISTINCT id, tenant
         FROM UNNEST($1::uuid[], $2::text[]) AS event (id, tenant)
         ORDER BY id, tenant
         ON CONFLICT DO NOTHING
         RETURNING id, tenant",
        &ids,
        &tenants,
    )
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("claim the clients' event ids"))?
    .into_iter()
    .map(|row| (row.id, row.tenant))
    .collect();
    let before = rows.len();
    // `remove` is true once an id, for the first row that brings it.
    let mut counts =
        |row: &Row<'a>| row.event.id.is_none() || claimed.remove(&(row.id, row.event.tenant.to_string()));
    let rows: Vec<Row<'a>> = rows.into_iter().filter(|row| counts(row)).collect();
    let repeated = (before - rows.len()) as u64;
    Ok((rows, repeated))
}
