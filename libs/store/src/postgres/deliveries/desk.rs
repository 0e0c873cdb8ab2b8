//! For people: which alerts there were and what became of their messages, and to send one again.

use std::collections::HashMap;

use flagmeter_core::period::BillingPeriod;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde::Serialize;
use uuid::Uuid;

use super::Channel;
use crate::{PgPool, StoreError};

/// An alert, as people list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Its number.
    pub id: i64,
    /// What receivers know it by.
    pub event_id: Uuid,
    /// `crossed`, `recovered` or `test`.
    pub kind: String,
    /// In percent of the quota.
    pub threshold: i32,
    /// Tokens used, then.
    pub total_tokens: i64,
    /// Tokens a billing period, then.
    pub monthly_quota: i64,
    /// The first instant of the billing period.
    pub period_start: Timestamp,
    /// The first instant of the next one.
    pub period_end: Timestamp,
    /// When it happened.
    pub created_at: Timestamp,
    /// The alert that was told in its place, since several thresholds were reached at once.
    pub superseded_by: Option<i64>,
    /// Its messages, one a channel.
    pub deliveries: Vec<Delivery>,
}

/// A message, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The way to the receiver.
    pub channel: Channel,
    /// `pending`, `delivered`, `failed` or `skipped`.
    pub state: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it is tried next, or its lease ends; of no meaning once it is no longer pending.
    pub next_attempt_at: Timestamp,
    /// When its receiver took it.
    pub delivered_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// Which alert, and to which of the tenant's channels.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The tenant's id.
    pub tenant: &'a str,
    /// The alert's number.
    pub alert: i64,
    /// One channel; `None` is every one that the tenant has and has not turned off.
    pub channel: Option<Channel>,
}

/// The newest alert of a tenant that was to be told, and what became of its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The `metadata.uid` of the resource that the tenant belongs to now: nobody else's are these.
    pub owner_uid: String,
    /// The alert's number.
    pub alert: i64,
    /// In percent of the quota.
    pub threshold: i32,
    /// When it happened.
    pub created_at: Timestamp,
    /// Its messages, in the order of their channels; at least one.
    pub deliveries: Vec<Delivery>,
}

/// The tenant's last `limit` alerts, the newest first.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn list(pool: &PgPool, tenant: &str, limit: i64) -> Result<Vec<Alert>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT alert.id,
                  alert.event_id,
                  alert.kind,
                  alert.threshold,
                  alert.total_tokens,
                  alert.monthly_quota,
                  alert.period_start AS "period_start: jiff_sqlx::Timestamp",
                  alert.period_end AS "period_end: jiff_sqlx::Timestamp",
                  alert.created_at AS "created_at: jiff_sqlx::Timestamp",
                  alert.superseded_by,
                  delivery.channel AS "channel?",
                  delivery.state AS "state?",
                  delivery.attempts AS "attempts?",
                  delivery.next_attempt_at AS "next_attempt_at?: jiff_sqlx::Timestamp",
                  delivery.delivered_at AS "delivered_at?: jiff_sqlx::Timestamp",
                  delivery.last_error
           FROM (SELECT * FROM alerts WHERE tenant = $1 ORDER BY id DESC LIMIT $2) AS alert
           LEFT JOIN alert_deliveries AS delivery ON delivery.alert = alert.id
           ORDER BY alert.id DESC, delivery.channel"#,
        tenant,
        limit,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read a tenant's alerts"))?;
    let mut alerts: Vec<Alert> = Vec::new();
    for row in rows {
        if alerts.last().is_none_or(|last| last.id != row.id) {
            alerts.push(Alert {
                id: row.id,
                event_id: row.event_id,
                kind: row.kind,
                threshold: row.threshold,
                total_tokens: row.total_tokens,
                monthly_quota: row.monthly_quota,
                period_start: row.period_start.to_jiff(),
                period_end: row.period_end.to_jiff(),
                created_at: row.created_at.to_jiff(),
                superseded_by: row.superseded_by,
                deliveries: Vec::new(),
            });
        }
        let delivery = row.channel.zip(row.state).zip(row.attempts.zip(row.next_attempt_at));
        if let (Some(alert), Some(((channel, state), (attempts, next_attempt_at)))) =
            (alerts.last_mut(), delivery)
        {
            alert.deliveries.push(Delivery {
                channel: Channel::of(&channel),
                state,
                attempts,
                next_attempt_at: next_attempt_at.to_jiff(),
                delivered_at: row.delivered_at.map(jiff_sqlx::Timestamp::to_jiff),
                last_error: row.last_error,
            });
        }
    }
    Ok(alerts)
}

/// The messages of an alert, in the order of their channels.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn find(pool: &PgPool, alert: i64) -> Result<Vec<Delivery>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT channel,
                  state,
                  attempts,
                  next_attempt_at AS "next_attempt_at: jiff_sqlx::Timestamp",
                  delivered_at AS "delivered_at: jiff_sqlx::Timestamp",
                  last_error
           FROM alert_deliveries
           WHERE alert = $1
           ORDER BY channel"#,
        alert,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read an alert's messages"))?;
    Ok(rows
        .into_iter()
        .map(|row| Delivery {
            channel: Channel::of(&row.channel),
            state: row.state,
            attempts: row.attempts,
            next_attempt_at: row.next_attempt_at.to_jiff(),
            delivered_at: row.delivered_at.map(jiff_sqlx::Timestamp::to_jiff),
            last_error: row.last_error,
        })
        .collect())
}

