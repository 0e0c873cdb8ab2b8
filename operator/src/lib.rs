//! Brings Tenant resources into PostgreSQL, and reports back.
//!
//! - [`Operator::run`] waits for the [`lease`], and works as long as it holds it.
//! - [`tenant`] is the work: one reconcile at a time from a Tenant to its row and back to its status.
//! - [`drain`] lets all Tenants go before the operator is removed.
//! - [`scaler`] keeps as many workers as the load asks for.
//! - [`config`] and [`metrics`] are what goes in and what can be seen; [`calls`] counts what the API server is asked.

pub mod calls;
pub mod config;
pub mod drain;
pub mod lease;
pub mod metrics;
pub mod scaler;
pub mod tenant;

use std::sync::Arc;
use std::time::Duration;

use flagmeter_runtime::admin::Readiness;
use kube_lease_manager::LeaseManagerError;
use tokio_util::sync::CancellationToken;

use crate::lease::Candidacy;
use crate::scaler::Scaler;
use crate::tenant::{Context, Unwatchable};

/// Met once this process stands for election.
const ELECTION: &str = "leader-election";

/// Met by a standby, and by a leader that has seen all Tenants.
const CACHE: &str = "cache";

/// What the operator must have done before it is ready.
pub const CONDITIONS: [&str; 2] = [ELECTION, CACHE];

/// How long what is under way when the operator is asked to end may take to end by itself: as long as a slice of a
/// deletion, and short enough that the lease is given back before the pod is killed.
const LAST: Duration = Duration::from_secs(8);

/// Why the operator ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lease can be neither read nor made.
    #[error("failed to stand for election")]
    Election(#[from] LeaseManagerError),
    /// Another process may be working now. Only a new start is sure to know nothing of before.
    #[error("the lease was lost")]
    LeaseLost,
    /// The watches ended.
    #[error("the controller ended")]
    Ended,
}

/// The operator, ready to run.
pub struct Operator {
    /// What reconciling needs.
    pub context: Context,
    /// What `/readyz` answers, made of [`CONDITIONS`].
    pub readiness: Readiness,
    /// Scales the workers, unless somebody else does.
    pub scaler: Option<Scaler>,
}

impl Operator {
    /// Works whenever this process holds the lease, until `stop`.
    ///
    /// # Errors
    ///
    /// See [`Error`]; the process should end, and be started anew.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let Self { context, readiness, scaler } = self;
        let mut candidacy =
            Candidacy::stand(context.client.clone(), &context.settings, context.clock).await?;
        readiness.met(ELECTION);
        readiness.met(CACHE);
        tracing::info!(identity = context.settings.identity, "standing by");

        let won = tokio::select! {
            won = candidacy.won() => won.map(|()| true),
            () = stop.cancelled() => Ok(false),
        };
        let outcome = match won {
            Ok(true) => lead(context, scaler.as_ref(), &mut candidacy, &readiness, &stop).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        match outcome {
            // What is given back must be one's own.
            Err(Error::LeaseLost) => drop(candidacy),
            _ => candidacy.withdraw().await,
        }
        outcome
    }
}

/// Works until `stop`, or until the lease is lost.
async fn lead(
    context: Context,
    scaler: Option<&Scaler>,
    candidacy: &mut Candidacy,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<(), Error> {
    tracing::info!("elected");
    readiness.unmet(CACHE, "the Tenants are being read");
    let leader = context.metrics.leader.clone();
    leader.set(1);
    let tell = {
        let readiness = readiness.clone();
        move |seen: Result<(), Unwatchable>| match seen {
            Ok(()) => readiness.met(CACHE),
            Err(why) => readiness.unmet(CACHE, &format!("the Tenants cannot be followed: {why}")),
        }
    };
    let work = tenant::controller::run(Arc::new(context), tell, stop.clone());
    let scaling = async {
        match scaler {
            Some(scaler) => Box::pin(scaler.run()).await,
            None => std::future::pending().await,
        }
    };
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST).await;
    };
    let outcome = tokio::select! {
        () = work => if stop.is_cancelled() { Ok(()) } else { Err(Error::Ended) },
        // What is under way is dropped: a statement is done or not, and the next leader looks anew.
        () = overdue => Ok(()),
        () = scaling => Err(Error::Ended),
        () = candidacy.lost() => Err(Error::LeaseLost),
    };
    leader.set(0);
    outcome
}
