use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::decision::{Bound, Patience};
use super::record::Recording;
use super::sample::{Contradiction, Fleet, Owner, Queue, Work};
use super::*;

/// 1 to 8 workers, of which each does 100 events/s; 20 % to spare; a backlog is gone in 30 s.
fn limits() -> Limits {
    Limits { max: 8, prior_rate: 100.0, ..Limits::default() }
}

/// A queue that is looked at, and a Deployment that does what it is told.
struct Bench {
    limits: Limits,
    history: History,
    at: Timestamp,
    queue: Queue,
    fleet: Fleet,
}

impl Bench {
    fn new(replicas: u32) -> Self {
        Self::with(replicas, limits())
    }

    fn with(replicas: u32, limits: Limits) -> Self {
        let fleet = Fleet { replicas, ready: replicas, ..Fleet::default() };
        let at = "2026-06-15T12:00:00Z".parse().unwrap();
        // Something waits for longer than it should, so that whatever is needed is started.
        let queue = Queue {
            pushed: 10_000_000,
            left: 10_000_000,
            entries_added: 10_000_000,
            oldest_wait_seconds: 2.0,
            ..Queue::default()
        };
        Self { limits, history: History::default(), at, queue, fleet }
    }

    /// What [`Bench::look`] will see.
    fn next(&self, arrived: u64, backlog: u64) -> Sample {
        let mut queue = self.queue.clone();
        queue.pushed += arrived;
        queue.entries_added += arrived;
        queue.left = queue.pushed - backlog;
        queue.entries = backlog;
        let at = self.at + SignedDuration::from_secs(5);
        Sample { at, queue: Some(queue), fleet: self.fleet.clone() }
    }

    /// 5 seconds later, in which `arrived` events came, and `backlog` of all wait.
    fn look(&mut self, arrived: u64, backlog: u64) -> Decision {
        let Sample { queue, .. } = self.next(arrived, backlog);
        self.queue = queue.clone().unwrap_or_default();
        self.see(queue)
    }

    /// 5 seconds later.
    fn see(&mut self, queue: Option<Queue>) -> Decision {
        self.at += SignedDuration::from_secs(5);
        let sample = Sample { at: self.at, queue, fleet: self.fleet.clone() };
        let decision = decide(&self.history, &sample, &self.limits);
        self.history.record(&sample, &decision, &self.limits);
        self.fleet.replicas = decision.replicas;
        self.fleet.ready = decision.replicas;
        decision
    }

    /// The same again and again; the last decision.
    fn minutes(&mut self, minutes: u32, arrived: u64, backlog: u64) -> Decision {
        for _ in 1..minutes * 12 {
            self.look(arrived, backlog);
        }
        self.look(arrived, backlog)
    }
}

#[test]
fn grows_at_once_and_shrinks_one_at_a_time() {
    let cases = [
        // arrivals/s, backlog, current, expected
        (40, 0, 1, 1),
        (250, 0, 1, 3),
        (40, 6_100, 1, 3),
        (40, 1_000_000, 1, 8),
        (40, 0, 8, 7),
        (250, 0, 4, 4),
        (220, 0, 4, 3),
    ];
    for (arrivals, backlog, current, expected) in cases {
        let mut bench = Bench::with(current, Limits { step_seconds: 60, ..limits() });
        // Nothing is decided while it is not known what the last window needed.
        let mut decision = bench.look(arrivals * 5, backlog);
        for _ in 0..37 {
            if decision.replicas != current {
                break;
            }
            decision = bench.look(arrivals * 5, backlog);
        }
        assert_eq!(decision.replicas, expected, "{arrivals}/s, {backlog} waiting: {decision}");
    }
}

#[test]
fn a_step_that_was_not_written_is_no_step() {
    let mut bench = Bench::with(8, Limits { step_seconds: 600, ..limits() });
    let shrinks = (0..40).any(|_| {
        let decision = decide(&bench.history, &bench.next(200, 0), &bench.limits);
        if decision.reason == Reason::Shrunk {
            return true;
        }
        bench.look(200, 0);
        false
    });
    assert!(shrinks, "it would be one fewer");
    // Somebody else had changed the Deployment.
    let sample = bench.next(200, 0);
    bench.history.observe(&sample, &bench.limits);
    bench.history.forget_expected();
    bench.at = sample.at;
    assert_eq!(bench.look(200, 0).reason, Reason::Shrunk, "it need not wait for the next step");
}

