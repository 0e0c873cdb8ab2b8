//! The scaling rule in a model of the system, beside the formula of the HorizontalPodAutoscaler on the queue's
//! depth. A model, not a measurement: it is for choosing between rules.
//!
//! A worker is a server of batches, as the real one is: it takes what waits, up to 20,000 events, and is at work on them
//! for 5 ms and 11 µs for each, give or take 15 %, which makes 90,000 events/s of full batches; of what waits it takes
//! no more often than every 50 ms. It says what it did every 5 s. A new one is ready after 8 s; at most 8; the mean of
//! 20 seeds.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "events of a model"
)]

use std::collections::VecDeque;
use std::fmt::Write as _;

use flagmeter_core::scaling::FULL_TRANSACTION_EVENTS;
use flagmeter_core::scaling::history::History;
use flagmeter_core::scaling::sample::{Fleet, Queue, Sample, Work};
use flagmeter_core::scaling::{Limits, decide};
use jiff::{SignedDuration, Timestamp};

const SECONDS: u32 = 3_000;
const SEEDS: u32 = 20;
const MOST: u32 = 8;
const START_SECONDS: u32 = 8;

/// Steps of a second: a worker that has nothing more to do begins its next batch a step later (the worker's `PACE`).
const STEPS: u32 = 20;

/// Events of a batch at most.
const FULL: f64 = FULL_TRANSACTION_EVENTS as f64;

/// Seconds of an event: with [`FIXED_SECONDS`] a full batch takes 2/9 s.
const EVENT_SECONDS: f64 = 1.0 / 90_000.0 - FIXED_SECONDS / FULL;

/// Seconds that a batch takes for being one; and where PostgreSQL is far away.
const FIXED_SECONDS: f64 = 0.005;
const FAR_SECONDS: f64 = 0.093;

/// Events a second that a slow PostgreSQL takes, of all workers together; and one that is slower than a worker.
const SLOW_POSTGRES: f64 = 150_000.0;
const SLOWER_POSTGRES: f64 = 60_000.0;

/// How the load goes, and what goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scenario {
    Ramp,
    Step,
    Bursts,
    BadSensor,
    Restarts,
    SlowPostgres,
    SlowEvents,
    Trickle,
    TrickleFar,
    Flood,
    FloodFar,
    FloodSlowPostgres,
}

const SCENARIOS: [(Scenario, &str); 12] = [
    (Scenario::Ramp, "ramp 40→270→40 thousand"),
    (Scenario::Step, "step 40→400→40 thousand"),
    (Scenario::Bursts, "30 s bursts of +600 thousand"),
    (Scenario::BadSensor, "ramp, bad sensor"),
    (Scenario::Restarts, "ramp, restarts"),
    (Scenario::SlowPostgres, "step, slow PostgreSQL"),
    (Scenario::SlowEvents, "2 thousand, then 1.1 ms an event"),
    (Scenario::Trickle, "200, 5 ms a batch"),
    (Scenario::TrickleFar, "200, 93 ms a batch"),
    (Scenario::Flood, "200, and a flood of 5 million"),
    (Scenario::FloodFar, "the same, 93 ms a batch"),
    (Scenario::FloodSlowPostgres, "the same, PostgreSQL takes 60 thousand"),
];

impl Scenario {
    /// Seconds that a batch takes for being one.
    fn fixed(self) -> f64 {
        if matches!(self, Self::TrickleFar | Self::FloodFar) { FAR_SECONDS } else { FIXED_SECONDS }
    }

    /// Seconds of an event, where PostgreSQL takes as many workers as there are.
    fn event(self, second: u32) -> f64 {
        if self == Self::SlowEvents && (600..1_800).contains(&second) { 0.001_1 } else { EVENT_SECONDS }
    }

    /// Events a second that PostgreSQL takes.
    fn postgres(self, second: u32) -> f64 {
        match self {
            Self::SlowPostgres if second >= 900 => SLOW_POSTGRES,
            Self::FloodSlowPostgres => SLOWER_POSTGRES,
            _ => f64::INFINITY,
        }
    }
}

