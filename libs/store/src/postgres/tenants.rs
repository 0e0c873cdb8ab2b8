//! The tenants' rows, as the operator reads and writes them; [`list`] and [`get`] are for people.

mod listed;

use std::collections::HashMap;

use flagmeter_core::period::BillingPeriod;
use flagmeter_core::quota::Boost;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

pub use self::listed::{Listed, get, list};
pub use super::slack_webhooks::SlackRow;
pub use super::tenant_changes::{ChangeKind, OPERATOR};
pub use super::webhooks::{SealedWebhook, WebhookRow};
use super::{settings, slack_webhooks, tenant_changes, terms, webhooks};
use crate::sealed::{Column, Sealer};
use crate::{PgPool, StoreError};

/// The resource that a row belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Its namespace; its name is the tenant's id.
    pub namespace: String,
    /// Its `metadata.uid`, which a resource that is made anew does not share.
    pub uid: String,
}

/// What is kept of a tenant's settings: its row, and those of its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// The tenant's id, a DNS label.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Tokens a billing period.
    pub monthly_quota: i64,
    /// Raises of it for a time.
    pub boosts: Vec<Boost>,
    /// At which percents of it something is recorded, ascending.
    pub thresholds: Vec<i32>,
    /// The day on which its periods start, 1 to 31.
    pub billing_day: i16,
    /// The IANA name of the zone in which they do.
    pub time_zone: String,
    /// Whether it takes no events for now.
    pub suspended: bool,
    /// The resource it belongs to.
    pub owner: Owner,
    /// Since when that resource is gone; `None` while it exists.
    pub detached_at: Option<Timestamp>,
    /// Where its alerts go: a Slack channel,
    pub slack: Option<SlackRow>,
    /// and a webhook.
    pub webhook: Option<WebhookRow>,
}

impl TenantRow {
    /// As in the trail of changes: everything but URLs and secrets, of which it has fingerprints.
    #[must_use]
    pub fn as_recorded(&self) -> Value {
        json!({
            "name": self.name,
            "monthlyQuota": self.monthly_quota,
            "quotaBoosts": self.boosts,
            "thresholds": self.thresholds,
            "billingDay": self.billing_day,
            "timeZone": self.time_zone,
            "suspended": self.suspended,
            "owner": self.owner,
            "slack": self.slack,
            "webhook": self.webhook,
        })
    }

    fn terms(&self) -> terms::Wanted<'_> {
        terms::Wanted {
            monthly_quota: self.monthly_quota,
            boosts: &self.boosts,
            thresholds: &self.thresholds,
            billing_day: self.billing_day,
            time_zone: &self.time_zone,
        }
    }
}

/// A row as it was found, and what was last written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTenant {
    /// The row.
    pub row: TenantRow,
    /// [`TenantRow::as_recorded`] of the last line in the trail; `None` if that was a detachment. A row
    /// that says something else was changed by somebody else.
    pub recorded: Option<Value>,
    /// Whether all that is kept of the tenant is being deleted (`deletion`); such a row cannot be written.
    pub is_being_deleted: bool,
}

/// A change of a tenant's settings.
#[derive(Debug)]
pub struct Change<'a> {
    /// What it is, for the trail.
    pub kind: ChangeKind,
    /// The row that was found.
    pub before: Option<&'a TenantRow>,
    /// What it is to say.
    pub after: &'a TenantRow,
    /// The Slack channel's URL, sealed; `None` leaves the one that is stored.
    pub sealed_url: Option<&'a [u8]>,
    /// The webhook's URL and secret, likewise.
    pub sealed_webhook: Option<&'a SealedWebhook>,
    /// When: which period is open, and which quota holds.
    pub now: Timestamp,
}

