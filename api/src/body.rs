//! Reads bodies, within a budget for all of them together.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::LengthLimitError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;
use crate::service::REQUEST_TIMEOUT;

/// The largest body, in bytes: 1 MiB.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;

/// A body up to this size takes no share of the budget: as many as there may be connections fit into 64 MiB.
const SMALL_BYTES: usize = 16 << 10;

/// What larger bodies may take together, in KiB: 64 MiB.
const BUDGET_KIB: usize = 64 << 10;

/// How long a large body waits for its share.
const PATIENCE: Duration = Duration::from_secs(5);

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_KIB)))
    }
}

/// A body, and its share of the budget, which it gives back with it.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Reads a request's body. One that is too large by its own word is not read at all.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: too large, or too many large ones at once.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: axum::body::Body) -> Result<Body, ApiError> {
        // A client that does not say how much it sends may send as much as it may.
        let announced = announced(headers).unwrap_or(MAX_BODY_BYTES);
        if announced > MAX_BODY_BYTES {
            return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
        }
        let share = if announced > SMALL_BYTES { Some(self.share(announced).await?) } else { None };
        let too_slow = || ApiError::RequestTimeout(REQUEST_TIMEOUT.as_secs());
        let mut reading = pin!(axum::body::to_bytes(body, MAX_BODY_BYTES));
        // A small body mostly comes together with its head: then no timer is needed.
        let read = match futures::poll!(&mut reading) {
            Poll::Ready(read) => read,
            Poll::Pending => tokio::time::timeout(REQUEST_TIMEOUT, reading).await.map_err(|_| too_slow())?,
        };
        let bytes = read.map_err(|error| {
            if error.into_inner().is::<LengthLimitError>() {
                return ApiError::BodyTooLarge(MAX_BODY_BYTES);
            }
            // The client hung up; nobody reads this answer.
            too_slow()
        })?;
        Ok(Body { bytes, _share: share })
    }

    async fn share(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).map_err(|_| ApiError::Overloaded)?;
        let share = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_many_owned(kib)).await;
        share.ok().and_then(Result::ok).ok_or(ApiError::Overloaded)
    }
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
