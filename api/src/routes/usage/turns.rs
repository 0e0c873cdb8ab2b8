//! Who may read past usage now. It is read from PostgreSQL, which counts meanwhile.

use std::sync::Arc;
use std::time::Duration;

use flagmeter_store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// Readings at once. Each takes a connection, and up to a core.
const AT_ONCE: usize = 2;

/// How long one more waits for its turn. With the time that it may then take, it ends before the request does.
const PATIENCE: Duration = Duration::from_secs(2);

/// Turns at reading past usage.
#[derive(Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Waits for a turn, which lasts until it is dropped.
    ///
    /// # Errors
    ///
    /// [`ApiError::TooManyReadings`].
    pub(super) async fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or(ApiError::TooManyReadings)
    }
}

/// What whoever asked is told of a reading that failed.
pub(super) fn failed(error: &StoreError) -> ApiError {
    tracing::error!(error = error as &dyn std::error::Error, "failed to read past usage");
    if error.took_too_long() { ApiError::ReadingTooLarge } else { ApiError::StoreUnavailable }
}
