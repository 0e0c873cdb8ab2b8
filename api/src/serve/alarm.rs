//! A connection's timer.
//!
//! hyper asks for a new one with each request, to limit the time of the next head. To set and remove a timer of tokio's
//! as often costs more than to read the head. So a connection has one alarm, which is set anew only once it went off:
//! whoever is woken too early goes on sleeping.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// The timer of one connection. Whoever sleeps by it must be polled by the task that last did.
#[derive(Clone)]
pub(super) struct Alarm(Arc<Mutex<State>>);

struct State {
    sleep: Pin<Box<time::Sleep>>,
    /// When the first nap ends at the latest; `None` once there was one.
    first: Option<time::Instant>,
}

impl Alarm {
    /// An alarm whose first nap ends after `first`, or earlier if it must.
    pub(super) fn new(first: Duration) -> Self {
        let sleep = Box::pin(time::sleep(first));
        Self(Arc::new(Mutex::new(State { first: Some(sleep.deadline()), sleep })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves an alarm that is set to some time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer for Alarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let (first, deadline) = (self.state().first.take(), deadline.into());
        Box::pin(Nap { deadline: first.map_or(deadline, |first| first.min(deadline)), alarm: self.clone() })
    }
}

/// Ends at its deadline.
struct Nap {
    deadline: time::Instant,
    alarm: Alarm,
}

impl Sleep for Nap {}

impl Future for Nap {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let alarm = &mut self.alarm.state().sleep;
        if alarm.deadline() > self.deadline {
            alarm.as_mut().reset(self.deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(context));
            if alarm.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(self.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_nap_ends_at_its_own_deadline_whatever_the_alarm_was_set_to() {
        let (start, alarm) = (time::Instant::now(), Alarm::new(10 * SECOND));
        // The first, which ends early; later than the alarm, earlier, and after it went off.
        for (seconds, awake) in [(15, 10), (15, 25), (3, 28), (40, 68)] {
            alarm.sleep_until((time::Instant::now() + seconds * SECOND).into_std()).await;
            let slept = start.elapsed();
            assert!((awake * SECOND..(awake + 1) * SECOND).contains(&slept), "{slept:?} and not {awake} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_nap_that_is_given_up_leaves_an_alarm_for_the_next_one() {
        let (start, alarm) = (time::Instant::now(), Alarm::new(SECOND));
        assert!(futures::poll!(alarm.sleep(SECOND)).is_pending());
        for _ in 0..100 {
            let mut nap = alarm.sleep_until((time::Instant::now() + 2 * SECOND).into_std());
            assert!(futures::poll!(&mut nap).is_pending());
            time::advance(SECOND / 10).await;
        }
        alarm.sleep_until((start + 12 * SECOND).into_std()).await;
        assert!((12 * SECOND..13 * SECOND).contains(&start.elapsed()));
    }
}
