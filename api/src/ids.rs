//! Since when clients' ids are known: an older UUIDv7 is refused, since its repeat could not be told from it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use flagmeter_core::event::Arrival;
use flagmeter_store::StoreError;
use flagmeter_store::queue::EventQueue;
use jiff::Timestamp;

/// How often the queue is asked. Workers forget nothing for a minute after they have said so there.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// The wait after the queue did not answer.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// What workers said last. Clones share it.
#[derive(Clone, Default)]
pub struct KnownIds(Arc<ArcSwapOption<Option<Timestamp>>>);

impl KnownIds {
    /// What a request that arrives at `now` may bring; `None` until the queue has answered for the first time.
    #[must_use]
    pub fn arrival(&self, now: Timestamp) -> Option<Arrival> {
        self.0.load().as_ref().map(|since| Arrival::at(now, **since))
    }

    /// Asks the queue.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; what was known stays.
    pub async fn ask(&self, queue: &EventQueue) -> Result<(), StoreError> {
        let since = queue.ids_since().await?;
        self.0.store(Some(Arc::new(since)));
        Ok(())
    }

    /// Keeps itself true for as long as it is polled.
    pub async fn follow(&self, queue: &EventQueue) {
        loop {
            // A queue that does not answer takes no events either.
            let wait = if self.ask(queue).await.is_ok() { ASK_EVERY } else { AFTER_FAILURE };
            tokio::time::sleep(wait).await;
        }
    }
}
