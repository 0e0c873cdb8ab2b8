//! Tenants as those who run FlagMeter see them.

use jiff::Timestamp;
use serde::Serialize;

use crate::{PgPool, StoreError};

/// A tenant as those who run FlagMeter see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// The tenant's id.
    pub id: String,
    /// The namespace of its resource.
    pub namespace: String,
    /// That resource's `metadata.uid`.
    pub owner_uid: String,
    /// Whether it takes no events for now.
    pub suspended: bool,
    /// Since when its resource is gone.
    pub detached_at: Option<Timestamp>,
    /// Since when all that is kept of it is being deleted.
    pub deletion_started_at: Option<Timestamp>,
}

/// At most `limit` tenants whose ids come after `after`, in the order of their ids; those whose resource is gone, or all.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn list(pool: &PgPool, detached: bool, after: &str, limit: u16) -> Result<Vec<Listed>, StoreError> {
    select(pool, None, detached, after, limit).await
}

/// One tenant, as [`list`] has it.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn get(pool: &PgPool, id: &str) -> Result<Option<Listed>, StoreError> {
    Ok(select(pool, Some(id), false, "", 1).await?.pop())
}

/// Tenants in the order of their ids, or the one that has `id`.
async fn select(
    pool: &PgPool,
    id: Option<&str>,
    detached: bool,
    after: &str,
    limit: u16,
) -> Result<Vec<Listed>, StoreError> {
    sqlx::query!(
        r#"SELECT id, owner_namespace, owner_uid, suspended,
                  detached_at AS "detached_at: jiff_sqlx::Timestamp",
                  deletion_started_at AS "deletion_started_at: jiff_sqlx::Timestamp"
           FROM tenants
           WHERE id = COALESCE($1, id) AND id > $2 AND (detached_at IS NOT NULL OR NOT $3)
           ORDER BY id
           LIMIT $4"#,
        id,
        after,
        detached,
        i64::from(limit),
    )
    .map(|row| Listed {
        id: row.id,
        namespace: row.owner_namespace,
        owner_uid: row.owner_uid,
        suspended: row.suspended,
        detached_at: row.detached_at.map(jiff_sqlx::Timestamp::to_jiff),
        deletion_started_at: row.deletion_started_at.map(jiff_sqlx::Timestamp::to_jiff),
    })
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants"))
}
