//! What can go wrong with the stores.

use deadpool_redis::redis::{ErrorKind, RedisError};
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
    /// The database's URL is not one.
    #[error("DATABASE_URL must be a URL such as postgres://user:password@host:5432/database")]
    DatabaseUrl(#[source] Option<sqlx::Error>),
    /// The queue's URL is not one.
    #[error("VALKEY_URL must be a URL such as redis://user:password@host:6379")]
    QueueUrl(#[source] RedisError),
    /// PostgreSQL did not answer in the time that its caller had.
    #[error("PostgreSQL did not answer")]
    Silent,
    /// Valkey did not answer in the time that its caller had.
    #[error("Valkey did not answer")]
    QueueSilent,
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
        match self {
            Self::QueueSilent => true,
            Self::Queue { source, .. } => source.is_connection_dropped() || source.is_timeout(),
            _ => false,
        }
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

    /// Whether PostgreSQL or Valkey answered, and refused the login: a user or a password that is wrong, or a database
    /// that does not exist. Waiting does not help, an edit of the URL does.
    #[must_use]
    pub fn is_refused_login(&self) -> bool {
        match self {
            Self::Postgres { source, .. } | Self::Migrate(sqlx::migrate::MigrateError::Execute(source)) => {
                // Class 28: invalid authorization. 3D000: no such database.
                matches!(source, sqlx::Error::Database(error)
                    if error.code().is_some_and(|code| code.starts_with("28") || code == "3D000"))
            }
            Self::Queue { source, .. } => {
                source.kind() == ErrorKind::AuthenticationFailed
                    || matches!(source.code(), Some("WRONGPASS" | "NOAUTH"))
            }
            _ => false,
        }
    }

    /// What keeps the answer of PostgreSQL or Valkey from being had, as a sentence without an address or a secret, such
    /// as "PostgreSQL does not answer".
    #[must_use]
    pub fn in_short(&self) -> &'static str {
        match self {
            Self::Queue { .. } if self.is_refused_login() => {
                "Valkey refuses the login: correct the user or the password in VALKEY_URL"
            }
            Self::QueueSilent => "Valkey does not answer",
            Self::Queue { .. } if self.is_queue_away() => "Valkey does not answer",
            Self::Queue { .. } | Self::QueueUrl(_) => "Valkey cannot be reached, or refuses: see VALKEY_URL",
            _ if self.is_refused_login() => {
                "PostgreSQL refuses the login: correct the user, the password or the database in DATABASE_URL"
            }
            _ if self.is_of_the_data() => "PostgreSQL answers, and what is stored cannot be read",
            _ if self.is_unreachable() => "PostgreSQL does not answer",
            _ => "PostgreSQL refuses a statement",
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

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_login_that_is_refused_is_no_outage_and_says_which_setting_to_correct(pool: PgPool) {
        let good = pool.connect_options();
        let wrong = [
            good.as_ref().clone().password("wrong"),
            good.as_ref().clone().username("nobody"),
            good.as_ref().clone().database("nowhere"),
        ];
        for options in wrong {
            let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy_with(options);
            let error = crate::postgres::is_migrated(&pool).await.unwrap_err();
            assert!(error.is_refused_login() && !error.is_unreachable(), "{error:?}");
            assert!(
                error.in_short().contains("correct the user, the password or the database in DATABASE_URL")
            );
        }
        assert!(!StoreError::Silent.is_refused_login());
        assert_eq!(StoreError::Silent.in_short(), "PostgreSQL does not answer");
    }

    #[tokio::test]
    async fn a_wrong_password_of_valkey_is_no_outage() {
        let url = crate::testing::url().replace("redis://", "redis://nobody:wrong@");
        let queue = crate::queue::EventQueue::new(&url).unwrap();
        let error = queue.durability().await.unwrap_err();
        assert!(error.is_refused_login() && !error.is_queue_away(), "{error:?}");
        assert!(error.in_short().contains("VALKEY_URL"));
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_answered_with_the_form_of_one_and_not_shown() {
        let pool = |url: &str| crate::postgres::pool(url, "test", 1).unwrap_err();
        let queue = |url: &str| crate::queue::EventQueue::new(url).err().unwrap();
        for error in [
            pool("s3cret"),
            pool("mysql://s3cret@host/database"),
            pool("postgres://user:s3cret@host:99999/database"),
            queue("s3cret"),
            queue("http://:s3cret@host"),
        ] {
            let text = with_causes(&error);
            assert!(text.contains("must be a URL such as"), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    /// The error and its causes.
    fn with_causes(error: &dyn std::error::Error) -> String {
        let below = error.source().map(|cause| format!(": {}", with_causes(cause)));
        error.to_string() + &below.unwrap_or_default()
    }
}