#[test]
fn a_decision_says_why() {
    let mut bench = Bench::new(1);
    bench.look(0, 0);
    assert_eq!(bench.look(1_250, 0).to_string(), "held at 1: 2 of 3 samples so far");
    let grown = bench.look(1_250, 0);
    assert_eq!(grown.to_string(), "grown to 3: 250 events/s arrive, a worker does 100");
    assert_eq!(
        grown.why_not_more(&limits()),
        "3 are needed; one more would be if more than 250 events/s arrived, as long as nothing waits"
    );
    assert_eq!(grown.why_not_fewer(&limits()), "3 are needed");
    let behind = |backlog| {
        let mut bench = Bench::new(1);
        bench.look(0, backlog);
        bench.look(1_250, backlog);
        let decision = bench.look(1_250, backlog);
        (bench, decision)
    };
    let (_, more) = behind(9_000);
    assert_eq!(more.estimate.as_ref().unwrap().bound, Bound::Arrivals);
    assert_eq!(more.to_string(), "grown to 6: 9000 events wait, 250 events/s arrive, a worker does 100");
    let (mut bench, most) = behind(100_000);
    assert_eq!(most.estimate.as_ref().unwrap().bound, Bound::Maximum);
    assert_eq!(
        most.to_string(),
        "grown to 8: 100000 events wait, 250 events/s arrive, a worker does 100; 36 are needed, more than the maximum"
    );
    let window = bench.look(1_250, 0);
    assert_eq!(
        window.reason,
        Reason::Waits(Patience::Unknown { until: Some("2026-06-15T12:03:05Z".parse().unwrap()) })
    );
    assert_eq!(bench.see(None).to_string(), "held at 8: Valkey did not answer");
    assert_eq!(bench.history.failures(), 1);
}

#[test]
fn patience_has_an_order_and_says_so() {
    let mut bench = Bench::new(1);
    bench.minutes(4, 1_250, 0);
    assert_eq!(bench.fleet.replicas, 3);
    // The arrivals fall; λ follows slowly, so that 3 were needed until a while after that.
    let waits = bench.minutes(2, 100, 0);
    assert_eq!(waits.reason, Reason::Waits(Patience::Window { highest: 3 }), "{waits}");
    assert_eq!(waits.why_not_fewer(&bench.limits), "3 were needed within the last 180 s");
    let mut steps = Vec::new();
    for _ in 0..60 {
        let decision = bench.look(100, 0);
        if decision.reason == Reason::Shrunk {
            steps.push(bench.at);
        }
    }
    assert_eq!((bench.fleet.replicas, steps.len()), (1, 2));
    assert_eq!((steps[1] - steps[0]).get_seconds(), 60);
    // 175 events/s need 2.1 workers of 3 less the margin: no one stops.
    let mut bench = Bench::with(3, Limits { headroom: 1.0, ..limits() });
    let margin = bench.minutes(10, 925, 0);
    assert_eq!(margin.reason, Reason::Waits(Patience::Margin), "{margin}");
}

#[test]
fn a_doubtful_sample_takes_no_worker_away_and_begins_the_patience_anew() {
    let good = Queue { pushed: 9_000_000, left: 9_000_000, entries_added: 9_000, ..Queue::default() };
    let contradictions = [
        (Queue { left: 9_000_001, ..good.clone() }, Contradiction::MoreLeftThanPushed),
        (Queue { pending: 1, ..good.clone() }, Contradiction::MorePendingThanEntries),
        (Queue { lag: Some(4), ..good.clone() }, Contradiction::Lag),
        (Queue { entries: 1, ..good.clone() }, Contradiction::EventsAndEntries),
        (Queue { pushed: 9_000_001, ..good.clone() }, Contradiction::EventsAndEntries),
        (Queue { entries_added: 10_000, ..good.clone() }, Contradiction::MoreEntriesThanEvents),
    ];
    let doubts =
        contradictions.map(|(queue, contradiction)| (Some(queue), Doubt::Contradiction(contradiction)));
    let restarted = (Some(Queue::default()), Doubt::Restarted);
    let no_number = Some(Queue { oldest_wait_seconds: f64::NAN, ..good.clone() });
    for (queue, doubt) in
        [(None, Doubt::Unreachable), restarted, (no_number, Doubt::Restarted)].into_iter().chain(doubts)
    {
        let mut bench = Bench::new(5);
        for _ in 0..30 {
            bench.see(Some(good.clone()));
        }
        assert_eq!(bench.see(queue).reason, Reason::Held(doubt));
        let begin = bench.at;
        let base = if doubt == Doubt::Restarted { Queue::default() } else { good.clone() };
        while bench.see(Some(base.clone())).reason != Reason::Shrunk {}
        assert!((bench.at - begin).get_seconds() >= 180, "{doubt:?}");
    }
}