/// Who decides.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Policy {
    Hpa(f64),
    FlagMeter(u32),
}

const POLICIES: [(Policy, &str); 5] = [
    (Policy::Hpa(50_000.0), "HPA, depth 50,000 a worker"),
    (Policy::Hpa(500_000.0), "HPA, depth 500,000"),
    (Policy::FlagMeter(180), "**FlagMeter**"),
    (Policy::FlagMeter(600), "window 600 s"),
    (Policy::FlagMeter(60), "window 60 s"),
];

/// How it went; means.
#[derive(Default, Clone, Copy, Debug)]
struct Outcome {
    reversals: f64,
    pod_hours: f64,
    worst_wait: f64,
    late_seconds: f64,
}

struct Dice(u64);

impl Dice {
    /// From 0 to 1, the same sequence on every machine.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn noise(&mut self) -> f64 {
        1.0 + 0.15 * (2.0 * self.roll() - 1.0)
    }
}

/// Events that arrive in a second.
fn load(scenario: Scenario, second: u32) -> f64 {
    let t = f64::from(second);
    match scenario {
        Scenario::Ramp | Scenario::BadSensor | Scenario::Restarts => {
            let up = ((t - 300.0) / 900.0).clamp(0.0, 1.0) - ((t - 1_500.0) / 900.0).clamp(0.0, 1.0);
            40_000.0 + 230_000.0 * up
        }
        Scenario::Step | Scenario::SlowPostgres => {
            if (600..1_800).contains(&second) {
                400_000.0
            } else {
                40_000.0
            }
        }
        Scenario::Bursts => 40_000.0 + if second % 300 >= 270 { 600_000.0 } else { 0.0 },
        Scenario::SlowEvents => 2_000.0,
        Scenario::Trickle | Scenario::TrickleFar => 200.0,
        Scenario::Flood | Scenario::FloodFar | Scenario::FloodSlowPostgres => {
            200.0 + if (600..610).contains(&second) { 500_000.0 } else { 0.0 }
        }
    }
}

/// The HPA's formula on depth, every 15 s: at most max(+4, ×2) at once, tolerance 10 %, the highest
/// recommendation of 300 s on the way down.
#[derive(Default)]
struct Hpa {
    recommended: VecDeque<(u32, u32)>,
}

impl Hpa {
    fn decide(&mut self, second: u32, depth: f64, target: f64, current: u32) -> u32 {
        let ratio = depth / (target * f64::from(current));
        let raw = if (ratio - 1.0).abs() <= 0.1 { current } else { (depth / target).ceil() as u32 };
        let raw = raw.clamp(1, MOST);
        self.recommended.push_back((second, raw));
        self.recommended.retain(|(then, _)| second - then < 300);
        let highest = self.recommended.iter().map(|(_, wanted)| *wanted).max().unwrap_or(current);
        raw.max(highest.min(current)).min((current + 4).max(current * 2))
    }
}

/// A worker.
#[derive(Default)]
struct Worker {
    ready_at: u32,
    /// The step at which it begins its next batch.
    next: f64,
    /// What it has in hand: events, the step of the oldest, and when it is done.
    hand: Option<(f64, u32, f64)>,
    work: Work,
    /// The last of it that it said.
    said: Work,
}

struct Model {
    dice: Dice,
    at: Timestamp,
    step: u32,
    /// As many as there are to be.
    workers: Vec<Worker>,
    pushed: f64,
    left: f64,
    /// Arrivals of each step that no worker has in hand.
    waiting: VecDeque<(u32, f64)>,
}

impl Model {
    fn new(seed: u32) -> Self {
        Self {
            dice: Dice(u64::from(seed) * 7_919 + 17),
            at: "2026-06-15T12:00:00Z".parse().unwrap(),
            step: 0,
            workers: vec![Worker::default()],
            pushed: 0.0,
            left: 0.0,
            waiting: VecDeque::new(),
        }
    }

