//! `flagmeter-operator`: settings, logs, clients, run, stop.
//!
//! `flagmeter-operator drain` lets all Tenants go instead, before the operator is removed.

use std::time::Duration;

use anyhow::Context as _;
use flagmeter_operator::config::Config;
use flagmeter_operator::metrics::Metrics;
use flagmeter_operator::scaler::{self, Scaler};
use flagmeter_operator::tenant::{Context, Settings};
use flagmeter_operator::{CONDITIONS, Operator, calls, drain};
use flagmeter_runtime::admin::{self, Readiness};
use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::env::Env;
use flagmeter_runtime::{install_tls_provider, shutdown, telemetry};
use flagmeter_store::postgres;
use flagmeter_store::queue::EventQueue;

/// Four reconciles at once, and the sweep and the usage beside them.
const CONNECTIONS: u32 = 6;

/// A statement takes milliseconds, the longest step of a deletion a few seconds.
const POSTGRES_PATIENCE: Duration = Duration::from_secs(30);

/// How long a Tenant may go unseen before it is said that nobody follows its namespace.
const UNSEEN: Duration = Duration::from_mins(1);

/// How long Tenants that are being deleted may take before an uninstall does not wait for them any longer.
const DRAIN_LIMIT: Duration = Duration::from_mins(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let draining = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [command] if command == "drain" => true,
        _ => {
            anyhow::bail!("usage: flagmeter-operator [drain]; everything else is set by the environment")
        }
    };
    let config = Config::read(Env::process())?;
    telemetry::start(&config.log);
    install_tls_provider();
    let stop = shutdown::on_signal().context("failed to listen for signals")?;

    let registry = admin::registry();
    let readiness = Readiness::of(&CONDITIONS);
    let metrics = Metrics::register(&registry)?;
    let access = kube::Config::infer().await.context("failed to find the API server")?;
    let client = calls::counted(access, &metrics.api_calls).context("failed to reach the API server")?;
    let scaling = scaler::Metrics::register(&registry)?;
    let scaler = match config.scaling {
        Some(settings) => {
            let queue = EventQueue::new(settings.valkey_url.expose())?;
            let (namespace, identity) = (config.pod_namespace.clone(), config.pod_name.clone());
            Some(Scaler::new(client.clone(), queue, scaling, Clock::system(), namespace, identity, settings))
        }
        None => None,
    };
    let context = Context::new(
        client,
        postgres::pool(config.database_url.expose(), "flagmeter-operator", CONNECTIONS)?,
        config.sealer,
        metrics,
        Clock::system(),
        Settings {
            namespace: config.pod_namespace,
            scopes: config.scopes,
            identity: config.pod_name,
            resync: config.resync,
            key_overlap: config.key_overlap,
            unseen: UNSEEN,
            allow_http: config.allow_private_webhooks,
            patience: POSTGRES_PATIENCE,
        },
    );
    if draining {
        return tokio::select! {
            drained = drain::drain(context, DRAIN_LIMIT) => drained.context("failed to let all Tenants go"),
            () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
        };
    }
    let operator = Operator { context, readiness: readiness.clone(), scaler };

    let admin = async {
        let served = admin::serve(config.admin_listen, registry, readiness, stop.clone()).await;
        served.context("failed to serve the admin port")
    };
    let work = async {
        let outcome = operator.run(stop.clone()).await.context("the operator failed");
        stop.cancel();
        outcome
    };
    tokio::try_join!(admin, work)?;
    Ok(())
}