#[test]
fn workers_that_are_replaced_or_start_keep_the_others() {
    for (fleet, doubt) in [
        (Fleet { replicas: 4, ready: 4, rolling_out: true, owner: None }, Doubt::RollingOut),
        (Fleet { replicas: 4, ready: 3, rolling_out: false, owner: None }, Doubt::Starting { ready: 3 }),
        (Fleet { replicas: 4, ready: 0, rolling_out: false, owner: None }, Doubt::NoneReady),
    ] {
        let mut bench = Bench::new(4);
        bench.minutes(3, 0, 0);
        bench.fleet = fleet.clone();
        assert_eq!(bench.look(0, 0).reason, Reason::Held(doubt));
        // More are started all the same, unless nobody works.
        bench.fleet = fleet;
        let decision = bench.look(10_000, 5_000);
        assert_eq!(decision.replicas, if doubt == Doubt::NoneReady { 4 } else { 8 }, "{decision}");
    }
}

#[test]
fn somebody_else_s_scale_is_adopted_and_left_alone_for_a_while() {
    let mut bench = Bench::new(1);
    bench.minutes(1, 200, 0);
    bench.fleet.replicas = 5;
    let adopted = bench.look(200, 0);
    assert_eq!(adopted.to_string(), "left at 5 until 12:06:05Z: somebody scaled it from 1");
    assert_eq!(bench.look(50_000, 40_000).reason.word(), "Paused");
    let kept = bench.history.kept(bench.at);
    bench.history = History::resumed(&kept, bench.at);
    assert_eq!(bench.look(200, 0).reason.word(), "Paused", "a successor knows of it");
    // By hand again: what is written last counts.
    bench.fleet.replicas = 2;
    assert_eq!(bench.look(200, 0).reason.word(), "ManualScale");
    bench.minutes(4, 200, 0);
    assert_eq!(bench.fleet.replicas, 2);
    assert_eq!(bench.minutes(2, 200, 0).replicas, 1);
}

#[test]
fn another_owner_is_left_alone_and_afterwards_its_number_is_no_manual_scale() {
    let mut bench = Bench::new(1);
    bench.minutes(1, 200, 0);
    bench.fleet.owner = Some(Owner::HorizontalPodAutoscaler("workers".to_owned()));
    bench.fleet.replicas = 7;
    let decision = bench.look(50_000, 40_000);
    assert_eq!(decision.to_string(), "left at 7: HorizontalPodAutoscaler workers decides");
    bench.fleet.owner = None;
    assert_eq!(bench.look(50_000, 40_000).reason, Reason::Grown);
}

#[test]
fn what_helm_sets_back_when_it_lets_go_is_put_right() {
    // A successor long after the last decision: whatever there is is where it begins.
    let mut bench = Bench::new(1);
    bench.minutes(1, 2_000, 0);
    let kept = bench.history.kept(bench.at);
    bench.at += SignedDuration::from_mins(10);
    bench.history = History::resumed(&kept, bench.at);
    bench.fleet.replicas = 1;
    bench.look(2_000, 0);
    bench.look(2_000, 0);
    assert_eq!(bench.look(2_000, 0).replicas, 5);
}

#[test]
fn the_last_worker_goes_only_if_that_is_allowed_and_nothing_arrives() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.minutes(60, 0, 0).replicas, 1);
    let mut bench = Bench::with(1, Limits { min: 0, ..limits() });
    bench.minutes(2, 5, 0);
    let last = bench.at;
    while bench.look(0, 0).replicas > 0 {}
    assert_eq!((bench.at - last).get_seconds(), 300);
    assert_eq!(bench.look(0, 0).to_string(), "stays at 0: nothing arrives, nothing waits");
    assert_eq!(bench.look(1, 1).replicas, 1);
}

