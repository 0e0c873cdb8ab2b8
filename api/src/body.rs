//! Reads bodies, within the [budget](crate::budget) for all of them together.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter;
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use flagmeter_core::event::TenantName;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::budget::{Budget, Held};
use crate::error::ApiError;

/// How long a body may take to arrive.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Up to this size a body takes no part of the budget: as many as there may be connections fit into 16 MiB.
const SMALL_BYTES: usize = 4 << 10;

/// How fast a body must arrive that takes a part of the budget, in bytes a second. A client that is slower for longer than
/// [`GRACE`] gives it back. To have been faster before helps it up to [`CREDIT`].
const PACE: usize = 16 << 10;
const GRACE: Duration = Duration::from_secs(2);
const CREDIT: Duration = Duration::from_secs(3);

/// Reads bodies.
#[derive(Debug)]
pub struct Bodies {
    budget: Budget,
    max_bytes: usize,
}

/// A body, and its part of the budget, which it gives back with it.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    _part: Option<Held>,
}

impl Bodies {
    /// Reads bodies of at most so many bytes each.
    #[must_use]
    pub(crate) fn new(max_bytes: usize, budget: Budget) -> Self {
        Self { budget, max_bytes }
    }

    /// Reads the body of a request with the key of `tenant`, or with another. One that announces too many bytes is not
    /// read at all.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: too large, too slow, or too many large ones at once.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        tenant: Option<&TenantName>,
        body: impl HttpBody<Data = Bytes, Error: Into<BoxError>>,
    ) -> Result<Body, ApiError> {
        match announced(headers) {
            Some(bytes) if bytes > self.max_bytes => Err(ApiError::BodyTooLarge(self.max_bytes)),
            // The server reads no more than was announced.
            Some(bytes) if bytes <= SMALL_BYTES => small(body, bytes).await,
            // A client that does not say how much it sends may send as much as it may.
            // Boxed, so that reading a small one is as small.
            bytes => Box::pin(self.large(body, bytes.unwrap_or(self.max_bytes), tenant)).await,
        }
    }

    /// Reads a body of at most `most` bytes. Its part of the budget, and the memory, grow as it arrives, so that what a
    /// client only says that it will send keeps nobody out.
    async fn large(
        &self,
        body: impl HttpBody<Data = Bytes, Error: Into<BoxError>>,
        most: usize,
        tenant: Option<&TenantName>,
    ) -> Result<Body, ApiError> {
        let mut body = pin!(body);
        let mut bytes = Vec::new();
        let mut part: Option<Part> = None;
        let end = Instant::now() + TIME_LIMIT;
        loop {
            let deadline = part.as_ref().map_or(end, |part| part.deadline.min(end));
            let next =
                tokio::time::timeout_at(deadline, data(body.as_mut())).await.map_err(|_| too_slow())?;
            let Some(data) = next? else { break };
            let needed = bytes.len() + data.len();
            if needed > most {
                return Err(ApiError::BodyTooLarge(self.max_bytes));
            }
            if needed > bytes.capacity() {
                let capacity = needed.max(bytes.capacity() * 2).min(most);
                part = Some(self.enough(part, capacity, tenant)?);
                bytes.reserve_exact(capacity - bytes.len());
            }
            bytes.extend_from_slice(&data);
            if let Some(part) = &mut part {
                part.came(data.len());
            }
        }
        Ok(Body { bytes: bytes.into(), _part: part.map(|part| part.held) })
    }

    /// A part that is large enough for so many bytes.
    fn enough(
        &self,
        part: Option<Part>,
        bytes: usize,
        tenant: Option<&TenantName>,
    ) -> Result<Part, ApiError> {
        let Some(mut part) = part else {
            let held = self.budget.take(bytes, tenant).ok_or(ApiError::Overloaded)?;
            return Ok(Part { deadline: Instant::now() + GRACE, held });
        };
        if part.held.grow(bytes, &self.budget) { Ok(part) } else { Err(ApiError::Overloaded) }
    }
}

/// A part of the budget, and when it is given back if nothing more comes.
struct Part {
    deadline: Instant,
    held: Held,
}

impl Part {
    /// So many bytes came.
    fn came(&mut self, bytes: usize) {
        let more = Duration::from_millis((bytes * 1_000 / PACE) as u64);
        self.deadline = (self.deadline + more).min(Instant::now() + GRACE + CREDIT);
    }
}

