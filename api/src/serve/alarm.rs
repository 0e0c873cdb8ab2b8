//! A connection's timer.
//!
//! hyper asks for a new one with each request, to limit the time of the next head. To set and remove a timer of tokio's
//! as often costs more than to read the head. So a connection has one alarm, which is set anew only once it went off:
//! whoever is woken too early goes on sleeping.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// The timer of one connection. Whoever sleeps by it must be polled by the task that last did.
#[derive(Clone)]
pub(super) struct Alarm(Arc<Mutex<Pin<Box<time::Sleep>>>>);

impl Alarm {
    /// An alarm that first goes off after `first`, or earlier if it must.
    pub(super) fn new(first: Duration) -> Self {
        Self(Arc::new(Mutex::new(Box::pin(time::sleep(first)))))
    }
}

impl Timer for Alarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Nap { deadline: deadline.into(), alarm: self.clone() })
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
        // A panic while it was held leaves an alarm that is set to some time.
        let mut alarm = self.alarm.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        // Later than the alarm, earlier, and after it went off.
        for (seconds, awake) in [(15, 15), (3, 18), (40, 58)] {
            alarm.sleep_until((time::Instant::now() + seconds * SECOND).into_std()).await;
            let slept = start.elapsed();
            assert!((awake * SECOND..(awake + 1) * SECOND).contains(&slept), "{slept:?} and not {awake} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_nap_that_is_given_up_leaves_an_alarm_for_the_next_one() {
        let (start, alarm) = (time::Instant::now(), Alarm::new(SECOND));
        for _ in 0..100 {
            let mut nap = alarm.sleep_until((time::Instant::now() + 2 * SECOND).into_std());
            assert!(futures::poll!(&mut nap).is_pending());
            time::advance(SECOND / 10).await;
        }
        alarm.sleep_until((start + 12 * SECOND).into_std()).await;
        assert!((12 * SECOND..13 * SECOND).contains(&start.elapsed()));
    }
}
