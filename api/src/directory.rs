//! The tenants as this api knows them, within a second of PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use flagmeter_core::event::TenantName;
use flagmeter_store::PgPool;
use flagmeter_store::StoreError;
use flagmeter_store::postgres::directory::{self, Changes, Tenant};

use crate::metrics::Metrics;

/// How often the tenants are read even if nobody said that they changed.
const READ_ANYWAY: Duration = Duration::from_secs(30);

/// The wait after PostgreSQL failed to answer.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The tenants, or nothing until they were read for the first time. A reader never waits; if
/// PostgreSQL goes away, the last answer stays.
#[derive(Clone, Default)]
pub struct Directory(Arc<ArcSwapOption<HashMap<TenantName, Arc<Tenant>>>>);

/// The tenants were never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKnownYet;

impl Directory {
    /// The tenant of this name, if there is one.
    ///
    /// # Errors
    ///
    /// [`NotKnownYet`], so that nobody is told "no such tenant" by an api that does not know.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Tenant>>, NotKnownYet> {
        let tenants = self.0.load();
        let tenants = tenants.as_ref().ok_or(NotKnownYet)?;
        Ok(tenants.get(name).cloned())
    }

    /// All tenants in the order of their names, or none while they are not known.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Tenant>> {
        let tenants = self.0.load();
        let mut all: Vec<_> = tenants.iter().flat_map(|tenants| tenants.values().cloned()).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Keeps itself true for as long as it is polled. Calls `known` after each reading.
    pub async fn follow(&self, pool: &PgPool, metrics: &Metrics, known: impl Fn()) {
        loop {
            let Err(error) = self.follow_once(pool, metrics, &known).await;
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "going on with the tenants known so far"
            );
            metrics.snapshot_failed();
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    async fn follow_once(
        &self,
        pool: &PgPool,
        metrics: &Metrics,
        known: &impl Fn(),
    ) -> Result<std::convert::Infallible, StoreError> {
        let mut changes = Changes::listen(pool).await?;
        loop {
            let tenants = directory::load(pool).await?;
            metrics.tenants(tenants.len());
            let by_name = tenants.into_iter().map(|tenant| (tenant.id.clone(), Arc::new(tenant))).collect();
            self.0.store(Some(Arc::new(by_name)));
            known();
            if let Ok(heard) = tokio::time::timeout(READ_ANYWAY, changes.next()).await {
                heard?;
            }
        }
    }
}
