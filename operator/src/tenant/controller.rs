//! Runs reconciles whenever something may have changed, and the chores beside them.
//!
//! kube's `Controller` is not used, because it keeps deletions to itself; this is what it is made of.

use std::sync::Arc;
use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_runtime::telemetry::chain;
use flagmeter_store::StoreError;
use futures::channel::mpsc::{self, UnboundedSender};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{self, ReconcileRequest, trigger_self, trigger_with};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, applier, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Context, Error, deliveries, error_policy, key, reconcile, status, sweep, usage};

/// How many tenants are worked on at once: as many as the pool has connections to spare.
const CONCURRENCY: u16 = 4;

/// Changes of a tenant that come so close together are one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How often usage is looked at: the longest that the first usage of a period stays unseen.
const USAGE_INTERVAL: Duration = Duration::from_secs(5);

/// How often rows are compared with resources when no resource is seen to go.
const SWEEP_INTERVAL: Duration = Duration::from_mins(10);

/// How soon a sweep that failed is tried again.
const SWEEP_RETRY: Duration = Duration::from_secs(15);

type Guarded = DeserializeGuard<Tenant>;
type Queue = BoxStream<'static, Result<ReconcileRequest<Guarded>, watcher::Error>>;
type Reconciled = Result<(ObjectRef<Guarded>, controller::Action), controller::Error<Error, watcher::Error>>;

/// Works until `stop`, and then ends what is under way. `synced` is called once all Tenants were seen.
pub async fn run(ctx: Arc<Context>, synced: impl FnOnce(), stop: CancellationToken) {
    let (store, writer) = reflector::store();
    let (asked, asks) = mpsc::unbounded();
    let gone = Notify::new();
    let queue =
        stream::select_all([tenants(&ctx, writer), secrets(&ctx, store.clone()), asks.map(Ok).boxed()])
            .take_until(stop.cancelled_owned());
    let config = controller::Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    let reconciles = applier(
        |tenant, ctx| reconcile(tenant, ctx).boxed(),
        error_policy,
        Arc::clone(&ctx),
        store.clone(),
        queue,
        config,
    );
    let chores = async {
        if store.wait_until_ready().await.is_ok() {
            synced();
            tokio::join!(
                sweeps(&ctx, &store, &gone),
                usages(&ctx, &store, &asked),
                deliveries::follow(&ctx, &store)
            );
        }
    };
    tokio::select! {
        () = reconciles.for_each(async |reconciled| note(&ctx, reconciled, &gone)) => {}
        // A chore that is cut off is one statement, done or not.
        () = chores.then(|()| std::future::pending()) => {}
    }
}

/// A request for each Tenant that is new, changed or gone; `writer`'s store follows.
fn tenants(ctx: &Context, writer: reflector::store::Writer<Guarded>) -> Queue {
    // Lists are consistent by default. One that is behind would let the sweep miss a new resource.
    let watch = watcher(ctx.tenants(), watcher::Config::default());
    trigger_self(watch.default_backoff().reflect(writer).touched_objects(), ()).boxed()
}

/// A request for each Tenant that names or owns a Secret that is new, changed or gone. Only the metadata of
/// Secrets is watched; no value is kept.
fn secrets(ctx: &Context, store: Store<Guarded>) -> Queue {
    let secrets: Api<PartialObjectMeta<Secret>> =
        Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let watch = watcher(secrets, watcher::Config::default().any_semantic());
    let tenants = move |secret: PartialObjectMeta<Secret>| {
        let name = secret.name_any();
        let tenants = store.state().into_iter().filter(move |tenant| refers_to(tenant, &name));
        tenants.map(|tenant| ObjectRef::from_obj(&*tenant)).collect::<Vec<_>>()
    };
    trigger_with(watch.default_backoff().touched_objects(), tenants).boxed()
}

fn refers_to(tenant: &Guarded, secret: &str) -> bool {
    if key::is_secret_of(&tenant.name_any(), secret) {
        return true;
    }
    let target = tenant.0.as_ref().ok().and_then(|tenant| tenant.spec.alerts.slack.as_ref());
    let reference = target.and_then(|target| target.secret_ref.as_ref());
    reference.is_some_and(|reference| reference.name == secret)
}

/// Logs what came of a reconcile. A tenant that is asked for and is not there is gone.
fn note(ctx: &Context, reconciled: Reconciled, gone: &Notify) {
    match reconciled {
        Ok((tenant, _)) => tracing::debug!(tenant.name = tenant.name, "reconciled {}", tenant.name),
        Err(controller::Error::ObjectNotFound(tenant)) => {
            ctx.failures.forget(&tenant.name);
            gone.notify_one();
        }
        Err(controller::Error::ReconcilerFailed(error, tenant)) => {
            let name = &tenant.name;
            tracing::warn!(tenant.name = name, error = chain(&error), "failed to reconcile {name}");
        }
        Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) => {
            tracing::warn!(error = chain(&error), "a watch failed, and is started again");
        }
    }
}

/// Sweeps at the start, when a resource has gone, and now and then.
async fn sweeps(ctx: &Context, store: &Store<Guarded>, gone: &Notify) {
    loop {
        let pause = match sweep::sweep(ctx, store).await {
            Ok(()) => SWEEP_INTERVAL,
            Err(error) => {
                tracing::warn!(error = chain(&error), "failed to look for tenants that are gone");
                SWEEP_RETRY
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = gone.notified() => {}
        }
    }
}

/// Asks for a reconcile of each tenant whose usage is due to be written. When PostgreSQL answers
/// again, asks for all, rather than let each wait out its pause.
async fn usages(ctx: &Context, store: &Store<Guarded>, asked: &UnboundedSender<ReconcileRequest<Guarded>>) {
    let mut ticks = interval(USAGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        ticks.tick().await;
        let known = store.state();
        let ready = known.iter().filter(|tenant| tenant.0.as_ref().is_ok_and(status::is_ready)).count();
        ctx.metrics.set_tenants(ready, known.len() - ready);
        let names = match usage::due(ctx, &known).await {
            Ok(_) if std::mem::take(&mut away) => known.iter().map(|tenant| tenant.name_any()).collect(),
            Ok(due) => due,
            Err(error) => {
                away = log_once(away, &error);
                continue;
            }
        };
        for name in names {
            let tenant = ObjectRef::new(&name).within(&ctx.settings.namespace);
            // The other end is gone when the operator stops.
            let _ = asked.unbounded_send(tenant.into());
        }
    }
}

/// Says once that usage cannot be read, not every few seconds. Answers that it is known.
fn log_once(known: bool, error: &StoreError) -> bool {
    if !known {
        tracing::warn!(error = chain(error), "failed to read the usage");
    }
    true
}
