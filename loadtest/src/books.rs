//! The check at the end of every run: all that was accepted is counted, and all sums agree.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::generator::Load;
use crate::stores::{Forget, Stores};

/// What a run should find in the tables.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Books {
    accepted: u64,
    uncertain: u64,
}

/// What it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Balance {
    /// Events answered 202.
    pub(crate) accepted: u64,
    /// Events whose request was cut off: counted or not.
    pub(crate) uncertain: u64,
    /// Events in the tables.
    pub(crate) counted: u64,
    /// Tokens in events, rollups, periods and features alike.
    pub(crate) tokens: i64,
}

/// A line of `flagmeter audit --json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    tenant: String,
    events: u64,
    event_tokens: i64,
    rollup_tokens: i64,
    period_tokens: i64,
    feature_tokens: i64,
    period_events: u64,
    dead_letters: u64,
}

impl Books {
    /// Notes what the api answered.
    pub(crate) fn note(&mut self, load: &Load) {
        self.accepted += load.events;
        self.uncertain += load.uncertain;
    }

    /// Notes events that were counted without an api.
    pub(crate) fn note_counted(&mut self, events: u64) {
        self.accepted += events;
    }

    /// Compares, then empties the tables for the next run. The queue must have been drained.
    ///
    /// # Errors
    ///
    /// The books do not balance: the run is a failure, however fast it was.
    pub(crate) async fn close(self, stores: &Stores) -> Result<Balance> {
        self.close_and(stores, Forget::All).await
    }

    /// The same, where not everything is forgotten.
    pub(crate) async fn close_and(self, stores: &Stores, forget: Forget) -> Result<Balance> {
        let audit = stores.audit().await?;
        let lines: Vec<Line> = serde_json::from_str(&audit).context("failed to read the audit")?;
        let balance = self.compare(&lines)?;
        stores.clear(forget).await?;
        Ok(balance)
    }

    fn compare(self, lines: &[Line]) -> Result<Balance> {
        for line in lines {
            let sums = [line.rollup_tokens, line.period_tokens, line.feature_tokens];
            if sums.iter().any(|sum| *sum != line.event_tokens) || line.events != line.period_events {
                bail!("the books of {} do not balance: {line:?}", line.tenant);
            }
            if line.dead_letters > 0 {
                bail!("{} events of {} could not be counted", line.dead_letters, line.tenant);
            }
        }
        let counted = lines.iter().map(|line| line.events).sum();
        let tokens = lines.iter().map(|line| line.event_tokens).sum();
        let Self { accepted, uncertain } = self;
        if !(accepted..=accepted + uncertain).contains(&counted) {
            bail!("{accepted} events were accepted, {uncertain} more may be, and {counted} are counted");
        }
        Ok(Balance { accepted, uncertain, counted, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(events: u64, rollup_tokens: i64) -> Line {
        let tenant = "acme".to_owned();
        Line {
            tenant,
            events,
            event_tokens: 70,
            rollup_tokens,
            period_tokens: 70,
            feature_tokens: 70,
            period_events: 7,
            dead_letters: 0,
        }
    }

    #[test]
    fn only_what_was_cut_off_may_be_counted_or_not() {
        let cases = [((7, 0), true), ((5, 2), true), ((5, 1), false), ((8, 0), false), ((8, 4), false)];
        for ((accepted, uncertain), good) in cases {
            let balance = Books { accepted, uncertain }.compare(&[line(7, 70)]);
            assert_eq!(balance.is_ok(), good, "{accepted} and {uncertain}: {balance:?}");
        }
    }

    #[test]
    fn sums_that_differ_are_a_failure() {
        let books = Books { accepted: 7, uncertain: 0 };
        assert!(books.compare(&[line(7, 71)]).is_err());
        assert!(Books { accepted: 6, uncertain: 0 }.compare(&[line(6, 70)]).is_err());
        assert!(books.compare(&[Line { dead_letters: 1, ..line(7, 70) }]).is_err());
    }
}