#[test]
fn workers_that_make_nothing_faster_are_taken_back_and_tried_again_later() {
    let mut bench = Bench::new(1);
    let mut backlog = 0;
    // PostgreSQL takes 120 events/s, however many workers there are; 200 arrive.
    let mut reasons = Vec::new();
    for _ in 0..(20 * 12) {
        backlog += 1_000 - 600;
        reasons.push(bench.look(1_000, backlog).reason);
    }
    let braked: Vec<usize> =
        (0..reasons.len()).filter(|i| matches!(reasons[*i], Reason::NoGain(_))).collect();
    let [first, second] = braked[..] else { panic!("{braked:?}") };
    assert!(first * 5 >= 180 && first * 5 < 600, "{first}");
    assert!((second - first) * 5 >= 600 + 180, "{second}");
    let Reason::NoGain(gain) = reasons[first] else { panic!() };
    assert!((gain.now - 120.0).abs() < 1.0 && gain.before > 100.0, "{gain:?}");
}

#[test]
fn a_worker_s_speed_is_what_it_does_while_it_is_busy() {
    let mut bench = Bench::with(1, Limits { prior_rate: 5_000.0, ..limits() });
    let mut work = Work::default();
    // So many are done in so many seconds, and so many wait then.
    let mut look = |bench: &mut Bench, done: u64, busy: f64, backlog: u64| {
        work.processed += done;
        work.busy_seconds += busy;
        let waited = bench.queue.backlog();
        bench.queue.oldest_wait_seconds = if backlog > 0 { 5.0 } else { 0.0 };
        bench.queue.workers = BTreeMap::from([("worker-1".to_owned(), work)]);
        bench.look((done + backlog).saturating_sub(waited), backlog).estimate.unwrap()
    };
    look(&mut bench, 0, 0.0, 0);
    // It idles: its small batches say nothing against the prior.
    assert!(!look(&mut bench, 100, 0.1, 0).measured);
    // It is behind: 200 events in 4 busy seconds.
    let slow = look(&mut bench, 200, 4.0, 500);
    assert!(slow.measured && (slow.service_rate - 50.0).abs() < 0.1, "{slow:?}");
    // One batch that stood still does not ruin it, and no worker began anew.
    let stalled = look(&mut bench, 1, 20.0, 500);
    assert!(stalled.service_rate > 20.0, "{stalled:?}");
    // It is fast again, which is always believed.
    let fast = (0..40).map(|_| look(&mut bench, 1_000, 0.1, 0)).last().unwrap();
    assert!((fast.service_rate - 10_000.0).abs() < 100.0, "{fast:?}");
    let kept = bench.history.kept(bench.at);
    let resumed = History::resumed(&kept, bench.at + SignedDuration::from_hours(1));
    bench.history = resumed;
    let known = bench.look(0, 0).estimate.unwrap();
    assert!((known.service_rate - fast.service_rate).abs() < 1e-6, "{known:?}");
}

/// 200 events/s in transactions of 19 events, each of which takes 93 ms: nearly all of it for being one.
fn trickle(bench: &mut Bench, work: &mut Work) -> Decision {
    for _ in 0..53 {
        work.add(19, 0.093);
    }
    bench.queue.workers = BTreeMap::from([("worker-1".to_owned(), *work)]);
    bench.queue.oldest_wait_seconds = 0.2;
    bench.look(1_007, 40)
}

#[test]
fn a_worker_that_is_busy_with_small_transactions_is_not_slow_and_needs_no_second() {
    let mut bench = Bench::with(1, Limits { max: 8, ..Limits::default() });
    let mut work = Work::default();
    for _ in 0..60 {
        let decision = trickle(&mut bench, &mut work);
        assert_eq!(decision.replicas, 1, "{decision}");
    }
    let decision = trickle(&mut bench, &mut work);
    assert_eq!(decision.to_string(), "stays at 1: 201 events/s arrive, a worker does 5000");
    let estimate = decision.estimate.unwrap();
    assert!(!estimate.measured && estimate.batch == Some(19.0), "{estimate:?}");
}

