//! What of a request's body nobody has read when the request is answered.
//!
//! A connection that is closed with bytes unread is reset, and a reset takes the answer from the client before it has
//! read it (RFC 9112, section 9.6). So a small rest is read and thrown away, and the connection serves the next request.
//! Of a larger one the answer says that the connection closes, so that no client sends another request over it; then
//! [`Stream`](super::stream::Stream) closes it in peace.
//!
//! A rest that is on its way is awaited before the answer is sent: proxies that pass a body on while it comes (Go's,
//! nginx's on demand) give their client's connection up, unsaid, when the answer comes before the body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};

use super::places::Place;

/// The largest rest that is read for the sake of the next request.
const SMALL_BYTES: u64 = 512 << 10;

/// How long an answer waits for it.
const BRIEF: Duration = Duration::from_millis(100);

/// How long it may take after the answer. Then the connection is closed.
const PATIENCE: Duration = Duration::from_secs(2);

/// The body of a request, of which it is known whether all was read.
pub(crate) struct Arriving {
    body: Incoming,
    /// Whether nothing more comes of it.
    ended: bool,
    /// Whether it broke, and with it the connection.
    broken: bool,
    place: Place,
    /// Since when the client is waited for, as a turn, if it ever was.
    awaited: Option<u64>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, place: Place) -> Self {
        Self { body, ended: false, broken: false, place, awaited: None }
    }

    /// Whether all of it was read, so that the next request may follow.
    pub(super) fn is_read(&self) -> bool {
        (self.ended || self.body.is_end_stream()) && !self.broken
    }

    /// Sees to it that `response` arrives although not all of the body was read. `waits` is whether the client sends
    /// the body only once it is asked to: after an answer it may leave that out, and nobody knows what comes next.
    pub(super) async fn leave(mut self, response: &mut Response, waits: bool, place: &Place) {
        if !waits && !self.broken && self.body.size_hint().lower() <= SMALL_BYTES {
            let _ = tokio::time::timeout(BRIEF, self.throw_away()).await;
            if self.is_read() {
                return;
            }
            if !self.broken && self.body.size_hint().upper().is_some_and(|rest| rest <= SMALL_BYTES) {
                // It ends with the connection, at the latest: what the task holds is one end of a channel.
                tokio::spawn(async move { tokio::time::timeout(PATIENCE, self.throw_away()).await });
                return;
            }
        }
        // It comes faster through wide buffers, if there are any left.
        place.widen();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }

    /// Reads on, but no more than the largest rest.
    async fn throw_away(&mut self) {
        let mut bytes = 0;
        while bytes <= SMALL_BYTES
            && let Some(Ok(frame)) = self.frame().await
        {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    }
}

/// Whether a client sends its body only once it is asked to (RFC 9110, section 10.1.1).
pub(super) fn waits(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let this = &mut *self;
        // Nothing was taken in yet: the connection may give its place to another while its client is waited for, and what
        // it sends now and then makes it no younger.
        if frame.is_pending() {
            let since = *this.awaited.get_or_insert_with(|| this.place.turn());
            this.place.awaits(since);
        } else if this.awaited.is_some() && !this.place.goes_on() {
            return Poll::Pending;
        }
        match &frame {
            Poll::Ready(None) => self.ended = true,
            Poll::Ready(Some(Err(_))) => self.broken = true,
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
