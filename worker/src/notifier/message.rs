//! What an alert says, in words and figures.

use flagmeter_core::number::grouped;
use flagmeter_core::quota;
use flagmeter_store::postgres::deliveries::{Kind, Taken};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// An alert for people, in the tenant's time zone.
pub(crate) struct Message<'a> {
    pub(crate) taken: &'a Taken,
    /// When it is sent.
    pub(crate) now: Timestamp,
    /// When the quota will be used up, if that can be said.
    pub(crate) exhaustion: Option<Timestamp>,
    /// Where the page is, if that is set; without a slash at its end.
    pub(crate) public_url: Option<&'a str>,
}

impl Message<'_> {
    /// Share of the quota used then, in percent, rounded down.
    pub(crate) fn percent(&self) -> i64 {
        quota::percent(self.taken.total_tokens, self.taken.monthly_quota)
    }

    /// What happened to `name`, in a line.
    pub(crate) fn title(&self, name: &str) -> String {
        let Taken { threshold, .. } = self.taken;
        match self.taken.kind {
            Kind::Crossed => format!("{name} has used {} % of its quota", self.percent()),
            Kind::Recovered => format!("{name} is below {threshold} % of its quota again"),
            Kind::Test => format!("Test: alerts of {name} arrive here"),
        }
    }

    /// What was used: "812,345 of 1,000,000 tokens (81 %)".
    pub(crate) fn used(&self) -> String {
        let Taken { total_tokens, monthly_quota, .. } = self.taken;
        format!("{} of {} tokens ({} %)", grouped(*total_tokens), grouped(*monthly_quota), self.percent())
    }

    /// The billing period: "15 Nov 2026 – 15 Dec 2026".
    pub(crate) fn period(&self) -> String {
        let day = |instant| self.local(instant).strftime("%-d %b %Y").to_string();
        format!("{} – {}", day(self.taken.period_start), day(self.taken.period_end))
    }

    /// Whether usage counts from 0 again by now.
    pub(crate) fn is_over(&self) -> bool {
        self.taken.period_end <= self.now
    }

    /// When it does: "Tue 15 Dec 2026, 00:00 Europe/Berlin".
    pub(crate) fn resets(&self) -> String {
        self.at(self.taken.period_end)
    }

    /// When the quota will be used up, if that can be said.
    pub(crate) fn exhausted(&self) -> Option<String> {
        self.exhaustion.map(|instant| self.at(instant))
    }

    /// Where to look: the page.
    pub(crate) fn link(&self) -> Option<String> {
        self.public_url.map(|url| format!("{url}/"))
    }

    fn at(&self, instant: Timestamp) -> String {
        self.local(instant).strftime("%a %-d %b %Y, %H:%M %Q").to_string()
    }

    fn local(&self, instant: Timestamp) -> Zoned {
        // The operator takes no zone that it does not know; another release might.
        instant.to_zoned(TimeZone::get(&self.taken.time_zone).unwrap_or(TimeZone::UTC))
    }
}
