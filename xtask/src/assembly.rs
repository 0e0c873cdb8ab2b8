//! How the parts are put together, for `up` and for the tests of the whole system.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::binaries::{self, Executable};
use crate::environment::Environment;
use crate::progress::{Progress, Step};
use crate::release;
use crate::samples;
use crate::servers::Name;
use crate::system::System;

/// What events need: the queue and what is counted.
pub(crate) const STORES: [Name; 2] = [Name::Postgres, Name::Valkey];
/// What Tenants need: a Kubernetes API.
pub(crate) const CONTROL_PLANE: [Name; 3] = [Name::Etcd, Name::KubeApiserver, Name::KubeControllerManager];
/// How many steps [`release`] takes.
pub(crate) const RELEASE_STEPS: usize = 5;

/// Brings up the release on servers that run: its programs, the node that runs them, the chart, the sample
/// tenants and events. Writes env.json and env.sh.
pub(crate) fn release(
    system: &mut System,
    executables: &[Executable],
    progress: &Progress,
) -> Result<Environment> {
    binaries::install(executables, &system.state)?;
    during(progress.step("namespace and Secrets"), |_| {
        release::prepare(system).map(|()| release::NAMESPACE)
    })?;
    system.start_all(&[Name::ProcessNode], progress)?;
    let address = during(progress.step("chart (api, worker and operator, by helm)"), |step| {
        release::install(system, step)?;
        release::api_address(system)
    })?;
    let wanted = system.settings.ports.api;
    if !address.ends_with(&format!(":{wanted}")) {
        progress.say(&format!("port {wanted} was taken meanwhile: the API listens on {address}"));
    }
    let mut keys = BTreeMap::new();
    during(progress.step("tenants of examples/tenants.yaml"), |step| {
        keys = samples::apply_tenants(system, step)?;
        Ok(format!("{} are Ready", keys.len()))
    })?;
    let environment = Environment::of(system, &address, keys)?;
    during(progress.step("events of examples/events.jsonl"), |step| {
        let count = samples::send_events(system, &environment, step)?;
        Ok(if count == 0 { "sent by an earlier run".to_owned() } else { format!("{count} are counted") })
    })?;
    environment.write(system)?;
    Ok(environment)
}

/// Does the work of a step, and ends it with what came of it.
pub(crate) fn during<T: AsRef<str>>(step: Step<'_>, work: impl FnOnce(&Step<'_>) -> Result<T>) -> Result<T> {
    let result = work(&step)?;
    step.done(result.as_ref());
    Ok(result)
}
