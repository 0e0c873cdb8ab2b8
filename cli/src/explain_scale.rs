//! `flagmeter explain-scale`: why there are so many workers, and what another policy would have made of it.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use flagmeter_core::scaling::decision::{Bound, number};
use flagmeter_core::scaling::record::{Record, Recording};
use flagmeter_core::scaling::{Decision, Limits};
use flagmeter_runtime::env::{Env, Secret};
use flagmeter_store::queue::EventQueue;
use serde_json::json;

use crate::output::{self, Form};

/// A recording is about 2 MB; a file that is larger than this is not one.
const MOST_BYTES: u64 = 64 << 20;

/// Explain the current number of workers
///
/// The last samples, what arrives, what a worker does, what waits, what decides, and why not one more or one fewer. The
/// operator keeps four hours of this in the queue that the environment's `VALKEY_URL` names.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  \
    flagmeter explain-scale\n  \
    flagmeter explain-scale --record > monday.jsonl\n  \
    flagmeter explain-scale --replay monday.jsonl --max 4 --window-seconds 600")]
pub(crate) struct Arguments {
    #[command(flatten)]
    form: Form,
    /// How many of the newest samples to print
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// Print everything that is recorded, as JSON lines, for --replay
    #[arg(long, conflicts_with_all = ["json", "replay"])]
    record: bool,
    /// Run a recording through another policy
    ///
    /// Its own, but for the options below. Load, backlog and speed stay as recorded. Needs no queue.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    #[command(flatten)]
    policy: Policy,
}

/// What is different in a replay.
#[derive(clap::Args)]
#[group(requires = "replay")]
#[command(next_help_heading = "Policy of a replay")]
struct Policy {
    /// The fewest workers
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// The most workers
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// Events a second that a worker counts, until it is measured
    #[arg(long, value_name = "N")]
    prior_rate: Option<f64>,
    /// What the workers must be able to count, as a multiple of what arrives
    #[arg(long, value_name = "N")]
    headroom: Option<f64>,
    /// Target time to drain a backlog
    #[arg(long, value_name = "SECONDS")]
    drain_seconds: Option<f64>,
    /// Start no worker while the oldest event has waited less than this
    #[arg(long, value_name = "SECONDS")]
    wait_seconds: Option<f64>,
    /// Stop no worker that was needed within this time
    #[arg(long, value_name = "SECONDS")]
    window_seconds: Option<u32>,
    /// Minimum time between two workers that are stopped
    #[arg(long, value_name = "SECONDS")]
    step_seconds: Option<u32>,
    /// Time until more workers are tried again after some that gained nothing
    #[arg(long, value_name = "SECONDS")]
    retry_seconds: Option<u32>,
}

