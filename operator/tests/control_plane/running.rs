//! The operator, running inside a test.

use std::time::Duration;

use flagmeter_operator::metrics::Metrics;
use flagmeter_operator::scaler::Scaler;
use flagmeter_operator::tenant::{Context, Scope, Settings};
use flagmeter_operator::{CONDITIONS, Error, Operator, calls};
use flagmeter_runtime::admin::Readiness;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::sealed::Sealer;
use jiff::SignedDuration;
use kube::Config;
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, eventually};

/// A running operator.
pub(crate) struct Running {
    pub(crate) metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

/// The key under which the tests' operators seal.
pub(crate) fn sealer() -> Sealer {
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap()
}

/// What an operator, or whoever drains, works with under `identity`: a resync every second or so.
pub(crate) fn context(
    access: Config,
    watched: &[&Cluster],
    db: &PgPool,
    identity: &str,
    metrics: &Metrics,
) -> Context {
    let client = calls::counted(access, &metrics.api_calls).unwrap();
    let settings = Settings {
        namespace: watched[0].namespace.clone(),
        scopes: watched.iter().map(|cluster| Scope::Namespace(cluster.namespace.clone())).collect(),
        identity: identity.to_owned(),
        resync: Duration::from_secs(1),
        key_overlap: SignedDuration::from_hours(24),
        unseen: Duration::from_mins(1),
        allow_http: false,
        patience: Duration::from_secs(2),
    };
    Context::new(client, db.clone(), sealer(), metrics.clone(), Clock::system(), settings)
}

impl Running {
    /// Starts one under `identity`, with the operator's rights and a resync every second or so.
    pub(crate) async fn start(cluster: &Cluster, db: &PgPool, identity: &str) -> Self {
        Self::reaching(cluster.operator_config(&[]).await, &[cluster], db, identity)
    }

    /// The same by another way to the API server, for the Tenants of several namespaces; the first is its own.
    pub(crate) fn reaching(access: Config, watched: &[&Cluster], db: &PgPool, identity: &str) -> Self {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Self::of(context(access, watched, db, identity, &metrics), None)
    }

    /// One that works with this, and scales.
    pub(crate) fn of(context: Context, scaler: Option<Scaler>) -> Self {
        let (metrics, identity) = (context.metrics.clone(), context.settings.identity.clone());
        let readiness = Readiness::of(&CONDITIONS);
        let stop = CancellationToken::new();
        let operator = Operator { context, readiness: readiness.clone(), scaler };
        let work = operator.run(stop.clone());
        // Nobody starts it anew here, so what waits for its work should not wait without a word.
        let task = tokio::spawn(async move {
            let outcome = work.await;
            println!("{identity} ended: {outcome:?}");
            outcome
        });
        Self { metrics, readiness, stop, task }
    }

    /// Waits until it stands for election.
    pub(crate) async fn is_ready(&self) {
        eventually("the operator is ready", async || self.readiness.is_ready().then_some(())).await;
    }

    /// Waits until it leads, and has seen all Tenants.
    pub(crate) async fn leads(&self) {
        let leads = async || (self.metrics.leader.get() == 1 && self.readiness.is_ready()).then_some(());
        eventually("the operator leads", leads).await;
    }

    /// Whether it is ready, by its own account.
    pub(crate) fn is_ready_now(&self) -> bool {
        self.readiness.is_ready()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.ended().await.unwrap();
    }

    /// Waits until it ends by itself, or because it was asked to.
    pub(crate) async fn ended(mut self) -> Result<(), Error> {
        let ended = tokio::time::timeout(Duration::from_secs(30), &mut self.task).await;
        ended.expect("the operator ends").unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
