//! The memory that all requests share: for bodies while they arrive, and for answers until they are sent.
//!
//! What is small is free, because every connection may have it: docs/architecture.md, "What is bounded", adds it all up.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use flagmeter_core::event::TenantName;
use foldhash::HashMap;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// What larger bodies and answers may take together.
pub(crate) const BUDGET_BYTES: usize = 48 << 20;

/// It is given out in parts of this size.
const SHARE_BYTES: usize = 4 << 10;

/// Up to this size an answer is free: it fits into the buffer that its connection has anyway.
pub(crate) const SMALL_ANSWER_BYTES: usize = 8 << 10;

/// A larger answer is sent in pieces of this size, so that its connection's buffer does not grow by all of it.
const PIECE_BYTES: usize = 4 << 10;

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    shares: Arc<Semaphore>,
    tenants: Tenants,
}

/// The shares of each tenant that has some.
type Tenants = Arc<Mutex<HashMap<TenantName, usize>>>;

/// A part of the budget, which is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    shares: OwnedSemaphorePermit,
    of_tenant: Option<OfTenant>,
}

/// So many shares of a tenant, until this is dropped.
#[derive(Debug)]
struct OfTenant {
    tenants: Tenants,
    tenant: TenantName,
    shares: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { shares: Arc::new(Semaphore::new(BUDGET_BYTES / SHARE_BYTES)), tenants: Tenants::default() }
    }
}

impl OfTenant {
    /// So many shares more for `tenant`, of which there are `free` beside them; `None` if it would then have more than is
    /// free. So each tenant leaves others as much as it has itself, however many there are.
    fn take(tenant: &TenantName, shares: usize, free: usize, tenants: &Tenants) -> Option<Self> {
        let mut all = locked(tenants);
        let has = all.get(tenant).copied().unwrap_or_default();
        let sum = has.checked_add(shares).filter(|sum| *sum <= free)?;
        all.insert(tenant.clone(), sum);
        Some(Self { tenants: Arc::clone(tenants), tenant: tenant.clone(), shares })
    }
}

impl Drop for OfTenant {
    fn drop(&mut self) {
        let mut all = locked(&self.tenants);
        let left = all.get(&self.tenant).copied().unwrap_or_default().saturating_sub(self.shares);
        if left == 0 {
            all.remove(&self.tenant);
        } else {
            all.insert(self.tenant.clone(), left);
        }
    }
}

fn locked(tenants: &Tenants) -> MutexGuard<'_, HashMap<TenantName, usize>> {
    // Nothing panics while it is held.
    tenants.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    /// A part for so many bytes of `tenant`, or of somebody who has no tenant; `None` if there is not as much left, for
    /// all or for the tenant. There is no waiting for more: all who have some might wait for each other.
    pub(crate) fn take(&self, bytes: usize, tenant: Option<&TenantName>) -> Option<Held> {
        let count = bytes.div_ceil(SHARE_BYTES);
        let shares = Arc::clone(&self.shares).try_acquire_many_owned(u32::try_from(count).ok()?).ok()?;
        let of_tenant = match tenant {
            Some(tenant) => {
                Some(OfTenant::take(tenant, count, self.shares.available_permits(), &self.tenants)?)
            }
            None => None,
        };
        Some(Held { shares, of_tenant })
    }

    /// `response` to `tenant`, with a part of the budget until its body is sent if that is large. If none is left, it
    /// is refused, unless it says that events were taken in: a client that gets a refusal sends them again.
    pub(crate) fn charge(&self, response: Response, tenant: Option<&TenantName>) -> Response {
        let length = response.body().size_hint().exact();
        if length.is_some_and(|length| length <= SMALL_ANSWER_BYTES as u64) {
            return response;
        }
        let whole =
            length.map(|length| usize::try_from(length).ok().and_then(|bytes| self.take(bytes, tenant)));
        let held = match whole {
            Some(None) if response.status() != StatusCode::ACCEPTED => {
                return ApiError::TooManyAnswers.into_response();
            }
            Some(held) => held,
            None => None,
        };
        let is_whole = length.is_some();
        let budget = self.clone();
        response.map(|inner| Body::new(Pieces { inner, rest: Bytes::new(), held, is_whole, budget }))
    }
}

impl Held {
    /// Makes it a part for so many bytes; answers whether as much was left.
    pub(crate) fn grow(&mut self, bytes: usize, budget: &Budget) -> bool {
        let has = self.shares.num_permits() * SHARE_BYTES;
        let Some(more) = bytes.checked_sub(has).filter(|more| *more > 0) else { return true };
        let tenant = self.of_tenant.as_ref().map(|own| &own.tenant);
        let Some(mut more) = budget.take(more, tenant) else { return false };
        self.shares.merge(more.shares);
        if let (Some(own), Some(more)) = (&mut self.of_tenant, &mut more.of_tenant) {
            own.shares += std::mem::take(&mut more.shares);
        }
        true
    }
}

