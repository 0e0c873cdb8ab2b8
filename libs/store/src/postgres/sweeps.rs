//! Sweeps that were in doubt, and a person's word on them. A namespace is "" where all are meant.

use jiff::Timestamp;
use serde::Serialize;

use crate::{PgPool, StoreError};

/// A sweep that detached nothing, because too many tenants seemed to be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedSweep {
    /// Whose tenants.
    pub namespace: String,
    /// How many seemed to be gone when it was last looked.
    pub gone: i64,
    /// Of how many.
    pub known: i64,
    /// Since when.
    pub refused_at: Timestamp,
    /// How many of them may be detached, as a person said.
    pub confirmed: Option<i64>,
}

/// Remembers that `gone` of `known` tenants seem to be gone. Answers how many of them a person has said
/// may be detached.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn refuse(
    pool: &PgPool,
    namespace: &str,
    gone: i64,
    known: i64,
) -> Result<Option<i64>, StoreError> {
    sqlx::query_scalar!(
        "INSERT INTO refused_sweeps (namespace, gone, known)
         VALUES ($1, $2, $3)
         ON CONFLICT (namespace) DO UPDATE
         SET gone = EXCLUDED.gone, known = EXCLUDED.known
         RETURNING confirmed",
        namespace,
        gone,
        known,
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("remember a sweep that was refused"))
}

/// Forgets the refusal: the next one needs a word of its own.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn settle(pool: &PgPool, namespace: &str) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM refused_sweeps WHERE namespace = $1", namespace)
        .execute(pool)
        .await
        .map(drop)
        .map_err(StoreError::postgres("forget a sweep that was refused"))
}

/// The refusals that stand, in the order of their namespaces.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn refused(pool: &PgPool) -> Result<Vec<RefusedSweep>, StoreError> {
    sqlx::query!(
        r#"SELECT namespace, gone, known, refused_at AS "refused_at: jiff_sqlx::Timestamp", confirmed
           FROM refused_sweeps
           ORDER BY namespace"#
    )
    .map(|row| RefusedSweep {
        namespace: row.namespace,
        gone: row.gone,
        known: row.known,
        refused_at: row.refused_at.to_jiff(),
        confirmed: row.confirmed,
    })
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the sweeps that were refused"))
}

/// A person says that the `gone` tenants of `namespace` that seem to be gone are: they are detached with the next sweep,
/// and their usage stays. Answers whether so many seem to be gone: if others went meanwhile, the word is not for those.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn confirm(pool: &PgPool, namespace: &str, gone: i64, by: &str) -> Result<bool, StoreError> {
    sqlx::query!(
        "UPDATE refused_sweeps
         SET confirmed = gone, confirmed_by = $3, confirmed_at = now()
         WHERE namespace = $1 AND gone = $2",
        namespace,
        gone,
        by,
    )
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(StoreError::postgres("confirm a sweep"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_refusal_stands_until_it_is_settled_and_a_word_is_for_what_was_seen(pool: PgPool) {
        assert!(!confirm(&pool, "shop", 7, "me").await.unwrap());
        assert_eq!(refuse(&pool, "shop", 7, 12).await.unwrap(), None);
        assert!(!confirm(&pool, "shop", 6, "me").await.unwrap(), "one more went since that was said");
        assert!(confirm(&pool, "shop", 7, "me").await.unwrap());
        assert_eq!(refuse(&pool, "shop", 9, 12).await.unwrap(), Some(7), "the word was for seven");
        let standing = refused(&pool).await.unwrap();
        assert_eq!((standing.len(), standing[0].gone, standing[0].confirmed), (1, 9, Some(7)));
        settle(&pool, "shop").await.unwrap();
        assert_eq!(refused(&pool).await.unwrap(), []);
        assert_eq!(refuse(&pool, "shop", 9, 12).await.unwrap(), None);
    }
}
