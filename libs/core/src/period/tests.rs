use jiff::tz::TimeZoneName;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// From 1970 to the end of 2100.
const SECONDS: std::ops::Range<i64> = 0..4_133_980_800;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn at(instant: &str) -> Timestamp {
    instant.parse().unwrap()
}

fn plus_seconds(instant: Timestamp, seconds: i64) -> Timestamp {
    instant + Span::new().seconds(seconds)
}

fn on(day: i32) -> BillingDay {
    BillingDay::try_from(day).unwrap()
}

/// All zones of the table of zones that is part of the programs.
fn zones() -> Vec<TimeZone> {
    let names: Vec<TimeZoneName<'_>> = jiff::tz::db().available().collect();
    assert!(names.len() > 590, "{}", names.len());
    names.iter().map(|name| zone(name.as_str())).collect()
}

/// Whether the clocks have come to `date`.
fn has_come_to(date: Date, zone: &TimeZone, instant: Timestamp) -> bool {
    zone.to_datetime(instant).date() >= date
}

/// What a start is, said in another way: the clocks have come to `date`, and had not at any time before. Between two
/// changes they only go forward, so to look at the last second before each is enough.
fn assert_start(date: Date, zone: &TimeZone) {
    let start = start_of(date, zone);
    let what = || format!("{date} in {zone:?} starts at {start}");
    assert!(has_come_to(date, zone, start), "{}", what());
    let before = plus_seconds(start, -3 * 86_400);
    let changes =
        zone.following(before).map(|change| change.timestamp()).take_while(|change| *change <= start);
    for last in changes.chain([start]) {
        assert!(!has_come_to(date, zone, plus_seconds(last, -1)), "{}", what());
    }
}

/// That the period of `instant` has it, and that its neighbours begin and end where it does.
fn assert_tiles(instant: Timestamp, day: BillingDay, zone: &TimeZone) {
    let of = |instant| BillingPeriod::containing(instant, day, zone);
    let period = of(instant);
    assert!(period.contains(instant), "{instant} {day:?} {zone:?}: {period:?}");
    assert_eq!(of(period.start), period, "{instant} {day:?} {zone:?}");
    assert_eq!(of(period.end - Span::new().nanoseconds(1)), period, "{instant} {day:?} {zone:?}");
    assert_eq!(of(period.end).start, period.end, "{instant} {day:?} {zone:?}");
    assert_eq!(of(period.start - Span::new().nanoseconds(1)).end, period.start, "{instant} {day:?} {zone:?}");
    let days = period.end.duration_since(period.start).as_hours() / 24;
    assert!((27..=31).contains(&days), "{instant} {day:?} {zone:?}: {days} days");
}