/// The body of a large answer, in pieces.
struct Pieces {
    inner: Body,
    /// What was not sent of the frame that was last made.
    rest: Bytes,
    held: Option<Held>,
    /// Whether `held` is for all of the body, if it is anything, and not only for a frame.
    is_whole: bool,
    budget: Budget,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            if !this.is_whole {
                this.held = None;
            }
            let Some(frame) = ready!(Pin::new(&mut this.inner).poll_frame(context)) else {
                return Poll::Ready(None);
            };
            match frame?.into_data() {
                Ok(data) => this.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
            if !this.is_whole && this.rest.len() > PIECE_BYTES {
                this.held = this.budget.take(this.rest.len(), None);
                if this.held.is_none() {
                    // A stream that has no end ends here; a page that is kept live connects again.
                    this.rest.clear();
                    return Poll::Ready(None);
                }
            }
        }
        let length = this.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest + inner.lower());
        if let Some(upper) = inner.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    fn free(budget: &Budget) -> usize {
        budget.shares.available_permits() * SHARE_BYTES
    }

    #[tokio::test]
    async fn a_large_answer_holds_its_memory_until_it_is_sent_and_comes_in_small_pieces() {
        let budget = Budget::default();
        let large = vec![b'x'; 100_000];
        let mut response = budget.charge(large.clone().into_response(), None);
        assert_eq!(free(&budget), BUDGET_BYTES - 100_000_usize.next_multiple_of(SHARE_BYTES));
        assert_eq!(response.body().size_hint().exact(), Some(100_000));
        let mut sent = Vec::new();
        while let Some(frame) = response.body_mut().frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PIECE_BYTES, "{}", data.len());
            sent.extend_from_slice(&data);
        }
        assert_eq!(sent, large);
        drop(response);
        assert_eq!(free(&budget), BUDGET_BYTES);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_into_the_budget_is_told_to_come_again_and_a_small_one_is_sent() {
        let budget = Budget::default();
        let _all = budget.take(BUDGET_BYTES, None).unwrap();
        let refused = budget.charge(vec![b'x'; SMALL_ANSWER_BYTES + 1].into_response(), None);
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        let small = budget.charge(vec![b'x'; SMALL_ANSWER_BYTES].into_response(), None);
        assert_eq!(small.into_body().collect().await.unwrap().to_bytes().len(), SMALL_ANSWER_BYTES);
    }

    #[tokio::test]
    async fn a_stream_holds_memory_for_the_message_that_is_being_sent_and_ends_where_there_is_none() {
        let budget = Budget::default();
        let messages =
            stream::iter([1, 100_000, 1, 100_000].map(|length| Ok::<_, axum::Error>(vec![b'x'; length])));
        let mut body = budget.charge(Body::from_stream(messages).into_response(), None).into_body();
        let mut next = async || body.frame().await.map(|frame| frame.unwrap().into_data().unwrap().len());
        assert_eq!(next().await, Some(1));
        assert_eq!(free(&budget), BUDGET_BYTES);
        assert_eq!(next().await, Some(PIECE_BYTES));
        assert!(free(&budget) < BUDGET_BYTES);
        while next().await != Some(1) {}
        assert_eq!(free(&budget), BUDGET_BYTES);
        let _all = budget.take(BUDGET_BYTES, None).unwrap();
        assert_eq!(next().await, None);
    }

    #[tokio::test]
    async fn whoever_sent_events_hears_that_they_were_taken_in_however_little_is_left() {
        let budget = Budget::default();
        let _all = budget.take(BUDGET_BYTES, None).unwrap();
        let large = vec![b'x'; 100_000];
        let accepted = budget.charge((StatusCode::ACCEPTED, large.clone()).into_response(), None);
        assert_eq!(accepted.status(), StatusCode::ACCEPTED);
        assert_eq!(accepted.into_body().collect().await.unwrap().to_bytes(), large);
    }

    #[test]
    fn tenants_with_all_that_they_may_have_leave_some_to_one_more() {
        let budget = Budget::default();
        let large = 1 << 20;
        let mut held = Vec::new();
        for number in 0..5 {
            let tenant = TenantName::try_from(format!("t{number}").as_str()).unwrap();
            while let Some(part) = budget.take(large, Some(&tenant)) {
                held.push(part);
            }
            assert!(free(&budget) > 0);
        }
        let other = TenantName::try_from("other").unwrap();
        assert!(budget.take(5 << 10, Some(&other)).is_some());
    }

    #[test]
    fn one_tenant_leaves_half_of_the_budget_to_others() {
        let budget = Budget::default();
        let [acme, globex] = ["acme", "globex"].map(|name| TenantName::try_from(name).unwrap());
        let mut first = budget.take(1, Some(&acme)).unwrap();
        assert!(first.grow(BUDGET_BYTES / 2, &budget) && !first.grow(BUDGET_BYTES / 2 + 1, &budget));
        assert!(budget.take(1, Some(&acme)).is_none());
        let other = budget.take(BUDGET_BYTES / 4, Some(&globex)).unwrap();
        drop((first, other));
        assert!(budget.take(BUDGET_BYTES / 2, Some(&acme)).is_some());
        assert_eq!(free(&budget), BUDGET_BYTES);
    }

    #[test]
    fn a_part_grows_as_far_as_there_is_room() {
        let budget = Budget::default();
        let mut part = budget.take(1, None).unwrap();
        assert!(part.grow(BUDGET_BYTES / 2, &budget) && part.grow(10, &budget));
        assert_eq!(free(&budget), BUDGET_BYTES / 2);
        let other = budget.take(BUDGET_BYTES / 2, None).unwrap();
        assert!(!part.grow(BUDGET_BYTES / 2 + 1, &budget));
        drop((part, other));
        assert_eq!(free(&budget), BUDGET_BYTES);
    }
}
