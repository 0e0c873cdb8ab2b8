//! What every reconcile needs.

use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::sealed::Sealer;
use jiff::SignedDuration;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};

use super::failures::Failures;
use crate::metrics::Metrics;

/// The name under which the operator writes: as field manager, and as the reporter of events.
pub(super) const NAME: &str = "flagmeter-operator";

/// What can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only namespace whose Tenants and Secrets are looked at.
    pub namespace: String,
    /// Who this process is, in the lease and in events: the pod's name.
    pub identity: String,
    /// How often a tenant is compared with its row when nothing happens, give or take a tenth.
    pub resync: Duration,
    /// How long a tenant's former key works beside the new one after a rotation.
    pub key_overlap: SignedDuration,
    /// Whether a webhook's URL may be http.
    pub allow_http: bool,
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
    pub(super) failures: Failures,
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
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, db, sealer, metrics, clock, settings, recorder, failures: Failures::default() }
    }

    /// The Tenants. One that does not parse is an `Err` of its own, and hides no other.
    pub(super) fn tenants(&self) -> Api<DeserializeGuard<Tenant>> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }
}
