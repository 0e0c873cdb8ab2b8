//! Tokens by tenant, feature and minute.

use flagmeter_core::rollup::RollupBatch;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use crate::StoreError;

/// Adds `batch` to the per-minute totals. After an error the caller's transaction can only be rolled back.
///
/// `MERGE` looks first and writes then, which costs a fifth less than `ON CONFLICT` and half the WAL where the row is
/// there already, as it nearly always is. A row that another transaction adds at the same moment is a duplicate key
/// ([`StoreError::is_duplicate_key`]): begun anew, the transaction finds it.
pub(super) async fn add(tx: &mut PgConnection, batch: &RollupBatch) -> Result<(), StoreError> {
    let rows = batch.rows();
    let (mut tenants, mut features) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    let (mut minutes, mut tokens) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for ((tenant, feature, minute), sum) in rows {
        tenants.push(tenant.as_str());
        features.push(feature.as_str());
        minutes.push(minute.start().to_sqlx());
        tokens.push(sum.tokens);
    }
    sqlx::query!(
        "MERGE INTO rollups
         USING (
             SELECT tenant, feature, minute, tokens
             FROM UNNEST($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
                  AS batch (tenant, feature, minute, tokens)
             ORDER BY tenant, feature, minute
         ) AS batch
         ON (rollups.tenant, rollups.feature, rollups.minute) = (batch.tenant, batch.feature, batch.minute)
         WHEN MATCHED THEN
             UPDATE SET total_tokens = rollups.total_tokens + batch.tokens, updated_at = now()
         WHEN NOT MATCHED THEN
             INSERT (tenant, feature, minute, total_tokens)
             VALUES (batch.tenant, batch.feature, batch.minute, batch.tokens)",
        &tenants as &[&str],
        &features as &[&str],
        &minutes as &[jiff_sqlx::Timestamp],
        &tokens,
    )
    .execute(tx)
    .await
    .map(drop)
    .map_err(StoreError::postgres("add rollups"))
}
