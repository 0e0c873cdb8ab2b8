//! The settings that a count depends on, read under a lock inside the counting transaction.

use std::collections::{BTreeSet, HashMap};

use flagmeter_core::event::TenantName;
use flagmeter_core::period::{BillingDay, BillingPeriod};
use jiff::{Timestamp, tz::TimeZone};
use sqlx::PgConnection;

use super::batch::Row;
use crate::StoreError;

/// The billing day and zone of each tenant of a batch.
pub(super) struct Settings(HashMap<TenantName, (BillingDay, TimeZone)>);

impl Settings {
    /// The rows whose tenant is there, and those whose tenant is not.
    pub(super) fn split<'a>(&self, rows: Vec<Row<'a>>) -> (Vec<Row<'a>>, Vec<Row<'a>>) {
        rows.into_iter().partition(|row| self.0.contains_key(&row.event.tenant))
    }

    /// The billing period of `tenant` that `instant` lies in. A tenant that is not there never
    /// gets this far.
    pub(super) fn period(&self, tenant: &TenantName, instant: Timestamp) -> BillingPeriod {
        let (day, zone) = &self.0[tenant];
        BillingPeriod::containing(instant, *day, zone)
    }
}

/// Reads the settings of the rows' tenants. The share lock holds until the transaction ends: a
/// change by the operator waits for it, and other workers do not.
pub(super) async fn lock(tx: &mut PgConnection, rows: &[Row<'_>]) -> Result<Settings, StoreError> {
    let names: BTreeSet<&TenantName> = rows.iter().map(|row| &row.event.tenant).collect();
    let names: Vec<String> = names.into_iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        "SELECT id, billing_day, time_zone
         FROM tenants
         WHERE id = ANY($1)
         ORDER BY id
         FOR SHARE",
        &names,
    )
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("read the tenants' settings"))?;
    let setting = |tenant: TenantName, day: i16, zone: &str| {
        // The operator refuses zones that this table of zones does not have; a row that was edited
        // by hand is billed in UTC until the operator has put it right, rather than not at all.
        let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
        Some((tenant, (BillingDay::try_from(i32::from(day)).ok()?, zone)))
    };
    let settings = rows
        .into_iter()
        .filter_map(|row| setting(TenantName::try_from(row.id).ok()?, row.billing_day, &row.time_zone));
    Ok(Settings(settings.collect()))
}
