//! The places for connections: who has one, how many each peer has, and who goes when all are taken.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::peers::Peers;

/// Connections at once that have more to send than the other side takes. One more, and the first of them is closed:
/// each holds what was read ahead and what was not sent.
const STUCK: usize = 256;

/// Connections at once that may have wide buffers: those that large bodies and answers go through.
const WIDE: usize = 128;

/// Not the turn of any connection: it serves a request.
const SERVING: u64 = 0;

/// Not the turn of any connection: it is being closed.
const CLOSED: u64 = u64::MAX;

/// All places.
pub(super) struct Places {
    count: usize,
    free: Arc<Semaphore>,
    wide: Arc<Semaphore>,
    peers: Peers,
    taken: Mutex<Taken>,
    /// The order in which connections began to wait. No clock is needed to know who waits the longest.
    turns: AtomicU64,
    stuck: AtomicUsize,
}

#[derive(Default)]
struct Taken {
    last: u64,
    places: HashMap<u64, Arc<State>>,
    by_peer: HashMap<IpAddr, usize>,
}

/// What is known of a connection.
struct State {
    /// When it began to wait for a request, as a turn; or [`SERVING`], or [`CLOSED`].
    waits: AtomicU64,
    /// When it began to have more to send than the other side takes, as a turn; or 0.
    stuck: AtomicU64,
    /// Its right to wide buffers.
    wide: OnceLock<OwnedSemaphorePermit>,
    task: OnceLock<AbortHandle>,
}

/// A connection's place, until it is dropped. Clones are of the same.
#[derive(Clone)]
pub(super) struct Place(Arc<Inner>);

struct Inner {
    places: Arc<Places>,
    number: u64,
    peer: Option<IpAddr>,
    state: Arc<State>,
    _free: OwnedSemaphorePermit,
}

/// A peer's right to one connection more, until it is dropped.
pub(super) struct Admission {
    places: Arc<Places>,
    peer: Option<IpAddr>,
}

/// A request that is being served, until it is dropped.
pub(super) struct Serving(Place);

impl Places {
    pub(super) fn new(count: usize, peers: Peers) -> Arc<Self> {
        Arc::new(Self {
            count,
            free: Arc::new(Semaphore::new(count)),
            wide: Arc::new(Semaphore::new(WIDE)),
            peers,
            taken: Mutex::default(),
            // After those that stand for no turn.
            turns: AtomicU64::new(SERVING + 1),
            stuck: AtomicUsize::new(0),
        })
    }

