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
    /// Events would make a billing period exceed 2^53 − 1 tokens.
    #[error("a billing period would exceed 2^53 − 1 tokens")]
    PeriodFull,
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

    /// Whether Valkey is away, as far as this machine can tell: it refused the connection, broke it, or did not answer
    /// in time. One that answers and refuses is not, nor one whose name nobody knows.
    #[must_use]
    pub fn is_queue_away(&self) -> bool {
        matches!(self, Self::Queue { source, .. } if source.is_connection_dropped() || source.is_timeout())
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

    /// Whether PostgreSQL answered that the data are wrong (SQLSTATE class 22 or 23), or they add up to too much, or a
    /// row holds what cannot be read. That is never an outage, and no reason to wait.
    #[must_use]
    pub fn is_of_the_data(&self) -> bool {
        let is_unreadable = matches!(
            self,
            Self::Postgres { source: sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }, .. }
        );
        is_unreadable || self.is_refused_for_the_data()
    }

    fn is_refused_for_the_data(&self) -> bool {
        match self {
            Self::Overflow(_) | Self::PeriodFull => true,
            Self::Postgres { source: sqlx::Error::Database(error), .. } => {
                error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
            }
            _ => false,
        }
    }

    /// Whether the reason lies in the data, so that the same data would fail again: SQLSTATE class
    /// 22 (data exception) or 23 (integrity constraint violation), or a sum that does not fit.
    /// Everything else may pass, and is tried again; so may a key that is there already, since then another
    /// transaction has added it meanwhile.
    pub(crate) fn is_in_the_data(&self) -> bool {
        self.is_refused_for_the_data() && !self.is_missing_partition() && !self.is_duplicate_key()
    }

    /// Whether a sum is larger than its place: what a billing period may hold, or a bigint (SQLSTATE 22003).
    pub(crate) fn is_too_large_a_sum(&self) -> bool {
        match self {
            Self::Overflow(_) | Self::PeriodFull => true,
            Self::Postgres { source: sqlx::Error::Database(error), .. } => {
                error.code().as_deref() == Some("22003")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PgPool;

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn what_postgresql_refuses_for_the_data_is_no_outage_and_what_it_refuses_for_itself_is(
        pool: PgPool,
    ) {
        let failed = async |statement: &'static str| {
            let error = sqlx::query(statement).execute(&pool).await.unwrap_err();
            StoreError::postgres("try")(error)
        };
        for statement in [
            "SELECT 9223372036854775807 + 1",
            "SELECT 1 / 0",
            "SELECT 'x'::uuid",
            "INSERT INTO tenants (id) VALUES ('acme')",
            "INSERT INTO alert_deliveries (alert, channel) VALUES (7, 'slack')",
        ] {
            let error = failed(statement).await;
            assert!(
                error.is_of_the_data() && !error.is_unreachable() && !error.took_too_long(),
                "{statement}: {error:?}"
            );
        }
        for statement in ["SELECT * FROM nothing", "SELECT 1 +", "DO $$ BEGIN RAISE SQLSTATE '57P03'; END $$"]
        {
            let error = failed(statement).await;
            assert!(!error.is_of_the_data(), "{statement}: {error:?}");
            assert_eq!(error.is_unreachable(), statement.contains("57P03"), "{statement}: {error:?}");
        }
        let unreadable = sqlx::query_scalar::<_, jiff_sqlx::Timestamp>("SELECT 'infinity'::timestamptz");
        let error = StoreError::postgres("try")(unreadable.fetch_one(&pool).await.unwrap_err());
        assert!(error.is_of_the_data() && !error.is_in_the_data(), "{error:?}");
        assert!(StoreError::Silent.is_unreachable() && !StoreError::Silent.is_of_the_data());
    }
}
