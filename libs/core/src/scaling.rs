//! How many workers there should be: [`decide`], and what it needs to know.
//!
//! - [`sample`] is what one look at the queue and at the Deployment finds, and when it is not to be trusted.
//! - [`limits`] is the policy.
//! - [`history`] is what earlier samples taught: how fast events arrive, how fast a worker is.
//! - `speed` is how the latter is told from what workers say of their transactions.
//! - [`decision`] is the answer, with its reason in words.
//! - [`record`] is how both are kept, and how they are run through another policy.

pub mod decision;
pub mod history;
pub mod limits;
pub mod record;
pub mod sample;
mod speed;

pub use decision::{Decision, Reason};
pub use history::History;
pub use limits::Limits;
pub use sample::Sample;
pub use speed::FULL_TRANSACTION_EVENTS;

use crate::scaling::decision::{Bound, Estimate, Patience};
use crate::scaling::sample::Doubt;

/// How many workers there should be after `sample`, and why.
///
/// What is needed keeps up with the arrivals, with room to spare, and drains the backlog in time. More are
/// started at once, if the oldest event waits for longer than it should: a long queue is lost time, and without one
/// nobody is helped. One at a time is stopped, and only if no sample of the last
/// window needed as many: a spare worker is only a spare worker. A sample that cannot be trusted never takes
/// a worker away, and neither does one that somebody else's decision stands against.
///
/// Never answers fewer than `limits.min` or more than `limits.max`, except to leave things as they are.
#[must_use]
pub fn decide(history: &History, sample: &Sample, limits: &Limits) -> Decision {
    let fleet = &sample.fleet;
    let current = fleet.replicas;
    let estimate = history.estimate(sample, limits);
    let answer =
        |replicas, reason| Decision { current, replicas, reason, estimate: estimate.as_ref().ok().cloned() };
    if let Some(owner) = &fleet.owner {
        return answer(current, Reason::NotOurs(owner.clone()));
    }
    if let Some(from) = history.expected().filter(|expected| *expected != current) {
        return answer(current, Reason::Adopted { from, until: limits.pause_from(sample.at) });
    }
    if let Some(until) = history.paused_until(limits).filter(|until| sample.at < *until) {
        return answer(current, Reason::Paused { until });
    }
    match &estimate {
        Err(doubt) => doubted(history, current, *doubt, limits, answer),
        Ok(estimate) => {
            let (replicas, reason) = trusted(history, sample, estimate, limits);
            answer(replicas, reason)
        }
    }
}

/// Leaves things as they are; or has more workers, if nothing can be known for long.
fn doubted(
    history: &History,
    current: u32,
    doubt: Doubt,
    limits: &Limits,
    answer: impl Fn(u32, Reason) -> Decision,
) -> Decision {
    let failures = history.failures() + 1;
    let fallback = limits.fallback.filter(|_| failures >= limits.failures).unwrap_or_default();
    if fallback > current {
        return answer(fallback, Reason::FellBack { doubt, failures });
    }
    answer(current.max(limits.min), Reason::Held(doubt))
}

fn trusted(history: &History, sample: &Sample, estimate: &Estimate, limits: &Limits) -> (u32, Reason) {
    let fleet = &sample.fleet;
    let (current, wanted) = (fleet.replicas, estimate.wanted);
    if current > limits.max {
        return (limits.max, Reason::AboveMaximum);
    }
    if current < limits.min {
        return (limits.min.max(wanted), Reason::BelowMinimum);
    }
    if let Some(doubt) = history.too_little(fleet) {
        return (current, Reason::Held(doubt));
    }
    let can_shrink = current > limits.min.max(1) && fleet.unsettled().is_none();
    if let Some(gain) = history.no_gain(sample, estimate, limits).filter(|_| can_shrink) {
        return (current - 1, Reason::NoGain(gain));
    }
    if wanted > current {
        return (wanted, Reason::Grown);
    }
    if wanted == current {
        return (current, Reason::Steady);
    }
    // Fewer would do. From here on it is a question of patience.
    if let Some(doubt) = fleet.unsettled() {
        return (current, Reason::Held(doubt));
    }
    match patience(history, sample, estimate, limits) {
        Some(patience) => (current, Reason::Waits(patience)),
        None => (current - 1, Reason::Shrunk),
    }
}

/// Why a worker that is not needed is not stopped yet.
fn patience(history: &History, sample: &Sample, estimate: &Estimate, limits: &Limits) -> Option<Patience> {
    let current = sample.fleet.replicas;
    // Those that made nothing faster are not missed, whatever seemed to need them.
    let brings_nothing = matches!(estimate.bound, Bound::NoGain { .. });
    if let Some(patience) = needed(history, sample, estimate, limits).filter(|_| !brings_nothing) {
        return Some(patience);
    }
    if let Some(until) = history.next_step(limits).filter(|until| sample.at < *until) {
        return Some(Patience::Step { until });
    }
    if current == 1 {
        return history
            .idle_at(limits)
            .filter(|until| sample.at < *until)
            .map(|until| Patience::Idle { until });
    }
    if !brings_nothing && estimate.for_arrivals > 0.9 * f64::from(current - 1) {
        return Some(Patience::Margin);
    }
    None
}

/// Whether the worker was, or may have been, needed within the last window.
fn needed(history: &History, sample: &Sample, estimate: &Estimate, limits: &Limits) -> Option<Patience> {
    let known_from = history.window_is_known_at(limits);
    if known_from.is_none_or(|known| sample.at < known) {
        return Some(Patience::Unknown { until: known_from });
    }
    let highest = history.highest_wanted(sample.at, limits).max(estimate.wanted);
    (highest >= sample.fleet.replicas).then_some(Patience::Window { highest })
}

#[cfg(test)]
mod tests;
