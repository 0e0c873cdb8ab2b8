//! What can go wrong with the stores.

use deadpool_redis::redis::RedisError;
use flagmeter_core::rollup::SumOverflow;

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
    /// PostgreSQL did not answer in the time that its caller had.
    #[error("PostgreSQL did not answer")]
    Silent,
    /// The migrations could not be applied, or those in the database are not this build's.
    #[error("failed to migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// Valkey refused, or did not answer.
    #[error("failed to {doing}")]
    Queue {
        /// What was being done.
        doing: &'static str,
        /// Valkey's or the driver's word.
        source: RedisError,
    },
    /// Events of one batch add up to more than a row can hold.
    #[error("failed to fold a batch")]
    Overflow(#[from] SumOverflow),
}

impl StoreError {
    /// For `map_err`: names what was being done.
    pub(crate) fn postgres(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Postgres { doing, source }
    }

    /// For `map_err`: names what was being done.
    pub(crate) fn queue(doing: &'static str) -> impl Fn(RedisError) -> Self {
        move |source| Self::Queue { doing, source }
    }

    /// Whether the connection broke, so that the same command may succeed over a new one: the server
    /// did not refuse it.
    #[must_use]
    pub fn is_broken_connection(&self) -> bool {
        matches!(self, Self::Queue { source, .. } if source.is_io_error() || source.is_unrecoverable_error())
    }

    /// Whether Valkey has no memory left for what was added, and so took none of it.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        let Self::Queue { source, .. } = self else { return false };
        let refusals = source.clone().into_server_errors().unwrap_or_default();
        refusals.iter().any(|(_, refusal)| refusal.code() == "OOM")
    }

    /// Whether PostgreSQL said nothing at all: it did not even refuse.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Silent | Self::Postgres { source: sqlx::Error::PoolTimedOut, .. })
    }

    /// Whether PostgreSQL did not answer, or not yet: a connection that failed, or SQLSTATE class 57P
    /// (starting up, shutting down).
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Silent => true,
            Self::Postgres { source, .. } | Self::Migrate(sqlx::migrate::MigrateError::Execute(source)) => {
                match source {
                    sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) => true,
                    sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
                    _ => false,
                }
            }
            _ => false,
        }
    }

    /// Whether PostgreSQL ended a statement because it took longer than it may (SQLSTATE 57014).
    #[must_use]
    pub fn took_too_long(&self) -> bool {
        match self {
            Self::Postgres { source: sqlx::Error::Database(error), .. } => {
                error.code().as_deref() == Some("57014")
            }
            _ => false,
        }
    }

    /// Whether the reason lies in the data, so that the same data would fail again: SQLSTATE class
    /// 22 (data exception) or 23 (integrity constraint violation), or a sum that does not fit.
    /// Everything else may pass, and is tried again; so may a key that is there already, since then another
    /// transaction has added it meanwhile.
    pub(crate) fn is_in_the_data(&self) -> bool {
        match self {
            Self::Overflow(_) => true,
            Self::Postgres { source: sqlx::Error::Database(error), .. } => {
                let class = error.code().map(|code| code.get(..2).unwrap_or_default().to_owned());
                matches!(class.as_deref(), Some("22" | "23"))
                    && !self.is_missing_partition()
                    && !self.is_duplicate_key()
            }
            _ => false,
        }
    }

    /// The SQLSTATE with which PostgreSQL refused the data, class 22 (data exception) or 23 (integrity constraint
    /// violation): it is there, and the same data would be refused again. Not that of a key which is there already: another
    /// transaction was faster, and the next look sees what it wrote.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let Self::Postgres { source: sqlx::Error::Database(error), .. } = self else { return None };
        error.code().filter(|_| self.is_in_the_data()).map(std::borrow::Cow::into_owned)
    }

    /// Whether a row's key was there already (SQLSTATE 23505).
    pub(crate) fn is_duplicate_key(&self) -> bool {
        matches!(self, Self::Postgres { source: sqlx::Error::Database(error), .. }
            if error.code().as_deref() == Some("23505"))
    }

    /// Whether a row found no partition, which is a check violation without a constraint's name, or a partition was
    /// not there that was named (SQLSTATE 42P01).
    pub(crate) fn is_missing_partition(&self) -> bool {
        match self {
            Self::Postgres { source: sqlx::Error::Database(error), .. } => match error.code().as_deref() {
                Some("23514") => error.constraint().is_none(),
                Some("42P01") => true,
                _ => false,
            },
            _ => false,
        }
    }
}
