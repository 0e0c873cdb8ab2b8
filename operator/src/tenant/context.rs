//! What every reconcile needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::api_key::KeyHash;
use flagmeter_store::sealed::Sealer;
use jiff::SignedDuration;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Semaphore, broadcast};

use super::answers::Answers;
use super::budget::Budget;
use super::cleanup::Cleanups;
use super::failures::Failures;
use super::key::Own;
use super::memo::{Memo, Settled};
use super::scope::Scope;
use super::secrets::Versions;
use crate::metrics::Metrics;

/// The name under which the operator writes: as field manager, and as the reporter of events.
pub(super) const NAME: &str = "flagmeter-operator";

/// How many tenants are worked on at once: as many as the pool has connections to spare.
pub(super) const CONCURRENCY: u16 = 4;

/// Tenants that are compared with their rows in a second at most when nothing happens.
const RESYNCS_A_SECOND: u64 = 20;

/// Ids that may become free while nobody listens.
const FREED: usize = 64;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's own namespace: where the lease is.
    pub namespace: String,
    /// Whose Tenants and Secrets are looked at.
    pub scopes: Vec<Scope>,
    /// Who this process is, in the lease and in events: the pod's name.
    pub identity: String,
    /// How often a tenant is compared with its row when nothing happens, give or take a tenth. Less often where there
    /// are so many that it would be more than twenty a second.
    pub resync: Duration,
    /// How long a tenant's former key works beside the new one after a rotation.
    pub key_overlap: SignedDuration,
    /// Whether a webhook's URL may be http.
    pub allow_http: bool,
    /// How often it is looked for Tenants of namespaces that nobody follows, and how long a new one may go unseen before it
    /// is said: another release may follow its namespace.
    pub unseen: Duration,
    /// How long PostgreSQL may take for an answer before it counts as away.
    pub patience: Duration,
}

/// What every reconcile needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// PostgreSQL.
    pub db: PgPool,
    /// Seals webhook URLs.
    pub sealer: Sealer,
    /// What is counted.
    pub metrics: Metrics,
    /// What time it is.
    pub clock: Clock,
    /// What can be set.
    pub settings: Settings,
    pub(super) recorder: Recorder,
    pub(super) answers: Answers,
    pub(super) failures: Failures,
    pub(super) budget: Budget,
    pub(super) cleanups: Cleanups,
    /// The Secrets that there are.
    pub(super) secrets: Arc<Versions>,
    /// The tenants' keys, as they were last seen in their Secrets.
    pub(super) keys: Memo<Own>,
    /// The keys of the tenants whose rows were right when they were last looked at.
    pub(super) kept_keys: Memo<KeyHash>,
    /// The tenants in which there was nothing to write.
    pub(super) settled: Memo<Settled>,
    /// The generations of Tenants that do not parse, of which that was said.
    pub(super) unparsed: Memo<Option<i64>>,
    /// Ids whose rows are all deleted: somebody else may have been waiting for one.
    pub(super) freed: broadcast::Sender<String>,
    /// The reconciles that may go on at once, in all scopes together.
    pub(super) slots: Semaphore,
    /// Tenants in all scopes together.
    pub(super) known: AtomicUsize,
}

impl Context {
    /// A context in which nothing has failed yet.
    #[must_use]
    pub fn new(
        client: Client,
        db: PgPool,
        sealer: Sealer,
        metrics: Metrics,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let reporter = Reporter { controller: NAME.to_owned(), instance: Some(settings.identity.clone()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            db,
            sealer,
            metrics,
            clock,
            answers: Answers::within(settings.patience),
            settings,
            failures: Failures::default(),
            budget: Budget::default(),
            cleanups: Cleanups::default(),
            secrets: Arc::default(),
            keys: Memo::default(),
            kept_keys: Memo::default(),
            settled: Memo::default(),
            unparsed: Memo::default(),
            freed: broadcast::channel(FREED).0,
            slots: Semaphore::new(CONCURRENCY.into()),
            known: AtomicUsize::new(0),
        }
    }

    /// The Tenant is gone.
    pub(super) fn forget(&self, namespace: Option<&str>, tenant: &str) {
        self.failures.forget(namespace, tenant);
        self.keys.forget(namespace, tenant);
        self.kept_keys.forget(namespace, tenant);
        self.settled.forget(namespace, tenant);
        self.unparsed.forget(namespace, tenant);
    }

    /// The Tenants of the namespace that `tenant` is in.
    pub(super) fn tenants_beside(&self, tenant: &impl ResourceExt) -> Api<DeserializeGuard<Tenant>> {
        Api::namespaced(self.client.clone(), &tenant.namespace().unwrap_or_default())
    }

    /// How long a tenant in which nothing happens is left alone.
    pub(super) fn resync(&self) -> Duration {
        let known = u64::try_from(self.known.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        self.settings.resync.max(Duration::from_secs(known / RESYNCS_A_SECOND))
    }
}