    fn ready(&self, second: u32) -> u32 {
        self.workers.iter().filter(|worker| worker.ready_at <= second).count() as u32
    }

    /// The step of the oldest event, wherever it is; the present one if there is none.
    fn oldest(&self) -> u32 {
        let in_hand = self.workers.iter().filter_map(|worker| Some(worker.hand?.1));
        in_hand.chain(self.waiting.front().map(|(then, _)| *then)).min().unwrap_or(self.step)
    }

    /// Seconds since that in which the oldest event came.
    fn wait(&self) -> f64 {
        let second = |step: u32| step.saturating_sub(1) / STEPS;
        f64::from(second(self.step) - second(self.oldest()))
    }

    fn queue(&self) -> Queue {
        let (pushed, left) = (self.pushed as u64, (self.left.round() as u64).min(self.pushed as u64));
        let said = |(index, worker): (usize, &Worker)| (format!("worker-{index}"), worker.said);
        Queue {
            pushed,
            left,
            entries: pushed - left,
            entries_added: pushed,
            pending: 0,
            lag: Some(pushed - left),
            oldest_wait_seconds: f64::from(self.step - self.oldest()) / f64::from(STEPS),
            workers: self.workers.iter().enumerate().map(said).collect(),
        }
    }

    /// A second passes.
    fn second(&mut self, scenario: Scenario, second: u32) {
        self.at += SignedDuration::from_secs(1);
        let arrive = load(scenario, second) * self.dice.noise() / f64::from(STEPS);
        for _ in 0..STEPS {
            self.step += 1;
            self.pushed += arrive;
            self.waiting.push_back((self.step, arrive));
            for index in 0..self.workers.len() {
                self.serve(index, scenario, second);
            }
        }
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if (second + index as u32).is_multiple_of(5) {
                worker.said = worker.work;
            }
        }
    }

    /// A worker ends its batch and begins others, until a step is over.
    fn serve(&mut self, index: usize, scenario: Scenario, second: u32) {
        let now = f64::from(self.step);
        loop {
            let worker = &mut self.workers[index];
            if let Some((events, _, done)) = worker.hand {
                if done > now {
                    return;
                }
                self.left += events;
                worker.hand = None;
            }
            if worker.ready_at > second || worker.next > now {
                return;
            }
            let Some((events, oldest)) = self.take() else { return };
            let ready = f64::from(self.ready(second));
            // Each worker waits the longer for a slow one, the more there are.
            let each = scenario.event(second).max(ready / scenario.postgres(second));
            let seconds = (scenario.fixed() + events * each) * self.dice.noise();
            let worker = &mut self.workers[index];
            worker.work.add(events.round() as usize, seconds);
            let begun = worker.next.max(now - 1.0);
            let done = begun + seconds * f64::from(STEPS);
            worker.hand = Some((events, oldest, done));
            worker.next = if events < FULL { done.max(begun + 1.0) } else { done };
        }
    }

    /// What a worker takes: what waits, up to enough; and since when the oldest of it does.
    fn take(&mut self) -> Option<(f64, u32)> {
        let oldest = self.waiting.front()?.0;
        let mut events = 0.0;
        while let Some((_, more)) = self.waiting.front_mut() {
            if events + *more > FULL {
                *more -= FULL - events;
                return Some((FULL, oldest));
            }
            events += *more;
            self.waiting.pop_front();
        }
        Some((events, oldest))
    }

    /// There are to be so many workers. What one that is stopped has in hand it finishes before.
    fn scale(&mut self, wanted: u32, second: u32) {
        let wanted = wanted as usize;
        for worker in self.workers.drain(wanted.min(self.workers.len())..) {
            self.left += worker.hand.map_or(0.0, |(events, ..)| events);
        }
        let ready_at = second + START_SECONDS;
        let next = f64::from(self.step);
        self.workers.resize_with(wanted, || Worker { ready_at, next, ..Worker::default() });
    }
}

