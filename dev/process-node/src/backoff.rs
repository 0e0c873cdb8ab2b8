//! The pause before a container starts again.

use std::time::Duration;

/// A kubelet waits 10 s, 20 s and so on up to five minutes, which protects a machine that many share.
/// Here somebody sits in front of it and has just fixed the cause, so the pauses are short.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Whoever ran this long has not failed at its start; the next failure is a new one.
const WELL: Duration = Duration::from_mins(1);

/// Doubling pauses, which begin anew after a good run.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// How long to wait after a run that took `ran`.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= WELL {
            self.0 = FIRST;
        }
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_begin_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        let mut after = |seconds| backoff.after(Duration::from_secs(seconds)).as_secs();
        assert_eq!([0, 5, 0, 59, 0, 0, 0].map(&mut after), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!([60, 0].map(&mut after), [1, 2]);
    }
}
