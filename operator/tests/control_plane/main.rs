//! The definition and the operator on a real control plane: an API server, whose admin kubeconfig
//! `KUBECONFIG` names, and PostgreSQL. The operator runs with the rights of the chart's Role, and no
//! others.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should end there")]

mod admission;
mod budget;
mod cluster;
mod definition;
mod drain;
mod explained;
mod following;
mod keys;
mod leading;
mod lifecycle;
mod lint;
mod outage;
mod process;
mod proxy;
mod resilience;
mod rights;
mod running;
mod scaling;
mod upgrade;
