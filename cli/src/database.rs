//! What a command says when PostgreSQL did not do as it should.

use flagmeter_store::{PgPool, StoreError};

/// What may be wrong where PostgreSQL refuses a statement.
pub(crate) const READS: &str = "is the database that DATABASE_URL names right, and migrated?";

/// The same of statements that write.
pub(crate) const WRITES: &str = "DATABASE_URL needs the worker's role, or that of the tables' owner";

/// For `map_err`: says what failed, and what to do. `advice` is that for a statement that PostgreSQL refuses. Where it
/// answered that the data are wrong, no setting is to blame, and the cause says what is; where it did not answer, the
/// address is named, and where it refused the login, the setting.
pub(crate) fn failed(
    pool: &PgPool,
    what: &'static str,
    advice: &'static str,
) -> impl FnOnce(StoreError) -> anyhow::Error {
    let options = pool.connect_options();
    move |error| {
        let advice = if error.is_of_the_data() {
            "what is in the database is at fault".to_owned()
        } else if error.is_unreachable() {
            let (host, port) = (options.get_host(), options.get_port());
            format!(
                "PostgreSQL does not answer at {host}:{port}; is it running there, and is DATABASE_URL right?"
            )
        } else if error.is_refused_login() {
            error.in_short().to_owned()
        } else {
            advice.to_owned()
        };
        anyhow::Error::new(error).context(format!("{what}; {advice}"))
    }
}
