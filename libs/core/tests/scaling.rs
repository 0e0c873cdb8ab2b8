//! The scaling rule in a model of the system, beside the formula of the HorizontalPodAutoscaler on the queue's
//! depth. A model, not a measurement: it is for choosing between rules.
//!
//! A worker does 90 events/s, give or take 15 %; a new one is ready after 8 s; at most 8; the mean of 20 seeds.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "events of a model"
)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use flagmeter_core::scaling::history::History;
use flagmeter_core::scaling::sample::{Fleet, Queue, Sample, Work};
use flagmeter_core::scaling::{Limits, decide};
use jiff::{SignedDuration, Timestamp};

const SECONDS: u32 = 3_000;
const SEEDS: u32 = 20;
const MOST: u32 = 8;
const START_SECONDS: u32 = 8;

/// How the load goes, and what goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scenario {
    Ramp,
    Step,
    Bursts,
    BadSensor,
    Restarts,
    SlowPostgres,
}

const SCENARIOS: [(Scenario, &str); 6] = [
    (Scenario::Ramp, "ramp 40→270→40"),
    (Scenario::Step, "step 40→400→40"),
    (Scenario::Bursts, "30 s bursts of +600"),
    (Scenario::BadSensor, "ramp, bad sensor"),
    (Scenario::Restarts, "ramp, restarts"),
    (Scenario::SlowPostgres, "step, slow PostgreSQL"),
];

/// Who decides.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Policy {
    Hpa(f64),
    FlagMeter(u32),
}

const POLICIES: [(Policy, &str); 5] = [
    (Policy::Hpa(50.0), "HPA, depth 50 a worker"),
    (Policy::Hpa(500.0), "HPA, depth 500 a worker"),
    (Policy::FlagMeter(180), "**FlagMeter**"),
    (Policy::FlagMeter(600), "FlagMeter, window 600 s"),
    (Policy::FlagMeter(60), "FlagMeter, window 60 s"),
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
            40.0 + 230.0 * up
        }
        Scenario::Step | Scenario::SlowPostgres => {
            if (600..1_800).contains(&second) {
                400.0
            } else {
                40.0
            }
        }
        Scenario::Bursts => 40.0 + if second % 300 >= 270 { 600.0 } else { 0.0 },
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

struct Model {
    dice: Dice,
    at: Timestamp,
    /// When each worker that there is to be is ready.
    ready_at: Vec<u32>,
    pushed: f64,
    left: f64,
    work: BTreeMap<String, Work>,
    /// Arrivals of each second that still wait.
    waiting: VecDeque<(u32, f64)>,
}

impl Model {
    fn new(seed: u32) -> Self {
        Self {
            dice: Dice(u64::from(seed) * 7_919 + 17),
            at: "2026-06-15T12:00:00Z".parse().unwrap(),
            ready_at: vec![0],
            pushed: 0.0,
            left: 0.0,
            work: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    fn ready(&self, second: u32) -> u32 {
        self.ready_at.iter().filter(|at| **at <= second).count() as u32
    }

    fn wait(&self, second: u32) -> f64 {
        self.waiting.front().map_or(0.0, |(then, _)| f64::from(second - then))
    }

    fn queue(&self, second: u32) -> Queue {
        let (pushed, left) = (self.pushed as u64, (self.left as u64).min(self.pushed as u64));
        Queue {
            pushed,
            left,
            entries: pushed - left,
            entries_added: pushed,
            pending: 0,
            lag: Some(pushed - left),
            oldest_wait_seconds: self.wait(second),
            workers: self.work.clone(),
        }
    }

    /// A second passes.
    fn step(&mut self, scenario: Scenario, second: u32) {
        self.at += SignedDuration::from_secs(1);
        let arrive = load(scenario, second) * self.dice.noise();
        self.pushed += arrive;
        self.waiting.push_back((second, arrive));
        let ready = f64::from(self.ready(second));
        // A slow PostgreSQL does 150 events/s in all: each worker waits the longer for it.
        let slow = scenario == Scenario::SlowPostgres && second >= 900;
        let each = if slow { 90.0_f64.min(150.0 / ready.max(1.0)) } else { 90.0 };
        let share = (self.pushed - self.left) / ready.max(1.0);
        let mut done = 0.0;
        for worker in 0..self.ready_at.len() {
            if self.ready_at[worker] > second {
                continue;
            }
            let rate = each * self.dice.noise();
            let mine = rate.min(share).max(0.0);
            done += mine;
            let name = format!("worker-{worker}");
            let work = self.work.entry(name).or_insert(Work { processed: 0, busy_seconds: 0.0 });
            work.processed += mine.round() as u64;
            work.busy_seconds += mine / rate;
        }
        self.left += done;
        while let Some((_, events)) = self.waiting.front_mut() {
            if *events > done + 1e-6 {
                *events -= done;
                break;
            }
            done -= *events;
            self.waiting.pop_front();
        }
    }
}

fn run(scenario: Scenario, policy: Policy, seed: u32) -> Outcome {
    let window_seconds = if let Policy::FlagMeter(window) = policy { window } else { 180 };
    let limits = Limits { max: MOST, prior_rate: 500.0, window_seconds, ..Limits::default() };
    let mut model = Model::new(seed);
    let (mut history, mut hpa) = (History::default(), Hpa::default());
    let (mut outcome, mut grew) = (Outcome::default(), None);
    for second in 0..SECONDS {
        model.step(scenario, second);
        let current = model.ready_at.len() as u32;
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
                let sample = Sample { at: model.at, queue: (!silent).then(|| model.queue(second)), fleet };
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
        model.ready_at.resize(wanted as usize, second + START_SECONDS);
        let wait = model.wait(second);
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
    let mut table = String::from("| policy |");
    for (_, name) in SCENARIOS {
        let _ = write!(table, " {name} |");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(SCENARIOS.len()));
    for (policy, name) in POLICIES {
        let _ = write!(table, "\n| {name} |");
        for (scenario, _) in SCENARIOS {
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
        for target in [50.0, 500.0] {
            let theirs = mean(scenario, Policy::Hpa(target));
            let better = ours.reversals < theirs.reversals && ours.worst_wait < theirs.worst_wait;
            assert!(better, "{scenario:?} {ours:?} {theirs:?}");
        }
    }
}

#[test]
fn a_postgresql_that_is_the_bottleneck_is_not_given_ever_more_workers() {
    let ours = mean(Scenario::SlowPostgres, Policy::FlagMeter(180));
    let theirs = mean(Scenario::SlowPostgres, Policy::Hpa(500.0));
    let better = ours.pod_hours < theirs.pod_hours && ours.reversals <= 6.0;
    assert!(better, "{ours:?} {theirs:?}");
}

#[test]
fn the_table_in_the_docs_is_what_the_model_says() {
    let table = table();
    println!("{table}");
    let docs = include_str!("../../../docs/scaling.md");
    assert!(docs.contains(&table), "docs/scaling.md must contain:\n{table}");
}
