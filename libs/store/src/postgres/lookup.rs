//! What became of one event.

use flagmeter_core::event::{EventId, LedgerKey};
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use crate::{PgPool, StoreError};

/// An event that was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// What the tokens were used for.
    pub feature: String,
    /// How many.
    pub tokens: i64,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When it was received.
    pub received_at: Timestamp,
    /// When it was taken back.
    pub reversed_at: Option<Timestamp>,
    /// What else came under its id, and did not count.
    pub conflict: Option<Conflict>,
}

/// The first event that came under an id that was taken by another content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What its tokens were used for.
    pub feature: String,
    /// How many.
    pub tokens: i64,
    /// When it was received.
    pub received_at: Timestamp,
}

/// What is known of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It counts, or did until it was taken back.
    Counted(Counted),
    /// It could not be counted, for this reason.
    DeadLettered {
        /// As in `dead_letters`.
        reason: String,
        /// When it was put there.
        at: Timestamp,
    },
}

/// How a look-up begins. It goes by keys, and what is locked or slow all the same is not waited for.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = '2s'";

/// Looks for the event of `tenant` with this id: a client's, or one that the api gave.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn find(pool: &PgPool, tenant: &str, id: EventId) -> Result<Option<Found>, StoreError> {
    let failed = StoreError::postgres("look for an event");
    let mut tx = pool.begin_with(BEGIN).await.map_err(&failed)?;
    if let Some(counted) = find_counted(&mut tx, tenant, id).await.map_err(&failed)? {
        return Ok(Some(Found::Counted(counted)));
    }
    let letter = sqlx::query!(
        r#"SELECT reason, created_at AS "at: jiff_sqlx::Timestamp"
           FROM dead_letters
           WHERE tenant = $1 AND event ->> 'id' = $2 AND event IS NOT NULL
           ORDER BY id
           LIMIT 1"#,
        tenant,
        id.uuid().to_string(),
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(&failed)?;
    Ok(letter.map(|letter| Found::DeadLettered { reason: letter.reason, at: letter.at.to_jiff() }))
}

async fn find_counted(
    connection: &mut PgConnection,
    tenant: &str,
    id: EventId,
) -> Result<Option<Counted>, sqlx::Error> {
    // An id of the api's own says when the event was received, to the millisecond.
    let received = match received_at(&mut *connection, tenant, id.ledger_key()).await? {
        Some(received) => Some((received, received + SignedDuration::from_micros(1))),
        None => id.made_at().map(|made| (made, made + SignedDuration::from_millis(1))),
    };
    let Some((from, to)) = received else { return Ok(None) };
    let event = sqlx::query!(
        r#"SELECT events.feature,
                  events.tokens,
                  events.occurred_at AS "occurred_at: jiff_sqlx::Timestamp",
                  events.created_at AS "received_at: jiff_sqlx::Timestamp",
                  reversal.received_at AS "reversed_at?: jiff_sqlx::Timestamp",
                  conflict.feature AS "conflict_feature?",
                  conflict.tokens AS "conflict_tokens?",
                  conflict.received_at AS "conflict_received_at?: jiff_sqlx::Timestamp"
           FROM events
           LEFT JOIN event_ids AS reversal ON reversal.id = $5 AND reversal.tenant = events.tenant
           LEFT JOIN event_conflicts AS conflict ON conflict.tenant = events.tenant AND conflict.id = events.id
           WHERE events.created_at >= $3::timestamptz
             AND events.created_at < $4::timestamptz
             AND events.id = $2
             AND events.tenant = $1"#,
        tenant,
        id.uuid(),
        from.to_sqlx() as jiff_sqlx::Timestamp,
        to.to_sqlx() as jiff_sqlx::Timestamp,
        id.reversal_ledger_key().uuid(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(event) = event else { return Ok(None) };
    let conflict = (event.conflict_feature, event.conflict_tokens, event.conflict_received_at);
    Ok(Some(Counted {
        feature: event.feature,
        tokens: event.tokens,
        occurred_at: event.occurred_at.to_jiff(),
        received_at: event.received_at.to_jiff(),
        reversed_at: event.reversed_at.map(jiff_sqlx::Timestamp::to_jiff),
        conflict: match conflict {
            (Some(feature), Some(tokens), Some(received_at)) => {
                Some(Conflict { feature, tokens, received_at: received_at.to_jiff() })
            }
            _ => None,
        },
    }))
}

/// When what the ledger has under `key` was received.
async fn received_at(
    connection: &mut PgConnection,
    tenant: &str,
    key: LedgerKey,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let received = sqlx::query_scalar!(
        r#"SELECT received_at AS "received_at: jiff_sqlx::Timestamp" FROM event_ids WHERE id = $1 AND tenant = $2"#,
        key.uuid(),
        tenant,
    )
    .fetch_optional(connection)
    .await?;
    Ok(received.map(jiff_sqlx::Timestamp::to_jiff))
}