impl Policy {
    fn applied_to(&self, recorded: &Limits) -> Limits {
        Limits {
            min: self.min.unwrap_or(recorded.min),
            max: self.max.unwrap_or(recorded.max),
            prior_rate: self.prior_rate.unwrap_or(recorded.prior_rate),
            headroom: self.headroom.unwrap_or(recorded.headroom),
            drain_seconds: self.drain_seconds.unwrap_or(recorded.drain_seconds),
            wait_seconds: self.wait_seconds.unwrap_or(recorded.wait_seconds),
            window_seconds: self.window_seconds.unwrap_or(recorded.window_seconds),
            step_seconds: self.step_seconds.unwrap_or(recorded.step_seconds),
            retry_seconds: self.retry_seconds.unwrap_or(recorded.retry_seconds),
            ..*recorded
        }
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let newest = usize::from(arguments.samples);
    let text = match &arguments.replay {
        Some(path) => {
            let size = std::fs::metadata(path).map(|file| file.len());
            let size = size.with_context(|| format!("{} cannot be read", path.display()))?;
            ensure!(size <= MOST_BYTES, "{} is larger than a recording ever is", path.display());
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            let recorded = Recording::parse(&text).with_context(|| path.display().to_string())?;
            ensure!(!recorded.records.is_empty(), "{} has no records", path.display());
            let limits = arguments.policy.applied_to(&recorded.limits).checked().context("the policy")?;
            let replayed = recorded.replay(&limits);
            if arguments.form.json {
                compared_json(&recorded, &replayed)?
            } else {
                compared(&recorded, &replayed)
            }
        }
        None if arguments.record => recording(Recording::MOST).await?.to_text()?,
        None if arguments.form.json => explained_json(&recording(newest).await?)?,
        None => explained(&recording(newest).await?),
    };
    output::print(&text)
}

/// What the operator kept, the newest so many.
async fn recording(newest: usize) -> anyhow::Result<Recording> {
    let mut env = Env::process();
    let url: Option<Secret<String>> = env.required("VALKEY_URL");
    let url = env.finish(|| url)?;
    let kept = EventQueue::new(url.expose())?.scaling(newest).await.map_err(|error| {
        let advice = error.in_short();
        anyhow::Error::new(error).context(format!("the recorded samples could not be read; {advice}"))
    })?;
    let Some(policy) = kept.policy.filter(|_| !kept.records.is_empty()) else {
        bail!("nothing is recorded: is worker.autoscaling.enabled set, and does an operator lead?");
    };
    let limits = serde_json::from_str(&policy).context("the policy was kept by another version")?;
    let (records, left_out) = readable(&kept.records);
    if left_out > 0 {
        output::note(&format!("{left_out} records are left out, which another version kept\n"));
    }
    ensure!(!records.is_empty(), "all records were kept by another version; wait for a new one");
    Ok(Recording { limits, records })
}

/// The records, the oldest first, and how many cannot be read: after an upgrade the ring still has the former version's.
fn readable(newest_first: &[String]) -> (Vec<Record>, usize) {
    let records: Vec<Record> =
        newest_first.iter().rev().filter_map(|text| serde_json::from_str(text).ok()).collect();
    let left_out = newest_first.len() - records.len();
    (records, left_out)
}

fn explained(recording: &Recording) -> String {
    let Some(Record { sample, decision }) = recording.records.last() else { return String::new() };
    let (n, limits) = (decision.replicas, &recording.limits);
    let mut text = format!("{decision}\n  at {}\n", sample.at);
    let _ = writeln!(text, "  why {n} and not {}: {}", n + 1, decision.why_not_more(limits));
    if n > 0 {
        let _ = writeln!(text, "  why {n} and not {}: {}", n - 1, decision.why_not_fewer(limits));
    }
    let _ = writeln!(
        text,
        "  policy: {} to {} workers, headroom {}, one more if something waits {} s, a backlog drained in {} s, {} s of \
         patience, one fewer in {} s\n",
        limits.min,
        limits.max,
        limits.headroom,
        limits.wait_seconds,
        limits.drain_seconds,
        limits.window_seconds,
        limits.step_seconds
    );
    text + &table(&recording.records)
}

/// The table's columns.
const HEADER: [&str; 11] = [
    "TIME",
    "λ/s",
    "μ/s",
    "BATCH",
    "BACKLOG",
    "WAIT s",
    "NEED FOR λ",
    "+ BACKLOG",
    "BOUND",
    "READY",
    "WORKERS",
];

fn table(records: &[Record]) -> String {
    let row = |record: &Record| {
        let Record { sample, decision } = record;
        let time = sample.at.strftime("%H:%M:%SZ").to_string();
        let ready = sample.fleet.ready.to_string();
        let workers = match (decision.current, decision.replicas) {
            (before, now) if before == now => now.to_string(),
            (before, now) => format!("{before}→{now}"),
        };
        let cells = match &decision.estimate {
            Some(estimate) => [
                number(estimate.arrival_rate),
                // In brackets what is only supposed.
                if estimate.measured {
                    number(estimate.service_rate)
                } else {
                    format!("({})", number(estimate.service_rate))
                },
                estimate.batch.map_or_else(|| "-".to_owned(), number),
                estimate.backlog.to_string(),
                format!("{:.1}", estimate.oldest_wait_seconds),
                format!("{:.2}", estimate.for_arrivals),
                format!("{:.2}", estimate.for_backlog),
                bound(estimate.bound).to_owned(),
            ],
            None => ["-"; 8].map(str::to_owned),
        };
        let [lambda, mu, batch, backlog, wait, arrivals, drain, bound] = &cells;
        line([&time, lambda, mu, batch, backlog, wait, arrivals, drain, bound, &ready, &workers])
            .trim_end()
            .to_owned()
            + &format!("  {}\n", decision.reason.word())
    };
    let header = line(HEADER).trim_end().to_owned() + "  REASON\n";
    std::iter::once(header).chain(records.iter().map(row)).collect()
}

fn line(columns: [&str; 11]) -> String {
    let [time, lambda, mu, batch, backlog, wait, arrivals, drain, bound, ready, workers] = columns;
    format!(
        "{time:<10} {lambda:>8} {mu:>9} {batch:>6} {backlog:>9} {wait:>7} {arrivals:>11} {drain:>10}  {bound:<9} \
         {ready:>5} {workers:>8}"
    )
}

fn bound(bound: Bound) -> &'static str {
    match bound {
        Bound::Arrivals => "arrivals",
        Bound::Backlog => "backlog",
        Bound::Minimum => "minimum",
        Bound::Maximum => "maximum",
        Bound::KeepsUp => "keeps up",
        Bound::NoGain { .. } => "no gain",
        Bound::Idle => "idle",
    }
}

