//! A connection's timer.
//!
//! hyper asks for a new one with each request, to limit the time of the next head. To set and remove a timer of tokio's
//! as often costs more than to read the head. So a connection has one alarm, which is set anew only once it went off:
//! whoever is woken too early goes on sleeping.
//!
//! hyper has one limit for the time between two requests and for the time that a head takes. A connection may be idle
//! for long, and that is harmless; a head that takes long is an attack. So the alarm goes off earlier once a head has
//! begun.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// The timer of one connection. Whoever sleeps by it must be polled by the task that last did.
#[derive(Clone)]
pub(super) struct Alarm(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Whether something was read since the last nap began.
    came: AtomicBool,
    /// How long a nap lasts at most from then on.
    head: Duration,
}

struct State {
    sleep: Pin<Box<time::Sleep>>,
    /// When the first nap ends at the latest; `None` once there was one.
    first: Option<time::Instant>,
}

impl Alarm {
    /// An alarm whose first nap ends after `first`, or earlier if it must, and each at most `head` after something came.
    pub(super) fn new(first: Duration, head: Duration) -> Self {
        let sleep = Box::pin(time::sleep(first));
        let state = Mutex::new(State { first: Some(sleep.deadline()), sleep });
        Self(Arc::new(Shared { state, came: AtomicBool::new(false), head }))
    }

    /// Something was read: while somebody sleeps, the beginning of a head.
    pub(super) fn something_came(&self) {
        // One task reads and sleeps.
        self.0.came.store(true, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves an alarm that is set to some time.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer for Alarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let (first, deadline) = (self.state().first.take(), deadline.into());
        // What was read so far was the request before.
        self.0.came.store(false, Ordering::Relaxed);
        let deadline = first.map_or(deadline, |first| first.min(deadline));
        Box::pin(Nap { deadline, begun: false, alarm: self.clone() })
    }
}

/// Ends at its deadline.
struct Nap {
    deadline: time::Instant,
    /// Whether something came meanwhile.
    begun: bool,
    alarm: Alarm,
}

impl Sleep for Nap {}

impl Future for Nap {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.begun && this.alarm.0.came.load(Ordering::Relaxed) {
            this.begun = true;
            this.deadline = this.deadline.min(time::Instant::now() + this.alarm.0.head);
        }
        let alarm = &mut this.alarm.state().sleep;
        if alarm.deadline() > this.deadline {
            alarm.as_mut().reset(this.deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(context));
            if alarm.deadline() >= this.deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(this.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_nap_ends_at_its_own_deadline_whatever_the_alarm_was_set_to() {
        let (start, alarm) = (time::Instant::now(), Alarm::new(10 * SECOND, 60 * SECOND));
        // The first, which ends early; later than the alarm, earlier, and after it went off.
        for (seconds, awake) in [(15, 10), (15, 25), (3, 28), (40, 68)] {
            alarm.sleep_until((time::Instant::now() + seconds * SECOND).into_std()).await;
            let slept = start.elapsed();
            assert!((awake * SECOND..(awake + 1) * SECOND).contains(&slept), "{slept:?} and not {awake} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_nap_that_is_given_up_leaves_an_alarm_for_the_next_one() {
        let (start, alarm) = (time::Instant::now(), Alarm::new(SECOND, 60 * SECOND));
        assert!(futures::poll!(alarm.sleep(SECOND)).is_pending());
        for _ in 0..100 {
            let mut nap = alarm.sleep_until((time::Instant::now() + 2 * SECOND).into_std());
            assert!(futures::poll!(&mut nap).is_pending());
            time::advance(SECOND / 10).await;
        }
        alarm.sleep_until((start + 12 * SECOND).into_std()).await;
        assert!((12 * SECOND..13 * SECOND).contains(&start.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_nap_ends_earlier_once_something_came() {
        let (start, alarm) = (time::Instant::now(), Alarm::new(600 * SECOND, 60 * SECOND));
        let mut nap = alarm.sleep(600 * SECOND);
        time::advance(100 * SECOND).await;
        assert!(futures::poll!(&mut nap).is_pending());
        for _ in 0..5 {
            alarm.something_came();
            assert!(futures::poll!(&mut nap).is_pending());
            time::advance(10 * SECOND).await;
        }
        nap.await;
        assert!((160 * SECOND..161 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
        // The next one begins anew.
        alarm.sleep_until((time::Instant::now() + 600 * SECOND).into_std()).await;
        assert!((760 * SECOND..761 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
}
