//! Probes: when one is due, and after how many answers it changes its mind.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::time::{Instant, sleep_until, timeout};

use crate::action::{Action, Target};

/// How many answers of one kind, one after the other, make a verdict.
#[derive(Debug)]
pub struct Tally {
    success_threshold: i32,
    failure_threshold: i32,
    last: Option<bool>,
    run: i32,
}

impl Tally {
    /// No answers yet.
    #[must_use]
    pub fn new(probe: &Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold.unwrap_or(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3),
            last: None,
            run: 0,
        }
    }

    /// Counts one answer. The verdict, if this answer and those before it make one.
    pub fn count(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        (self.run >= threshold).then_some(success)
    }
}

/// One probe of a running container.
pub struct Prober<'a> {
    probe: &'a Probe,
    target: Target<'a>,
    tally: Tally,
    due: Instant,
}

impl<'a> Prober<'a> {
    /// A probe of a container that was started at `started`.
    #[must_use]
    pub fn new(probe: &'a Probe, target: Target<'a>, started: Instant) -> Self {
        Self {
            probe,
            target,
            tally: Tally::new(probe),
            due: started + seconds(probe.initial_delay_seconds, 0),
        }
    }

    /// Probes until there is a verdict.
    ///
    /// # Errors
    ///
    /// If the verdict is that the container fails: the reason of the last failure.
    pub async fn verdict(&mut self) -> Result<(), String> {
        loop {
            sleep_until(self.due).await;
            let limit = seconds(self.probe.timeout_seconds, 1);
            let answer = timeout(limit, self.target.perform(Action::of_probe(self.probe))).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())));
            // Slow answers are not made up for: one late probe is one probe.
            self.due = (self.due + seconds(self.probe.period_seconds, 10)).max(Instant::now());
            if self.tally.count(answer.is_ok()).is_some() {
                return answer;
            }
        }
    }
}

fn seconds(setting: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(setting.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_as_many_equal_answers_in_a_row_as_the_threshold() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut tally = Tally::new(&probe);
        let answers = [
            // answer, verdict
            (true, None),
            (false, None),
            (true, None),
            (true, Some(true)),
            (true, Some(true)),
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(false)),
            (true, None),
            (true, Some(true)),
        ];
        for (number, (answer, verdict)) in answers.into_iter().enumerate() {
            assert_eq!(tally.count(answer), verdict, "answer {number}");
        }
    }
}
