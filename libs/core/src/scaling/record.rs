//! Samples and decisions as they are kept, and what another policy would have decided.

use serde::{Deserialize, Serialize};

use super::decision::Decision;
use super::history::History;
use super::limits::Limits;
use super::sample::Sample;

/// A sample and what was decided. Its JSON is a line of some 500 bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What was seen.
    pub sample: Sample,
    /// What was decided.
    pub decision: Decision,
}

/// Records in the order of time, and the policy that decided. As text it is JSON lines: the policy as
/// `{"limits":{…}}`, then the records.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The policy.
    pub limits: Limits,
    /// The oldest first.
    pub records: Vec<Record>,
}

/// A line that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON, or not that of a record.
    #[error("line {line} is no record of `flagmeter explain-scale --record`: {fault}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        fault: serde_json::Error,
    },
    /// The first line is no policy.
    #[error("the first line must be the policy that `flagmeter explain-scale --record` writes")]
    NoPolicy,
    /// There are too many records.
    #[error("a recording has at most {} records", Recording::MOST)]
    TooMany,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Policy {
    limits: Limits,
}

impl Recording {
    /// Records of a recording at most: more than two days of a sample each 5 seconds.
    pub const MOST: usize = 40_000;

    /// The recording that `text` is.
    ///
    /// # Errors
    ///
    /// [`Unreadable`]: the first line that is not as it should be.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (_, first) = lines.next().ok_or(Unreadable::NoPolicy)?;
        let Policy { limits } = serde_json::from_str(first).map_err(|_| Unreadable::NoPolicy)?;
        let mut records = Vec::new();
        for (index, line) in lines {
            if records.len() >= Self::MOST {
                return Err(Unreadable::TooMany);
            }
            let record =
                serde_json::from_str(line).map_err(|fault| Unreadable::Line { line: index + 1, fault })?;
            records.push(record);
        }
        Ok(Self { limits, records })
    }

    /// The text of it.
    ///
    /// # Errors
    ///
    /// If a number in it is none, which no sample has that was read.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(&Policy { limits: self.limits })? + "\n";
        for record in &self.records {
            text += &serde_json::to_string(record)?;
            text.push('\n');
        }
        Ok(text)
    }

    /// What `limits` would have decided on the same samples.
    ///
    /// The load, the backlog and the workers' speed are as recorded; the number of workers is what the
    /// replayed policy would have made of it. So it answers "what would it have asked for", not "how would
    /// the queue have fared".
    #[must_use]
    pub fn replay(&self, limits: &Limits) -> Self {
        let mut history = History::default();
        let mut replicas = None;
        let records = self.records.iter().map(|recorded| {
            let mut sample = recorded.sample.clone();
            let fleet = &mut sample.fleet;
            let all_ready = fleet.ready >= fleet.replicas;
            fleet.replicas = replicas.unwrap_or(fleet.replicas);
            fleet.ready = if all_ready { fleet.replicas } else { fleet.ready.min(fleet.replicas) };
            let decision = super::decide(&history, &sample, limits);
            history.record(&sample, &decision, limits);
            replicas = Some(decision.replicas);
            Record { sample, decision }
        });
        Self { limits: *limits, records: records.collect() }
    }
}