#[test]
fn while_nothing_waits_for_long_no_worker_is_started_whatever_is_believed_of_them() {
    let mut bench = Bench::with(1, Limits { max: 8, prior_rate: 20.0, ..Limits::default() });
    bench.queue.oldest_wait_seconds = 0.9;
    let decision = bench.minutes(5, 1_000, 40);
    assert_eq!(
        decision.to_string(),
        "stays at 1: 40 events wait, 200 events/s arrive, a worker does 20; nothing waits for longer than 0.9 s, \
         so no more are started"
    );
    assert_eq!(
        decision.why_not_more(&bench.limits),
        "the oldest event waits 0.9 s, and no more are started before it waits 1 s"
    );
    bench.queue.oldest_wait_seconds = 1.0;
    assert_eq!(bench.look(1_000, 40).replicas, 8);
    // What the policy wants at least is started all the same.
    let mut bench = Bench::with(1, Limits { min: 3, max: 8, ..Limits::default() });
    bench.queue.oldest_wait_seconds = 0.0;
    assert_eq!(bench.look(0, 0).reason, Reason::BelowMinimum);
}

#[test]
fn a_speed_that_nothing_large_has_shown_for_long_is_given_up_and_so_are_the_workers_it_asked_for() {
    let mut bench = Bench::with(2, Limits { max: 8, ..Limits::default() });
    let mut work = Work::default();
    let mut count = |bench: &mut Bench, events: usize, seconds: f64| {
        work.add(events, seconds);
        bench.queue.workers = BTreeMap::from([("worker-1".to_owned(), work)]);
        bench.look(1_000, 1_000).estimate.unwrap()
    };
    count(&mut bench, 1, 0.1);
    // A PostgreSQL that was slow for a while.
    let slow = count(&mut bench, 20_000, 200.0);
    assert!(slow.measured && (slow.service_rate - 100.0).abs() < 1e-6, "{slow:?}");
    let since = bench.at;
    for _ in 0..200 {
        trickle(&mut bench, &mut work);
        if bench.fleet.replicas == 1 {
            break;
        }
    }
    let minutes = (bench.at - since).get_seconds() / 60;
    assert!((10..16).contains(&minutes), "{minutes}");
    // And with the first full transaction a worker is as fast as it is.
    work.add(20_000, 0.26);
    let fast = trickle(&mut bench, &mut work).estimate.unwrap();
    assert!(fast.service_rate > 70_000.0, "{fast:?}");
}

#[test]
fn what_an_earlier_version_believed_of_small_transactions_is_not_taken_over() {
    let kept =
        r#"{"at":"2026-06-15T12:00:00Z","serviceRate":28.0,"expected":8,"adoptedAt":null,"brake":null}"#;
    let history =
        History::resumed(&serde_json::from_str(kept).unwrap(), "2026-06-15T12:00:05Z".parse().unwrap());
    let bench = Bench { history, ..Bench::with(8, Limits { max: 8, ..Limits::default() }) };
    let sample = bench.next(0, 0);
    let decision = decide(&bench.history, &sample, &bench.limits);
    let believed = decision.estimate.unwrap().service_rate;
    assert!((believed - 5_000.0).abs() < 1e-6, "{believed}");
    // Nor does an earlier one stumble over what this one leaves.
    let kept = serde_json::to_value(bench.history.kept(bench.at)).unwrap();
    assert!(kept.get("serviceRate").is_none() && kept["expected"] == 8, "{kept}");
}

#[test]
fn a_drain_that_more_workers_made_no_shorter_is_left_to_as_many_as_it_takes_while_it_lasts() {
    let mut bench = Bench::with(1, Limits { step_seconds: 5, ..limits() });
    // PostgreSQL takes 120 events/s, however many workers there are.
    let mut backlog = 100_000;
    bench.look(100_000, backlog);
    let mut moves = Vec::new();
    while backlog > 80_000 {
        backlog -= 600;
        let decision = bench.look(0, backlog);
        if decision.replicas != decision.current {
            moves.push((decision.replicas, decision.reason.word()));
        }
    }
    let down = (2..7).rev().map(|workers| (workers, "Shrunk"));
    let expected: Vec<_> =
        [(8, "Grown"), (7, "NoThroughputGain")].into_iter().chain(down).chain([(1, "Shrunk")]).collect();
    assert_eq!(moves, expected);
    assert_eq!(
        bench.look(0, backlog).why_not_more(&bench.limits),
        "more made nothing faster; they may be tried again at 12:10:50Z"
    );
}

