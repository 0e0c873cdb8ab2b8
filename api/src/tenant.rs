//! A tenant, with what this api keeps about it at hand, so that a request looks nothing up twice.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use flagmeter_core::period::BillingPeriod;
use flagmeter_core::projection::{Hours, Recent};
use flagmeter_store::postgres::directory::Tenant;
use jiff::Timestamp;

use crate::queued::Queued;

/// A tenant as it is known since it was last read. To be used as the [`Tenant`] that it is.
#[derive(Debug)]
pub struct Known {
    tenant: Tenant,
    /// The last answer of [`Known::open`].
    open: ArcSwapOption<OpenPeriod>,
    kept: Arc<Kept>,
}

/// A billing period, with its instants as answers have them: RFC 3339 in UTC. To write them for each answer would take
/// as long as the rest of it.
#[derive(Debug)]
pub struct OpenPeriod {
    pub(crate) period: BillingPeriod,
    /// The period's first instant.
    pub start: Box<str>,
    /// The first instant of the next period.
    pub end: Box<str>,
}

impl OpenPeriod {
    fn new(period: BillingPeriod) -> Self {
        Self { period, start: period.start.to_string().into(), end: period.end.to_string().into() }
    }
}

/// What outlives a new reading of the tenant.
#[derive(Debug, Default)]
struct Kept {
    queued: Queued,
    recent: ArcSwapOption<Recent>,
    hours: ArcSwapOption<Hours>,
}

impl Deref for Known {
    type Target = Tenant;

    fn deref(&self) -> &Tenant {
        &self.tenant
    }
}

impl Known {
    /// A tenant that was read, and was known as `before` if it was read before.
    #[must_use]
    pub fn new(tenant: Tenant, before: Option<&Self>) -> Self {
        let kept = before.map(|before| Arc::clone(&before.kept)).unwrap_or_default();
        Self { tenant, open: ArcSwapOption::default(), kept }
    }

    /// The billing period in which `now` lies. To look at the zone's calendar takes a microsecond, to compare with
    /// the last answer some nanoseconds.
    #[must_use]
    pub fn period(&self, now: Timestamp) -> BillingPeriod {
        let known = self.open.load();
        known
            .as_deref()
            .map(|open| open.period)
            .filter(|period| period.contains(now))
            .unwrap_or_else(|| self.open(now).period)
    }

    /// The same with its instants as text.
    #[must_use]
    pub fn open(&self, now: Timestamp) -> Arc<OpenPeriod> {
        if let Some(open) = self.open.load_full().filter(|open| open.period.contains(now)) {
            return open;
        }
        let open = Arc::new(OpenPeriod::new(self.tenant.calendar.period(now)));
        self.open.store(Some(Arc::clone(&open)));
        open
    }

    /// The billing period in which `instant` lies, which is nearly always that of `now`.
    #[must_use]
    pub fn period_of(&self, instant: Timestamp, now: Timestamp) -> BillingPeriod {
        let open = self.period(now);
        if open.contains(instant) { open } else { self.tenant.calendar.period(instant) }
    }

    /// What this api took in for it that may wait to be counted.
    #[must_use]
    pub fn queued(&self) -> &Queued {
        &self.kept.queued
    }

    /// What it used in the last days, or `None` while not all of it was read.
    #[must_use]
    pub fn recent(&self) -> Option<Arc<Recent>> {
        self.kept.recent.load_full()
    }

    /// The hours that this is made of, as far as they were read.
    #[must_use]
    pub fn hours(&self) -> Option<Arc<Hours>> {
        self.kept.hours.load_full()
    }

    /// Keeps what it used in the hours of the last days before `now`.
    pub fn keep_recent(&self, now: Timestamp, hours: Hours) {
        let recent = hours.days().map(|days| Arc::new(Recent::new(now, &days)));
        self.kept.recent.store(recent);
        self.kept.hours.store(Some(Arc::new(hours)));
    }
}
