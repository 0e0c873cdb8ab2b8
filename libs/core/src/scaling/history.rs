//! What earlier samples taught, and what was decided then.

use std::cmp::Ordering;
use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decision::{Bound, Decision, Estimate, Gain, Reason};
use super::limits::{Limits, after};
use super::sample::{Doubt, Fleet, Queue, Sample};
use super::speed::Shown;

/// The interval for which the weights below are meant. Samples further apart weigh more, closer ones less.
const USUAL_INTERVAL: f64 = 5.0;

/// How much of a higher, and of a lower arrival rate is believed at once: a rise is taken seriously.
const WEIGHT_UPWARDS: f64 = 0.5;
const WEIGHT_DOWNWARDS: f64 = 0.1;

/// Workers say what they did every 5 seconds. Looking more often tells nothing.
const WORK_SECONDS: f64 = 4.0;

/// Samples after which the counters' differences mean something.
const ENOUGH_SAMPLES: u32 = 3;

/// A sample that is older says nothing of the present.
const TOO_OLD_SECONDS: f64 = 60.0;

/// Over how long a throughput is taken, in seconds.
const THROUGHPUT_SECONDS: u32 = 30;

/// What an added worker must bring at least, as a part of what each of those before it did.
pub(super) const LEAST_GAIN: f64 = 0.15;

/// A brake that comes again and again holds for 2, 4 and at most 8 times as long.
const MOST_DOUBLED: u32 = 3;

/// Workers of which something waits for less long have not more to do than they can: it waits for its transaction.
const BEHIND_SECONDS: f64 = 1.0;

/// The most that is remembered: a window of an hour at a sample a second.
const MOST_REMEMBERED: usize = 3_700;

/// What the samples so far taught. A new one knows nothing, and says so by holding.
#[derive(Debug, Clone, Default)]
pub struct History {
    last: Option<(Timestamp, Queue)>,
    /// What the workers had done, and when: as far back as they need to say so.
    work: Option<(Timestamp, Queue)>,
    arrival_rate: Option<f64>,
    /// Events a second that a worker does, and when workers last showed that it does no more.
    speed: Option<f64>,
    bounded_at: Option<Timestamp>,
    /// Events in the transaction that the mean event was in, lately.
    batch: Option<f64>,
    samples: u32,
    trusted_since: Option<Timestamp>,
    failures: u32,
    wanted: VecDeque<(Timestamp, u32)>,
    progress: VecDeque<Progress>,
    shrunk_at: Option<Timestamp>,
    arrived_at: Option<Timestamp>,
    expected: Option<u32>,
    adopted_at: Option<Timestamp>,
    growth: Option<Growth>,
    brake: Option<Brake>,
}

/// How far the workers were.
#[derive(Debug, Clone, Copy)]
struct Progress {
    at: Timestamp,
    /// Events that had left the queue.
    left: u64,
    /// Whether something waited for longer than it should: they had more to do than they could.
    behind: bool,
}

/// Workers that were added and are not judged yet, and what they came to.
#[derive(Debug, Clone, Copy)]
struct Growth {
    from: u32,
    to: u32,
    /// Events a second that those before did.
    before: f64,
    /// Since when all of them have been ready, and how many events waited then.
    ready: Option<(Timestamp, u64)>,
}

/// More than so many made nothing faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Brake {
    most: u32,
    since: Timestamp,
    /// How often it came again soon after it was let go.
    #[serde(default)]
    doubled: u32,
    /// When it was let go.
    #[serde(default)]
    released_at: Option<Timestamp>,
}

impl Brake {
    /// When more may be tried again.
    fn until(&self, limits: &Limits) -> Timestamp {
        after(self.since, limits.retry_seconds.saturating_mul(1 << self.doubled.min(MOST_DOUBLED)))
    }
}

/// What outlives the process that decides. Its JSON has the fields' names in camelCase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// When that was.
    pub at: Timestamp,
    /// How many events a worker did in a second. Earlier versions had `serviceRate`, which was that of small
    /// transactions and is not to be believed.
    speed: Option<f64>,
    /// How many workers there were to be.
    expected: Option<u32>,
    /// When somebody else's number was adopted.
    adopted_at: Option<Timestamp>,
    brake: Option<Brake>,
}

impl Kept {
    /// The same, while it is not known how many workers there are to be: a change is under way.
    #[must_use]
    pub fn unsure(self) -> Self {
        Self { expected: None, ..self }
    }
}

