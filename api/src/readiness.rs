//! Whether the api can answer: what `/readyz` says.
//!
//! An api that has read its tenants and was not told to stop can answer. Valkey or PostgreSQL may go away: usage is
//! answered from memory, and events with 503 and when to come again, which is more than a refused connection says. So
//! that is said in the body, and in `flagmeter_api_store_up`, and takes no api from its Service.
//!
//! A start is different. An api with a wrong URL or password must not take the place of one that works, so each waits
//! until it has reached Valkey once. If Valkey is away, that would keep usage from being read as well; then it waits
//! for [`GRACE`] only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flagmeter_runtime::admin::Readiness;
use flagmeter_store::StoreError;
use flagmeter_store::queue::Durability;
use tokio::time::Instant;

use crate::state::News;

/// That Valkey answers.
const QUEUE: &str = "queue";
/// That the tenants are known.
const TENANTS: &str = "tenants";
/// That the usage was asked for. An api that was not told takes events all the same.
const USAGE: &str = "usage";
/// That nobody told the api to stop.
pub(crate) const SERVING: &str = "serving";

/// How long an api that starts waits for a Valkey that is away.
const GRACE: Duration = Duration::from_secs(30);

/// Turns what an api hears into its readiness.
pub(crate) struct Watch {
    readiness: Readiness,
    start: Instant,
    /// Whether Valkey was reached, or waited for long enough.
    started: AtomicBool,
    /// Whether the tenants were read once: they stay known.
    tenants: AtomicBool,
}

impl Watch {
    /// Nothing was heard yet.
    pub(crate) fn new() -> Self {
        let readiness = Readiness::of(&[QUEUE, TENANTS, USAGE, SERVING]);
        let (started, tenants) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { readiness, start: Instant::now(), started, tenants }
    }

    /// What the admin port shows.
    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The API's port is open.
    pub(crate) fn serving(&self) {
        self.readiness.met(SERVING);
    }

    pub(crate) fn hear(&self, news: &News<'_>) {
        match news {
            News::Durability(outcome) => self.durability(outcome),
            News::Queue { answered } => self.queue(*answered),
            News::Tenants(outcome) => self.tenants(outcome.err()),
            News::Usage(outcome) => self.usage(outcome),
        }
    }

    fn durability(&self, outcome: &Result<Durability, StoreError>) {
        match outcome {
            Ok(durability) => {
                if *durability != Durability::Fsync {
                    tracing::warn!(
                        durability = durability.as_str(),
                        "a 202 does not mean that the event is on disk: set appendfsync always"
                    );
                }
                self.started.store(true, Ordering::Relaxed);
                self.readiness.met(QUEUE);
            }
            Err(error) => {
                tracing::warn!(error = error as &dyn std::error::Error, "{}", error.in_short());
                self.not_reached(error);
            }
        }
    }

    /// Valkey did not say how durable it is.
    fn not_reached(&self, error: &StoreError) {
        if self.started.load(Ordering::Relaxed) {
            return;
        }
        if error.is_queue_away() && self.start.elapsed() >= GRACE {
            self.started.store(true, Ordering::Relaxed);
            self.queue(false);
        } else {
            self.readiness.unmet(QUEUE, error.in_short());
        }
    }

    fn tenants(&self, error: Option<&StoreError>) {
        match error {
            None => {
                self.tenants.store(true, Ordering::Relaxed);
                self.readiness.met(TENANTS);
            }
            // Those that are known stay known; that they may be old is said of the usage.
            Some(_) if self.tenants.load(Ordering::Relaxed) => {}
            Some(error) => self.readiness.unmet(TENANTS, error.in_short()),
        }
    }

    fn queue(&self, answered: bool) {
        if !self.started.load(Ordering::Relaxed) {
            return;
        }
        if answered {
            self.readiness.met(QUEUE);
        } else {
            self.readiness
                .impaired(QUEUE, "Valkey does not answer: events are refused with 503 until it does");
        }
    }

    fn usage(&self, outcome: &Result<(), StoreError>) {
        match outcome {
            Ok(()) => self.readiness.met(USAGE),
            Err(error) if error.is_of_the_data() => {
                self.readiness
                    .impaired(USAGE, "it cannot be read, as the log says: it stays as it was read last");
            }
            Err(error) => {
                let why = format!("{}: usage stays as it was read last", error.in_short());
                self.readiness.impaired(USAGE, &why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flagmeter_store::queue::EventQueue;

    use super::*;

    /// One that has all but Valkey.
    fn watch() -> Watch {
        let watch = Watch::new();
        watch.serving();
        watch.hear(&News::Tenants(Ok(())));
        watch.hear(&News::Usage(&Ok(())));
        watch
    }

    /// Not an outage: waiting does not help.
    fn refusal() -> StoreError {
        EventQueue::new("no URL").err().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_starts_while_valkey_is_away_waits_for_it_but_not_for_long() {
        let watch = watch();
        let is_ready = || watch.readiness.is_ready();
        watch.not_reached(&StoreError::QueueSilent);
        watch.queue(false);
        assert!(!is_ready());
        tokio::time::advance(GRACE).await;
        watch.not_reached(&StoreError::QueueSilent);
        assert!(is_ready());
        // From here on it is as for one that had reached it.
        watch.not_reached(&refusal());
        assert!(is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_valkey_refuses_never_takes_the_place_of_one_that_it_does_not() {
        let watch = watch();
        tokio::time::advance(GRACE * 10).await;
        watch.not_reached(&refusal());
        watch.queue(false);
        assert!(!watch.readiness.is_ready());
    }

    #[test]
    fn an_api_that_has_reached_valkey_once_stays_ready_and_one_that_is_told_to_stop_does_not() {
        let watch = watch();
        let is_ready = || watch.readiness.is_ready();
        watch.hear(&News::Durability(&Ok(Durability::Fsync)));
        assert!(is_ready());
        watch.hear(&News::Queue { answered: false });
        watch.hear(&News::Usage(&Err(StoreError::Silent)));
        assert!(is_ready());
        watch.readiness().unmet(SERVING, "it was told to stop");
        assert!(!is_ready());
    }
}
