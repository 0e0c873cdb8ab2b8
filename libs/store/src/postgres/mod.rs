//! PostgreSQL 18: a file for each table, and [`batch`], the one transaction that counts.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::{MIGRATOR, PgPool, StoreError};

pub mod audit;
pub mod batch;
mod billing;
pub mod dead_letters;
pub mod directory;
mod event_ids;
mod events;
pub mod lookup;
pub mod retention;
mod rollups;
pub mod series;
mod slack_webhooks;
mod tenant_changes;
pub mod tenants;
pub mod usage;

/// How long a caller waits for a connection before the pool says no.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pool of at most `connections` connections, made when first used; `application` is what
/// `pg_stat_activity` shows.
///
/// # Errors
///
/// [`StoreError::Postgres`] if `url` is not a PostgreSQL URL. Nothing is connected to yet.
pub fn pool(url: &str, application: &str, connections: u32) -> Result<PgPool, StoreError> {
    let options: PgConnectOptions = url.parse().map_err(StoreError::postgres("read the database's URL"))?;
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.application_name(application)))
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

/// Whether the schema is at least at this build's version.
///
/// # Errors
///
/// [`StoreError::Postgres`], also when nothing was ever migrated.
pub async fn is_migrated(pool: &PgPool) -> Result<bool, StoreError> {
    let newest = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
    sqlx::query_scalar!(
        r#"SELECT COALESCE(max(version) >= $1, false) AS "migrated!" FROM _sqlx_migrations WHERE success"#,
        newest
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("read the schema's version"))
}
