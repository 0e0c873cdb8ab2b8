//! The answer: how many workers, why so many, and why not one more or one fewer.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::sample::{Doubt, Owner};

/// How many workers there should be. Prints as a sentence: "grown to 3: 250 events/s arrive, a worker does 100".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// How many there were to be before.
    pub current: u32,
    /// How many there should be now.
    pub replicas: u32,
    /// Why.
    pub reason: Reason,
    /// What that rests on; `None` if the sample could not be trusted.
    pub estimate: Option<Estimate>,
}

/// Why there should be so many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// More are needed.
    Grown,
    /// One is not needed, and was not for long enough.
    Shrunk,
    /// As many are needed as there are.
    Steady,
    /// One is not needed, but it is too soon to stop it.
    Waits(Patience),
    /// What was seen is no reason to change anything.
    Held(Doubt),
    /// Nothing was known for too long.
    FellBack {
        /// What the last sample lacked.
        doubt: Doubt,
        /// Samples in a row that could not be trusted.
        failures: u32,
    },
    /// There were more than the policy allows.
    AboveMaximum,
    /// There were fewer.
    BelowMinimum,
    /// The last workers that were added made nothing faster.
    NoGain(Gain),
    /// Somebody scaled by hand.
    Adopted {
        /// How many there were to be before.
        from: u32,
        /// Until when that is left alone.
        until: Timestamp,
    },
    /// Somebody scaled by hand a while ago.
    Paused {
        /// Until when that is left alone.
        until: Timestamp,
    },
    /// Somebody else decides.
    NotOurs(Owner),
}

/// Why a worker that is not needed is not stopped yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Patience {
    /// It is not known yet what the last window needed.
    Unknown {
        /// When it will be, if every sample until then can be trusted.
        until: Option<Timestamp>,
    },
    /// So many were needed within the last window.
    Window {
        /// The highest need in it.
        highest: u32,
    },
    /// One was stopped only just.
    Step {
        /// When the next may be.
        until: Timestamp,
    },
    /// One fewer would have nothing to spare.
    Margin,
    /// It is the last one, and something arrived not long ago.
    Idle {
        /// When it may be stopped, if nothing does until then.
        until: Timestamp,
    },
}

/// What the workers that were added changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gain {
    /// Workers before.
    pub from: u32,
    /// Events a second that those did.
    pub before: f64,
    /// Events a second that are done now.
    pub now: f64,
    /// When more may be tried again.
    pub until: Timestamp,
}

/// What the workers are needed for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// λ: events that arrive in a second.
    pub arrival_rate: f64,
    /// μ: events that a worker does in a second in which it is at work, in full transactions.
    pub service_rate: f64,
    /// Whether μ was measured; if not, it is the policy's prior.
    pub measured: bool,
    /// Events in the transaction that the mean event was in, if the workers say so. From 1,000 on it says how fast a
    /// worker is; below, only how fast at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<f64>,
    /// B: events that wait, or are in hand.
    pub backlog: u64,
    /// Seconds that the oldest of them has waited.
    pub oldest_wait_seconds: f64,
    /// Workers that keep up with the arrivals, headroom included.
    pub for_arrivals: f64,
    /// Workers that drain the backlog in time, beyond what is in hand in any second.
    pub for_backlog: f64,
    /// Both together, rounded up, within the bounds.
    pub wanted: u32,
    /// What decides it.
    pub bound: Bound,
}

/// What decides how many are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bound {
    /// The arrivals.
    Arrivals,
    /// The backlog.
    Backlog,
    /// The policy's minimum: fewer would do.
    Minimum,
    /// The policy's maximum: more are needed.
    Maximum,
    /// More are needed by the rule, but the oldest event waits for less than the policy allows.
    KeepsUp,
    /// More are needed by the rule, but made nothing faster when they were tried.
    NoGain {
        /// When they may be tried again.
        until: Timestamp,
    },
    /// Nothing has arrived for long.
    Idle,
}