/// Reads a body of so many bytes.
async fn small(
    body: impl HttpBody<Data = Bytes, Error: Into<BoxError>>,
    announced: usize,
) -> Result<Body, ApiError> {
    let mut body = pin!(body);
    // It mostly comes together with its head: then it needs no timer, and no memory but the connection's.
    let first = match futures::poll!(pin!(data(body.as_mut()))) {
        std::task::Poll::Ready(first) => first?.unwrap_or_default(),
        std::task::Poll::Pending => Bytes::new(),
    };
    if first.len() == announced {
        return Ok(Body { bytes: first, _part: None });
    }
    // What is read holds all of the connection's buffer that it was read into, so that a body which comes byte by byte
    // would hold thousands of them.
    let mut bytes = Vec::with_capacity(announced);
    bytes.extend_from_slice(&first);
    drop(first);
    let rest = async {
        while let Some(data) = data(body.as_mut()).await? {
            if bytes.len() + data.len() > announced {
                return Err(ApiError::BodyTooLarge(announced));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    tokio::time::timeout(TIME_LIMIT, rest).await.map_err(|_| too_slow())??;
    Ok(Body { bytes: bytes.into(), _part: None })
}

/// The next bytes of a body; `None` at its end.
async fn data(
    mut body: Pin<&mut impl HttpBody<Data = Bytes, Error: Into<BoxError>>>,
) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        // Trailers say nothing of events.
        let frame = frame.map_err(|error| unread(&*Into::<BoxError>::into(error)))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Why a body could not be read: it is broken, or it did not arrive.
fn unread(error: &(dyn Error + 'static)) -> ApiError {
    let is_broken = |error: &(dyn Error + 'static)| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof))
    };
    let mut causes = iter::successors(Some(error), |error| (*error).source());
    if causes.any(is_broken) { ApiError::BrokenBody } else { too_slow() }
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
    use crate::budget::BUDGET_BYTES;

    const MAX_BYTES: usize = 1 << 20;

    /// A body that sends so many bytes, and then nothing more.
    fn stalled(bytes: usize) -> axum::body::Body {
        let sent = stream::iter([Ok::<_, Infallible>(vec![b' '; bytes])]);
        axum::body::Body::from_stream(sent.chain(stream::pending()))
    }

    #[tokio::test]
    async fn what_a_client_only_says_that_it_sends_keeps_nobody_out() {
        let bodies = Bodies::new(MAX_BYTES, Budget::default());
        let mut large = HeaderMap::new();
        large.insert(CONTENT_LENGTH, MAX_BYTES.into());
        let unknown = HeaderMap::new();
        let mut reading: Vec<_> = (0..300)
            .map(|place| {
                let headers = if place % 2 == 0 { &large } else { &unknown };
                Box::pin(bodies.read(headers, None, stalled(SMALL_BYTES)))
            })
            .collect();
        for one in &mut reading {
            assert!(futures::poll!(one).is_pending());
        }
        let whole = axum::body::Body::from(vec![b' '; MAX_BYTES]);
        assert_eq!(bodies.read(&large, None, whole).await.unwrap().bytes.len(), MAX_BYTES);
    }

    #[tokio::test]
    async fn what_does_not_fit_into_the_budget_is_told_to_come_again() {
        let bodies = Bodies::new(MAX_BYTES, Budget::default());
        let headers = HeaderMap::new();
        let mut reading: Vec<_> = (0..BUDGET_BYTES / MAX_BYTES)
            .map(|_| Box::pin(bodies.read(&headers, None, stalled(MAX_BYTES))))
            .collect();
        for one in &mut reading {
            assert!(futures::poll!(one).is_pending());
        }
        let refused = bodies.read(&headers, None, stalled(SMALL_BYTES + 1)).await;
        assert!(matches!(refused, Err(ApiError::Overloaded)));
        reading.pop();
        assert!(futures::poll!(pin!(bodies.read(&headers, None, stalled(SMALL_BYTES + 1)))).is_pending());
    }

    #[tokio::test]
    async fn a_body_that_takes_of_the_budget_and_stalls_gives_it_back() {
        let start = Instant::now();
        let read = Bodies::new(MAX_BYTES, Budget::default())
            .read(&HeaderMap::new(), None, stalled(SMALL_BYTES + 1))
            .await;
        assert!(matches!(read, Err(ApiError::RequestTimeout)));
        assert!(start.elapsed() >= GRACE && start.elapsed() < TIME_LIMIT, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_gives_its_part_back_soon_however_fast_it_came_before() {
        let start = Instant::now();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, MAX_BYTES.into());
        let read =
            Bodies::new(MAX_BYTES, Budget::default()).read(&headers, None, stalled(MAX_BYTES - 10)).await;
        assert!(matches!(read, Err(ApiError::RequestTimeout)));
        assert!(start.elapsed() <= GRACE + CREDIT, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_slowly_and_steadily_is_read() {
        let pieces = stream::iter(0..5).then(|_| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, Infallible>(vec![b' '; 2 * PACE])
        });
        let body = axum::body::Body::from_stream(Box::pin(pieces));
        let read = Bodies::new(MAX_BYTES, Budget::default()).read(&HeaderMap::new(), None, body).await;
        assert_eq!(read.unwrap().bytes.len(), 10 * PACE);
    }

    #[tokio::test]
    async fn a_small_body_that_comes_in_pieces_is_whole_and_holds_none_of_them() {
        let buffer = Bytes::from(vec![b'x'; 8 << 10]);
        let pieces: Vec<_> = (0..100).map(|place| Ok::<_, Infallible>(buffer.slice(place..=place))).collect();
        let later = stream::iter([Ok(Bytes::new())]).chain(stream::iter(pieces));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, 100.into());
        let bodies = Bodies::new(MAX_BYTES, Budget::default());
        let body = bodies.read(&headers, None, axum::body::Body::from_stream(later)).await.unwrap();
        assert_eq!(body.bytes, vec![b'x'; 100]);
        assert!(buffer.is_unique(), "what was read is held");
    }
}