impl History {
    /// What is left of an earlier history at `now`. How fast a worker is does not age; whether a scale is
    /// somebody else's can be told only if it was looked at just before.
    #[must_use]
    pub fn resumed(kept: &Kept, now: Timestamp) -> Self {
        let fresh = seconds_between(kept.at, now) <= TOO_OLD_SECONDS;
        Self {
            speed: kept.speed.filter(|speed| speed.is_finite() && *speed > 0.0),
            bounded_at: Some(now),
            expected: kept.expected.filter(|_| fresh),
            adopted_at: kept.adopted_at,
            brake: kept.brake,
            ..Self::default()
        }
    }

    /// What the next process should know.
    #[must_use]
    pub fn kept(&self, at: Timestamp) -> Kept {
        Kept {
            at,
            speed: self.speed,
            expected: self.expected,
            adopted_at: self.adopted_at,
            brake: self.brake,
        }
    }

    /// Whether the number of workers could be written is not known: whatever it is next, it is nobody else's.
    pub fn forget_expected(&mut self) {
        self.expected = None;
    }

    /// How many workers there are to be, as was last decided.
    #[must_use]
    pub fn expected(&self) -> Option<u32> {
        self.expected
    }

    /// Until when somebody else's scale is left alone. A policy that is changed holds for it at once.
    pub(super) fn paused_until(&self, limits: &Limits) -> Option<Timestamp> {
        self.adopted_at.map(|at| after(at, limits.pause_seconds))
    }

    /// How many of the last samples, one after the other, could not be trusted.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What `sample` makes of what is known.
    ///
    /// # Errors
    ///
    /// Why the sample cannot be trusted.
    pub(super) fn estimate(&self, sample: &Sample, limits: &Limits) -> Result<Estimate, Doubt> {
        let queue = sample.queue.as_ref().ok_or(Doubt::Unreachable)?;
        if !(queue.oldest_wait_seconds >= 0.0 && queue.oldest_wait_seconds.is_finite()) {
            return Err(Doubt::Restarted);
        }
        queue.checked().map_err(Doubt::Contradiction)?;
        let (rate, speed) = match self.before(sample.at) {
            Some((seconds, earlier)) => {
                if seconds <= 0.0 {
                    return Err(Doubt::Restarted);
                }
                queue.follows(earlier)?;
                let rate = self.arrival_rate(per_second(queue.pushed - earlier.pushed, seconds), seconds);
                (rate, self.speed(sample, queue, limits))
            }
            None => (self.arrival_rate.unwrap_or_default(), self.speed),
        };
        let each = speed.unwrap_or(limits.prior_rate);
        let in_hand = f64::from(sample.fleet.ready) * each;
        let for_arrivals = rate * limits.headroom / each;
        let for_backlog = (float(queue.backlog()) - in_hand).max(0.0) / limits.drain_seconds / each;
        let quiet = limits.min == 0 && self.is_quiet(sample, queue);
        let (wanted, bound) = self.bounded(sample.at, for_arrivals, for_backlog, quiet, limits);
        let (wanted, bound) = started(wanted, bound, sample, queue, limits);
        Ok(Estimate {
            arrival_rate: rate,
            service_rate: each,
            measured: speed.is_some(),
            batch: self.shown(sample, queue, limits).map_or(self.batch, |shown| shown.batch),
            backlog: queue.backlog(),
            oldest_wait_seconds: queue.oldest_wait_seconds,
            for_arrivals,
            for_backlog,
            wanted,
            bound,
        })
    }

    /// The sample before, and the seconds since, if it says something of the present.
    fn before(&self, at: Timestamp) -> Option<(f64, &Queue)> {
        let (then, queue) = self.last.as_ref()?;
        let seconds = seconds_between(*then, at);
        (seconds <= TOO_OLD_SECONDS).then_some((seconds, queue))
    }

    fn arrival_rate(&self, now: f64, seconds: f64) -> f64 {
        let Some(before) = self.arrival_rate else { return now };
        let weight = if now > before { WEIGHT_UPWARDS } else { WEIGHT_DOWNWARDS };
        before + weight_after(weight, seconds) * (now - before)
    }

    /// How fast a worker is, as far as that is known.
    fn speed(&self, sample: &Sample, queue: &Queue, limits: &Limits) -> Option<f64> {
        // A low speed does not hold forever: that no large transaction was seen for long means that nothing waits.
        let forgotten = self.bounded_at.is_none_or(|at| sample.at >= after(at, limits.retry_seconds));
        let known = self.speed.filter(|speed| !forgotten || *speed >= limits.prior_rate);
        match self.shown(sample, queue, limits) {
            Some(shown) => shown.believed(known, limits.prior_rate),
            None => known,
        }
    }

