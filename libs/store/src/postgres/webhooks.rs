//! Where a tenant's alerts go in the form of Standard Webhooks.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use serde::Serialize;
use sqlx::PgConnection;

use crate::StoreError;
use crate::sealed::{Column, Sealer};

/// For how long messages are signed with the former secret too, so that a receiver can change over.
const BOTH_SECRETS: SignedDuration = SignedDuration::from_hours(24);

/// A tenant's webhook, as far as it may be seen: fingerprints, and `None` for what does not open with this key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookRow {
    /// Of the URL.
    pub url: Option<String>,
    /// Of the secret that messages are signed with.
    pub secret: Option<String>,
    /// Whether alerts are sent.
    pub enabled: bool,
}

impl WebhookRow {
    /// The row of what is stored, sealed, for `tenant`.
    pub(super) fn of(sealer: &Sealer, tenant: &str, url: &[u8], secret: &[u8], enabled: bool) -> Self {
        let fingerprint = |column, sealed: &[u8]| {
            sealer.open(tenant, column, sealed).map(|text| sealer.fingerprint(tenant, &text))
        };
        let url = fingerprint(Column::WebhookUrl, url);
        Self { url, secret: fingerprint(Column::WebhookSecret, secret), enabled }
    }
}

/// A webhook's texts, sealed.
#[derive(Debug)]
pub struct SealedWebhook {
    /// The URL.
    pub url: Vec<u8>,
    /// The secret.
    pub secret: Vec<u8>,
}

/// Makes the row say `webhook`. `sealed` is written if it is there; else URL and secret stay as they are. Where it has
/// another secret than the row said `before`, that one is kept for a day beside it.
/// The caller holds the tenant's row locked, so that two writers never wait for each other.
pub(super) async fn write(
    tx: &mut PgConnection,
    tenant: &str,
    before: Option<&WebhookRow>,
    webhook: Option<&WebhookRow>,
    sealed: Option<&SealedWebhook>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let query = match (webhook, sealed) {
        (None, _) => sqlx::query!("DELETE FROM webhooks WHERE tenant = $1", tenant),
        (Some(webhook), Some(sealed)) => {
            // A secret that does not open is no secret that a message was signed with.
            let former = before.and_then(|before| before.secret.as_ref());
            let changes = former.is_some_and(|former| webhook.secret.as_ref() != Some(former));
            let until = now + BOTH_SECRETS;
            sqlx::query!(
                "INSERT INTO webhooks (tenant, url, secret, enabled)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (tenant) DO UPDATE
                 SET url             = EXCLUDED.url,
                     secret          = EXCLUDED.secret,
                     enabled         = EXCLUDED.enabled,
                     previous_secret = CASE WHEN $5 THEN webhooks.secret ELSE webhooks.previous_secret END,
                     previous_until  = CASE WHEN $5 THEN $6::timestamptz ELSE webhooks.previous_until END,
                     updated_at      = now()",
                tenant,
                sealed.url,
                sealed.secret,
                webhook.enabled,
                changes,
                until.to_sqlx() as jiff_sqlx::Timestamp,
            )
        }
        (Some(webhook), None) => sqlx::query!(
            "UPDATE webhooks
             SET enabled    = $2,
                 updated_at = now()
             WHERE tenant = $1",
            tenant,
            webhook.enabled,
        ),
    };
    query.execute(tx).await.map(drop).map_err(StoreError::postgres("write a tenant's webhook"))
}
