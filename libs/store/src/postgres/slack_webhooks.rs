//! Where tenants' alerts go, with the URLs sealed.

use serde::Serialize;
use sqlx::PgConnection;

use crate::StoreError;

/// A tenant's Slack channel, as far as it may be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlackRow {
    /// The URL's [fingerprint](crate::sealed::Sealer::fingerprint); `None` in a row whose URL does not
    /// open with this key.
    pub fingerprint: Option<String>,
    /// Whether alerts are sent.
    pub enabled: bool,
}

/// Makes the row say `slack`. `sealed_url` is written if there is one; else the URL stays as it is.
/// The caller holds the tenant's row locked, so that two writers never wait for each other.
pub(super) async fn write(
    tx: &mut PgConnection,
    tenant: &str,
    slack: Option<&SlackRow>,
    sealed_url: Option<&[u8]>,
) -> Result<(), StoreError> {
    let query = match (slack, sealed_url) {
        (None, _) => sqlx::query!("DELETE FROM slack_webhooks WHERE tenant = $1", tenant),
        (Some(slack), Some(url)) => sqlx::query!(
            "INSERT INTO slack_webhooks (tenant, url, enabled)
             VALUES ($1, $2, $3)
             ON CONFLICT (tenant) DO UPDATE
             SET url        = EXCLUDED.url,
                 enabled    = EXCLUDED.enabled,
                 updated_at = now()",
            tenant,
            url,
            slack.enabled,
        ),
        (Some(slack), None) => sqlx::query!(
            "UPDATE slack_webhooks
             SET enabled    = $2,
                 updated_at = now()
             WHERE tenant = $1",
            tenant,
            slack.enabled,
        ),
    };
    query.execute(tx).await.map(drop).map_err(StoreError::postgres("write a tenant's Slack webhook"))
}