    /// What the workers showed of their speed since they were last asked, if they said something meanwhile.
    fn shown(&self, sample: &Sample, queue: &Queue, limits: &Limits) -> Option<Shown> {
        let (then, earlier) = self.work.as_ref()?;
        if seconds_between(*then, sample.at) < WORK_SECONDS {
            return None;
        }
        Shown::by(&queue.work_since(earlier), is_behind(queue, limits))
    }

    /// Whether nothing arrived since the last sample, and nothing waits.
    fn is_quiet(&self, sample: &Sample, queue: &Queue) -> bool {
        let arrives = self.before(sample.at).is_none_or(|(_, earlier)| queue.pushed != earlier.pushed);
        queue.entries == 0 && queue.backlog() == 0 && !arrives
    }

    /// When nothing will have arrived for long enough to stop the last worker.
    pub(super) fn idle_at(&self, limits: &Limits) -> Option<Timestamp> {
        self.arrived_at.map(|at| after(at, limits.idle_seconds))
    }

    fn bounded(
        &self,
        at: Timestamp,
        for_arrivals: f64,
        for_backlog: f64,
        quiet: bool,
        limits: &Limits,
    ) -> (u32, Bound) {
        if quiet {
            return (0, Bound::Idle);
        }
        let need = whole(for_arrivals + for_backlog);
        // While anything arrives, or might, one is needed.
        let least = limits.min.max(1);
        if let Some(brake) = self.brake.filter(|brake| brake.released_at.is_none()) {
            let (most, until) = (brake.most, brake.until(limits));
            if at < until && need > most && most < limits.max {
                return (most.max(least), Bound::NoGain { until });
            }
        }
        if need > limits.max {
            (limits.max, Bound::Maximum)
        } else if need < least {
            (least, Bound::Minimum)
        } else if for_backlog > for_arrivals {
            (need, Bound::Backlog)
        } else {
            (need, Bound::Arrivals)
        }
    }

    /// Why even a good sample is no reason for more.
    pub(super) fn too_little(&self, fleet: &Fleet) -> Option<Doubt> {
        let samples = self.samples + 1;
        if samples < ENOUGH_SAMPLES {
            Some(Doubt::TooFew { samples })
        } else if fleet.ready == 0 && fleet.replicas > 0 {
            Some(Doubt::NoneReady)
        } else {
            None
        }
    }

    /// From when on it is known what the last window needed.
    pub(super) fn window_is_known_at(&self, limits: &Limits) -> Option<Timestamp> {
        self.trusted_since.map(|since| after(since, limits.window_seconds))
    }

    /// The most that was wanted within the last window.
    pub(super) fn highest_wanted(&self, at: Timestamp, limits: &Limits) -> u32 {
        let recent = self.wanted.iter().filter(|(then, _)| at < after(*then, limits.window_seconds));
        recent.map(|(_, wanted)| *wanted).max().unwrap_or_default()
    }

    /// When the next worker may be stopped.
    pub(super) fn next_step(&self, limits: &Limits) -> Option<Timestamp> {
        self.shrunk_at.map(|at| after(at, limits.step_seconds))
    }

    /// What the workers that were added changed, if that is known by now and is nothing: each of them brought less
    /// than [`LEAST_GAIN`] of what one did before, while all had more to do than they could.
    ///
    /// Judged a window after all of them were ready; while they drain a backlog, already when the throughput is known,
    /// since only they change it then. But if one was stopped just before, not so soon: that would be to and fro.
    pub(super) fn no_gain(&self, sample: &Sample, estimate: &Estimate, limits: &Limits) -> Option<Gain> {
        let growth = self.growth.filter(|growth| growth.to == sample.fleet.replicas && growth.from > 0)?;
        let (since, waited) = growth.ready?;
        let patience = match estimate.backlog.cmp(&waited) {
            Ordering::Less if self.is_calm(sample.at, limits) && is_fine_grained(estimate) => {
                limits.window_seconds.min(THROUGHPUT_SECONDS)
            }
            Ordering::Equal => return None,
            Ordering::Less | Ordering::Greater => limits.window_seconds,
        };
        if sample.at < after(since, patience) {
            return None;
        }
        // Not from the first moment: a worker's first transaction is larger than those that follow.
        let settled = since.checked_add(sample.at.duration_since(since) / 2).ok()?;
        let now = self.throughput_behind(settled)?;
        let each = growth.before / f64::from(growth.from);
        let least = growth.before + LEAST_GAIN * each * f64::from(growth.to - growth.from);
        (now < least).then(|| {
            let until = self.braked_again(sample.at, growth.from, limits).until(limits);
            Gain { from: growth.from, before: growth.before, now, until }
        })
    }

