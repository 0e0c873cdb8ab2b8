//! The tenants as the api needs to know them, and the word that they changed.

use flagmeter_core::event::TenantName;
use flagmeter_core::period::BillingDay;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;

use crate::{PgPool, StoreError};

/// The channel on which a trigger of `tenants` speaks (migrations, `tenants_changed`).
const CHANNEL: &str = "flagmeter_tenants";

/// A tenant that takes events.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id.
    pub id: TenantName,
    /// What people call it.
    pub name: String,
    /// Tokens a billing period.
    pub monthly_quota: i64,
    /// The day on which its periods start.
    pub billing_day: BillingDay,
    /// The zone in which they do.
    pub time_zone: TimeZone,
}

/// All tenants whose resource exists, in the order of their ids.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn load(pool: &PgPool) -> Result<Vec<Tenant>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, name, monthly_quota, billing_day, time_zone
         FROM tenants
         WHERE detached_at IS NULL
         ORDER BY id"
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("read the tenants"))?;
    let tenants = rows.into_iter().filter_map(|row| {
        Some(Tenant {
            id: TenantName::try_from(row.id).ok()?,
            name: row.name,
            monthly_quota: row.monthly_quota,
            billing_day: BillingDay::try_from(i32::from(row.billing_day)).ok()?,
            // As where it is counted: a zone that is not in the table of zones is read as UTC.
            time_zone: TimeZone::get(&row.time_zone).unwrap_or(TimeZone::UTC),
        })
    });
    Ok(tenants.collect())
}

/// Tenants as they were known at one time, in a form that can be kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// When they were read.
    pub as_of: Timestamp,
    tenants: Vec<KeptTenant>,
}

/// A tenant in that form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptTenant {
    id: TenantName,
    name: String,
    monthly_quota: i64,
    billing_day: i8,
    time_zone: String,
}

impl Kept {
    /// `tenants`, read at `as_of`.
    #[must_use]
    pub fn of(tenants: &[Tenant], as_of: Timestamp) -> Self {
        let keep = |tenant: &Tenant| KeptTenant {
            id: tenant.id.clone(),
            name: tenant.name.clone(),
            monthly_quota: tenant.monthly_quota,
            billing_day: tenant.billing_day.number(),
            time_zone: tenant.time_zone.iana_name().unwrap_or("UTC").to_owned(),
        };
        Self { as_of, tenants: tenants.iter().map(keep).collect() }
    }

    /// The tenants again.
    #[must_use]
    pub fn into_tenants(self) -> Vec<Tenant> {
        let again = |kept: KeptTenant| {
            Some(Tenant {
                id: kept.id,
                name: kept.name,
                monthly_quota: kept.monthly_quota,
                billing_day: BillingDay::try_from(i32::from(kept.billing_day)).ok()?,
                time_zone: TimeZone::get(&kept.time_zone).unwrap_or(TimeZone::UTC),
            })
        };
        self.tenants.into_iter().filter_map(again).collect()
    }
}

/// Hears when the tenants change.
pub struct Changes(PgListener);

impl Changes {
    /// Starts listening. Whoever calls it reads the tenants *afterwards*, so that no change falls
    /// between the two.
    ///
    /// # Errors
    ///
    /// [`StoreError::Postgres`] if PostgreSQL does not answer.
    pub async fn listen(pool: &PgPool) -> Result<Self, StoreError> {
        let failed = StoreError::postgres("listen for changes of the tenants");
        let mut listener = PgListener::connect_with(pool).await.map_err(&failed)?;
        listener.listen(CHANNEL).await.map_err(&failed)?;
        Ok(Self(listener))
    }

    /// Waits until something may have changed: a notification, or the connection was lost and made
    /// anew, with whatever was said in between missed. Notifications that wait already are one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Postgres`] if the connection is lost for good; listen again.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        self.0.try_recv().await.map_err(StoreError::postgres("hear of changes of the tenants"))?;
        while self.0.next_buffered().is_some() {}
        Ok(())
    }
}