fn explained_json(recording: &Recording) -> anyhow::Result<String> {
    let last = recording.records.last().map(|record| &record.decision);
    let limits = &recording.limits;
    let object = json!({
        "limits": limits,
        "decision": last,
        "sentence": last.map(Decision::to_string),
        "whyNotMore": last.map(|decision| decision.why_not_more(limits)),
        "whyNotFewer": last.map(|decision| decision.why_not_fewer(limits)),
        "records": recording.records,
    });
    Ok(serde_json::to_string_pretty(&object)? + "\n")
}

/// What a policy did over a recording.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Sum {
    changes: usize,
    reversals: usize,
    most: u32,
    pod_hours: f64,
}

impl Sum {
    fn of(recording: &Recording) -> Self {
        let decisions = recording.records.iter().map(|record| &record.decision);
        let moves: Vec<bool> = decisions
            .filter(|decision| decision.replicas != decision.current)
            .map(|decision| decision.replicas > decision.current)
            .collect();
        let seconds = |pair: &[Record]| {
            let [earlier, later] = pair else { return 0.0 };
            let seconds = later.sample.at.duration_since(earlier.sample.at).as_secs_f64();
            f64::from(earlier.decision.replicas) * seconds
        };
        Self {
            changes: moves.len(),
            reversals: moves.windows(2).filter(|pair| pair[0] != pair[1]).count(),
            most: recording.records.iter().map(|record| record.decision.replicas).max().unwrap_or_default(),
            pod_hours: recording.records.windows(2).map(seconds).sum::<f64>() / 3_600.0,
        }
    }
}

fn compared(recorded: &Recording, replayed: &Recording) -> String {
    let mut text = String::from("TIME        RECORDED  REPLAYED  WHY\n");
    let mut before = None;
    for (was, would) in recorded.records.iter().zip(&replayed.records) {
        let both = (was.decision.replicas, would.decision.replicas);
        // Only where something changes.
        if before != Some(both) {
            let time = would.sample.at.strftime("%H:%M:%SZ");
            let _ = writeln!(text, "{time}  {:>9} {:>9}  {}", both.0, both.1, would.decision);
        }
        before = Some(both);
    }
    for (name, recording) in [("recorded", recorded), ("replayed", replayed)] {
        let Sum { changes, reversals, most, pod_hours } = Sum::of(recording);
        let _ = writeln!(
            text,
            "{name}: {changes} changes, {reversals} reversals, {most} workers at most, {pod_hours:.2} pod-hours"
        );
    }
    text
}

