//! What the API server says about one kind of object, kept up to date in memory.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The objects of one kind. While the API server is away, the last that was heard stays.
#[derive(Clone)]
pub struct Cache<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    changes: watch::Receiver<()>,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Begins to watch, until `shutdown`.
    #[must_use]
    pub fn start(api: Api<K>, shutdown: &CancellationToken) -> Self {
        let (store, writer) = reflector::store();
        let (sender, changes) = watch::channel(());
        let events = reflector(writer, watcher(api, watcher::Config::default()).backoff(EverySecond));
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let mut events = std::pin::pin!(events.take_until(shutdown.cancelled_owned()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(_) => drop(sender.send(())),
                    Err(error) => tracing::warn!(
                        kind = %K::kind(&()),
                        error = flagmeter_runtime::telemetry::chain(&error),
                        "failed to watch"
                    ),
                }
            }
        });
        Self { store, changes }
    }

    /// Waits for a change since the last call. After `shutdown` it never returns.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// All objects, in no order.
    #[must_use]
    pub fn objects(&self) -> Vec<Arc<K>> {
        self.store.state()
    }
}

/// The API server is on this machine: it bears more than client-go's half a minute between attempts.
struct EverySecond;

impl Iterator for EverySecond {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

impl Backoff for EverySecond {
    fn reset(&mut self) {}
}
