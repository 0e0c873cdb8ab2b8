//! Reads bodies, within a budget for all of them together.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::BoxError;
use axum::body::{Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::ApiError;

/// How long a body may take to arrive.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Up to this size a body takes no share of the budget: as many as there may be connections fit into 64 MiB.
const SMALL_BYTES: usize = 16 << 10;

/// What larger bodies may take together, in shares: 64 MiB.
const BUDGET_SHARES: usize = (64 << 20) / SHARE_BYTES;

/// A body takes its part of the budget as it arrives, so that what a client only says that it will send keeps nobody
/// out.
const SHARE_BYTES: usize = 64 << 10;

/// How fast a body must arrive that takes a part of the budget, in bytes a second. Whoever is slower for longer than
/// [`GRACE`] gives it back.
const PACE: usize = 16 << 10;
const GRACE: Duration = Duration::from_secs(2);

/// The budget.
#[derive(Debug)]
pub struct Bodies {
    shares: Arc<Semaphore>,
    max_bytes: usize,
}

/// A body, and its part of the budget, which it gives back with it.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    _part: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// A budget for bodies of at most so many bytes each.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { shares: Arc::new(Semaphore::new(BUDGET_SHARES)), max_bytes }
    }

    /// Reads a request's body. One that is too large by its own word is not read at all.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: too large, too slow, or too many large ones at once.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        body: impl HttpBody<Data = Bytes, Error: Into<BoxError>>,
    ) -> Result<Body, ApiError> {
        match announced(headers) {
            Some(bytes) if bytes > self.max_bytes => Err(ApiError::BodyTooLarge(self.max_bytes)),
            // The server reads no more than was announced.
            Some(bytes) if bytes <= SMALL_BYTES => small(body).await,
            // A client that does not say how much it sends may send as much as it may.
            // Boxed, so that reading a small one is as small.
            bytes => Box::pin(self.large(body, bytes.unwrap_or_default())).await,
        }
    }

    async fn large(&self, body: impl HttpBody<Data = Bytes>, announced: usize) -> Result<Body, ApiError> {
        let mut body = pin!(body);
        let mut bytes = Vec::with_capacity(announced);
        let mut part: Option<Part> = None;
        let end = Instant::now() + TIME_LIMIT;
        loop {
            let deadline = part.as_ref().map_or(end, |part| part.deadline(bytes.len()).min(end));
            let frame = tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_| too_slow())?;
            let Some(frame) = frame.transpose().map_err(|_| too_slow())? else { break };
            // Trailers say nothing of events.
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.max_bytes {
                return Err(ApiError::BodyTooLarge(self.max_bytes));
            }
            bytes.extend_from_slice(&data);
            if bytes.len() > SMALL_BYTES {
                part = Some(self.enough(part, bytes.len())?);
            }
        }
        Ok(Body { bytes: bytes.into(), _part: part.map(|part| part.shares) })
    }

    /// A part that is large enough for so many bytes. There is no waiting for more: all who have some might wait for
    /// each other.
    fn enough(&self, part: Option<Part>, bytes: usize) -> Result<Part, ApiError> {
        let take = |shares: usize| {
            let shares = u32::try_from(shares).map_err(|_| ApiError::Overloaded)?;
            Arc::clone(&self.shares).try_acquire_many_owned(shares).map_err(|_| ApiError::Overloaded)
        };
        let needed = bytes.div_ceil(SHARE_BYTES);
        let Some(mut part) = part else { return Ok(Part { since: Instant::now(), shares: take(needed)? }) };
        let missing = needed - part.shares.num_permits();
        if missing > 0 {
            part.shares.merge(take(missing)?);
        }
        Ok(part)
    }
}

/// Shares of the budget, and since when there are some.
struct Part {
    since: Instant,
    shares: OwnedSemaphorePermit,
}

impl Part {
    /// When it is given back if no more than these bytes came.
    fn deadline(&self, bytes: usize) -> Instant {
        let milliseconds = bytes * 1_000 / PACE;
        self.since + GRACE + Duration::from_millis(milliseconds as u64)
    }
}

async fn small(body: impl HttpBody<Data = Bytes, Error: Into<BoxError>>) -> Result<Body, ApiError> {
    let mut reading = pin!(Limited::new(body, SMALL_BYTES).collect());
    // It mostly comes together with its head: then no timer is needed.
    let read = match futures::poll!(&mut reading) {
        Poll::Ready(read) => Ok(read),
        Poll::Pending => tokio::time::timeout(TIME_LIMIT, reading).await,
    };
    let body = read.ok().and_then(Result::ok).ok_or_else(too_slow)?;
    Ok(Body { bytes: body.to_bytes(), _part: None })
}

/// It did not arrive in time, or at all: then the client hung up, and nobody reads this answer.
fn too_slow() -> ApiError {
    ApiError::RequestTimeout
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt as _;
    use futures::stream;

    use super::*;

    const MAX_BYTES: usize = 1 << 20;

    /// A body that sends so many bytes, and then nothing more.
    fn stalled(bytes: usize) -> axum::body::Body {
        let sent = stream::iter([Ok::<_, Infallible>(vec![b' '; bytes])]);
        axum::body::Body::from_stream(sent.chain(stream::pending()))
    }

    #[tokio::test]
    async fn what_a_client_only_says_that_it_sends_keeps_nobody_out() {
        let bodies = Bodies::new(MAX_BYTES);
        let mut large = HeaderMap::new();
        large.insert(CONTENT_LENGTH, MAX_BYTES.into());
        let unknown = HeaderMap::new();
        let mut reading: Vec<_> = (0..300)
            .map(|place| {
                let headers = if place % 2 == 0 { &large } else { &unknown };
                Box::pin(bodies.read(headers, stalled(SMALL_BYTES)))
            })
            .collect();
        for one in &mut reading {
            assert!(futures::poll!(one).is_pending());
        }
        let whole = axum::body::Body::from(vec![b' '; MAX_BYTES]);
        assert_eq!(bodies.read(&large, whole).await.unwrap().bytes.len(), MAX_BYTES);
    }

    #[tokio::test]
    async fn what_does_not_fit_into_the_budget_is_told_to_come_again() {
        let bodies = Bodies::new(MAX_BYTES);
        let headers = HeaderMap::new();
        let mut reading: Vec<_> =
            (0..64).map(|_| Box::pin(bodies.read(&headers, stalled(MAX_BYTES)))).collect();
        for one in &mut reading {
            assert!(futures::poll!(one).is_pending());
        }
        let refused = bodies.read(&headers, stalled(SMALL_BYTES + 1)).await;
        assert!(matches!(refused, Err(ApiError::Overloaded)));
        reading.pop();
        assert!(futures::poll!(pin!(bodies.read(&headers, stalled(SMALL_BYTES + 1)))).is_pending());
    }

    #[tokio::test]
    async fn a_body_that_takes_of_the_budget_and_stalls_gives_it_back() {
        let start = Instant::now();
        let read = Bodies::new(MAX_BYTES).read(&HeaderMap::new(), stalled(SMALL_BYTES + 1)).await;
        assert!(matches!(read, Err(ApiError::RequestTimeout)));
        assert!(start.elapsed() >= GRACE && start.elapsed() < TIME_LIMIT, "{:?}", start.elapsed());
    }
}