fn run(scenario: Scenario, policy: Policy, seed: u32) -> Outcome {
    let window_seconds = if let Policy::FlagMeter(window) = policy { window } else { 180 };
    let limits = Limits { max: MOST, window_seconds, ..Limits::default() };
    let mut model = Model::new(seed);
    let (mut history, mut hpa) = (History::default(), Hpa::default());
    let (mut outcome, mut grew) = (Outcome::default(), None);
    for second in 0..SECONDS {
        model.second(scenario, second);
        let current = model.workers.len() as u32;
        let silent = scenario == Scenario::BadSensor && model.dice.roll() < 0.05;
        let wanted = match policy {
            // A scaler that reads no answer as 0 is what some have.
            Policy::Hpa(target) if second % 15 == 14 => {
                let depth = if silent { 0.0 } else { model.pushed - model.left };
                hpa.decide(second, depth, target, current)
            }
            Policy::FlagMeter(_) if second % 5 == 4 => {
                if scenario == Scenario::Restarts && model.dice.roll() < 0.01 {
                    history = History::resumed(&history.kept(model.at), model.at);
                }
                let fleet = Fleet { replicas: current, ready: model.ready(second), ..Fleet::default() };
                let sample = Sample { at: model.at, queue: (!silent).then(|| model.queue()), fleet };
                let decision = decide(&history, &sample, &limits);
                history.record(&sample, &decision, &limits);
                decision.replicas
            }
            _ => current,
        };
        if wanted != current {
            outcome.reversals += f64::from(u32::from(grew.is_some_and(|grew| grew != (wanted > current))));
            grew = Some(wanted > current);
        }
        if wanted != current {
            model.scale(wanted, second);
        }
        let wait = model.wait();
        outcome.worst_wait = outcome.worst_wait.max(wait);
        outcome.late_seconds += f64::from(u32::from(wait > 10.0));
        outcome.pod_hours += f64::from(wanted) / 3_600.0;
    }
    outcome
}

fn mean(scenario: Scenario, policy: Policy) -> Outcome {
    let mut sum = Outcome::default();
    for seed in 0..SEEDS {
        let one = run(scenario, policy, seed);
        sum.reversals += one.reversals;
        sum.pod_hours += one.pod_hours;
        sum.worst_wait += one.worst_wait;
        sum.late_seconds += one.late_seconds;
    }
    let n = f64::from(SEEDS);
    Outcome {
        reversals: sum.reversals / n,
        pod_hours: sum.pod_hours / n,
        worst_wait: sum.worst_wait / n,
        late_seconds: sum.late_seconds / n,
    }
}

/// The table of docs/scaling.md.
fn table() -> String {
    let mut table = String::from("| events/s |");
    for (_, name) in POLICIES {
        let _ = write!(table, " {name} |");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(POLICIES.len()));
    for (scenario, name) in SCENARIOS {
        let _ = write!(table, "\n| {name} |");
        for (policy, _) in POLICIES {
            let Outcome { reversals, pod_hours, worst_wait, late_seconds } = mean(scenario, policy);
            let _ =
                write!(table, " {reversals:.1} / {pod_hours:.2} / {worst_wait:.0} s / {late_seconds:.0} |");
        }
    }
    table + "\n"
}

#[test]
fn the_rule_reverses_seldom_and_lets_nothing_wait_that_workers_can_help() {
    // Reversals, pod-hours, worst wait in seconds, and seconds in which something waited for more than 10 s.
    let bounds = [
        (Scenario::Ramp, 2.0, 2.3, 3.0, 0.0),
        (Scenario::Step, 2.0, 3.3, 15.0, 5.0),
        (Scenario::Bursts, 20.0, 6.2, 15.0, 10.0),
        (Scenario::BadSensor, 2.0, 2.7, 3.0, 0.0),
        (Scenario::Restarts, 2.0, 2.4, 3.0, 0.0),
    ];
    for (scenario, reversals, pod_hours, worst_wait, late_seconds) in bounds {
        let outcome = mean(scenario, Policy::FlagMeter(180));
        let holds = outcome.reversals <= reversals
            && outcome.pod_hours <= pod_hours
            && outcome.worst_wait <= worst_wait
            && outcome.late_seconds <= late_seconds;
        assert!(holds, "{scenario:?}: {outcome:?}");
    }
}