    /// Whether no worker was stopped within the last window.
    fn is_calm(&self, at: Timestamp, limits: &Limits) -> bool {
        self.shrunk_at.is_none_or(|shrunk| at >= after(shrunk, limits.window_seconds))
    }

    /// A brake from now on. One that comes soon after the last was let go holds twice as long.
    fn braked_again(&self, since: Timestamp, most: u32, limits: &Limits) -> Brake {
        let soon = |last: &Brake| last.released_at.is_none_or(|at| since < after(at, limits.retry_seconds));
        let last = self.brake.filter(soon);
        let doubled = last.map_or(0, |last| last.doubled.saturating_add(1).min(MOST_DOUBLED));
        Brake { most, since, doubled, released_at: None }
    }

    /// Takes in what was seen, and a decision that was carried out.
    pub fn record(&mut self, sample: &Sample, decision: &Decision, limits: &Limits) {
        self.observe(sample, limits);
        self.carry_out(sample, decision, limits);
    }

    /// Takes in what was seen, where what was decided was not carried out.
    pub fn observe(&mut self, sample: &Sample, limits: &Limits) {
        match (self.estimate(sample, limits), &sample.queue) {
            (Ok(estimate), Some(queue)) => self.learn(sample, queue, &estimate, limits),
            (Err(doubt), queue) => self.distrust(sample, queue.as_ref(), doubt),
            // A sample without a queue has no estimate.
            (Ok(_), None) => {}
        }
    }

    fn learn(&mut self, sample: &Sample, queue: &Queue, estimate: &Estimate, limits: &Limits) {
        let at = sample.at;
        let before = self.before(at).map(|(_, earlier)| earlier.pushed);
        if before.is_some() {
            self.samples = self.samples.saturating_add(1);
            self.arrival_rate = Some(estimate.arrival_rate);
        } else {
            self.samples = 1;
        }
        if before != Some(queue.pushed) {
            self.arrived_at = Some(at);
        }
        self.failures = 0;
        self.trusted_since.get_or_insert(at);
        self.speed = estimate.measured.then_some(estimate.service_rate);
        self.batch = estimate.batch;
        if self.shown(sample, queue, limits).is_some_and(|shown| shown.is_bounded()) {
            self.bounded_at = Some(at);
        }
        if self
            .work
            .as_ref()
            .is_none_or(|(then, _)| !(0.0..WORK_SECONDS).contains(&seconds_between(*then, at)))
        {
            self.work = Some((at, queue.clone()));
        }
        self.last = Some((at, queue.clone()));
        remember(&mut self.wanted, (at, estimate.wanted), |(then, _)| {
            at < after(*then, limits.window_seconds)
        });
        let progress = Progress { at, left: queue.left, behind: is_behind(queue, limits) };
        let longest = limits.window_seconds.max(THROUGHPUT_SECONDS);
        remember(&mut self.progress, progress, |earlier| at <= after(earlier.at, longest));
        if let Some(brake) = &mut self.brake
            && at >= brake.until(limits)
        {
            brake.released_at.get_or_insert(at);
        }
        let growing = self.growth.map(|growth| self.done_before(growth.from));
        if let (Some(growth), Some(before)) = (&mut self.growth, growing) {
            if growth.to == sample.fleet.replicas && growth.to <= sample.fleet.ready {
                growth.ready.get_or_insert((at, queue.backlog()));
            } else if growth.from >= sample.fleet.ready {
                // Those that were there before still are by themselves.
                growth.before = growth.before.max(before);
            }
        }
        // It is judged by now.
        let judged = |growth: &Growth| {
            growth.ready.is_some_and(|(since, _)| at >= after(since, limits.window_seconds))
        };
        self.growth = self.growth.filter(|growth| !judged(growth));
    }

    /// Nothing is learned, and patience begins anew.
    fn distrust(&mut self, sample: &Sample, queue: Option<&Queue>, doubt: Doubt) {
        self.failures = self.failures.saturating_add(1);
        self.trusted_since = None;
        self.growth = None;
        if doubt == Doubt::Restarted {
            let base = queue.filter(|queue| queue.checked().is_ok()).map(|queue| (sample.at, queue.clone()));
            self.samples = u32::from(base.is_some());
            self.work.clone_from(&base);
            self.last = base;
            self.wanted.clear();
            self.progress.clear();
        }
    }

