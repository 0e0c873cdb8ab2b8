//! The deletion of all that is kept of a tenant: [`begin`], steps of a [`Deletion`] until it is done, [`end`].
//!
//! Each step is a short transaction of its own, so that nothing else waits for it. It may be cut off
//! anywhere and begun again: what is gone stays gone.

use crate::{PgPool, StoreError};

/// Rows that one step deletes at most.
const MOST_ROWS: i32 = 10_000;

/// Pages of a partition that one step reads at most: 8 MiB.
const MOST_PAGES: i64 = 1_024;

/// Says that the deletion has begun, for the resource `owner_uid`: nothing is counted for the tenant from
/// now on. Answers whether there is a row of that resource. Saying it again changes nothing.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn begin(pool: &PgPool, id: &str, owner_uid: &str, actor: &str) -> Result<bool, StoreError> {
    let failed = StoreError::postgres("begin a tenant's deletion");
    let mut tx = pool.begin().await.map_err(&failed)?;
    // Its lock waits for the batches that are being counted; those that come later see what it says.
    sqlx::query!(
        "WITH started AS (
             UPDATE tenants
             SET detached_at         = COALESCE(detached_at, now()),
                 deletion_started_at = now(),
                 updated_at          = now()
             WHERE id = $1 AND owner_uid = $2 AND deletion_started_at IS NULL
             RETURNING id
         )
         INSERT INTO tenant_changes (tenant, actor, kind, before)
         SELECT started.id, $3, 'deletion_started',
                (SELECT after
                 FROM tenant_changes
                 WHERE tenant = started.id AND kind <> 'keys_repaired'
                 ORDER BY id DESC
                 LIMIT 1)
         FROM started",
        id,
        owner_uid,
        actor,
    )
    .execute(&mut *tx)
    .await
    .map_err(&failed)?;
    let is_there = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM tenants WHERE id = $1 AND owner_uid = $2) AS "there!""#,
        id,
        owner_uid,
    )
    .fetch_one(&mut *tx)
    .await
    .map_err(&failed)?;
    tx.commit().await.map_err(&failed)?;
    Ok(is_there)
}

/// Deletes the row itself, last: the id is free. Answers whether this call did it.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn end(pool: &PgPool, id: &str, owner_uid: &str, actor: &str) -> Result<bool, StoreError> {
    sqlx::query!(
        "WITH deleted AS (
             DELETE FROM tenants
             WHERE id = $1 AND owner_uid = $2 AND deletion_started_at IS NOT NULL
             RETURNING id
         )
         INSERT INTO tenant_changes (tenant, actor, kind)
         SELECT id, $3, 'deleted'
         FROM deleted",
        id,
        owner_uid,
        actor,
    )
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(StoreError::postgres("delete a tenant's row"))
}

/// How far a deletion has come.
#[derive(Debug)]
pub struct Deletion {
    tenant: String,
    /// What is left, the last first.
    places: Vec<Place>,
    of: usize,
    rows: i64,
}

/// A table or a partition.
#[derive(Debug)]
struct Place {
    name: String,
    /// The first page that was not read; where there is an index, all is one page.
    page: i64,
    pages: i64,
}

impl Deletion {
    /// Where there may be something to delete. [`begin`] comes first: what is counted afterwards would be missed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Postgres`]; the same call may be made again.
    pub async fn of(pool: &PgPool, tenant: &str) -> Result<Self, StoreError> {
        let mut places = sqlx::query!(
            r#"SELECT relation::text AS "name!", pages AS "pages!", partition AS "partition!"
               FROM tenant_relations()"#
        )
        .map(|row| Place { name: row.name, page: 0, pages: if row.partition { row.pages } else { 1 } })
        .fetch_all(pool)
        .await
        .map_err(StoreError::postgres("look for a tenant's rows"))?;
        places.reverse();
        Ok(Self { tenant: tenant.to_owned(), of: places.len(), places, rows: 0 })
    }

    /// Deletes some thousands of rows at most. Answers whether something may be left.
    ///
    /// # Errors
    ///
    /// [`StoreError::Postgres`]; the same call may be made again.
    pub async fn step(&mut self, pool: &PgPool) -> Result<bool, StoreError> {
        let Some(place) = self.places.last_mut() else { return Ok(false) };
        let end = place.page.saturating_add(MOST_PAGES);
        let deleted = sqlx::query_scalar!(
            r#"SELECT delete_tenant_rows($1, $2, $3, $4, $5) AS "deleted!""#,
            self.tenant,
            place.name,
            place.page,
            end,
            MOST_ROWS,
        )
        .fetch_one(pool)
        .await
        .map_err(StoreError::postgres("delete a tenant's rows"))?;
        self.rows += deleted;
        if deleted < i64::from(MOST_ROWS) {
            place.page = end;
            if place.page >= place.pages {
                self.places.pop();
            }
        }
        Ok(!self.places.is_empty())
    }

    /// Rows that are gone by this deletion's steps.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// How many tables and partitions are done, of how many.
    #[must_use]
    pub fn places(&self) -> (usize, usize) {
        (self.of - self.places.len(), self.of)
    }
}

#[cfg(test)]
mod tests;