impl Gain {
    /// How many workers do what is done now, each as much as one did before: fewer than there are, and not fewer than
    /// before.
    pub(super) fn enough(&self, workers: u32) -> u32 {
        let each = self.before / f64::from(self.from.max(1));
        let enough = super::history::whole(self.now / each - super::history::LEAST_GAIN);
        enough.clamp(self.from, workers.saturating_sub(1).max(self.from))
    }
}

impl Estimate {
    /// The workers needed for arrivals and backlog, before rounding and bounds.
    #[must_use]
    pub fn need(&self) -> f64 {
        self.for_arrivals + self.for_backlog
    }
}

impl Reason {
    /// One word for it: the reason of a condition or an Event, and the value of a metric's label.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Grown => "Grown",
            Self::Shrunk => "Shrunk",
            Self::Steady => "Steady",
            Self::Waits(_) => "Waits",
            Self::Held(doubt) => match doubt {
                Doubt::Unreachable => "ValkeyUnreachable",
                Doubt::Contradiction(_) => "Contradiction",
                Doubt::Restarted => "CountersRestarted",
                Doubt::TooFew { .. } => "TooFewSamples",
                Doubt::NoneReady => "NoWorkerReady",
                Doubt::RollingOut => "RollingOut",
                Doubt::Starting { .. } => "WorkersStarting",
            },
            Self::FellBack { .. } => "FellBack",
            Self::AboveMaximum => "AboveMaximum",
            Self::BelowMinimum => "BelowMinimum",
            Self::NoGain(_) => "NoThroughputGain",
            Self::Adopted { .. } => "ManualScale",
            Self::Paused { .. } => "Paused",
            Self::NotOurs(_) => "OtherOwner",
        }
    }
}