fn compared_json(recorded: &Recording, replayed: &Recording) -> anyhow::Result<String> {
    let object = json!({
        "limits": replayed.limits,
        "recorded": Sum::of(recorded),
        "replayed": Sum::of(replayed),
        "records": replayed.records,
    });
    Ok(serde_json::to_string_pretty(&object)? + "\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use flagmeter_core::scaling::sample::{Fleet, Queue, Sample};
    use flagmeter_core::scaling::{History, decide};
    use jiff::{SignedDuration, Timestamp};

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// A minute in which 250 events/s arrive, of which a worker does 100.
    fn recording() -> Recording {
        let limits = Limits { max: 4, prior_rate: 100.0, ..Limits::default() };
        let mut history = History::default();
        let mut at: Timestamp = "2026-06-15T12:00:00Z".parse().unwrap();
        let (mut queue, mut replicas) = (Queue::default(), 1);
        let records = (0..12).map(|_| {
            at += SignedDuration::from_secs(5);
            queue.pushed += 1_250;
            queue.left += 1_250;
            queue.entries_added += 5;
            queue.oldest_wait_seconds = 1.5;
            let fleet = Fleet { replicas, ready: replicas, ..Fleet::default() };
            let sample = Sample { at, queue: Some(queue.clone()), fleet };
            let decision = decide(&history, &sample, &limits);
            history.record(&sample, &decision, &limits);
            replicas = decision.replicas;
            Record { sample, decision }
        });
        Recording { limits, records: records.collect() }
    }

    #[test]
    fn the_last_decision_is_explained_and_the_samples_are_listed() {
        let text = explained(&recording());
        let expected = "stays at 3: 250 events/s arrive, a worker does 100
  at 2026-06-15T12:01:00Z
  why 3 and not 4: 3 are needed; one more would be if more than 250 events/s arrived, as long as nothing waits
  why 3 and not 2: 3 are needed
  policy: 1 to 4 workers, headroom 1.2, one more if something waits 1 s, a backlog drained in 30 s, 180 s of patience, one fewer in 60 s

TIME            λ/s       μ/s  BATCH   BACKLOG  WAIT s  NEED FOR λ  + BACKLOG  BOUND     READY  WORKERS  REASON
12:00:05Z         0     (100)      -         0     1.5        0.00       0.00  minimum       1        1  TooFewSamples
12:00:10Z       250     (100)      -         0     1.5        3.00       0.00  arrivals      1        1  TooFewSamples
12:00:15Z       250     (100)      -         0     1.5        3.00       0.00  arrivals      1      1→3  Grown
";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(text.lines().count(), 19);
    }

    #[test]
    fn records_of_another_version_are_left_out_and_counted() {
        let records = recording().records;
        let mut kept: Vec<String> =
            records.iter().rev().map(|record| serde_json::to_string(record).unwrap()).collect();
        kept.extend([r#"{"version":"another"}"#.to_owned(), "x".to_owned()]);
        let (read, left_out) = readable(&kept);
        assert_eq!((read.len(), left_out), (records.len(), 2));
        assert_eq!(read[0].sample.at, records[0].sample.at, "the oldest first");
    }

    #[test]
    fn another_policy_is_compared_with_what_happened() {
        let recorded = recording();
        let text = compared(&recorded, &recorded.replay(&Limits { max: 2, ..recorded.limits }));
        assert!(text.contains("12:00:15Z          3         2  grown to 2: 250 events/s arrive"), "{text}");
        assert!(
            text.contains("replayed: 1 changes, 0 reversals, 2 workers at most, 0.03 pod-hours"),
            "{text}"
        );
    }

    #[test]
    fn a_policy_without_a_recording_is_refused() {
        assert!(Command::try_parse_from(["explain-scale", "--max", "3"]).is_err());
        let with = Command::try_parse_from(["explain-scale", "--replay", "file", "--max", "3"]).unwrap();
        assert_eq!(with.arguments.policy.applied_to(&Limits::default()).max, 3);
    }
}
