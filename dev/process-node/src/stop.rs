//! The order to stop: by when a pod's containers must have ended.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Gives the order.
#[derive(Debug)]
pub struct StopSender(watch::Sender<Option<Instant>>);

/// Hears the order.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Option<Instant>>);

/// An order that was not given yet.
#[must_use]
pub fn channel() -> (StopSender, Stop) {
    let (sender, receiver) = watch::channel(None);
    (StopSender(sender), Stop(receiver))
}

impl StopSender {
    /// Orders to end within `grace`. A second order can only bring the end forward.
    pub fn order(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.0.send_if_modified(|current| {
            let sooner = current.is_none_or(|current| deadline < current);
            if sooner {
                *current = Some(deadline);
            }
            sooner
        });
    }
}

impl Stop {
    /// Whether the order was given.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for the order.
    pub async fn ordered(&mut self) {
        // No sender means that nobody is left to wait for.
        let _ = self.0.wait_for(Option::is_some).await;
    }

    /// Waits until the time that the order leaves is over.
    pub async fn overdue(&mut self) {
        loop {
            self.ordered().await;
            let Some(deadline) = *self.0.borrow_and_update() else {
                return;
            };
            tokio::select! {
                () = sleep_until(deadline) => return,
                Ok(()) = self.0.changed() => {}
            }
        }
    }

    /// Waits for `pause`, or less if the order comes.
    pub async fn pause(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.ordered() => {}
        }
    }
}