#[test]
fn the_formula_on_depth_reverses_more_and_lets_more_wait() {
    for scenario in [Scenario::Ramp, Scenario::Step, Scenario::BadSensor] {
        let ours = mean(scenario, Policy::FlagMeter(180));
        for target in [50_000.0, 500_000.0] {
            let theirs = mean(scenario, Policy::Hpa(target));
            let better = ours.reversals < theirs.reversals && ours.worst_wait < theirs.worst_wait;
            assert!(better, "{scenario:?} {ours:?} {theirs:?}");
        }
    }
}

#[test]
fn a_postgresql_that_is_the_bottleneck_is_not_given_ever_more_workers() {
    let ours = mean(Scenario::SlowPostgres, Policy::FlagMeter(180));
    let theirs = mean(Scenario::SlowPostgres, Policy::Hpa(500_000.0));
    let better = ours.pod_hours < theirs.pod_hours && ours.reversals <= 6.0;
    assert!(better, "{ours:?} {theirs:?}");
}

/// Pod-hours of one worker throughout.
const ONE_WORKER: f64 = SECONDS as f64 / 3_600.0;

#[test]
fn two_hundred_events_a_second_are_one_worker_s_work_however_long_a_small_batch_takes() {
    for scenario in [Scenario::Trickle, Scenario::TrickleFar] {
        for window in [60, 180, 600] {
            let outcome = mean(scenario, Policy::FlagMeter(window));
            let one = (outcome.pod_hours - ONE_WORKER).abs() < 1e-6 && outcome.late_seconds == 0.0;
            assert!(one, "{scenario:?}: {outcome:?}");
        }
    }
}

#[test]
fn workers_that_become_a_hundred_times_as_slow_are_joined_by_others_at_once() {
    let ours = mean(Scenario::SlowEvents, Policy::FlagMeter(180));
    let theirs = mean(Scenario::SlowEvents, Policy::Hpa(50_000.0));
    let soon = ours.worst_wait < 60.0 && ours.worst_wait < theirs.worst_wait / 2.0 && ours.reversals <= 3.0;
    assert!(soon, "{ours:?} {theirs:?}");
}

#[test]
fn a_flood_gets_more_workers_only_where_they_shorten_the_drain() {
    let alone = |scenario: Scenario| {
        // What one worker would take for it.
        5e6 * if scenario == Scenario::FloodFar { EVENT_SECONDS + FAR_SECONDS / FULL } else { 1.0 / 90_000.0 }
    };
    for scenario in [Scenario::Flood, Scenario::FloodFar] {
        let ours = mean(scenario, Policy::FlagMeter(180));
        assert!(
            ours.worst_wait < 0.7 * alone(scenario) && ours.pod_hours > ONE_WORKER,
            "{scenario:?} {ours:?}"
        );
        assert!(ours.reversals <= 1.0, "{scenario:?} {ours:?}");
    }
    // Where they do not they go while it lasts, and nothing waits for longer than with one worker.
    let scenario = Scenario::FloodSlowPostgres;
    let [ours, theirs] = [Policy::FlagMeter(180), Policy::Hpa(50_000.0)].map(|policy| mean(scenario, policy));
    assert!(ours.worst_wait <= 5e6 / SLOWER_POSTGRES + 5.0, "{ours:?}");
    assert!(ours.pod_hours < theirs.pod_hours && ours.reversals <= 1.0, "{ours:?} {theirs:?}");
}

#[test]
fn the_table_in_the_docs_is_what_the_model_says() {
    let table = table();
    println!("{table}");
    let docs = include_str!("../../../docs/scaling.md");
    assert!(docs.contains(&table), "docs/scaling.md must contain:\n{table}");
}
