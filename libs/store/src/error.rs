//! What can go wrong with the stores.

/// A statement or command that failed. `doing` completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL refused, or did not answer.
    #[error("failed to {doing}")]
    Postgres {
        /// What was being done.
        doing: &'static str,
        /// PostgreSQL's or the driver's word.
        source: sqlx::Error,
    },
    /// The migrations could not be applied, or those in the database are not this build's.
    #[error("failed to migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

impl StoreError {
    /// For `map_err`: names what was being done.
    pub(crate) fn postgres(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Postgres { doing, source }
    }
}
