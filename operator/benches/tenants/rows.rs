//! PostgreSQL: a database of the benchmark's own, and when rows were written in it.

use anyhow::{Context as _, Result};
use flagmeter_store::MIGRATOR;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _};

/// The database.
pub(crate) struct Rows {
    name: String,
    server: PgConnectOptions,
    pool: PgPool,
    /// How the operator reaches it.
    pub(crate) url: String,
}

/// A line of the trail of changes.
#[derive(sqlx::FromRow)]
pub(crate) struct Written {
    pub(crate) id: i64,
    pub(crate) tenant: String,
}

impl Rows {
    /// Makes the database, with the schema.
    pub(crate) async fn prepare(url: &str) -> Result<Self> {
        let server: PgConnectOptions = url.parse().context("DATABASE_URL is no address of PostgreSQL")?;
        let name = format!("tenants_{}", uuid::Uuid::now_v7().simple());
        let mut connection = server.connect().await?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await?;
        let options = server.clone().database(&name);
        let url = options.to_url_lossy().to_string();
        let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await?;
        MIGRATOR.run(&pool).await.context("failed to make the schema")?;
        Ok(Self { name, server, pool, url })
    }

    /// The trail's lines of this kind, of which the last that is known has the number `after`. Lines are committed in
    /// another order than they are numbered, so those shortly before it are answered too.
    pub(crate) async fn written(&self, kind: &str, after: i64) -> Result<Vec<Written>> {
        let lines = sqlx::query_as("SELECT id, tenant FROM tenant_changes WHERE kind = $1 AND id > $2 - 64");
        Ok(lines.bind(kind).bind(after).fetch_all(&self.pool).await?)
    }

    /// Transactions so far, of which a statement by itself is one.
    pub(crate) async fn transactions(&self) -> Result<i64> {
        let count = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1";
        Ok(sqlx::query_scalar(count).bind(&self.name).fetch_one(&self.pool).await?)
    }

    /// Drops the database.
    pub(crate) async fn remove(&self) -> Result<()> {
        self.pool.close().await;
        let mut connection = self.server.connect().await?;
        let drop = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        sqlx::query(drop).execute(&mut connection).await.context("failed to drop the database")?;
        Ok(())
    }
}
