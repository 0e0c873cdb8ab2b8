//! The hashes of the tenants' keys.

use flagmeter_core::event::TenantName;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde::{Deserialize, Serialize};

use super::tenant_changes::OPERATOR;
use crate::api_key::KeyHash;
use crate::{PgPool, StoreError};

/// A key of some tenant, as whoever checks keys needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// What is kept of it.
    pub hash: KeyHash,
    /// Whose it is.
    pub tenant: TenantName,
    /// From when on it is worth nothing; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// A key of one tenant, as its operator keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantKey {
    /// What is kept of it.
    pub hash: KeyHash,
    /// From when on it is worth nothing; `None` is the key that the tenant's Secret holds.
    pub expires_at: Option<Timestamp>,
}

/// The keys of all tenants whose resource exists.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn load(pool: &PgPool) -> Result<Vec<KnownKey>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT hash, tenant, api_keys.expires_at AS "expires_at: jiff_sqlx::Timestamp"
         FROM api_keys
         JOIN tenants ON tenants.id = tenant
         WHERE detached_at IS NULL"#
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the API keys"))?;
    let keys = rows.into_iter().filter_map(|row| {
        Some(KnownKey {
            hash: KeyHash::from_bytes(&row.hash)?,
            tenant: TenantName::try_from(row.tenant).ok()?,
            expires_at: row.expires_at.map(jiff_sqlx::Timestamp::to_jiff),
        })
    });
    Ok(keys.collect())
}

/// The keys of one tenant, in the order of their hashes.
///
/// # Errors
///
/// [`StoreError::Postgres`].
pub async fn of_tenant(pool: &PgPool, tenant: &str) -> Result<Vec<TenantKey>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT hash, expires_at AS "expires_at: jiff_sqlx::Timestamp"
         FROM api_keys WHERE tenant = $1 ORDER BY hash"#,
        tenant
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read a tenant's API keys"))?;
    let key = |hash: &[u8], expires_at: Option<jiff_sqlx::Timestamp>| {
        let expires_at = expires_at.map(jiff_sqlx::Timestamp::to_jiff);
        Some(TenantKey { hash: KeyHash::from_bytes(hash)?, expires_at })
    };
    Ok(rows.into_iter().filter_map(|row| key(&row.hash, row.expires_at)).collect())
}

/// Makes `keys` all the keys that the tenant has. Answers whether it did: one that is another tenant's changes
/// nothing.
///
/// # Errors
///
/// [`StoreError::Postgres`], also if there is no such tenant; nothing is changed then.
pub async fn replace(pool: &PgPool, tenant: &str, keys: &[TenantKey]) -> Result<bool, StoreError> {
    write(pool, tenant, keys, false).await
}

/// The same, where somebody else had changed them: with a line in the trail.
///
/// # Errors
///
/// As [`replace`].
pub async fn repair(pool: &PgPool, tenant: &str, keys: &[TenantKey]) -> Result<bool, StoreError> {
    write(pool, tenant, keys, true).await
}

async fn write(pool: &PgPool, tenant: &str, keys: &[TenantKey], repairs: bool) -> Result<bool, StoreError> {
    let failed = StoreError::postgres("write a tenant's API keys");
    let hashes: Vec<Vec<u8>> = keys.iter().map(|key| key.hash.as_bytes().to_vec()).collect();
    let expiries: Vec<_> = keys.iter().map(|key| key.expires_at.map(ToSqlx::to_sqlx)).collect();
    let mut transaction = pool.begin().await.map_err(&failed)?;
    if repairs {
        sqlx::query!(
            "INSERT INTO tenant_changes (tenant, actor, kind, before, after)
             SELECT $1, $2, 'keys_repaired', jsonb_build_object('keys', count(*)), jsonb_build_object('keys', $3::bigint)
             FROM api_keys
             WHERE tenant = $1",
            tenant,
            OPERATOR,
            i64::try_from(keys.len()).unwrap_or(i64::MAX),
        )
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
    }
    sqlx::query!("DELETE FROM api_keys WHERE tenant = $1 AND hash <> ALL($2)", tenant, &hashes)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
    let written = sqlx::query!(
        "INSERT INTO api_keys (hash, tenant, expires_at)
         SELECT hash, $1, expires_at FROM unnest($2::bytea[], $3::timestamptz[]) AS wanted (hash, expires_at)
         ON CONFLICT (hash) DO UPDATE SET expires_at = EXCLUDED.expires_at
         WHERE api_keys.tenant = EXCLUDED.tenant",
        tenant,
        &hashes,
        &expiries as &[Option<jiff_sqlx::Timestamp>],
    )
    .execute(&mut *transaction)
    .await
    .map_err(&failed)?
    .rows_affected();
    if usize::try_from(written).ok() != Some(keys.len()) {
        transaction.rollback().await.map_err(&failed)?;
        return Ok(false);
    }
    transaction.commit().await.map_err(&failed)?;
    Ok(true)
}

/// A key in a form that can be kept beside the tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptKey {
    hash: String,
    tenant: TenantName,
    expires_at: Option<Timestamp>,
}

impl KeptKey {
    /// `key` in that form: its hash, never itself.
    #[must_use]
    pub fn of(key: &KnownKey) -> Self {
        Self { hash: key.hash.to_text(), tenant: key.tenant.clone(), expires_at: key.expires_at }
    }

    /// The key again.
    #[must_use]
    pub fn into_key(self) -> Option<KnownKey> {
        let hash = KeyHash::from_text(&self.hash)?;
        Some(KnownKey { hash, tenant: self.tenant, expires_at: self.expires_at })
    }
}

#[cfg(test)]
mod tests;
