//! The lease: of several operators, one works and the others stand by.

use std::time::Duration;

use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::telemetry::chain;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::tenant::Settings;

/// The lease's name, in the operator's namespace.
pub const NAME: &str = "flagmeter-operator";

/// How long a lease holds without being renewed: how long there may be no operator after one was
/// killed. It is renewed [`GRACE_SECONDS`] before its end: long enough that a renewal which fails is tried again, and one
/// that is slow is still seen.
const DURATION_SECONDS: u32 = 15;
const GRACE_SECONDS: u32 = 8;

/// How often the holder looks whether the lease is still its own, and how long it waits for the answer.
const CHECK: Duration = Duration::from_secs(2);

/// How long before the lease's end its holder looks for the last time, so that it has ended before another may begin:
/// that look begins up to [`CHECK`] later, and takes up to as long.
const MARGIN: SignedDuration = SignedDuration::from_secs(4);

/// How long giving the lease back may take; whoever waits for the lease waits for its end otherwise.
const WITHDRAWAL: Duration = Duration::from_secs(6);

/// This process's part in the election.
pub struct Candidacy {
    leading: watch::Receiver<bool>,
    /// Ends with the candidacy: left to itself it would still give the lease back, which is for [`Self::withdraw`] to do.
    election: AbortOnDropHandle<Result<LeaseManager, LeaseManagerError>>,
    leases: Api<Lease>,
    identity: String,
    clock: Clock,
}

impl Candidacy {
    /// Stands for election under the settings' identity, which no other process of the same time may have.
    ///
    /// # Errors
    ///
    /// If the lease can be neither read nor made.
    pub async fn stand(client: Client, settings: &Settings, clock: Clock) -> Result<Self, LeaseManagerError> {
        let Settings { namespace, identity, .. } = settings;
        let manager = LeaseManagerBuilder::new(client.clone(), NAME)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_field_manager(format!("flagmeter-operator-{identity}"))
            .with_duration(DURATION_SECONDS.into())
            .with_grace(GRACE_SECONDS.into())
            .build()
            .await?;
        let (leading, election) = manager.watch().await;
        let leases = Api::namespaced(client, namespace);
        let election = AbortOnDropHandle::new(election);
        Ok(Self { leading, election, leases, identity: identity.clone(), clock })
    }

    /// Waits until this process holds the lease.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`] if the election has ended, so that it never will.
    pub async fn won(&mut self) -> Result<(), Error> {
        self.leading.wait_for(|leading| *leading).await.map(drop).map_err(|_| Error::LeaseLost)
    }

    /// Waits until this process no longer holds the lease, or cannot know.
    ///
    /// The election says so only when it has read the lease. An API server that does not answer leaves
    /// it silent, while another process may already have taken over: so the end of the lease, as last
    /// seen, counts too.
    pub async fn lost(&mut self) {
        let expiry = expiry(&self.leases, &self.identity, self.clock);
        tokio::select! {
            // An error says that the election has ended.
            _ = self.leading.wait_for(|leading| !*leading) => {}
            () = expiry => {}
        }
    }

    /// Gives the lease back, so that another process need not wait for its end. If the API server does
    /// not answer, another process has to wait.
    pub async fn withdraw(self) {
        drop(self.leading);
        match tokio::time::timeout(WITHDRAWAL, self.election).await {
            Ok(Ok(Ok(_))) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(error = chain(&error), "failed to give the lease back");
            }
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "the election ended badly");
            }
            Err(_) => tracing::warn!("failed to give the lease back in {WITHDRAWAL:?}"),
        }
    }
}

/// The lease, taken from whoever holds it.
pub struct Seized {
    leases: Api<Lease>,
    identity: String,
}

impl Seized {
    /// The lease of the settings' namespace, to be held under their identity.
    #[must_use]
    pub fn of(client: Client, settings: &Settings) -> Self {
        let Settings { namespace, identity, .. } = settings;
        Self { leases: Api::namespaced(client, namespace), identity: identity.clone() }
    }

    /// Holds it from `now` on for so many seconds. Where there is no lease, nobody has to be kept from it.
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not answer.
    pub async fn hold(&self, seconds: u32, now: Timestamp) -> Result<(), kube::Error> {
        let spec = json!({
            "holderIdentity": self.identity,
            "acquireTime": MicroTime(now),
            "renewTime": MicroTime(now),
            "leaseDurationSeconds": seconds,
        });
        let patch = Patch::Merge(json!({ "spec": spec }));
        match self.leases.patch(NAME, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            held => held.map(drop),
        }
    }
}

/// Ends before the lease does, or when somebody else is seen to hold it. It looks before it gives up, however late it
/// is: an answer that was slow must not cost the lease that it says was renewed.
async fn expiry(leases: &Api<Lease>, identity: &str, clock: Clock) {
    let mut end = end_of_lease(clock.now());
    loop {
        tokio::time::sleep(CHECK).await;
        if let Ok(Ok(lease)) = tokio::time::timeout(CHECK, leases.get(NAME)).await {
            let Some(spec) = lease.spec.filter(|spec| spec.holder_identity.as_deref() == Some(identity))
            else {
                return;
            };
            if let Some(renewed) = spec.renew_time {
                end = end_of_lease(renewed.0);
            }
        }
        if clock.now() >= end {
            return;
        }
    }
}

/// When the holder of a lease that was renewed at `renewed` looks for the last time.
fn end_of_lease(renewed: Timestamp) -> Timestamp {
    let duration = SignedDuration::from_secs(DURATION_SECONDS.into());
    renewed.checked_add(duration - MARGIN).unwrap_or(renewed)
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    /// How long it took the holder `operator-0` to give up a lease that says this.
    async fn given_up_after(holder: &str, renewed_seconds_ago: i64) -> Duration {
        let clock = Clock::system();
        let (service, mut server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let leases: Api<Lease> = Api::namespaced(Client::new(service, "shop"), "shop");
        let renewed = clock.now() - SignedDuration::from_secs(renewed_seconds_ago);
        let lease = json!({ "spec": { "holderIdentity": holder, "renewTime": format!("{renewed:.6}") } });
        let play = async {
            while let Some((_, respond)) = server.next_request().await {
                respond.send_response(Response::new(Body::from(serde_json::to_vec(&lease).unwrap())));
            }
        };
        let started = tokio::time::Instant::now();
        tokio::select! {
            () = expiry(&leases, "operator-0", clock) => {}
            () = play => {}
        }
        started.elapsed()
    }

    #[tokio::test]
    async fn a_lease_that_nobody_renews_is_given_up_before_its_end() {
        let given_up = given_up_after("operator-0", 10).await;
        assert!(given_up < Duration::from_secs(5), "{given_up:?}");
    }

    #[tokio::test]
    async fn a_lease_that_is_another_s_is_given_up_at_once() {
        let given_up = given_up_after("operator-1", 0).await;
        assert!(given_up < CHECK * 2, "{given_up:?}");
    }
}
