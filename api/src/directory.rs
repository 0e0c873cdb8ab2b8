//! The tenants as this api knows them, within a second of PostgreSQL.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use flagmeter_core::event::TenantName;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::postgres::api_keys::{self, KnownKey};
use flagmeter_store::postgres::directory::{self, Changes, Kept, Tenant};
use flagmeter_store::queue::EventQueue;
use flagmeter_store::{PgPool, StoreError};
use foldhash::HashMap;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::auth::Keys;
use crate::metrics::Metrics;
use crate::tenant::Known;

/// How often the tenants are read even if nobody said that they changed.
const READ_ANYWAY: Duration = Duration::from_secs(30);

/// How long PostgreSQL is given to answer for the first time, before what was kept is taken.
const REMEMBER_AFTER: Duration = Duration::from_secs(1);

/// The wait after PostgreSQL failed to answer.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The tenants, or nothing until they were read for the first time. A reader never waits; if
/// PostgreSQL goes away, the last answer stays.
///
/// It is kept in Valkey too, so that an api that starts while PostgreSQL is away takes events all the same,
/// and knows whose keys are good.
#[derive(Clone, Default)]
pub struct Directory(Arc<ArcSwapOption<HashMap<TenantName, Arc<Known>>>>);

/// Where the tenants and their usage are read, and tenants kept.
pub struct Source<'a> {
    /// Where they are.
    pub pool: &'a PgPool,
    /// Where they are kept for an api that cannot read them.
    pub queue: &'a EventQueue,
    /// The keys, which are read and kept with the tenants.
    pub keys: &'a Keys,
    /// Says when.
    pub clock: Clock,
    /// What is counted.
    pub metrics: &'a Metrics,
}

/// The tenants were never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKnownYet;

impl Directory {
    /// The tenant of this name, if there is one.
    ///
    /// # Errors
    ///
    /// [`NotKnownYet`], so that nobody is told "no such tenant" by an api that does not know.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Known>>, NotKnownYet> {
        let tenants = self.0.load();
        let tenants = tenants.as_ref().ok_or(NotKnownYet)?;
        Ok(tenants.get(name).cloned())
    }

    /// All tenants in the order of their names, or none while they are not known.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Known>> {
        let tenants = self.0.load();
        let mut all: Vec<_> = tenants.iter().flat_map(|tenants| tenants.values().cloned()).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Keeps itself true for as long as it is polled. Calls `tried` after each reading with its outcome: those that were
    /// known before one that failed stay known.
    pub async fn follow(&self, source: &Source<'_>, tried: impl Fn(Result<(), &StoreError>)) {
        // A key that has ended must not go on because Valkey does not answer: what is read is kept beside the reading.
        let (read, to_keep) = watch::channel(None);
        // Why PostgreSQL has not been read.
        let unread = Mutex::new("PostgreSQL has not answered yet");
        tokio::join!(
            self.read_on(source, &read, &unread, &tried),
            keep_on(source, to_keep),
            self.remember(source, &unread, &tried)
        );
    }

    async fn read_on(
        &self,
        source: &Source<'_>,
        read: &watch::Sender<Option<Kept>>,
        unread: &Mutex<&'static str>,
        tried: &impl Fn(Result<(), &StoreError>),
    ) {
        loop {
            let Err(error) = self.follow_once(source, read, tried).await;
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "{}; going on with the tenants known so far",
                error.in_short()
            );
            *unread.lock().unwrap_or_else(PoisonError::into_inner) = error.in_short();
            tried(Err(&error));
            source.metrics.snapshot_failed();
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    async fn follow_once(
        &self,
        source: &Source<'_>,
        read: &watch::Sender<Option<Kept>>,
        tried: &impl Fn(Result<(), &StoreError>),
    ) -> Result<Infallible, StoreError> {
        let mut changes = Changes::listen(source.pool).await?;
        loop {
            let as_of = source.clock.now();
            let tenants = directory::load(source.pool).await?;
            let keys = api_keys::load(source.pool).await?;
            read.send_replace(Some(Kept::of(&tenants, &keys, as_of)));
            self.know(source, tenants, keys, as_of);
            tried(Ok(()));
            if let Ok(heard) = tokio::time::timeout(READ_ANYWAY, changes.next()).await {
                heard?;
            }
        }
    }

    fn know(&self, source: &Source<'_>, tenants: Vec<Tenant>, keys: Vec<KnownKey>, as_of: Timestamp) {
        source.keys.know(keys);
        source.metrics.tenants(tenants.len(), as_of);
        let before = self.0.load();
        let known = |tenant: Tenant| {
            let before = before.as_ref().and_then(|tenants| tenants.get(&tenant.id));
            (tenant.id.clone(), Arc::new(Known::new(tenant, before.map(Arc::as_ref))))
        };
        let by_name = tenants.into_iter().map(known).collect();
        self.0.store(Some(Arc::new(by_name)));
    }

    /// Until PostgreSQL has answered for the first time: takes what an api kept, however old. The log and the
    /// metrics say how old that is.
    async fn remember(
        &self,
        source: &Source<'_>,
        unread: &Mutex<&'static str>,
        tried: &impl Fn(Result<(), &StoreError>),
    ) {
        while self.0.load().is_none() {
            tokio::time::sleep(REMEMBER_AFTER).await;
            let kept = source.queue.kept_tenants().await.ok().flatten();
            let kept = kept.and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
            if let (Some(kept), true) = (kept, self.0.load().is_none()) {
                let as_of = kept.as_of;
                let why = *unread.lock().unwrap_or_else(PoisonError::into_inner);
                tracing::warn!(%as_of, "{why}; going on with the tenants as an api knew them then");
                let (tenants, keys) = kept.into_parts();
                self.know(source, tenants, keys, as_of);
                tried(Ok(()));
            }
        }
    }
}

/// Keeps what was read last, for other apis, whenever it was read anew.
async fn keep_on(source: &Source<'_>, mut read: watch::Receiver<Option<Kept>>) {
    while read.changed().await.is_ok() {
        let text = read.borrow_and_update().as_ref().map(serde_json::to_vec);
        let Some(Ok(text)) = text else { continue };
        if let Err(error) = source.queue.keep_tenants(&text).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the tenants are not kept for other apis"
            );
        }
    }
}
