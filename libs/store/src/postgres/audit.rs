//! Whether the books balance: the same tokens in events, rollups and periods.

use sqlx::Row as _;

use crate::{PgPool, StoreError};

/// A tenant's sums in each of the tables that count.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Book {
    /// The tenant.
    pub tenant: String,
    /// Rows of `events`, those forgotten by now among them.
    pub events: i64,
    /// Tokens in `events`, likewise.
    pub event_tokens: i64,
    /// Tokens in `rollups`, likewise.
    pub rollup_tokens: i64,
    /// Tokens in `usage_periods`.
    pub period_tokens: i64,
    /// Tokens in `usage_features`.
    pub feature_tokens: i64,
    /// Events that `usage_periods` counted.
    pub period_events: i64,
    /// Events in `dead_letters`.
    pub dead_letters: i64,
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
             SELECT tenant, 0, 0, 0, 0, 0, 0, count(*) FROM dead_letters WHERE tenant IS NOT NULL GROUP BY tenant
         )
         SELECT tenant,
                sum(events)::bigint, sum(event_tokens)::bigint, sum(rollup_tokens)::bigint,
                sum(period_tokens)::bigint, sum(feature_tokens)::bigint, sum(period_events)::bigint,
                sum(letters)::bigint
         FROM sums
         -- While all that is kept of a tenant is being deleted, its book is torn.
         WHERE tenant NOT IN (SELECT id FROM tenants WHERE deletion_started_at IS NOT NULL)
         GROUP BY tenant
         ORDER BY tenant",
    )
    .fetch_all(pool)
    .await
    .map_err(&failed)?;
    rows.iter()
        .map(|row| {
            Ok(Book {
                tenant: row.try_get(0)?,
                events: row.try_get(1)?,
                event_tokens: row.try_get(2)?,
                rollup_tokens: row.try_get(3)?,
                period_tokens: row.try_get(4)?,
                feature_tokens: row.try_get(5)?,
                period_events: row.try_get(6)?,
                dead_letters: row.try_get(7)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(&failed)
}
