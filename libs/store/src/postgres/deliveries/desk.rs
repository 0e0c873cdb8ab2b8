//! For people: which alerts there were and what became of their messages, and to send one again.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Channel, Kind};
use crate::postgres::settings;
use crate::{PgPool, StoreError};

/// An alert, as people list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Its number.
    pub id: i64,
    /// What receivers know it by.
    pub event_id: Uuid,
    /// What happened.
    pub kind: Kind,
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
    let mut alerts = sqlx::query!(
        r#"SELECT id,
                  event_id,
                  kind,
                  threshold,
                  total_tokens,
                  monthly_quota,
                  period_start AS "period_start: jiff_sqlx::Timestamp",
                  period_end AS "period_end: jiff_sqlx::Timestamp",
                  created_at AS "created_at: jiff_sqlx::Timestamp",
                  superseded_by
           FROM alerts
           WHERE tenant = $1
           ORDER BY id DESC
           LIMIT $2"#,
        tenant,
        limit,
    )
    .map(|row| Alert {
        id: row.id,
        event_id: row.event_id,
        kind: Kind::of(&row.kind),
        threshold: row.threshold,
        total_tokens: row.total_tokens,
        monthly_quota: row.monthly_quota,
        period_start: row.period_start.to_jiff(),
        period_end: row.period_end.to_jiff(),
        created_at: row.created_at.to_jiff(),
        superseded_by: row.superseded_by,
        deliveries: Vec::new(),
    })
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read a tenant's alerts"))?;
    let ids: Vec<i64> = alerts.iter().map(|alert| alert.id).collect();
    let mut deliveries = of_alerts(pool, &ids).await?;
    for alert in &mut alerts {
        alert.deliveries = deliveries.remove(&alert.id).unwrap_or_default();
    }
    Ok(alerts)
}

/// The messages of an alert, in the order of their channels.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn find(pool: &PgPool, alert: i64) -> Result<Vec<Delivery>, StoreError> {
    Ok(of_alerts(pool, &[alert]).await?.remove(&alert).unwrap_or_default())
}

/// The messages of those of `alerts` that have any, in the order of their channels.
async fn of_alerts(pool: &PgPool, alerts: &[i64]) -> Result<HashMap<i64, Vec<Delivery>>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT alert,
                  channel,
                  state,
                  attempts,
                  next_attempt_at AS "next_attempt_at: jiff_sqlx::Timestamp",
                  delivered_at AS "delivered_at: jiff_sqlx::Timestamp",
                  last_error
           FROM alert_deliveries
           WHERE alert = ANY($1)
           ORDER BY channel"#,
        alerts,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the messages of alerts"))?;
    let mut deliveries: HashMap<i64, Vec<Delivery>> = HashMap::new();
    for row in rows {
        deliveries.entry(row.alert).or_default().push(Delivery {
            channel: Channel::of(&row.channel),
            state: row.state,
            attempts: row.attempts,
            next_attempt_at: row.next_attempt_at.to_jiff(),
            delivered_at: row.delivered_at.map(jiff_sqlx::Timestamp::to_jiff),
            last_error: row.last_error,
        });
    }
    Ok(deliveries)
}

/// Makes the messages of an alert due now, whatever became of them before, and also to a channel that the tenant did not
/// have then. Answers the channels: none if there is no such alert of the tenant, or no such channel.
///
/// # Errors
///
/// [`StoreError::Postgres`]; nothing is sent again, or, if only the answer was lost, everything is.
pub async fn resend(pool: &PgPool, wanted: Wanted<'_>, now: Timestamp) -> Result<Vec<Channel>, StoreError> {
    send(pool, wanted, now).await
}

async fn send(
    database: impl PgExecutor<'_>,
    wanted: Wanted<'_>,
    now: Timestamp,
) -> Result<Vec<Channel>, StoreError> {
    let channels = sqlx::query_scalar!(
        "INSERT INTO alert_deliveries (alert, channel, next_attempt_at, tried_since)
         SELECT alerts.id, alert_channels.channel, $4::timestamptz, $4::timestamptz
         FROM alerts
         JOIN alert_channels USING (tenant)
         WHERE alerts.id = $2
           AND alert_channels.tenant = $1
           AND alert_channels.channel = COALESCE($3, alert_channels.channel)
         ORDER BY alert_channels.channel
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
    .fetch_all(database)
    .await
    .map_err(StoreError::postgres("send an alert again"))?;
    Ok(channels.iter().map(|channel| Channel::of(channel)).collect())
}

/// Whether there is such a tenant.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn exists(pool: &PgPool, tenant: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM tenants WHERE id = $1) AS "exists!""#, tenant)
        .fetch_one(pool)
        .await
        .map_err(StoreError::postgres("look for a tenant"))
}

