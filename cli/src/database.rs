//! What a command says when PostgreSQL did not do as it should.

use flagmeter_store::StoreError;

/// For `map_err`: says what failed, and gives `advice` unless PostgreSQL answered that the data are wrong. Then no
/// setting is to blame, and the cause says what is.
pub(crate) fn failed(what: &'static str, advice: &'static str) -> impl FnOnce(StoreError) -> anyhow::Error {
    move |error| {
        let advice = if error.is_of_the_data() { "what is in the database is at fault" } else { advice };
        anyhow::Error::new(error).context(format!("{what}; {advice}"))
    }
}
