//! The settings that a count depends on, read under a lock inside the counting transaction.

use flagmeter_core::event::TenantName;
use flagmeter_core::period::BillingPeriod;
use foldhash::{HashMap, HashSet};
use jiff::Timestamp;
use sqlx::PgConnection;

use super::batch::Row;
use super::settings::{Columns, TenantSettings};
use crate::StoreError;

/// The settings of each tenant of a batch.
pub(super) struct Settings {
    tenants: HashMap<TenantName, TenantSettings>,
    /// When they were read, by PostgreSQL's clock: the quota of an open period is that of now.
    pub(super) read_at: Timestamp,
}

impl Settings {
    /// The rows whose tenant is there, and those whose tenant is not.
    pub(super) fn split<'a>(&self, rows: Vec<Row<'a>>) -> (Vec<Row<'a>>, Vec<Row<'a>>) {
        if rows.iter().all(|row| self.tenants.contains_key(&row.event.tenant)) {
            return (rows, Vec::new());
        }
        rows.into_iter().partition(|row| self.tenants.contains_key(&row.event.tenant))
    }

    /// The billing period of `tenant` that `instant` lies in. A tenant that is not there never
    /// gets this far.
    pub(super) fn period(&self, tenant: &TenantName, instant: Timestamp) -> BillingPeriod {
        self.of(tenant).calendar.period(instant)
    }

    /// The settings of `tenant`, which is there.
    pub(super) fn of(&self, tenant: &TenantName) -> &TenantSettings {
        &self.tenants[tenant]
    }
}

/// Reads the settings of the rows' tenants. The share lock holds until the transaction ends: a
/// change by the operator waits for it, and other workers do not.
///
/// All of them are columns of the locked row. Whoever waited for its lock sees it as it is by then, which is not so
/// for rows of other tables.
pub(super) async fn lock(tx: &mut PgConnection, rows: &[Row<'_>]) -> Result<Settings, StoreError> {
    let names: HashSet<&str> = rows.iter().map(|row| row.event.tenant.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let rows = sqlx::query!(
        r#"SELECT id, monthly_quota, quota_boosts, thresholds, billing_day, time_zone, calendars,
                  clock_timestamp() AS "read_at!: jiff_sqlx::Timestamp"
           FROM tenants
           WHERE id = ANY($1) AND deletion_started_at IS NULL
           ORDER BY id
           FOR SHARE"#,
        &names as &[&str],
    )
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("read the tenants' settings"))?;
    let read_at = rows.last().map_or(Timestamp::UNIX_EPOCH, |row| row.read_at.to_jiff());
    let tenants = rows.into_iter().filter_map(|row| {
        let columns = Columns {
            monthly_quota: row.monthly_quota,
            quota_boosts: row.quota_boosts,
            thresholds: row.thresholds,
            billing_day: row.billing_day,
            time_zone: row.time_zone,
            calendars: row.calendars,
        };
        Some((TenantName::try_from(row.id).ok()?, columns.read()?))
    });
    Ok(Settings { tenants: tenants.collect(), read_at })
}
