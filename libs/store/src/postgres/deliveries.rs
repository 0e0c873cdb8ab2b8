//! The outbox of alerts: messages that are due, and what came of them.
//!
//! A message is taken by a lease, not by a lock: whoever takes it moves its `next_attempt_at` ahead and commits, so no
//! transaction is open while a receiver is waited for. What came of it is written only as long as the lease is one's
//! own. A worker that dies leaves the message to the next one once the lease is over; so a message is sent at least
//! once, and twice only if its worker dies, or cannot reach PostgreSQL, between the receiver's answer and
//! [`conclude`].

mod desk;

use flagmeter_core::quota::Quota;
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use serde::Serialize;
use uuid::Uuid;

pub use self::desk::{
    Alert, Delivery, Test, Told, Wanted, exists, find, is_alert_of, list, newest, resend, send_test,
};
use super::settings;
use crate::{PgPool, StoreError};

/// The ways to a receiver. The values of `alert_deliveries.channel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Channel {
    /// A Slack incoming webhook.
    Slack,
    /// A webhook in the form of Standard Webhooks.
    Webhook,
}

impl Channel {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Slack, Self::Webhook];

    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Webhook => "webhook",
        }
    }

    fn of(text: &str) -> Self {
        // The table holds nothing else.
        if text == Self::Slack.as_str() { Self::Slack } else { Self::Webhook }
    }
}

/// What a message is about. The values of `alerts.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Usage reached a threshold.
    Crossed,
    /// A raise of the quota put the threshold out of reach again.
    Recovered,
    /// Somebody asked whether the channel works.
    Test,
}

impl Kind {
    fn of(text: &str) -> Self {
        match text {
            "crossed" => Self::Crossed,
            "recovered" => Self::Recovered,
            _ => Self::Test,
        }
    }
}

/// Where a message goes, sealed for its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL.
    pub url: Vec<u8>,
    /// What messages are signed with; a Slack channel has none.
    pub secret: Option<Vec<u8>>,
    /// The secret before that one, as long as messages are signed with both.
    pub previous_secret: Option<Vec<u8>>,
}

/// A message that was taken, to be sent now.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The alert's number.
    pub alert: i64,
    /// The way to the receiver.
    pub channel: Channel,
    /// Until when it is this worker's: what names the lease.
    pub leased_until: Timestamp,
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// Since when it is tried.
    pub tried_since: Timestamp,
    /// What receivers know it by; the same whenever it is sent.
    pub event_id: Uuid,
    /// What it is about.
    pub kind: Kind,
    /// When that happened.
    pub created_at: Timestamp,
    /// The tenant's id.
    pub tenant: String,
    /// What people call it.
    pub tenant_name: String,
    /// The IANA name of its zone.
    pub time_zone: String,
    /// In percent of the quota.
    pub threshold: i32,
    /// Tokens a billing period, then.
    pub monthly_quota: i64,
    /// What the tenant may use by now, and will.
    pub quota: Quota,
    /// Tokens used, then.
    pub total_tokens: i64,
    /// The first instant of the billing period.
    pub period_start: Timestamp,
    /// The first instant of the next one.
    pub period_end: Timestamp,
    /// Where it goes; `None` if the tenant has no such channel any more, or turned it off, or is gone itself.
    pub target: Option<Target>,
}

/// What came of an attempt, for [`conclude`]. `why` is for people: neither a URL nor a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// It was taken, at this time.
    Delivered(Timestamp),
    /// It will never be taken.
    Failed {
        /// Why.
        why: String,
    },
    /// It was tried for long enough.
    GivenUp {
        /// Why the last attempt failed.
        why: String,
    },
    /// There is nobody to send it to.
    Skipped {
        /// Why.
        why: String,
    },
    /// It is tried again.
    Again {
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// It was not tried: others go first.
    PutBack {
        /// When it may be its turn.
        at: Timestamp,
    },
}