impl Decision {
    /// Whether the number follows the load at present: nothing is held, paused, or somebody else's.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !matches!(
            self.reason,
            Reason::Held(_)
                | Reason::FellBack { .. }
                | Reason::Adopted { .. }
                | Reason::Paused { .. }
                | Reason::NotOurs(_)
        )
    }

    /// Why there should not be one more.
    #[must_use]
    pub fn why_not_more(&self, limits: &Limits) -> String {
        let n = self.replicas;
        let Some(estimate) = &self.estimate else {
            return "nothing is known that would ask for more".to_owned();
        };
        if !self.is_active() {
            return format!("the rule wants {}, and is not followed now", estimate.wanted);
        }
        match estimate.bound {
            Bound::Maximum if n >= limits.max => {
                format!("{} are needed, and the maximum is {}", number(estimate.need()), limits.max)
            }
            Bound::NoGain { until } => {
                format!("more made nothing faster; they may be tried again at {}", time(until))
            }
            Bound::KeepsUp => format!(
                "the oldest event waits {} s, and no more are started before it waits {} s",
                number(estimate.oldest_wait_seconds),
                number(limits.wait_seconds)
            ),
            Bound::Idle => "nothing arrives".to_owned(),
            _ => format!(
                "{} are needed; one more would be if more than {} events/s arrived, as long as nothing waits",
                number(estimate.need()),
                number(f64::from(n) * estimate.service_rate / limits.headroom),
            ),
        }
    }

    /// Why there should not be one fewer.
    #[must_use]
    pub fn why_not_fewer(&self, limits: &Limits) -> String {
        match (&self.reason, &self.estimate) {
            (Reason::Waits(patience), _) => match patience {
                Patience::Unknown { until: Some(until) } => {
                    format!("what the last {} s needed is known at {}", limits.window_seconds, time(*until))
                }
                Patience::Unknown { until: None } => {
                    format!("what the last {} s needed is not known", limits.window_seconds)
                }
                Patience::Window { highest } => {
                    format!("{highest} were needed within the last {} s", limits.window_seconds)
                }
                Patience::Step { until } => {
                    format!("one was stopped only just; the next may be at {}", time(*until))
                }
                Patience::Idle { until } => {
                    format!("the last one goes at {} if nothing arrives", time(*until))
                }
                Patience::Margin => "one fewer would have less than a tenth to spare".to_owned(),
            },
            (Reason::Held(doubt), _) => format!("a doubtful sample never takes a worker away: {doubt}"),
            (_, Some(estimate)) if !self.is_active() => {
                format!("the rule wants {}, and is not followed now", estimate.wanted)
            }
            (_, Some(_)) if self.replicas <= limits.min => format!("the minimum is {}", limits.min),
            (Reason::Shrunk, _) => {
                format!("one at a time is stopped, and at most one in {} s", limits.step_seconds)
            }
            (_, Some(estimate)) => format!("{} are needed", number(estimate.need())),
            (_, None) => "nothing is known that would make one superfluous".to_owned(),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { current, replicas, reason, estimate } = self;
        match reason {
            Reason::Grown => write!(formatter, "grown to {replicas}")?,
            Reason::Shrunk => write!(formatter, "shrunk to {replicas}")?,
            Reason::Steady => write!(formatter, "stays at {replicas}")?,
            Reason::Waits(_) => write!(formatter, "stays at {replicas} for now")?,
            Reason::Held(doubt) => return write!(formatter, "held at {replicas}: {doubt}"),
            Reason::FellBack { doubt, failures } => {
                return write!(formatter, "grown to {replicas} after {failures} doubtful samples: {doubt}");
            }
            Reason::AboveMaximum => {
                return write!(formatter, "shrunk to {replicas}: {current} are more than the maximum");
            }
            Reason::BelowMinimum => {
                return write!(formatter, "grown to {replicas}: {current} are fewer than the minimum");
            }
            Reason::NoGain(Gain { from, before, now, until }) => {
                return write!(
                    formatter,
                    "shrunk to {replicas}: {from} did {} events/s and {current} do {}, so the bottleneck is \
                     elsewhere; no more are tried before {}",
                    number(*before),
                    number(*now),
                    time(*until)
                );
            }
            Reason::Adopted { from, until } => {
                return write!(
                    formatter,
                    "left at {replicas} until {}: somebody scaled it from {from}",
                    time(*until)
                );
            }
            Reason::Paused { until } => {
                return write!(formatter, "left at {replicas} until {}: somebody scaled it", time(*until));
            }
            Reason::NotOurs(owner) => return write!(formatter, "left at {replicas}: {owner} decides"),
        }
        if let Some(estimate) = estimate {
            estimate.because(formatter)?;
        }
        Ok(())
    }
}

impl Estimate {
    fn because(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(": ")?;
        if self.bound == Bound::Idle {
            return formatter.write_str("nothing arrives, nothing waits");
        }
        if self.for_backlog > 0.0 {
            write!(formatter, "{} events wait, ", self.backlog)?;
        }
        let (arrive, each) = (number(self.arrival_rate), number(self.service_rate));
        write!(formatter, "{arrive} events/s arrive, a worker does {each}")?;
        match self.bound {
            Bound::Maximum => {
                write!(formatter, "; {} are needed, more than the maximum", number(self.need()))
            }
            Bound::NoGain { .. } => formatter.write_str("; more made nothing faster"),
            Bound::KeepsUp => {
                let wait = number(self.oldest_wait_seconds);
                write!(formatter, "; nothing waits for longer than {wait} s, so no more are started")
            }
            Bound::Arrivals | Bound::Backlog | Bound::Minimum | Bound::Idle => Ok(()),
        }
    }
}

/// A number as people write it: whole from ten upwards, otherwise with a decimal if it has one.
#[must_use]
pub fn number(number: f64) -> String {
    let tenths = (number * 10.0).round();
    if tenths >= 100.0 || tenths % 10.0 == 0.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

/// A time of day, in UTC, to the second.
fn time(at: Timestamp) -> impl fmt::Display {
    at.strftime("%H:%M:%SZ")
}