/// The tenant's row, if there is one.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn find(pool: &PgPool, sealer: &Sealer, id: &str) -> Result<Option<FoundTenant>, StoreError> {
    let found = sqlx::query!(
        r#"SELECT tenants.id,
                  tenants.name,
                  tenants.monthly_quota,
                  tenants.quota_boosts,
                  tenants.thresholds,
                  tenants.billing_day,
                  tenants.time_zone,
                  tenants.suspended,
                  tenants.owner_namespace,
                  tenants.owner_uid,
                  tenants.detached_at AS "detached_at: jiff_sqlx::Timestamp",
                  tenants.deletion_started_at IS NOT NULL AS "is_being_deleted!",
                  slack.url AS "url?",
                  slack.enabled AS "enabled?",
                  webhook.url AS "webhook_url?",
                  webhook.secret AS "webhook_secret?",
                  webhook.enabled AS "webhook_enabled?",
                  (SELECT after
                   FROM tenant_changes
                   WHERE tenant = tenants.id AND kind <> 'keys_repaired'
                   ORDER BY id DESC
                   LIMIT 1) AS recorded
           FROM tenants
           LEFT JOIN slack_webhooks AS slack ON slack.tenant = tenants.id
           LEFT JOIN webhooks AS webhook ON webhook.tenant = tenants.id
           WHERE tenants.id = $1"#,
        id,
    )
    .fetch_optional(pool)
    .await
    .map_err(StoreError::postgres("read a tenant's row"))?;
    let webhook = |url: Option<Vec<u8>>, secret: Option<Vec<u8>>, enabled: Option<bool>| {
        Some(WebhookRow::of(sealer, id, &url?, &secret?, enabled?))
    };
    Ok(found.map(|found| FoundTenant {
        row: TenantRow {
            name: found.name,
            monthly_quota: found.monthly_quota,
            boosts: settings::quota(found.monthly_quota, found.quota_boosts).boosts,
            thresholds: found.thresholds,
            billing_day: found.billing_day,
            time_zone: found.time_zone,
            suspended: found.suspended,
            owner: Owner { namespace: found.owner_namespace, uid: found.owner_uid },
            detached_at: found.detached_at.map(jiff_sqlx::Timestamp::to_jiff),
            slack: found.url.zip(found.enabled).map(|(sealed, enabled)| SlackRow {
                fingerprint: sealer
                    .open(id, Column::SlackUrl, &sealed)
                    .map(|url| sealer.fingerprint(id, &url)),
                enabled,
            }),
            webhook: webhook(found.webhook_url, found.webhook_secret, found.webhook_enabled),
            id: found.id,
        },
        recorded: found.recorded,
        is_being_deleted: found.is_being_deleted,
    }))
}

/// Makes the row say `change.after`, and adds a line to the trail, in one transaction.
///
/// Answers whether it was written: not if the row is no longer that of the resource that
/// `change.before` belonged to, or if there is a row where none was found. Then somebody was faster;
/// look again.
///
/// What follows from it is in the same transaction: another calendar makes the open period anew, and usage is held
/// against the quota that there is then.
///
/// # Errors
///
/// [`StoreError::Postgres`]; nothing was written, or, if only the answer to the commit was lost,
/// everything was. The same call may be made again.
pub async fn write(pool: &PgPool, change: &Change<'_>) -> Result<bool, StoreError> {
    let failed = StoreError::postgres("write a tenant's row");
    let mut tx = pool.begin().await.map_err(&failed)?;
    // The tenant's row comes first: its lock is what counting waits for, and what orders writers.
    let id = &change.after.id;
    let (former, written) = match change.before {
        None => (None, insert(&mut tx, change.after).await?),
        Some(before) => {
            let former = terms::lock(&mut tx, id).await?;
            (former, update(&mut tx, &before.owner, change.after).await?)
        }
    };
    if !written {
        return Ok(false);
    }
    slack_webhooks::write(&mut tx, id, change.after.slack.as_ref(), change.sealed_url).await?;
    let (webhook, sealed) = (change.after.webhook.as_ref(), change.sealed_webhook);
    let former_webhook = change.before.and_then(|before| before.webhook.as_ref());
    webhooks::write(&mut tx, id, former_webhook, webhook, sealed, change.now).await?;
    terms::put(&mut tx, id, former, &change.after.terms(), change.now).await?;
    let before = change.before.map(TenantRow::as_recorded);
    tenant_changes::record(&mut tx, id, change.kind, before, change.after.as_recorded()).await?;
    tx.commit().await.map_err(&failed)?;
    Ok(true)
}

async fn insert(tx: &mut PgConnection, row: &TenantRow) -> Result<bool, StoreError> {
    sqlx::query!(
        "INSERT INTO tenants
             (id, name, monthly_quota, billing_day, time_zone, owner_namespace, owner_uid, suspended)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (id) DO NOTHING",
        row.id,
        row.name,
        row.monthly_quota,
        row.billing_day,
        row.time_zone,
        row.owner.namespace,
        row.owner.uid,
        row.suspended,
    )
    .execute(tx)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(StoreError::postgres("add a tenant's row"))
}