#[test]
fn a_period_runs_from_billing_day_to_billing_day() {
    let cases = [
        // instant, day, zone, start, end
        ("2026-03-14T23:59:59Z", 15, "UTC", "2026-02-15T00:00:00Z", "2026-03-15T00:00:00Z"),
        ("2026-03-15T00:00:00Z", 15, "UTC", "2026-03-15T00:00:00Z", "2026-04-15T00:00:00Z"),
        ("2026-02-10T12:00:00Z", 31, "UTC", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"),
        ("2026-02-28T00:00:00Z", 31, "UTC", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"),
        ("2028-02-28T23:00:00Z", 31, "UTC", "2028-01-31T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("2026-12-31T23:30:00Z", 1, "Europe/Berlin", "2026-12-31T23:00:00Z", "2027-01-31T23:00:00Z"),
        ("2026-03-20T00:00:00Z", 15, "Europe/Berlin", "2026-03-14T23:00:00Z", "2026-04-14T22:00:00Z"),
    ];
    for (instant, day, name, start, end) in cases {
        let period = BillingPeriod { start: at(start), end: at(end) };
        assert_eq!(
            BillingPeriod::containing(at(instant), on(day), &zone(name)),
            period,
            "{instant} {day} {name}"
        );
    }
}

#[test]
fn a_date_starts_at_its_first_instant_whatever_the_clocks_do_at_midnight() {
    // In the past, where no new table of zones can change them.
    let cases = [
        // From 24:00 to 01:00: there is no midnight.
        ("America/Santiago", "2024-09-08", "2024-09-08T04:00:00Z"),
        // From 01:00 back to 00:00: it comes twice.
        ("America/Havana", "2024-11-03", "2024-11-03T04:00:00Z"),
        // From 24:00 back to 23:00: the end of the day before comes twice, and midnight a second time after it.
        ("America/Sao_Paulo", "2018-02-18", "2018-02-18T03:00:00Z"),
        // From 23:30 to 24:00: the gap begins before midnight, and the date when it ends.
        ("America/Toronto", "1919-03-31", "1919-03-31T04:30:00Z"),
        // From 00:01 back to 23:01: a minute of the date, an hour of the day before, and the date again.
        ("America/St_Johns", "2010-11-07", "2010-11-07T02:30:00Z"),
        // Across the date line: there is no 30 December, and 31 December begins where the 29th ends.
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
        ("Pacific/Kwajalein", "1993-08-21", "1993-08-21T12:00:00Z"),
    ];
    for (name, date, start) in cases {
        assert_eq!(start_of(date.parse().unwrap(), &zone(name)), at(start), "{date} {name}");
        assert_start(date.parse().unwrap(), &zone(name));
    }
}

#[test]
fn clocks_that_are_set_back_over_midnight_do_not_lead_back_into_the_period_before() {
    let (day, zone) = (on(7), zone("America/St_Johns"));
    let november = BillingPeriod { start: at("2010-11-07T02:30:00Z"), end: at("2010-12-07T03:30:00Z") };
    // By the clock: 00:00:30 on the 7th, then 23:30 on the 6th, then 00:00 on the 7th again.
    for instant in ["2010-11-07T02:30:30Z", "2010-11-07T03:00:00Z", "2010-11-07T03:30:00Z"] {
        assert_eq!(BillingPeriod::containing(at(instant), day, &zone), november, "{instant}");
    }
    // The same over the end of a month, where the clock shows another month than the period's.
    let november = BillingPeriod { start: at("2009-11-01T02:30:00Z"), end: at("2009-12-01T03:30:00Z") };
    for instant in ["2009-11-01T02:30:30Z", "2009-11-01T03:00:00Z", "2009-11-01T03:30:00Z"] {
        assert_eq!(BillingPeriod::containing(at(instant), on(1), &zone), november, "{instant}");
    }
}

/// What `dev/billing-vectors` found, which knows nothing of this.
#[test]
fn the_published_vectors_hold() {
    #[derive(serde::Deserialize)]
    struct Vector {
        day: i32,
        zone: String,
        instant: Timestamp,
        start: Timestamp,
        end: Timestamp,
    }
    let read = |file, least| {
        let vectors: Vec<Vector> = serde_json::from_str(file).unwrap();
        assert!(vectors.len() > least, "{}", vectors.len());
        vectors
    };
    let past = read(include_str!("../../vectors/billing-periods.json"), 2_000);
    // By rules that zones have for all years after those that the database lists.
    let to_come = read(include_str!("../../vectors/billing-periods-to-come.json"), 200);
    for Vector { day, zone: name, instant, start, end } in past.into_iter().chain(to_come) {
        let period = BillingPeriod::containing(instant, on(day), &zone(&name));
        assert_eq!(period, BillingPeriod { start, end }, "{instant} {day} {name}");
    }
}

#[test]
fn around_every_change_of_every_clock_dates_start_once_and_periods_tile() {
    let end = Timestamp::from_second(SECONDS.end).unwrap();
    let mut changes = 0;
    for zone in zones() {
        for change in zone.following(Timestamp::UNIX_EPOCH).take_while(|change| change.timestamp() < end) {
            let change = change.timestamp();
            changes += 1;
            for instant in [plus_seconds(change, -1), change] {
                let date = zone.to_datetime(instant).date();
                for date in [date.yesterday().unwrap(), date, date.tomorrow().unwrap()] {
                    assert_start(date, &zone);
                }
                assert_tiles(instant, on(date.day().into()), &zone);
            }
        }
    }
    assert!(changes > 50_000, "{changes}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn periods_tile_time(second in SECONDS, nanosecond in 0..1_000_000_000, day in 1..=31_i32, zone in select(zones())) {
        assert_tiles(Timestamp::new(second, nanosecond).unwrap(), on(day), &zone);
    }

    #[test]
    fn a_period_starts_on_its_day_or_the_last_of_a_shorter_month(second in SECONDS, day in 1..=31_i8, zone in select(zones())) {
        let period = BillingPeriod::containing(Timestamp::from_second(second).unwrap(), on(day.into()), &zone);
        let date = zone.to_datetime(period.start).date();
        let wanted = day.min(date.days_in_month());
        // Only a date that does not exist starts on the one after it.
        prop_assert!(date.day() == wanted || start_of(date.yesterday().unwrap(), &zone) == period.start);
    }
}
