//! A tenant's settings, as its row says them: what a count depends on.

use flagmeter_core::calendar::{Calendar, Terms};
use flagmeter_core::period::BillingDay;
use flagmeter_core::quota::{Boost, Quota};
use flagmeter_core::threshold::Thresholds;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgExecutor;

/// How much a tenant may use, by which periods, and what is recorded of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TenantSettings {
    pub(super) quota: Quota,
    pub(super) thresholds: Thresholds,
    pub(super) calendar: Calendar,
}

/// The columns of `tenants` that say it.
pub(super) struct Columns {
    pub(super) monthly_quota: i64,
    pub(super) quota_boosts: Value,
    pub(super) thresholds: Vec<i32>,
    pub(super) billing_day: i16,
    pub(super) time_zone: String,
    pub(super) calendars: Value,
}

/// The settings of `tenant`; `None` if there is no such tenant, or its row has no billing day.
pub(super) async fn find(
    database: impl PgExecutor<'_>,
    tenant: &str,
) -> Result<Option<TenantSettings>, sqlx::Error> {
    let row = sqlx::query_as!(
        Columns,
        "SELECT monthly_quota, quota_boosts, thresholds, billing_day, time_zone, calendars
         FROM tenants
         WHERE id = $1",
        tenant,
    )
    .fetch_optional(database)
    .await?;
    Ok(row.and_then(Columns::read))
}

impl Columns {
    /// What they say; `None` if there is no such billing day.
    pub(super) fn read(self) -> Option<TenantSettings> {
        Some(TenantSettings {
            quota: quota(self.monthly_quota, self.quota_boosts),
            thresholds: thresholds(self.thresholds),
            calendar: calendar(self.billing_day, &self.time_zone, self.calendars)?,
        })
    }
}

/// One entry of the column `calendars`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CalendarEntry {
    /// `None`: since ever.
    since: Option<Timestamp>,
    billing_day: i32,
    time_zone: String,
}

// A row that was edited by hand may say anything. Counting goes on all the same: with the nearest that makes sense,
// until the operator has put the row right.

/// The quota that the columns `monthly_quota` and `quota_boosts` say.
pub(super) fn quota(base: i64, boosts: Value) -> Quota {
    Quota { base, boosts: serde_json::from_value::<Vec<Boost>>(boosts).unwrap_or_default() }
}

/// The thresholds that the column `thresholds` says.
pub(super) fn thresholds(percents: Vec<i32>) -> Thresholds {
    Thresholds::try_from(percents).unwrap_or_default()
}

/// The calendar that counts: what the column `calendars` says, or, where that is empty, the wanted one. `None` if
/// there is no such billing day.
pub(super) fn calendar(billing_day: i16, time_zone: &str, calendars: Value) -> Option<Calendar> {
    let entries: Vec<CalendarEntry> = serde_json::from_value(calendars).unwrap_or_default();
    calendar_of(&entries).or_else(|| {
        let billing_day = BillingDay::try_from(i32::from(billing_day)).ok()?;
        Some(Calendar::new(billing_day, zone(time_zone)))
    })
}

/// The calendar of these entries; `None` if they make none.
pub(super) fn calendar_of(entries: &[CalendarEntry]) -> Option<Calendar> {
    let terms = |entry: &CalendarEntry| {
        let billing_day = BillingDay::try_from(entry.billing_day).ok()?;
        Some(Terms { billing_day, time_zone: zone(&entry.time_zone) })
    };
    let (first, then) = entries.split_first()?;
    let then = then.iter().map(|entry| Some((entry.since?, terms(entry)?)));
    Calendar::of(terms(first)?, then.collect::<Option<_>>()?)
}

/// A calendar's entries, in the form in which they are kept.
pub(super) fn entries(calendar: &Calendar) -> Vec<CalendarEntry> {
    let entry = |(since, terms): (Option<Timestamp>, &Terms)| CalendarEntry {
        since,
        billing_day: terms.billing_day.number().into(),
        time_zone: terms.time_zone.iana_name().unwrap_or("UTC").to_owned(),
    };
    calendar.history().map(entry).collect()
}

/// A zone that is not in this build's table of zones is read as UTC: the operator refuses it, so the row was edited
/// by hand.
fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_calendar_is_kept_as_it_is_and_one_that_makes_no_sense_is_the_wanted_one() {
        let zone = |name| TimeZone::get(name).unwrap();
        let since = "2026-03-15T00:00:00Z".parse().unwrap();
        let first = Calendar::new(15.try_into().unwrap(), zone("Europe/Berlin"));
        let terms = Terms { billing_day: 1.try_into().unwrap(), time_zone: TimeZone::UTC };
        let changed = first.changed(terms, since).unwrap();
        let kept = serde_json::to_value(entries(&changed)).unwrap();
        assert_eq!(calendar(7, "UTC", kept), Some(changed));

        let wanted = Calendar::new(7.try_into().unwrap(), zone("Asia/Tokyo"));
        let wrong = [
            json!([]),
            json!({}),
            json!([{ "since": null, "billingDay": 32, "timeZone": "UTC" }]),
            json!([{ "billingDay": 1, "timeZone": "UTC" }, { "since": null, "billingDay": 2, "timeZone": "UTC" }]),
        ];
        for calendars in wrong {
            assert_eq!(calendar(7, "Asia/Tokyo", calendars.clone()), Some(wanted.clone()), "{calendars}");
        }
        assert_eq!(calendar(0, "UTC", json!([])), None);
        assert_eq!(quota(5, json!([{ "tokens": "many" }])), Quota { base: 5, boosts: Vec::new() });
        assert_eq!(thresholds(vec![0]), Thresholds::default());
    }
}