/// Makes the messages of an alert due now, whatever became of them before, and also to a channel that the tenant did not
/// have then. Answers the channels: none if there is no such alert of the tenant, or no such channel.
///
/// # Errors
///
/// [`StoreError::Postgres`]; nothing is sent again, or, if only the answer was lost, everything is.
pub async fn resend(pool: &PgPool, wanted: Wanted<'_>, now: Timestamp) -> Result<Vec<Channel>, StoreError> {
    let channels = sqlx::query_scalar!(
        "WITH channels AS (
             SELECT tenant, 'slack' AS channel FROM slack_webhooks WHERE tenant = $1 AND enabled
             UNION ALL
             SELECT tenant, 'webhook' FROM webhooks WHERE tenant = $1 AND enabled
         )
         INSERT INTO alert_deliveries (alert, channel, next_attempt_at, tried_since)
         SELECT alerts.id, channels.channel, $4::timestamptz, $4::timestamptz
         FROM alerts
         JOIN channels USING (tenant)
         WHERE alerts.id = $2 AND channels.channel = COALESCE($3, channels.channel)
         ORDER BY channels.channel
         ON CONFLICT (alert, channel) DO UPDATE
         SET state           = 'pending',
             attempts        = 0,
             next_attempt_at = EXCLUDED.next_attempt_at,
             tried_since     = EXCLUDED.tried_since,
             delivered_at    = NULL,
             last_error      = NULL,
             updated_at      = now()
         RETURNING channel",
        wanted.tenant,
        wanted.alert,
        wanted.channel.map(Channel::as_str),
        now.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("send an alert again"))?;
    Ok(channels.iter().map(|channel| Channel::of(channel)).collect())
}

/// The tenant's billing day and the IANA name of its zone; `None` if there is no such tenant.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn find_terms(pool: &PgPool, tenant: &str) -> Result<Option<(i16, String)>, StoreError> {
    sqlx::query!("SELECT billing_day, time_zone FROM tenants WHERE id = $1", tenant)
        .fetch_optional(pool)
        .await
        .map(|row| row.map(|row| (row.billing_day, row.time_zone)))
        .map_err(StoreError::postgres("read a tenant's billing day"))
}

/// Adds an alert that is only a test, with what the tenant used in `period`; [`resend`] makes its messages. Answers its
/// number.
///
/// # Errors
///
/// [`StoreError::Postgres`], also if there is no such tenant.
pub async fn add_test(pool: &PgPool, tenant: &str, period: BillingPeriod) -> Result<i64, StoreError> {
    sqlx::query_scalar!(
        "INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind)
         SELECT tenants.id,
                $2::timestamptz,
                $3::timestamptz,
                COALESCE((SELECT max(threshold) FROM UNNEST(tenants.thresholds) AS threshold), 80),
                tenants.monthly_quota,
                COALESCE(
                    (SELECT total_tokens
                     FROM usage_periods
                     WHERE tenant = tenants.id AND period_start = $2::timestamptz),
                    0
                ),
                'test'
         FROM tenants
         WHERE tenants.id = $1
         RETURNING id",
        tenant,
        period.start.to_sqlx() as jiff_sqlx::Timestamp,
        period.end.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("add a test of a tenant's channels"))
}

/// For each of `tenants` the newest alert that had messages, tests aside. A tenant without one is left out.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn newest(pool: &PgPool, tenants: &[String]) -> Result<HashMap<String, Told>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT newest.tenant,
                  tenants.owner_uid,
                  newest.id,
                  newest.threshold,
                  newest.created_at AS "created_at: jiff_sqlx::Timestamp",
                  delivery.channel,
                  delivery.state,
                  delivery.attempts,
                  delivery.next_attempt_at AS "next_attempt_at: jiff_sqlx::Timestamp",
                  delivery.delivered_at AS "delivered_at: jiff_sqlx::Timestamp",
                  delivery.last_error
           FROM UNNEST($1::text[]) AS wanted (tenant)
           CROSS JOIN LATERAL (
               SELECT alerts.tenant, alerts.id, alerts.threshold, alerts.created_at
               FROM alerts
               WHERE alerts.tenant = wanted.tenant
                 AND alerts.kind <> 'test'
                 AND EXISTS (SELECT FROM alert_deliveries WHERE alert = alerts.id)
               ORDER BY alerts.id DESC
               LIMIT 1
           ) AS newest
           JOIN tenants ON tenants.id = newest.tenant
           JOIN alert_deliveries AS delivery ON delivery.alert = newest.id
           ORDER BY newest.tenant, delivery.channel"#,
        tenants,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read what became of the tenants' alerts"))?;
    let mut newest: HashMap<String, Told> = HashMap::new();
    for row in rows {
        let told = newest.entry(row.tenant).or_insert_with(|| Told {
            owner_uid: row.owner_uid,
            alert: row.id,
            threshold: row.threshold,
            created_at: row.created_at.to_jiff(),
            deliveries: Vec::new(),
        });
        told.deliveries.push(Delivery {
            channel: Channel::of(&row.channel),
            state: row.state,
            attempts: row.attempts,
            next_attempt_at: row.next_attempt_at.to_jiff(),
            delivered_at: row.delivered_at.map(jiff_sqlx::Timestamp::to_jiff),
            last_error: row.last_error,
        });
    }
    Ok(newest)
}