async fn update(tx: &mut PgConnection, former: &Owner, row: &TenantRow) -> Result<bool, StoreError> {
    sqlx::query!(
        "UPDATE tenants
         SET name            = $2,
             monthly_quota   = $3,
             billing_day     = $4,
             time_zone       = $5,
             owner_namespace = $6,
             owner_uid       = $7,
             suspended       = $9,
             detached_at     = NULL,
             updated_at      = now()
         WHERE id = $1 AND owner_uid = $8 AND deletion_started_at IS NULL",
        row.id,
        row.name,
        row.monthly_quota,
        row.billing_day,
        row.time_zone,
        row.owner.namespace,
        row.owner.uid,
        former.uid,
        row.suspended,
    )
    .execute(tx)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(StoreError::postgres("change a tenant's row"))
}

/// Says that the resource `owner_uid` is gone: the tenant takes no events from now on, its keys have ended for good, and
/// its usage stays. Answers whether the row was that resource's, and still attached.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn detach(pool: &PgPool, id: &str, owner_uid: &str) -> Result<bool, StoreError> {
    sqlx::query!(
        "WITH detached AS (
             UPDATE tenants
             SET detached_at = now(),
                 updated_at  = now()
             WHERE id = $1 AND owner_uid = $2 AND detached_at IS NULL
             RETURNING id
         ), ended AS (
             -- Or they would be good again for whoever adopts the row, until it has a key of its own.
             DELETE FROM api_keys
             USING detached
             WHERE api_keys.tenant = detached.id
         )
         INSERT INTO tenant_changes (tenant, actor, kind, before)
         SELECT detached.id, $3, 'detached',
                (SELECT after
                 FROM tenant_changes
                 WHERE tenant = detached.id AND kind <> 'keys_repaired'
                 ORDER BY id DESC
                 LIMIT 1)
         FROM detached",
        id,
        owner_uid,
        tenant_changes::OPERATOR,
    )
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(StoreError::postgres("detach a tenant"))
}

/// A row whose resource exists, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The resource's namespace.
    pub namespace: String,
    /// The tenant's id, and the resource's name.
    pub id: String,
    /// The resource's `metadata.uid`.
    pub owner_uid: String,
}

/// The rows whose resources should exist in `namespace`, or anywhere, in the order of their ids.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn attached(pool: &PgPool, namespace: Option<&str>) -> Result<Vec<Attached>, StoreError> {
    sqlx::query_as!(
        Attached,
        "SELECT owner_namespace AS namespace, id, owner_uid
         FROM tenants
         WHERE ($1::text IS NULL OR owner_namespace = $1) AND detached_at IS NULL
         ORDER BY id",
        namespace,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants' owners"))
}

/// A tenant's open period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenPeriod {
    /// When, by the calendar that counts.
    pub period: BillingPeriod,
    /// Tokens used so far.
    pub total_tokens: i64,
}

/// The period of each tenant that is open at `now`. One that has no row is left out.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn usage(
    pool: &PgPool,
    tenants: &[String],
    now: Timestamp,
) -> Result<HashMap<String, OpenPeriod>, StoreError> {
    // Periods do not overlap, so there is one at most that holds an instant.
    let rows = sqlx::query!(
        r#"SELECT tenants.id AS "id!",
                  tenants.billing_day AS "billing_day!",
                  tenants.time_zone AS "time_zone!",
                  tenants.calendars AS "calendars!",
                  COALESCE(usage_periods.total_tokens, 0) AS "total_tokens!"
           FROM tenants
           LEFT JOIN usage_periods ON usage_periods.tenant = tenants.id
                                  AND usage_periods.period_start <= $2::timestamptz
                                  AND usage_periods.period_end > $2::timestamptz
           WHERE tenants.id = ANY($1)"#,
        tenants,
        now.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants' usage"))?;
    let open = rows.into_iter().filter_map(|row| {
        let period = settings::calendar(row.billing_day, &row.time_zone, row.calendars)?.period(now);
        Some((row.id, OpenPeriod { period, total_tokens: row.total_tokens }))
    });
    Ok(open.collect())
}

#[cfg(test)]
pub(super) mod tests;
