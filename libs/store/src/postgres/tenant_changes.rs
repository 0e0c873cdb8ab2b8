//! The trail of who changed what about a tenant.

use serde_json::Value;
use sqlx::PgConnection;

use crate::StoreError;

/// The name under which the operator writes.
pub const OPERATOR: &str = "flagmeter-operator";

/// What was done to a tenant's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there before.
    Created,
    /// It follows an edit of the resource, or of the Secret that the resource names.
    Changed,
    /// Somebody else had changed it, and it was put back.
    DriftRepaired,
    /// A resource that was made anew took over the row, and the usage, of the one before it.
    Adopted,
}

impl ChangeKind {
    /// As in the column `kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::DriftRepaired => "drift_repaired",
            Self::Adopted => "adopted",
        }
    }
}

/// Adds a line, in the transaction of the change itself.
pub(super) async fn record(
    tx: &mut PgConnection,
    tenant: &str,
    kind: ChangeKind,
    before: Option<Value>,
    after: Value,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO tenant_changes (tenant, actor, kind, before, after)
         VALUES ($1, $2, $3, $4, $5)",
        tenant,
        OPERATOR,
        kind.as_str(),
        before,
        after,
    )
    .execute(tx)
    .await
    .map(drop)
    .map_err(StoreError::postgres("record a tenant's change"))
}
