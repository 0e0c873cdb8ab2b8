//! Runs reconciles whenever something may have changed, and the chores beside them, once for each scope.
//!
//! kube's `Controller` is not used, because it keeps deletions to itself; this is what it is made of.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_runtime::telemetry::chain;
use flagmeter_store::StoreError;
use futures::channel::mpsc::{self, UnboundedSender};
use futures::future::{self, join_all};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, ReconcileRequest, trigger_self};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, applier, watcher};
use kube::{Resource, ResourceExt};
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::context::CONCURRENCY;
use super::observe::named_secrets;
use super::scope::Scope;
use super::secrets::{Follower, Name};
use super::sweep::{self, Swept};
use super::view::View;
use super::watching::{Patient, Unwatchable, Watching};
use super::{Context, Error, deliveries, error_policy, key, reconcile, status, unfollowed, usage};

/// Changes of a tenant that come so close together are one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How often usage is looked at: the longest that the first usage of a period stays unseen.
const USAGE_INTERVAL: Duration = Duration::from_secs(5);

/// How often rows are compared with resources when no resource is seen to go.
const SWEEP_INTERVAL: Duration = Duration::from_mins(10);

/// For how long no resource must go before a sweep looks at those that went.
const LULL: Duration = Duration::from_secs(1);

/// How soon a sweep that failed, or was refused, is tried again; and how long one waits at most for a lull.
const SWEEP_RETRY: Duration = Duration::from_secs(15);

/// What `kubectl apply` writes beside the spec, which it repeats.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

type Guarded = DeserializeGuard<Tenant>;
type Queue = BoxStream<'static, Result<ReconcileRequest<Guarded>, watcher::Error>>;
type Asked = UnboundedSender<ReconcileRequest<Guarded>>;
type Reconciled = Result<(ObjectRef<Guarded>, controller::Action), controller::Error<Error, watcher::Error>>;

/// Works until `stop`, and then ends what is under way. `tell` hears once all Tenants were seen, and what keeps the
/// operator from following them, whenever that changes.
pub async fn run(
    ctx: Arc<Context>,
    tell: impl Fn(Result<(), Unwatchable>) + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let view = Arc::new(View::of(&ctx.settings.scopes, tell));
    // Where one ends, all do: a namespace that nobody watches any more must not go unnoticed.
    let stop = stop.child_token();
    let scopes = ctx.settings.scopes.iter().map(async |scope| {
        run_scope(&ctx, scope, &view, stop.clone()).await;
        stop.cancel();
    });
    tokio::select! {
        _ = join_all(scopes) => {}
        // One look that is cut off is made again by the next leader.
        () = unfollowed::follow(&ctx) => {}
    }
}

async fn run_scope(ctx: &Arc<Context>, scope: &Scope, view: &Arc<View>, stop: CancellationToken) {
    let (store, writer) = reflector::store();
    let (asked, asks) = mpsc::unbounded();
    let freed = ctx.freed.subscribe();
    let gone = Notify::new();
    let queue = stream::select_all([
        tenants(ctx, scope, view, writer),
        secrets(ctx, scope, store.clone()),
        asks.map(Ok).boxed(),
    ])
    .take_until(stop.cancelled_owned());
    let config = controller::Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    let reconciles = applier(
        |tenant, ctx| reconcile(tenant, ctx).boxed(),
        error_policy,
        Arc::clone(ctx),
        store.clone(),
        queue,
        config,
    );
    let chores = async {
        if store.wait_until_ready().await.is_ok() {
            view.see(scope, Ok(()));
            tokio::join!(
                sweeps(ctx, scope, &store, &gone),
                usages(ctx, scope, &store, &asked),
                claims(&store, freed, &asked),
                deliveries::follow(ctx, &store),
            );
        }
    };
    tokio::select! {
        () = reconciles.for_each(async |reconciled| note(ctx, reconciled, &gone)) => {}
        // A chore that is cut off is one statement, done or not.
        () = chores.then(|()| std::future::pending()) => {}
    }
}

/// A request for each Tenant that is new, changed or gone; `writer`'s store follows.
fn tenants(
    ctx: &Context,
    scope: &Scope,
    view: &Arc<View>,
    writer: reflector::store::Writer<Guarded>,
) -> Queue {
    // Lists are consistent by default. One that is behind would let the sweep miss a new resource.
    let watch = watcher(scope.tenants(ctx.client.clone()), watcher::Config::default());
    let failing = ctx.metrics.watches_failing.with_label_values(&["tenants"]);
    let mut watching = Watching::new("Tenants", scope.clone(), failing);
    let (view, scope) = (Arc::clone(view), scope.clone());
    let noted = watch.backoff(Patient::default()).inspect(move |event| match watching.note(event) {
        Some(Err(why)) => view.see(&scope, Err(why)),
        Some(Ok(())) => view.see_again(&scope),
        None => {}
    });
    let seen = noted.filter(|event| future::ready(event.is_ok()));
    trigger_self(seen.modify(slim).reflect(writer).touched_objects(), ()).boxed()
}

