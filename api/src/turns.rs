//! Who may read from PostgreSQL now, which counts meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flagmeter_core::event::TenantName;
use foldhash::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Readings at once. Each takes a connection, and up to a core.
const AT_ONCE: usize = 2;

/// How long one more waits for its turn. With the time that it may then take, it ends before the request does.
const PATIENCE: Duration = Duration::from_secs(2);

/// Turns at one kind of reading. A tenant has one at a time, and waits for that first: however often it asks, it is
/// in nobody's way.
pub(crate) struct Turns {
    places: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantName, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    _own: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), tenants: Mutex::default() }
    }
}

impl Turns {
    /// Waits for a turn of `tenant`; `None` if it takes too long to come.
    pub(crate) async fn take(&self, tenant: &TenantName) -> Option<Turn> {
        let own = self.own(tenant);
        let turn = async {
            let own = own.acquire_owned().await.ok()?;
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            Some(Turn { _own: own, _place: place })
        };
        tokio::time::timeout(PATIENCE, turn).await.ok().flatten()
    }

    fn own(&self, tenant: &TenantName) -> Arc<Semaphore> {
        // A panic while it was held leaves a tenant more or less.
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let own = tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(1)));
        Arc::clone(own)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_tenant_waits_for_itself_before_it_takes_a_place_from_another() {
        let turns = Turns::default();
        let [acme, globex, initech] = ["acme", "globex", "initech"].map(|name| name.try_into().unwrap());
        let first = turns.take(&acme).await.unwrap();
        let mut second = pin!(turns.take(&acme));
        assert!(futures::poll!(&mut second).is_pending());
        let other = turns.take(&globex).await.unwrap();
        let mut third = pin!(turns.take(&initech));
        assert!(futures::poll!(&mut third).is_pending());
        drop(other);
        assert!(third.await.is_some());
        drop(first);
        assert!(second.await.is_some());
    }
}