/// Takes the message that is due longest, if there is one, until `now` + `lease`. Others that look at the same time
/// take others.
///
/// # Errors
///
/// [`StoreError::Postgres`]; if only the answer was lost, the message waits until the lease is over.
pub async fn take(pool: &PgPool, now: Timestamp, lease: SignedDuration) -> Result<Option<Taken>, StoreError> {
    let until = now + lease;
    let row = sqlx::query!(
        r#"WITH due AS (
               SELECT alert, channel
               FROM alert_deliveries
               WHERE state = 'pending' AND next_attempt_at <= $1::timestamptz
               ORDER BY next_attempt_at
               LIMIT 1
               -- Another notifier has a locked row in hand; there may be more.
               FOR UPDATE SKIP LOCKED
           )
           UPDATE alert_deliveries AS delivery
           SET attempts        = delivery.attempts + 1,
               next_attempt_at = $2::timestamptz,
               updated_at      = now()
           FROM due
           JOIN alerts ON alerts.id = due.alert
           JOIN tenants ON tenants.id = alerts.tenant
           LEFT JOIN slack_webhooks AS slack
                ON slack.tenant = tenants.id AND slack.enabled AND due.channel = 'slack'
                   AND tenants.detached_at IS NULL
           LEFT JOIN webhooks AS webhook
                ON webhook.tenant = tenants.id AND webhook.enabled AND due.channel = 'webhook'
                   AND tenants.detached_at IS NULL
           WHERE delivery.alert = due.alert AND delivery.channel = due.channel
           RETURNING delivery.alert,
                     delivery.channel,
                     delivery.next_attempt_at AS "leased_until: jiff_sqlx::Timestamp",
                     delivery.attempts,
                     delivery.tried_since AS "tried_since: jiff_sqlx::Timestamp",
                     alerts.event_id,
                     alerts.kind,
                     alerts.created_at AS "created_at: jiff_sqlx::Timestamp",
                     alerts.tenant,
                     tenants.name AS tenant_name,
                     tenants.time_zone,
                     alerts.threshold,
                     alerts.monthly_quota,
                     tenants.monthly_quota AS base_quota,
                     tenants.quota_boosts,
                     alerts.total_tokens,
                     alerts.period_start AS "period_start: jiff_sqlx::Timestamp",
                     alerts.period_end AS "period_end: jiff_sqlx::Timestamp",
                     COALESCE(slack.url, webhook.url) AS url,
                     webhook.secret AS "secret?",
                     CASE WHEN webhook.previous_until > $1::timestamptz
                          THEN webhook.previous_secret END AS previous_secret"#,
        now.to_sqlx() as jiff_sqlx::Timestamp,
        until.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_optional(pool)
    .await
    .map_err(StoreError::postgres("take a message that is due"))?;
    Ok(row.map(|row| Taken {
        alert: row.alert,
        channel: Channel::of(&row.channel),
        leased_until: row.leased_until.to_jiff(),
        attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
        tried_since: row.tried_since.to_jiff(),
        event_id: row.event_id,
        kind: Kind::of(&row.kind),
        created_at: row.created_at.to_jiff(),
        tenant: row.tenant,
        tenant_name: row.tenant_name,
        time_zone: row.time_zone,
        threshold: row.threshold,
        monthly_quota: row.monthly_quota,
        quota: settings::quota(row.base_quota, row.quota_boosts),
        total_tokens: row.total_tokens,
        period_start: row.period_start.to_jiff(),
        period_end: row.period_end.to_jiff(),
        target: row.url.map(|url| Target { url, secret: row.secret, previous_secret: row.previous_secret }),
    }))
}