/// Drops what nobody here reads, and what is most of a Tenant's size.
fn slim(tenant: &mut Guarded) {
    let meta = tenant.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// A request for each Tenant that names or owns a Secret that is new, changed or gone. Only the metadata of
/// Secrets is watched; no value is kept.
fn secrets(ctx: &Context, scope: &Scope, store: Store<Guarded>) -> Queue {
    let watch = watcher(scope.secrets(ctx.client.clone()), watcher::Config::default().any_semantic());
    let mut follower = Follower::new(Arc::clone(&ctx.secrets), scope.clone());
    let failing = ctx.metrics.watches_failing.with_label_values(&["secrets"]);
    let mut watching = Watching::new("Secrets", scope.clone(), failing);
    let requests = move |event| {
        watching.note(&event);
        let news = if let Ok(event) = event {
            follower.news(event)
        } else {
            follower.lose_sight();
            Vec::new()
        };
        let tenants = news.iter().flat_map(|secret| interested(&store, secret));
        stream::iter(tenants.map(|tenant| Ok(tenant.into())).collect::<Vec<_>>())
    };
    watch.backoff(Patient::default()).flat_map(requests).boxed()
}

/// The Tenants that name or own the Secret.
fn interested(store: &Store<Guarded>, (namespace, secret): &Name) -> Vec<ObjectRef<Guarded>> {
    let refers = |tenant: &&Arc<Guarded>| {
        let meta = tenant.meta();
        meta.namespace.as_ref() == Some(namespace)
            && (meta.name.as_ref().is_some_and(|name| key::is_secret_of(name, secret))
                || tenant
                    .0
                    .as_ref()
                    .is_ok_and(|tenant| named_secrets(&tenant.spec).any(|name| name == secret)))
    };
    store.state().iter().filter(refers).map(|tenant| ObjectRef::from_obj(&**tenant)).collect()
}

/// Logs what came of a reconcile. A tenant that is asked for and is not there is gone.
fn note(ctx: &Context, reconciled: Reconciled, gone: &Notify) {
    match reconciled {
        Ok((tenant, _)) => tracing::debug!(tenant.name = tenant.name, "reconciled {}", tenant.name),
        Err(controller::Error::ObjectNotFound(tenant)) => {
            ctx.forget(tenant.namespace.as_deref(), &tenant.name);
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
async fn sweeps(ctx: &Context, scope: &Scope, store: &Store<Guarded>, gone: &Notify) {
    let mut refused = false;
    loop {
        let swept = sweep::sweep(ctx, scope, store, refused).await;
        refused = matches!(swept, Ok(Swept::Refused));
        let pause = match swept {
            Ok(Swept::Done) => SWEEP_INTERVAL,
            // A person may say that it was right.
            Ok(Swept::Refused) => SWEEP_RETRY,
            Err(error) => {
                tracing::warn!(error = chain(&error), "failed to look for tenants that are gone");
                SWEEP_RETRY
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = gone.notified() => {
                // Many that go one after the other are many at once: each by itself would be believed.
                let all_went = async { while timeout(LULL, gone.notified()).await.is_ok() {} };
                // Where they never end, some is better than none.
                let _ = timeout(SWEEP_RETRY, all_went).await;
            }
        }
    }
}

/// Asks for a reconcile of each tenant whose usage is due to be written. When PostgreSQL answers
/// again, asks for all, rather than let each wait out its pause.
async fn usages(ctx: &Context, scope: &Scope, store: &Store<Guarded>, asked: &Asked) {
    let mut ticks = interval(USAGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    let mut before = 0;
    loop {
        ticks.tick().await;
        let known = store.state();
        let ready = known.iter().filter(|tenant| tenant.0.as_ref().is_ok_and(status::is_ready)).count();
        ctx.metrics.set_tenants(&scope.to_string(), ready, known.len() - ready);
        ctx.known.fetch_add(known.len(), Ordering::Relaxed);
        ctx.known.fetch_sub(std::mem::replace(&mut before, known.len()), Ordering::Relaxed);
        let due = match usage::due(ctx, &known).await {
            Ok(_) if std::mem::take(&mut away) => known,
            Ok(due) => due,
            Err(error) => {
                away = log_once(away, &error);
                continue;
            }
        };
        for tenant in due {
            ask(asked, &tenant);
        }
    }
}

/// Asks for a reconcile of whoever waits for an id that has become free.
async fn claims(store: &Store<Guarded>, mut freed: broadcast::Receiver<String>, asked: &Asked) {
    loop {
        let name = match freed.recv().await {
            Ok(name) => Some(name),
            // So many at once that some were missed: any of them may be waited for.
            Err(RecvError::Lagged(_)) => None,
            // The context, which has the other end, is there as long as this is.
            Err(RecvError::Closed) => return,
        };
        for tenant in store.state() {
            if name.as_ref().is_none_or(|name| *name == tenant.name_any()) {
                ask(asked, &tenant);
            }
        }
    }
}

fn ask(asked: &Asked, tenant: &Guarded) {
    // The other end is gone when the operator stops.
    let _ = asked.unbounded_send(ObjectRef::from_obj(tenant).into());
}

/// Says once that usage cannot be read, not every few seconds. Answers that it is known.
fn log_once(known: bool, error: &StoreError) -> bool {
    if !known {
        tracing::warn!(error = chain(error), "failed to read the usage: {}", error.in_short());
    }
    true
}
