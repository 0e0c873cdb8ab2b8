//! Entries that an older worker could not read, and that this one can.
//!
//! While a release is rolled out, an older worker may meet an entry that a newer api wrote. It keeps the entry as it is,
//! and its events wait in `dead_letters` until a worker that knows its form counts them.

use flagmeter_core::packed::Batch;

use super::batch::{Applied, Counter, Entry};
use crate::{PgPool, StoreError};

/// Entries that are looked at in one step. Each is at most as large as a flush of the api.
const ENTRIES_AT_ONCE: i64 = 4;

/// What became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Entries that could be read.
    pub entries: u64,
    /// Their events.
    pub events: usize,
    /// What became of these.
    pub applied: Applied,
}

/// Counts the events of entries that could not be read when they came and can be read now, and removes their letters.
///
/// It goes back three days, for less than half as long as it is remembered which entries are counted: of two workers,
/// one may have read an entry that the other could not.
///
/// # Errors
///
/// [`StoreError::Postgres`]; some may have been counted. Either way the same call may be made again.
pub async fn count(pool: &PgPool, counter: &Counter) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    let mut last = 0;
    loop {
        let letters = sqlx::query!(
            r#"SELECT id, entry_id, payload AS "payload!"
               FROM dead_letters
               WHERE id > $1
                 AND batch_id IS NULL
                 AND payload IS NOT NULL
                 AND reason IN ('unknown_version', 'malformed')
                 AND created_at > now() - interval '3 days'
               ORDER BY id
               LIMIT $2"#,
            last,
            ENTRIES_AT_ONCE,
        )
        .fetch_all(pool)
        .await
        .map_err(StoreError::postgres("look for entries that can be read by now"))?;
        let Some(newest) = letters.last() else { return Ok(recovered) };
        last = newest.id;
        let readable = letters.into_iter().filter_map(|letter| {
            let batch = Batch::decode(&letter.payload).ok()?;
            Some((letter.id, Entry { entry_id: letter.entry_id, batch }))
        });
        let (ids, entries): (Vec<i64>, Vec<Entry>) = readable.unzip();
        if entries.is_empty() {
            continue;
        }
        recovered.applied += counter.apply(&entries).await?;
        // If this fails, they are counted already when they are looked at again.
        sqlx::query!("DELETE FROM dead_letters WHERE id = ANY ($1)", &ids)
            .execute(pool)
            .await
            .map_err(StoreError::postgres("remove letters that are counted"))?;
        recovered.entries += entries.len() as u64;
        recovered.events += entries.iter().map(|entry| entry.batch.events.len()).sum::<usize>();
    }
}