/// Writes what came of `taken`. Answers whether it was still this worker's: if not, somebody else sends it, or sends
/// it again.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn conclude(pool: &PgPool, taken: &Taken, conclusion: &Conclusion) -> Result<bool, StoreError> {
    let (state, why, next_attempt_at, delivered_at) = match conclusion {
        Conclusion::Delivered(at) => ("delivered", None, None, Some(*at)),
        Conclusion::Failed { why } => ("failed", Some(why.clone()), None, None),
        Conclusion::GivenUp { why } => ("failed", Some(format!("given up: {why}")), None, None),
        Conclusion::Skipped { why } => ("skipped", Some(why.clone()), None, None),
        Conclusion::Again { at, why } => ("pending", Some(why.clone()), Some(*at), None),
        Conclusion::PutBack { at } => ("pending", None, Some(*at), None),
    };
    let put_back = matches!(conclusion, Conclusion::PutBack { .. });
    sqlx::query!(
        "UPDATE alert_deliveries
         SET state           = $4,
             -- What was put back was not tried, and keeps what its last attempt said.
             last_error      = CASE WHEN $5 THEN last_error ELSE $6 END,
             attempts        = CASE WHEN $5 THEN greatest(attempts - 1, 0) ELSE attempts END,
             next_attempt_at = COALESCE($7::timestamptz, next_attempt_at),
             delivered_at    = $8::timestamptz,
             updated_at      = now()
         WHERE alert = $1 AND channel = $2 AND state = 'pending' AND next_attempt_at = $3::timestamptz",
        taken.alert,
        taken.channel.as_str(),
        taken.leased_until.to_sqlx() as jiff_sqlx::Timestamp,
        state,
        put_back,
        why,
        next_attempt_at.map(ToSqlx::to_sqlx) as Option<jiff_sqlx::Timestamp>,
        delivered_at.map(ToSqlx::to_sqlx) as Option<jiff_sqlx::Timestamp>,
    )
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(StoreError::postgres("write what came of a message"))
}

/// Asks to send to the URL of this fingerprint now. If it may be sent to, the next message may follow after `pause`;
/// if not, the answer is when to ask again.
///
/// # Errors
///
/// [`StoreError::Postgres`]; whether the turn was taken is then not known, and it passes by itself.
pub async fn take_turn(
    pool: &PgPool,
    url: &str,
    now: Timestamp,
    pause: SignedDuration,
) -> Result<Result<(), Timestamp>, StoreError> {
    let next = now + pause;
    let row = sqlx::query!(
        r#"WITH turn AS (
               INSERT INTO webhook_turns (url, next_at)
               VALUES ($1, $3::timestamptz)
               ON CONFLICT (url) DO UPDATE
               SET next_at = EXCLUDED.next_at
               WHERE webhook_turns.next_at <= $2::timestamptz
               RETURNING url
           )
           SELECT EXISTS (SELECT FROM turn) AS "taken!",
                  -- As it was before; if somebody took a turn meanwhile, it is too early, and is asked again.
                  (SELECT next_at FROM webhook_turns WHERE url = $1) AS "next_at: jiff_sqlx::Timestamp""#,
        url,
        now.to_sqlx() as jiff_sqlx::Timestamp,
        next.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("take a URL's turn"))?;
    if row.taken {
        return Ok(Ok(()));
    }
    Ok(Err(row.next_at.map_or(next, |at| at.to_jiff().max(now + SignedDuration::from_millis(100)))))
}

/// Lets nobody send to the URL before `until`, since its receiver asked for that.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn hold(pool: &PgPool, url: &str, until: Timestamp) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO webhook_turns (url, next_at)
         VALUES ($1, $2::timestamptz)
         ON CONFLICT (url) DO UPDATE
         SET next_at = greatest(webhook_turns.next_at, EXCLUDED.next_at)",
        url,
        until.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .execute(pool)
    .await
    .map(drop)
    .map_err(StoreError::postgres("hold messages to a URL"))
}

/// Forgets turns that passed before `before`.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn forget_turns(pool: &PgPool, before: Timestamp) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM webhook_turns WHERE next_at < $1::timestamptz",
        before.to_sqlx() as jiff_sqlx::Timestamp
    )
    .execute(pool)
    .await
    .map(drop)
    .map_err(StoreError::postgres("forget the turns of URLs"))
}

/// What waits to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Messages.
    pub pending: i64,
    /// Since when the oldest of them is tried.
    pub oldest: Option<Timestamp>,
}

/// What waits to be sent, for metrics.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn backlog(pool: &PgPool) -> Result<Backlog, StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "pending!", min(tried_since) AS "oldest: jiff_sqlx::Timestamp"
           FROM alert_deliveries
           WHERE state = 'pending'"#
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("count the messages that wait"))?;
    Ok(Backlog { pending: row.pending, oldest: row.oldest.map(jiff_sqlx::Timestamp::to_jiff) })
}

#[cfg(test)]
mod tests;
