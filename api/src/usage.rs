//! The usage as this api knows it: a snapshot of the open periods, some 200 ms old, so that a
//! `GET /usage` is a lookup in memory. Of the periods before them that events may still fall in, it has the totals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use flagmeter_core::event::MAX_AGE;
use flagmeter_core::period::BillingPeriod;
use flagmeter_store::StoreError;
use flagmeter_store::postgres::usage::{self, UsageRows};
use foldhash::HashMap;
use jiff::{SignedDuration, Timestamp};

use crate::directory::Source;
use crate::freshness::Freshness;
use crate::metrics::Store;
use crate::tenant::Known;

/// How often what changed is read.
const READ_CHANGES: Duration = Duration::from_millis(200);

/// After how many such readings everything is read: what ended is forgotten, what was missed is found.
const READ_ALL_AFTER: u32 = 300;

/// How far before the last reading a change is looked for. A row carries the time of its write and is
/// seen after its commit; a transaction that takes longer is found with the next full reading.
const OVERLAP: SignedDuration = SignedDuration::from_secs(10);

/// How long a reading may take before PostgreSQL counts as silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// The wait after PostgreSQL failed to answer.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What a tenant used in a period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeriodUsage {
    /// Tokens.
    pub total_tokens: i64,
    /// The start of the newest minute with usage.
    pub last_minute: Option<Timestamp>,
    /// Tokens by feature.
    pub features: BTreeMap<String, i64>,
}

/// The usage at one instant.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was read.
    pub as_of: Timestamp,
    /// The same as answers have it: RFC 3339 in UTC.
    as_of_text: Box<str>,
    /// What waited then: [`Freshness::lag_milliseconds`].
    pub lag_milliseconds: Option<i64>,
    /// When it was read by PostgreSQL's clock, which the rows have, too.
    read_at: Timestamp,
    periods: Periods,
}

/// By tenant and first instant.
type Periods = HashMap<String, BTreeMap<Timestamp, Arc<PeriodUsage>>>;

/// A tenant's usage in the period that is open now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The period.
    pub period: BillingPeriod,
    /// What was used in it so far.
    pub usage: Arc<PeriodUsage>,
}

impl Snapshot {
    /// The instant before which all that was answered 202 is counted in it; `None` if the queue did not say what waits.
    #[must_use]
    pub fn complete_until(&self) -> Option<Timestamp> {
        let lag = SignedDuration::from_millis(self.lag_milliseconds?);
        self.as_of.checked_sub(lag).ok()
    }

    /// [`Snapshot::as_of`] as RFC 3339 in UTC.
    #[must_use]
    pub fn as_of_text(&self) -> &str {
        &self.as_of_text
    }

    /// The usage of `tenant` in the period that `now` lies in.
    #[must_use]
    pub fn current(&self, tenant: &Known, now: Timestamp) -> Current {
        let period = tenant.period(now);
        Current { period, usage: self.usage(tenant, &period) }
    }

    /// The tokens of `tenant` in `period`.
    pub(crate) fn total(&self, tenant: &Known, period: &BillingPeriod) -> i64 {
        self.find(tenant, period).map_or(0, |usage| usage.total_tokens)
    }

    /// What `tenant` used in `period`.
    pub(crate) fn usage(&self, tenant: &Known, period: &BillingPeriod) -> Arc<PeriodUsage> {
        self.find(tenant, period).cloned().unwrap_or_default()
    }

    fn find(&self, tenant: &Known, period: &BillingPeriod) -> Option<&Arc<PeriodUsage>> {
        self.periods.get(tenant.id.as_str())?.get(&period.start)
    }

    /// `periods` with `rows` in place of what they replace.
    fn of(mut periods: Periods, rows: UsageRows, fresh: Freshness) -> Self {
        for row in rows.periods {
            let usage = periods.entry(row.tenant).or_default().entry(row.period_start).or_default();
            let usage = Arc::make_mut(usage);
            usage.total_tokens = row.total_tokens;
            usage.last_minute = Some(row.last_minute);
        }
        for row in rows.features {
            let usage = periods.entry(row.tenant).or_default().entry(row.period_start).or_default();
            Arc::make_mut(usage).features.insert(row.feature, row.total_tokens);
        }
        let Freshness { as_of, lag_milliseconds } = fresh;
        let as_of_text = as_of.to_string().into();
        Self { as_of, as_of_text, lag_milliseconds, read_at: rows.read_at, periods }
    }
}

/// The newest snapshot. Clones share it.
#[derive(Clone, Default)]
pub struct Usage(Arc<ArcSwapOption<Snapshot>>);

impl Usage {
    /// The newest snapshot, or `None` before the first. If PostgreSQL goes away, the last one stays,
    /// and says how old it is.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Snapshot>> {
        self.0.load_full()
    }

    /// What `then` makes of the newest snapshot, which is not kept for longer than that.
    pub(crate) fn look<T>(&self, then: impl FnOnce(Option<&Snapshot>) -> T) -> T {
        then(self.0.load().as_deref())
    }

    /// Keeps itself true for as long as it is polled. Calls `tried` after each reading with its outcome: events are
    /// taken in without it.
    pub async fn follow(&self, source: &Source<'_>, tried: impl Fn(&Result<(), StoreError>)) {
        let mut rounds = tokio::time::interval(READ_CHANGES);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 0_u32.. {
            rounds.tick().await;
            let reading = self.read(source, round % READ_ALL_AFTER == 0);
            let read = tokio::time::timeout(PATIENCE, reading).await.unwrap_or(Err(StoreError::Silent));
            tried(&read);
            let answered = read.as_ref().err().is_none_or(StoreError::is_of_the_data);
            source.metrics.store_up(Store::Postgresql, answered);
            if let Err(error) = read {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "{}; going on with the usage known so far",
                    error.in_short()
                );
                source.metrics.snapshot_failed();
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }

    async fn read(&self, source: &Source<'_>, all: bool) -> Result<(), StoreError> {
        let fresh = Freshness::of_next_reading(source.queue, source.clock).await;
        let before = self.newest().filter(|_| !all);
        let since = before.as_ref().map(|snapshot| snapshot.read_at - OVERLAP);
        let rows = usage::changed(source.pool, fresh.as_of - MAX_AGE, fresh.as_of, since).await?;
        let periods = before.map(|snapshot| snapshot.periods.clone()).unwrap_or_default();
        self.0.store(Some(Arc::new(Snapshot::of(periods, rows, fresh))));
        Ok(())
    }
}