    fn carry_out(&mut self, sample: &Sample, decision: &Decision, limits: &Limits) {
        self.expected = Some(decision.replicas);
        match &decision.reason {
            Reason::Grown | Reason::BelowMinimum => self.grow(decision),
            Reason::Shrunk => {
                self.shrunk_at = Some(sample.at);
                self.growth = None;
            }
            Reason::NoGain(gain) => {
                self.shrunk_at = Some(sample.at);
                self.growth = None;
                self.brake = Some(self.braked_again(sample.at, gain.enough(decision.current), limits));
            }
            Reason::Adopted { .. } => {
                self.adopted_at = Some(sample.at);
                self.growth = None;
            }
            Reason::NotOurs(_) => {
                self.expected = None;
                self.growth = None;
            }
            Reason::FellBack { .. } | Reason::AboveMaximum => self.growth = None,
            Reason::Steady | Reason::Waits(_) | Reason::Held(_) | Reason::Paused { .. } => {}
        }
    }

    /// Several growths one after the other are judged together, from the first.
    fn grow(&mut self, decision: &Decision) {
        let (from, before) = match self.growth {
            Some(Growth { from, before, .. }) => (from, before),
            None => (decision.current, self.done_before(decision.current)),
        };
        self.growth = Some(Growth { from, to: decision.replicas, before, ready: None });
    }

    /// Events a second that this many workers did until now: those of the last samples, when they had more to do than
    /// before. What leaves all at once when a long transaction ends is not more than they can do, if that is known.
    fn done_before(&self, workers: u32) -> f64 {
        let Some(last) = self.progress.back() else { return 0.0 };
        let lately = |then: &&Progress| last.at <= after(then.at, THROUGHPUT_SECONDS);
        let earlier = self.progress.iter().filter(lately);
        let done = earlier.filter_map(|then| throughput(then, last)).fold(0.0, f64::max);
        done.min(self.speed.map_or(f64::INFINITY, |speed| speed * f64::from(workers)))
    }

    /// Events a second that have left the queue since then, if all that time something waited for too long. Else it
    /// is what arrives, and not what the workers can do.
    fn throughput_behind(&self, since: Timestamp) -> Option<f64> {
        let mut lately = self.progress.iter().filter(|progress| progress.at >= since);
        let first = lately.next()?;
        let last = lately.try_fold(first, |_, progress| progress.behind.then_some(progress))?;
        throughput(first, last).filter(|_| first.behind)
    }
}

/// Whether a worker ends several transactions in half of the time after which its throughput is judged.
fn is_fine_grained(estimate: &Estimate) -> bool {
    let seconds = estimate.batch.map_or(0.0, |batch| batch / estimate.service_rate);
    seconds * 6.0 <= f64::from(THROUGHPUT_SECONDS)
}

/// Events a second that left the queue between the two.
fn throughput(earlier: &Progress, later: &Progress) -> Option<f64> {
    let seconds = seconds_between(earlier.at, later.at);
    (seconds > 0.0).then(|| per_second(later.left.saturating_sub(earlier.left), seconds))
}

/// Whether something waits for longer than it should, so that the workers have more to do than they can. A policy that starts
/// workers sooner says nothing of that.
fn is_behind(queue: &Queue, limits: &Limits) -> bool {
    queue.oldest_wait_seconds >= limits.wait_seconds.max(BEHIND_SECONDS)
}

/// What is `wanted` of what there is: while nothing waits for long, workers that are started help nobody. Not so
/// the first, or those that the policy wants at least.
fn started(wanted: u32, bound: Bound, sample: &Sample, queue: &Queue, limits: &Limits) -> (u32, Bound) {
    let there = sample.fleet.replicas.max(limits.min).max(1);
    let waits = queue.oldest_wait_seconds >= limits.wait_seconds;
    if wanted > there && !waits { (there, Bound::KeepsUp) } else { (wanted, bound) }
}

/// Adds what is `new`, and forgets what is not to be kept.
fn remember<T>(all: &mut VecDeque<T>, new: T, keep: impl Fn(&T) -> bool) {
    while all.front().is_some_and(|oldest| !keep(oldest)) || all.len() >= MOST_REMEMBERED {
        all.pop_front();
    }
    all.push_back(new);
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64()
}

fn per_second(events: u64, seconds: f64) -> f64 {
    float(events) / seconds
}

/// `weight` is for samples [`USUAL_INTERVAL`] apart; what it is for others. Two samples in that time teach as
/// much as one.
fn weight_after(weight: f64, seconds: f64) -> f64 {
    1.0 - (1.0 - weight).powf(seconds / USUAL_INTERVAL)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 events, more than a queue ever holds")]
fn float(events: u64) -> f64 {
    events as f64
}

/// The workers that do the work of `need`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such a cast saturates")]
pub(super) fn whole(need: f64) -> u32 {
    need.ceil() as u32
}