    /// Lets a connection of `peer` in; `None` if it has as many as it may.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Admission> {
        let peer = self.peers.counted(peer);
        if let Some(peer) = peer {
            let mut taken = self.taken();
            let count = taken.by_peer.entry(peer).or_default();
            if *count >= self.peers.limit() {
                return None;
            }
            *count += 1;
        }
        Some(Admission { places: Arc::clone(self), peer })
    }

    /// A place, if one is free.
    pub(super) fn try_take(self: &Arc<Self>, admission: Admission) -> Result<Place, Admission> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(free) => Ok(self.occupy(admission, free)),
            Err(_) => Err(admission),
        }
    }

    /// The right to a place, once one is free.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// The place of a connection that was let in.
    pub(super) fn occupy(self: &Arc<Self>, mut admission: Admission, free: OwnedSemaphorePermit) -> Place {
        let state = Arc::new(State {
            waits: AtomicU64::new(self.turn()),
            stuck: AtomicU64::new(0),
            wide: OnceLock::new(),
            task: OnceLock::new(),
        });
        let mut taken = self.taken();
        taken.last += 1;
        let number = taken.last;
        taken.places.insert(number, Arc::clone(&state));
        let peer = admission.peer.take();
        Place(Arc::new(Inner { places: Arc::clone(self), number, peer, state, _free: free }))
    }

    /// Closes the connection that has waited for a request the longest; answers whether there was one.
    pub(super) fn close_longest_waiting(&self) -> bool {
        loop {
            let longest = {
                let taken = self.taken();
                let waiting = taken.places.values().filter_map(|state| {
                    let since = state.waits.load(Ordering::Relaxed);
                    (since != SERVING && since != CLOSED).then(|| (since, Arc::clone(state)))
                });
                waiting.min_by_key(|(since, _)| *since)
            };
            let Some((since, state)) = longest else { return false };
            // It may have got a request meanwhile: then another goes.
            if state.waits.compare_exchange(since, CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                state.close();
                return true;
            }
        }
    }

    /// Closes all connections, and waits until they are.
    pub(super) async fn clear(&self) {
        for state in self.taken().places.values() {
            state.close();
        }
        let all = u32::try_from(self.count).unwrap_or(u32::MAX);
        // Nothing closes the semaphore.
        let _ = self.free.acquire_many(all).await;
    }

    fn close_longest_stuck(&self) {
        let taken = self.taken();
        let stuck = taken.places.values().map(|state| (state.stuck.load(Ordering::Relaxed), state));
        if let Some((_, state)) = stuck.filter(|(since, _)| *since != 0).min_by_key(|(since, _)| *since) {
            state.close();
        }
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, peer: IpAddr) {
        if let Entry::Occupied(mut count) = self.taken().by_peer.entry(peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl State {
    fn close(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(peer) = self.peer {
            self.places.leave(peer);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.places.taken().places.remove(&self.number);
        if let Some(peer) = self.peer {
            self.places.leave(peer);
        }
        if self.state.stuck.load(Ordering::Relaxed) != 0 {
            self.places.stuck.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Place {
    /// The task that serves the connection: it is ended where the place is needed.
    pub(super) fn is_served_by(&self, task: AbortHandle) {
        let _ = self.0.state.task.set(task);
    }

    /// A request has arrived; `None` if the connection is being closed, and it must not be served any more.
    pub(super) fn serve(&self) -> Option<Serving> {
        self.goes_on().then(|| Serving(self.clone()))
    }

    /// A moment of those that tell who waits the longest.
    pub(super) fn turn(&self) -> u64 {
        self.0.places.turn()
    }

    /// The request that is being served waits for its client since `since`.
    pub(super) fn awaits(&self, since: u64) {
        // One that is being closed stays so.
        let waits = &self.0.state.waits;
        let _ = waits.compare_exchange(SERVING, since, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// It does no longer; answers whether it is served on: not if the connection is being closed.
    pub(super) fn goes_on(&self) -> bool {
        let waits = &self.0.state.waits;
        if waits.swap(SERVING, Ordering::AcqRel) == CLOSED {
            waits.store(CLOSED, Ordering::Release);
            return false;
        }
        true
    }

    /// Whether it may have wide buffers, from now on and until it ends.
    pub(super) fn is_wide(&self) -> bool {
        self.0.state.wide.get().is_some()
    }

    /// The same, if there is a right to them left.
    pub(super) fn widen(&self) -> bool {
        self.is_wide()
            || Arc::clone(&self.0.places.wide)
                .try_acquire_owned()
                .is_ok_and(|right| self.0.state.wide.set(right).is_ok())
    }

    /// Whether it has more to send than the other side takes.
    pub(super) fn is_stuck(&self, stuck: bool) {
        let (places, since) = (&self.0.places, &self.0.state.stuck);
        match (since.load(Ordering::Relaxed) != 0, stuck) {
            (false, true) => {
                since.store(places.turn(), Ordering::Relaxed);
                if places.stuck.fetch_add(1, Ordering::Relaxed) >= STUCK {
                    places.close_longest_stuck();
                }
            }
            (true, false) => {
                since.store(0, Ordering::Relaxed);
                places.stuck.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

impl Serving {
    pub(super) fn place(&self) -> &Place {
        &self.0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let Inner { places, state, .. } = &*self.0.0;
        state.waits.store(places.turn(), Ordering::Release);
    }
}
