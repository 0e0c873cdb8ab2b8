//! The admin port: `/metrics`, `/livez` and `/readyz`, apart from what clients can reach.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio_util::sync::CancellationToken;

use crate::listen;

/// What must be so before the process should be sent work. Each condition starts out unmet.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Condition>>>);

/// How a condition is.
#[derive(Debug, Clone)]
enum Condition {
    Met,
    /// Something is missing, and the process is of use all the same.
    Impaired(String),
    Unmet(String),
}

impl Readiness {
    /// Ready when none of `conditions` is unmet.
    #[must_use]
    pub fn of(conditions: &[&'static str]) -> Self {
        let unmet = conditions.iter().map(|name| (*name, Condition::Unmet("not yet".to_owned())));
        Self(Arc::new(Mutex::new(unmet.collect())))
    }

    /// `condition` is met.
    pub fn met(&self, condition: &'static str) {
        self.lock().insert(condition, Condition::Met);
    }

    /// `condition` is not met, and why, but the process can do enough without it to be sent work. The reason is shown
    /// as that of [`Readiness::unmet`].
    pub fn impaired(&self, condition: &'static str, why: &str) {
        self.lock().insert(condition, Condition::Impaired(why.to_owned()));
    }

    /// `condition` is not met, and why. The reason is shown to anyone who can reach the admin port, so
    /// it names no address and no secret.
    pub fn unmet(&self, condition: &'static str, why: &str) {
        self.lock().insert(condition, Condition::Unmet(why.to_owned()));
    }

    /// Whether no condition is unmet.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.lock().values().any(|condition| matches!(condition, Condition::Unmet(_)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Condition>> {
        // A panic while it was held cannot leave a map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line for each condition, as `/readyz` answers: `[+]` is met, `[!]` impaired, `[-]` unmet.
    #[must_use]
    pub fn report(&self) -> String {
        let line = |(name, condition): (&&str, &Condition)| match condition {
            Condition::Met => format!("[+] {name}\n"),
            Condition::Impaired(why) => format!("[!] {name}: {why}\n"),
            Condition::Unmet(why) => format!("[-] {name}: {why}\n"),
        };
        self.lock().iter().map(line).collect()
    }
}

/// A registry that has the process's own metrics (CPU, memory, files, start) where the platform
/// gives them.
#[must_use]
pub fn registry() -> Registry {
    let registry = Registry::new();
    #[cfg(target_os = "linux")]
    if let Err(error) =
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
    {
        tracing::warn!(%error, "the process's own metrics are missing");
    }
    registry
}

/// Serves the admin port until `shutdown`.
///
/// # Errors
///
/// If the address, which is the value of `FLAGMETER_ADMIN_LISTEN`, cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = listen::on("FLAGMETER_ADMIN_LISTEN", address).await?;
    tracing::info!(address = %listener.local_addr()?, "admin port open");
    axum::serve(listener, router(registry, readiness))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

/// The admin port's routes.
fn router(registry: Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(metrics).with_state(registry))
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, readiness.report())
}

async fn metrics(State(registry): State<Registry>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "failed to write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_without_what_it_can_do_without_and_says_what_that_is() {
        let readiness = Readiness::of(&["queue", "tenants"]);
        readiness.met("tenants");
        assert!(!readiness.is_ready());
        readiness.impaired("queue", "it does not answer");
        assert!(readiness.is_ready());
        assert_eq!(readiness.report(), "[!] queue: it does not answer\n[+] tenants\n");
        readiness.unmet("tenants", "they are gone");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report(), "[!] queue: it does not answer\n[-] tenants: they are gone\n");
    }
}
