//! What every part of the node needs: clients, settings, the address pool, the clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flagmeter_runtime::clock::Clock;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::config::{Cluster, KubeConfigOptions, Kubeconfig};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::address::Addresses;

/// The clients and settings of the node.
pub struct Context {
    /// The command line.
    pub config: Config,
    /// The API server, as the node.
    pub client: Client,
    /// The API server's address and certificate authority, as pods are told them.
    pub cluster: Cluster,
    /// For HTTP probes.
    pub http: reqwest::Client,
    /// The pods' addresses.
    pub addresses: Arc<Addresses>,
    /// What time it is.
    pub clock: Clock,
    recorder: Recorder,
    events: TaskTracker,
}

impl Context {
    /// Reads the kubeconfig and builds the clients; nothing is asked of the API server yet.
    ///
    /// # Errors
    ///
    /// If the kubeconfig cannot be read, or names no cluster for its current context.
    pub async fn connect(config: Config) -> anyhow::Result<Self> {
        let kubeconfig = Kubeconfig::read_from(&config.kubeconfig)
            .with_context(|| format!("failed to read {}", config.kubeconfig.display()))?;
        let cluster = current_cluster(&kubeconfig).context("the kubeconfig has no current cluster")?;
        let options = KubeConfigOptions::default();
        let mut api_server = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        // It is on this machine, whatever the environment says of proxies.
        api_server.proxy_url = None;
        let client = Client::try_from(api_server)?;
        // As a kubelet does it: no proxy, a new connection per probe, and a redirect is an answer.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_mins(1))
            .build()?;
        let reporter =
            Reporter { controller: "process-node".to_owned(), instance: Some(config.node_name.clone()) };
        Ok(Self {
            addresses: Addresses::new(config.address_base),
            recorder: Recorder::new(client.clone(), reporter),
            events: TaskTracker::new(),
            clock: Clock::system(),
            config,
            client,
            cluster,
            http,
        })
    }

    /// The namespace's objects of one kind.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }

    /// The current time, as Kubernetes writes it.
    #[must_use]
    pub fn now(&self) -> Time {
        Time(self.clock.now())
    }

    /// Tells of something that happened to `pod`: in the log, and as an Event for `kubectl describe`,
    /// which may get lost.
    pub fn tell(&self, pod: &Pod, type_: EventType, reason: &str, note: String) {
        let name = pod.name_any();
        match type_ {
            EventType::Normal => tracing::info!(pod = name, reason, "{note}"),
            EventType::Warning => tracing::warn!(pod = name, reason, "{note}"),
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            // Events are counted together by their action: whatever reads differently is another one.
            action: note.chars().take(128).collect(),
            note: Some(note),
            secondary: None,
        };
        let (recorder, regarding) = (self.recorder.clone(), pod.object_ref(&()));
        self.events.spawn(async move { recorder.publish(&event, &regarding).await });
    }
}

/// Why the API server did not do what it was asked, in its own words.
#[must_use]
pub fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => answer.message.clone(),
        other => flagmeter_runtime::telemetry::chain(other),
    }
}

fn current_cluster(kubeconfig: &Kubeconfig) -> Option<Cluster> {
    let contexts: BTreeMap<_, _> = kubeconfig.contexts.iter().map(|c| (&c.name, &c.context)).collect();
    let context = contexts.get(kubeconfig.current_context.as_ref()?)?.as_ref()?;
    let named = kubeconfig.clusters.iter().find(|named| named.name == context.cluster)?;
    named.cluster.clone()
}
