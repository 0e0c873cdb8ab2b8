//! Whether what is watched can be watched, said once when that changes: in the log, in a metric, and where nothing can
//! be done meanwhile, in the readiness.

use std::time::Duration;

use flagmeter_runtime::telemetry::chain;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use prometheus::IntGauge;

use super::scope::Scope;

/// Why nothing can be watched for as long as a person does nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwatchable {
    /// The API server does not know the kind.
    #[error("the definition (CRD) tenants.flagmeter.dev is not installed")]
    NotDefined,
    /// It does not let this process look.
    #[error("the API server does not let the operator list and watch them")]
    Forbidden,
}

impl Unwatchable {
    fn of(error: &watcher::Error) -> Option<Self> {
        let code = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => status.code,
            _ => return None,
        };
        match code {
            404 => Some(Self::NotDefined),
            403 => Some(Self::Forbidden),
            _ => None,
        }
    }
}

/// The pauses of a watch that fails. They grow up to a minute, and are short again after two minutes without one.
///
/// kube's own are short again whenever the watch says something, and it says that it begins before each attempt: one
/// that cannot begin would be tried once a second for ever.
#[derive(Default)]
pub(super) struct Patient(DefaultBackoff);

impl Iterator for Patient {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl Backoff for Patient {
    fn reset(&mut self) {}
}

/// A watch of one scope.
pub(super) struct Watching {
    /// `Tenants` or `Secrets`.
    what: &'static str,
    scope: Scope,
    /// Scopes in which it fails.
    failing: IntGauge,
    state: Option<Fault>,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is tried again, and will work sooner or later.
    Passing,
    Lasting(Unwatchable),
}

impl Watching {
    pub(super) fn new(what: &'static str, scope: Scope, failing: IntGauge) -> Self {
        Self { what, scope, failing, state: None }
    }

    /// Notes what came of the watch. Answers whether something keeps it from working that only a person can change, if
    /// that is another answer than before.
    pub(super) fn note<K>(&mut self, event: &watcher::Result<Event<K>>) -> Option<Result<(), Unwatchable>> {
        let state = match (event, self.state) {
            // It begins, which says nothing of whether it can.
            (Ok(Event::Init), before) => before,
            (Ok(_), _) => None,
            (Err(error), before) => match (Unwatchable::of(error), before) {
                (Some(why), _) => Some(Fault::Lasting(why)),
                // Nothing was seen yet.
                (None, Some(before)) => Some(before),
                (None, None) => Some(Fault::Passing),
            },
        };
        if state == self.state {
            return None;
        }
        let (what, scope) = (self.what, &self.scope);
        match (event, state) {
            (Err(error), Some(Fault::Lasting(why))) => tracing::error!(
                error = chain(error),
                "the {what} of {scope} cannot be watched: {why}; nothing changes in PostgreSQL until they can"
            ),
            (Err(error), _) => {
                tracing::warn!(
                    error = chain(error),
                    "the watch of the {what} of {scope} failed, and is started again"
                );
            }
            (Ok(_), _) => tracing::info!("the {what} of {scope} are watched again"),
        }
        let lasting = |state: Option<Fault>| match state {
            Some(Fault::Lasting(why)) => Some(why),
            Some(Fault::Passing) | None => None,
        };
        match (self.state.is_some(), state.is_some()) {
            (false, true) => self.failing.inc(),
            (true, false) => self.failing.dec(),
            _ => {}
        }
        let (before, now) = (lasting(self.state), lasting(state));
        self.state = state;
        (before != now).then(|| now.map_or(Ok(()), Err))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if self.state.is_some() {
            self.failing.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use kube::core::Status;
    use kube::runtime::WatchStreamExt;
    use serde_json::json;

    use super::*;

    type Noted = watcher::Result<Event<()>>;

    fn failed(code: u16) -> Noted {
        let status = Status { code, ..Status::default() };
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn what_keeps_a_watch_from_working_is_said_once_and_so_is_its_end() {
        let failing = IntGauge::new("failing", "failing").unwrap();
        let mut watching = Watching::new("Tenants", Scope::Cluster, failing.clone());
        let works: Noted = Ok(Event::InitDone);
        assert_eq!(watching.note(&works), None);
        assert_eq!((watching.note(&failed(500)), failing.get()), (None, 1));
        assert_eq!(watching.note(&failed(404)), Some(Err(Unwatchable::NotDefined)));
        assert_eq!((watching.note(&failed(404)), failing.get()), (None, 1));
        assert_eq!(watching.note(&failed(403)), Some(Err(Unwatchable::Forbidden)));
        assert_eq!((watching.note(&failed(410)), failing.get()), (None, 1), "it was not seen to work yet");
        assert_eq!((watching.note(&Noted::Ok(Event::Init)), failing.get()), (None, 1), "it only begins");
        assert_eq!((watching.note(&works), failing.get()), (Some(Ok(())), 0));
        assert_eq!((watching.note(&failed(404)), failing.get()), (Some(Err(Unwatchable::NotDefined)), 1));
        drop(watching);
        assert_eq!(failing.get(), 0, "nothing is watched any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_cannot_begin_is_tried_less_and_less_often_and_said_once() {
        let (service, mut server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let absent = json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 });
        let play = async {
            while let Some((_, respond)) = server.next_request().await {
                let body = Body::from(serde_json::to_vec(&absent).unwrap());
                respond.send_response(Response::builder().status(404).body(body).unwrap());
            }
        };
        let failing = IntGauge::new("failing", "failing").unwrap();
        let mut watching = Watching::new("Tenants", Scope::Cluster, failing.clone());
        let tenants = Scope::Cluster.tenants(Client::new(service, "shop"));
        let (mut attempts, mut told) = (0, Vec::new());
        let watch = watcher::watcher(tenants, watcher::Config::default()).backoff(Patient::default());
        let follow = watch.for_each(|event| {
            attempts += i32::from(event.is_err());
            told.extend(watching.note(&event));
            assert_eq!(failing.get(), i64::from(attempts > 0), "after {attempts}");
            std::future::ready(())
        });
        let five_minutes = tokio::time::sleep(Duration::from_mins(5));
        tokio::select! {
            () = play => {}
            () = follow => {}
            () = five_minutes => {}
        }
        assert!((5..=15).contains(&attempts), "{attempts} attempts in five minutes");
        assert_eq!(told, [Err(Unwatchable::NotDefined)]);
    }
}