#[test]
fn a_drain_that_more_workers_shorten_keeps_them() {
    let mut bench = Bench::new(1);
    let mut backlog: u64 = 200_000;
    bench.look(200_000, backlog);
    while backlog > 0 {
        backlog = backlog.saturating_sub(500 * u64::from(bench.fleet.replicas));
        let decision = bench.look(0, backlog);
        assert!(decision.replicas >= decision.current, "{decision}");
    }
    assert_eq!(bench.fleet.replicas, 8);
}

#[test]
fn workers_whose_transactions_take_long_are_not_taken_for_useless_between_two_of_them() {
    let mut bench = Bench::with(1, Limits { max: 8, ..Limits::default() });
    // Each counts 20,000 events in 40 s, and eight of them as many as eight do.
    let mut works = [Work::default(); 8];
    let mut backlog = 5_000_000;
    bench.look(5_000_000, backlog);
    for step in 1..180 {
        for (index, work) in works.iter_mut().enumerate().take(bench.fleet.replicas as usize) {
            if (step + index) % 8 == 0 {
                work.add(20_000, 40.0);
                backlog -= 20_000;
            }
        }
        let named = works.iter().enumerate().map(|(index, work)| (format!("worker-{index}"), *work));
        bench.queue.workers = named.collect();
        let decision = bench.look(0, backlog);
        assert!(decision.replicas >= decision.current, "{decision}");
    }
    assert_eq!(bench.fleet.replicas, 8);
}

#[test]
fn the_large_first_transactions_of_new_workers_are_no_gain() {
    let mut bench = Bench::with(1, Limits { step_seconds: 5, ..limits() });
    // PostgreSQL takes 120 events/s; but each new worker begins with a handful that costs it no more than a small one.
    let mut backlog = 100_000;
    bench.look(100_000, backlog);
    let mut workers = 1;
    let reasons: Vec<_> = (0..20)
        .map(|_| {
            backlog -= 600 + 3_000 * u64::from(bench.fleet.replicas.saturating_sub(workers));
            workers = bench.fleet.replicas.max(workers);
            bench.look(0, backlog).reason
        })
        .collect();
    assert!(reasons.iter().any(|reason| matches!(reason, Reason::NoGain(_))), "{reasons:?}");
}

#[test]
fn after_long_darkness_there_are_as_many_as_was_asked_for() {
    let mut bench = Bench::with(1, Limits { fallback: Some(3), ..limits() });
    bench.minutes(1, 0, 0);
    for _ in 0..11 {
        assert_eq!(bench.see(None).replicas, 1);
    }
    assert_eq!(bench.see(None).to_string(), "grown to 3 after 12 doubtful samples: Valkey did not answer");
    assert_eq!(bench.see(None).replicas, 3);
}