/// Whether there is an alert of this number, and it is `tenant`'s.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn is_alert_of(pool: &PgPool, alert: i64, tenant: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM alerts WHERE id = $1 AND tenant = $2) AS "exists!""#,
        alert,
        tenant,
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("look for an alert"))
}

/// A test of a tenant's channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// There is no such tenant.
    NoTenant,
    /// The tenant has no such channel that is turned on. Nothing was written.
    NoChannel,
    /// It is due now.
    Sent {
        /// The alert's number.
        alert: i64,
        /// To which channels it goes; at least one.
        channels: Vec<Channel>,
    },
}

/// Adds an alert that is only a test, with the quota of `now` and what the tenant used of it in the open period, and its
/// messages to `channel`, or to every channel that the tenant has and has not turned off.
///
/// # Errors
///
/// [`StoreError::Postgres`]; there is no test, or, if only the answer was lost, one that is sent.
pub async fn send_test(
    pool: &PgPool,
    tenant: &str,
    channel: Option<Channel>,
    now: Timestamp,
) -> Result<Test, StoreError> {
    let failed = StoreError::postgres("add a test of a tenant's channels");
    let mut tx = pool.begin().await.map_err(&failed)?;
    let Some(alert) = add_test(&mut tx, tenant, now).await? else { return Ok(Test::NoTenant) };
    let channels = send(&mut *tx, Wanted { tenant, alert, channel }, now).await?;
    if channels.is_empty() {
        // With it goes the alert, which would have reached nobody.
        tx.rollback().await.map_err(&failed)?;
        return Ok(Test::NoChannel);
    }
    tx.commit().await.map_err(&failed)?;
    Ok(Test::Sent { alert, channels })
}

/// The test, without messages yet.
async fn add_test(tx: &mut PgConnection, tenant: &str, now: Timestamp) -> Result<Option<i64>, StoreError> {
    let failed = StoreError::postgres("add a test of a tenant's channels");
    let settings = settings::find(&mut *tx, tenant).await.map_err(&failed)?;
    let Some(settings) = settings else { return Ok(None) };
    let period = settings.calendar.period(now);
    let highest = settings.thresholds.percents().last().copied();
    sqlx::query_scalar!(
        "INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind)
         SELECT $1, $2::timestamptz, $3::timestamptz, COALESCE($4, 80), $5, COALESCE(sum(total_tokens), 0)::bigint, 'test'
         FROM usage_periods
         WHERE tenant = $1 AND period_start = $2::timestamptz
         RETURNING id",
        tenant,
        period.start.to_sqlx() as jiff_sqlx::Timestamp,
        period.end.to_sqlx() as jiff_sqlx::Timestamp,
        highest,
        settings.quota.at(now),
    )
    .fetch_one(tx)
    .await
    .map(Some)
    .map_err(&failed)
}

/// For each of `tenants` the newest alert that had messages, tests aside. A tenant without one is left out.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn newest(pool: &PgPool, tenants: &[String]) -> Result<HashMap<String, Told>, StoreError> {
    let alerts = sqlx::query!(
        r#"SELECT newest.tenant,
                  tenants.owner_uid,
                  newest.id,
                  newest.threshold,
                  newest.created_at AS "created_at: jiff_sqlx::Timestamp"
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
           JOIN tenants ON tenants.id = newest.tenant"#,
        tenants,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants' newest alerts"))?;
    let ids: Vec<i64> = alerts.iter().map(|alert| alert.id).collect();
    let mut deliveries = of_alerts(pool, &ids).await?;
    let told = alerts.into_iter().filter_map(|alert| {
        let told = Told {
            owner_uid: alert.owner_uid,
            alert: alert.id,
            threshold: alert.threshold,
            created_at: alert.created_at.to_jiff(),
            deliveries: deliveries.remove(&alert.id)?,
        };
        Some((alert.tenant, told))
    });
    Ok(told.collect())
}
