//! Whether the books balance: the same tokens in events, rollups and periods.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::{PgPool, StoreError};

/// A tenant's sums in each of the tables that count. They have room for whatever the tables hold, so that no tenant's
/// sums keep the others' from being read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Book {
    /// The tenant.
    pub tenant: String,
    /// Rows of `events`, those forgotten by now among them.
    pub events: i128,
    /// Tokens in `events`, likewise.
    pub event_tokens: i128,
    /// Tokens in `rollups`, likewise.
    pub rollup_tokens: i128,
    /// Tokens in `usage_periods`.
    pub period_tokens: i128,
    /// Tokens in `usage_features`.
    pub feature_tokens: i128,
    /// Events that `usage_periods` counted.
    pub period_events: i128,
    /// Events in `dead_letters`, those forgotten by now among them.
    pub dead_letters: i128,
}

impl Book {
    /// Whether all sums are equal.
    #[must_use]
    pub fn balances(&self) -> bool {
        let sums = [self.rollup_tokens, self.period_tokens, self.feature_tokens];
        self.events == self.period_events && sums.iter().all(|sum| *sum == self.event_tokens)
    }
}

/// The book of every tenant that has one and is not being deleted, all seen at one instant.
///
/// It reads whole tables, so it takes as long as they are large.
///
/// # Errors
///
/// [`StoreError::Postgres`].
pub async fn books(pool: &PgPool) -> Result<Vec<Book>, StoreError> {
    let failed = StoreError::postgres("sum the books");
    let rows = sqlx::query(
        "WITH sums (tenant, events, event_tokens, rollup_tokens, period_tokens, feature_tokens, period_events, letters) AS (
             SELECT tenant, count(*), sum(tokens), 0, 0, 0, 0, 0 FROM events GROUP BY tenant
             UNION ALL
             SELECT tenant, 0, 0, sum(total_tokens), 0, 0, 0, 0 FROM rollups GROUP BY tenant
             UNION ALL
             SELECT tenant, 0, 0, 0, sum(total_tokens), 0, sum(events), 0 FROM usage_periods GROUP BY tenant
             UNION ALL
             SELECT tenant, 0, 0, 0, 0, sum(total_tokens), 0, 0 FROM usage_features GROUP BY tenant
             UNION ALL
             -- What is no longer kept in detail.
             SELECT tenant, events, tokens, 0, 0, 0, 0, 0 FROM forgotten WHERE source = 'events'
             UNION ALL
             SELECT tenant, 0, 0, tokens, 0, 0, 0, 0 FROM forgotten WHERE source = 'rollups'
             UNION ALL
             SELECT tenant, 0, 0, 0, 0, 0, 0, events FROM forgotten WHERE source = 'dead_letters'
             UNION ALL
             SELECT tenant, 0, 0, 0, 0, 0, 0, count(*) FROM dead_letters WHERE tenant IS NOT NULL GROUP BY tenant
         )
         SELECT tenant,
                sum(events)::text, sum(event_tokens)::text, sum(rollup_tokens)::text,
                sum(period_tokens)::text, sum(feature_tokens)::text, sum(period_events)::text,
                sum(letters)::text
         FROM sums
         -- While all that is kept of a tenant is being deleted, its book is torn.
         WHERE tenant NOT IN (SELECT id FROM tenants WHERE deletion_started_at IS NOT NULL)
         GROUP BY tenant
         ORDER BY tenant",
    )
    .fetch_all(pool)
    .await
    .map_err(&failed)?;
    let sum = |row: &PgRow, place: usize| {
        let text: &str = row.try_get(place)?;
        text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    rows.iter()
        .map(|row| {
            Ok(Book {
                tenant: row.try_get(0)?,
                events: sum(row, 1)?,
                event_tokens: sum(row, 2)?,
                rollup_tokens: sum(row, 3)?,
                period_tokens: sum(row, 4)?,
                feature_tokens: sum(row, 5)?,
                period_events: sum(row, 6)?,
                dead_letters: sum(row, 7)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(&failed)
}
