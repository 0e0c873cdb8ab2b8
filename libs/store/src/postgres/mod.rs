//! PostgreSQL 18: a file for each table, and [`batch`], the one transaction that counts.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::{MIGRATOR, PgPool, StoreError};

pub mod alerts;
pub mod api_keys;
pub mod audit;
pub mod batch;
mod billing;
mod copy;
pub mod dead_letters;
pub mod deletion;
pub mod deliveries;
pub mod directory;
mod event_ids;
mod events;
pub mod lookup;
mod period_totals;
mod recount;
pub mod retention;
pub mod series;
mod settings;
mod slack_webhooks;
pub mod sweeps;
mod tenant_changes;
pub mod tenants;
mod terms;
mod totals;
mod turns;
pub mod unread;
pub mod usage;
mod webhooks;

/// How long a caller waits for a connection before the pool says no.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection that is given back while its server still owes an answer may take to give it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pool of at most `connections` connections, made when first used; `application` is what
/// `pg_stat_activity` shows.
///
/// A caller may stop waiting for an answer. Its connection is dropped if the answer does not come soon afterwards, so
/// that a server which never gives it (frozen, or its host gone) does not keep the pool's places forever.
///
/// # Errors
///
/// [`StoreError::DatabaseUrl`] if `url` is not a PostgreSQL URL. Nothing is connected to yet.
pub fn pool(url: &str, application: &str, connections: u32) -> Result<PgPool, StoreError> {
    let pool = pool_of(connections).after_release(|connection, _| {
        Box::pin(async move {
            let owed = tokio::time::timeout(RELEASE_TIMEOUT, connection.ping());
            owed.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
        })
    });
    Ok(pool.connect_lazy_with(options(url, application)?))
}

/// A pool for [`batch::Counter`] alone: its statements are few, go by keys, and must never be planned anew.
///
/// A plan that was made while a table was empty reads all of it; next to a ledger that had just been emptied,
/// such a plan once made counting a hundred times slower. So plans are made once, and only by index. Nothing
/// else should use these connections: what reads ranges needs the other kinds of plan.
///
/// # Errors
///
/// As [`pool`].
pub fn counting_pool(url: &str, application: &str, connections: u32) -> Result<PgPool, StoreError> {
    let pinned = [
        // An entry leaves the queue after the commit, so that is on disk, whatever the server does by default.
        ("synchronous_commit", "on"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ];
    Ok(pool_of(connections).connect_lazy_with(options(url, application)?.options(pinned)))
}

fn options(url: &str, application: &str) -> Result<PgConnectOptions, StoreError> {
    // Any scheme would do for the driver.
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(StoreError::DatabaseUrl(None));
    }
    let options: PgConnectOptions = url.parse().map_err(|error| StoreError::DatabaseUrl(Some(error)))?;
    Ok(options.application_name(application))
}

fn pool_of(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT)
}

/// Brings the schema to this build's version. Several may call it at once: PostgreSQL's advisory
/// lock lets one work and the others wait.
///
/// # Errors
///
/// [`StoreError::Migrate`]; each migration is applied as a whole or not at all.
pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    MIGRATOR.run(pool).await.map_err(StoreError::Migrate)
}

/// The statement with which the database's owner takes the right to temporary tables from everybody; `None` if nobody but
/// the owner has it. With it, what runs with the owner's rights is one mistake away from running a caller's code.
///
/// # Errors
///
/// [`StoreError::Postgres`].
pub async fn revoke_temporary(pool: &PgPool) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar!(
        r#"SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) AS "statement!"
           WHERE has_database_privilege('public', current_database(), 'TEMPORARY')"#
    )
    .fetch_optional(pool)
    .await
    .map_err(StoreError::postgres("look at the rights on the database"))
}

/// Whether every migration of this build was applied. A newer build may have added others.
///
/// # Errors
///
/// [`StoreError::Postgres`], also when nothing was ever migrated.
pub async fn is_migrated(pool: &PgPool) -> Result<bool, StoreError> {
    let versions: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    let applied = sqlx::query_scalar!(
        r#"SELECT count(*) AS "applied!" FROM _sqlx_migrations WHERE success AND version = ANY($1)"#,
        &versions
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("read the schema's version"))?;
    Ok(usize::try_from(applied).is_ok_and(|applied| applied == versions.len()))
}
