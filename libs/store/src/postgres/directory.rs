//! The tenants as the api needs to know them, and the word that they changed.

use flagmeter_core::calendar::Calendar;
use flagmeter_core::event::TenantName;
use flagmeter_core::quota::{Boost, Quota};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;

use super::api_keys::{KeptKey, KnownKey};
use super::settings::{self, CalendarEntry};
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
    /// How much it may use in a billing period.
    pub quota: Quota,
    /// By which its periods are made.
    pub calendar: Calendar,
    /// Whether it takes no events for now.
    pub suspended: bool,
}

/// All tenants whose resource exists, in the order of their ids.
///
/// # Errors
///
/// [`StoreError::Postgres`]; the same call may be made again.
pub async fn load(pool: &PgPool) -> Result<Vec<Tenant>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, name, monthly_quota, quota_boosts, billing_day, time_zone, calendars, suspended
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
            quota: settings::quota(row.monthly_quota, row.quota_boosts),
            calendar: settings::calendar(row.billing_day, &row.time_zone, row.calendars)?,
            suspended: row.suspended,
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
    /// Absent where an api of a version without keys kept it.
    #[serde(default)]
    keys: Vec<KeptKey>,
}

/// A tenant in that form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptTenant {
    id: TenantName,
    name: String,
    monthly_quota: i64,
    boosts: Vec<Boost>,
    calendars: Vec<CalendarEntry>,
    #[serde(default)]
    suspended: bool,
}

impl Kept {
    /// `tenants` and `keys`, read at `as_of`.
    #[must_use]
    pub fn of(tenants: &[Tenant], keys: &[KnownKey], as_of: Timestamp) -> Self {
        let keep = |tenant: &Tenant| KeptTenant {
            id: tenant.id.clone(),
            name: tenant.name.clone(),
            monthly_quota: tenant.quota.base,
            boosts: tenant.quota.boosts.clone(),
            calendars: settings::entries(&tenant.calendar),
            suspended: tenant.suspended,
        };
        Self {
            as_of,
            tenants: tenants.iter().map(keep).collect(),
            keys: keys.iter().map(KeptKey::of).collect(),
        }
    }

    /// The tenants and the keys again.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Tenant>, Vec<KnownKey>) {
        let again = |kept: KeptTenant| {
            Some(Tenant {
                id: kept.id,
                name: kept.name,
                quota: Quota { base: kept.monthly_quota, boosts: kept.boosts },
                calendar: settings::calendar_of(&kept.calendars)?,
                suspended: kept.suspended,
            })
        };
        let keys = self.keys.into_iter().filter_map(KeptKey::into_key).collect();
        (self.tenants.into_iter().filter_map(again).collect(), keys)
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
