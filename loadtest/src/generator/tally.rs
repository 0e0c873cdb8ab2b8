//! What came of a run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::part;
use crate::traffic::Request;

/// The longest latency that is told apart, in microseconds.
const LONGEST: u64 = 60_000_000;

/// What came of the requests of one run.
pub(crate) struct Load {
    /// Answered with 2xx.
    pub(crate) requests: u64,
    /// Events of those.
    pub(crate) events: u64,
    /// Answered otherwise: nothing of them counts.
    pub(crate) refused: u64,
    /// Not answered.
    pub(crate) failed: u64,
    /// Events of those, which may count or not.
    pub(crate) uncertain: u64,
    /// From the first request's start to the last answer.
    pub(crate) elapsed: Duration,
    /// CPU time that the generator took.
    pub(crate) generator_cpu: Duration,
    /// In microseconds.
    pub(crate) latencies: Histogram<u64>,
}

impl Load {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            requests: 0,
            events: 0,
            refused: 0,
            failed: 0,
            uncertain: 0,
            elapsed: Duration::ZERO,
            generator_cpu: Duration::ZERO,
            latencies: Histogram::new_with_bounds(1, LONGEST, 3)?,
        })
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latencies, in milliseconds.
    pub(crate) fn milliseconds(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1_000.0
    }

    pub(crate) fn record(&mut self, request: &Request, answer: &std::io::Result<u16>, latency: Duration) {
        match answer {
            Ok(200..=299) => {
                self.requests += 1;
                self.events += request.events;
            }
            Ok(_) => self.refused += 1,
            Err(_) => {
                self.failed += 1;
                self.uncertain += request.events;
            }
        }
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        self.latencies.saturating_record(microseconds);
    }
}

/// A run that is going on; clones share it.
#[derive(Clone)]
pub(super) struct Tally {
    load: Arc<Mutex<Load>>,
    cpu: Duration,
}

impl Tally {
    pub(super) fn start() -> Result<Self> {
        Ok(Self { load: Arc::new(Mutex::new(Load::new()?)), cpu: part::own_cpu() })
    }

    pub(super) fn record(&self, request: &Request, answer: &std::io::Result<u16>, latency: Duration) {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).record(request, answer, latency);
    }

    pub(super) fn end(&self, elapsed: Duration) -> Result<Load> {
        let mut load =
            std::mem::replace(&mut *self.load.lock().unwrap_or_else(PoisonError::into_inner), Load::new()?);
        load.elapsed = elapsed;
        load.generator_cpu = part::own_cpu().saturating_sub(self.cpu);
        Ok(load)
    }
}
