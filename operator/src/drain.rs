//! Before FlagMeter is uninstalled: no Tenant keeps a finalizer that nobody would take away any more.
//!
//! Whoever drains holds the lease meanwhile, so that no operator puts a finalizer back. Tenants that are being deleted
//! with all that was counted are finished; the others stay as they are, without the finalizer, and their rows too.

use std::sync::Arc;
use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_runtime::telemetry::chain;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};
use tokio::time::{Instant, sleep};

use crate::lease::Seized;
use crate::tenant::{Context, FINALIZER, let_go, reconcile};

/// How long a former leader takes at most to notice that the lease is another's.
const NOTICE: Duration = Duration::from_secs(5);

/// How long the lease holds, and how often it is renewed.
const HOLD_SECONDS: u32 = 15;
const RENEWAL: Duration = Duration::from_secs(3);

/// How long it holds afterwards: until the operator has been removed.
const AFTERWARDS_SECONDS: u32 = 60;

/// How soon what could not be done is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Tenants that are named where some could not be let go.
const NAMED: usize = 5;

/// Why Tenants still have the finalizer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer, or refused.
    #[error("failed to {doing}")]
    ApiServer {
        /// What was asked for.
        doing: &'static str,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// Those that are being deleted could not be finished in time.
    #[error(
        "{count} Tenants could not be let go in time, among them {names}; see that PostgreSQL answers and try again, or \
         annotate them with flagmeter.dev/skip-cleanup=true, which keeps their rows"
    )]
    Held {
        /// How many.
        count: usize,
        /// The first of them, as `namespace/name`.
        names: String,
    },
}

/// Takes the finalizer off every Tenant of the context's scopes, for which it has `patience`. No operator leads for a
/// minute afterwards, so that there is time to remove it.
///
/// # Errors
///
/// See [`Error`]; the same call may be made again.
pub async fn drain(context: Context, patience: Duration) -> Result<(), Error> {
    let context = Arc::new(context);
    if held(&context).await?.is_empty() {
        tracing::info!("no Tenant waits for the operator");
        return Ok(());
    }
    let lease = Seized::of(context.client.clone(), &context.settings);
    lease.hold(HOLD_SECONDS, context.clock.now()).await.map_err(failed("take the operator's lease"))?;
    let keep = async {
        loop {
            sleep(RENEWAL).await;
            if let Err(error) = lease.hold(HOLD_SECONDS, context.clock.now()).await {
                tracing::warn!(error = chain(&error), "failed to renew the lease");
            }
        }
    };
    tokio::select! {
        outcome = empty(&context, patience) => outcome?,
        () = keep => {}
    }
    lease.hold(AFTERWARDS_SECONDS, context.clock.now()).await.map_err(failed("keep the operator's lease"))
}

fn failed(doing: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::ApiServer { doing, source: Box::new(source) }
}

async fn empty(context: &Arc<Context>, patience: Duration) -> Result<(), Error> {
    // What a former leader does until it notices, it does by the rules; but it would put finalizers back.
    sleep(NOTICE).await;
    let started = Instant::now();
    loop {
        let held = held(context).await?;
        if held.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= patience {
            let name = |tenant: &Arc<DeserializeGuard<Tenant>>| {
                format!("{}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any())
            };
            let names: Vec<String> = held.iter().take(NAMED).map(name).collect();
            return Err(Error::Held { count: held.len(), names: names.join(", ") });
        }
        for tenant in held {
            let name = tenant.name_any();
            let done = if tenant.meta().deletion_timestamp.is_some() {
                Box::pin(reconcile(tenant, Arc::clone(context))).await.map(drop)
            } else {
                let_go(context, &tenant).await
            };
            match done {
                Ok(()) => tracing::info!(tenant.name = name, "{name} waits for the operator no more"),
                Err(error) => {
                    tracing::warn!(tenant.name = name, error = chain(&error), "failed to let {name} go");
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// The Tenants that have the finalizer.
async fn held(context: &Context) -> Result<Vec<Arc<DeserializeGuard<Tenant>>>, Error> {
    let mut held = Vec::new();
    for scope in &context.settings.scopes {
        let listed = scope.tenants(context.client.clone()).list(&ListParams::default()).await;
        let listed = listed.map_err(failed("list the Tenants"))?;
        held.extend(
            listed.into_iter().filter(|tenant| tenant.finalizers().iter().any(|one| one == FINALIZER)),
        );
    }
    Ok(held.into_iter().map(Arc::new).collect())
}