#[test]
fn a_recording_is_read_as_it_was_written_and_another_policy_decides_otherwise() {
    let mut bench = Bench::new(1);
    let mut records = Vec::new();
    for index in 0..100 {
        bench.queue.pushed += 1_250;
        bench.queue.entries_added += 10;
        bench.queue.left = bench.queue.pushed;
        let queue = (index % 20 != 19).then(|| bench.queue.clone());
        let fleet = bench.fleet.clone();
        let decision = bench.see(queue.clone());
        records.push(record::Record { sample: Sample { at: bench.at, queue, fleet }, decision });
    }
    let recording = Recording { limits: limits(), records };
    let text = recording.to_text().unwrap();
    assert!(text.len() < 100 * 700, "{}", text.len());
    let read = Recording::parse(&text).unwrap();
    assert_eq!(read, recording);
    let same = read.replay(&limits());
    assert_eq!(same.records, recording.records);
    let other = read.replay(&Limits { max: 2, ..limits() });
    assert_eq!(other.records.iter().map(|record| record.decision.replicas).max(), Some(2));
    for (text, expected) in [
        ("", "the first line must be the policy"),
        ("{\"sample\":1}", "the first line must be the policy"),
        ("{\"limits\":{}}\n{}", "line 2 is no record"),
    ] {
        let fault = Recording::parse(text).unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
    }
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_by_its_field() {
    assert_eq!(limits().checked(), Ok(limits()));
    for (limits, expected) in [
        (Limits { max: 0, min: 0, ..limits() }, "max must be from 1 to 64"),
        (Limits { min: 9, ..limits() }, "min must be no more than max"),
        (Limits { headroom: f64::NAN, ..limits() }, "headroom must be from 1 to 10"),
        (Limits { fallback: Some(9), ..limits() }, "fallback must be from min to max"),
        (Limits { window_seconds: 0, ..limits() }, "windowSeconds must be from 5 to 3600"),
    ] {
        assert_eq!(limits.checked().unwrap_err().to_string(), expected);
    }
}

/// What may happen in 5 seconds.
#[derive(Debug, Clone)]
enum Happens {
    Load { arrived: u64, share_left: f64, busy: f64, batch: usize, wait: f64 },
    Silence,
    Nonsense(u64, u64, u64),
    NotReady(u32),
    Rollout,
    Resume,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        20 => (0_u64..20_000, 0.0..=1.0, 0.0..30.0, 1_usize..30_000, 0.0..4.0).prop_map(
            |(arrived, share_left, busy, batch, wait)| Happens::Load { arrived, share_left, busy, batch, wait }
        ),
        1 => Just(Happens::Silence),
        1 => any::<(u64, u64, u64)>().prop_map(|(a, b, c)| Happens::Nonsense(a, b, c)),
        1 => (0_u32..8).prop_map(Happens::NotReady),
        1 => Just(Happens::Rollout),
        1 => Just(Happens::Resume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bounds_hold_bad_data_shrinks_nothing_and_no_window_has_two_reversals(
        weather in proptest::collection::vec(happens(), 1..400),
        min in 0_u32..3,
        window in 5_u32..120,
    ) {
        let limits = Limits { min, window_seconds: window, step_seconds: 5, ..limits() };
        let mut bench = Bench::with(min, limits);
        let mut moves: Vec<(Timestamp, bool)> = Vec::new();
        for happens in weather {
            let before = bench.fleet.replicas;
            let mut trusted = true;
            let decision = match happens {
                Happens::Load { arrived, share_left, busy, batch, wait } => {
                    bench.queue.workers.entry("worker".to_owned()).or_default().add(batch, busy);
                    bench.queue.oldest_wait_seconds = wait;
                    let waiting = bench.queue.pushed - bench.queue.left + arrived;
                    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
                    let backlog = (waiting as f64 * share_left) as u64;
                    bench.look(arrived, backlog)
                }
                Happens::Silence => {
                    trusted = false;
                    bench.see(None)
                }
                Happens::Nonsense(pushed, left, entries) => {
                    let queue = Queue { pushed, left, entries, entries_added: left ^ entries, ..Queue::default() };
                    bench.see(Some(queue))
                }
                Happens::NotReady(ready) => {
                    bench.fleet.ready = ready;
                    let queue = bench.queue.clone();
                    bench.see(Some(queue))
                }
                Happens::Rollout => {
                    bench.fleet.rolling_out = true;
                    trusted = false;
                    let decision = bench.look(0, 0);
                    bench.fleet.rolling_out = false;
                    decision
                }
                Happens::Resume => {
                    let kept = bench.history.kept(bench.at);
                    bench.history = History::resumed(&kept, bench.at);
                    bench.look(0, 0)
                }
            };
            let after = decision.replicas;
            prop_assert!((limits.min..=limits.max).contains(&after), "{decision}");
            prop_assert!(before <= after + 1, "one at a time: {decision}");
            let waits = bench.queue.oldest_wait_seconds >= limits.wait_seconds;
            prop_assert!(waits || after <= before.max(min).max(1), "nothing waits: {decision}");
            prop_assert!(trusted && decision.estimate.is_some() || after >= before, "{decision}");
            if after != before {
                moves.push((bench.at, after > before));
            }
        }
        for (index, (at, _)) in moves.iter().enumerate() {
            let recent = |(then, _): &&(Timestamp, bool)| (*at - *then).get_seconds() < i64::from(window);
            let up: Vec<bool> = moves[..=index].iter().filter(recent).map(|(_, up)| *up).collect();
            let reversals = up.windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert!(reversals <= 1, "{up:?}");
        }
    }
}
