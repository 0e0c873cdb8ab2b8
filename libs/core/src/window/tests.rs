//! Windows of zones whose clocks are changed at all hours. Dates in the past, where no new release of the
//! table of zones can change them.

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::period::BillingDay;

const ALL: [Window; 4] = [Window::Minute, Window::Hour, Window::Day, Window::Month];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// A question of the year in which `now` lies; periods start on the 15th in UTC.
fn windows(question: &Question, now: &str) -> Result<Vec<Range<Timestamp>>, Refusal> {
    let day = BillingDay::try_from(15).unwrap();
    question.windows(at(now), 400, |instant| BillingPeriod::containing(instant, day, &TimeZone::UTC))
}

fn question(window: Window, zone_name: &str, from: &str, to: &str) -> Question {
    let bound = |text: &str| (!text.is_empty()).then(|| at(text));
    Question { window, zone: zone(zone_name), from: bound(from), to: bound(to) }
}

#[test]
fn windows_follow_the_clock_of_their_zone() {
    use Window::{Day, Hour, Minute, Month};
    let cases = [
        // window, zone, instant, the next window's start
        (Minute, "Asia/Kolkata", "2025-06-15T12:00:59.9Z", "2025-06-15T12:01:00Z"),
        (Minute, "UTC", "2025-06-15T12:00:00Z", "2025-06-15T12:01:00Z"),
        (Hour, "UTC", "2025-06-15T12:00:00Z", "2025-06-15T13:00:00Z"),
        (Hour, "UTC", "2025-06-15T12:59:59.9Z", "2025-06-15T13:00:00Z"),
        (Hour, "Asia/Kolkata", "2025-06-15T12:00:00Z", "2025-06-15T12:30:00Z"),
        // 02:00 comes twice: each is an hour of its own.
        (Hour, "Europe/Berlin", "2024-10-27T00:30:00Z", "2024-10-27T01:00:00Z"),
        (Hour, "Europe/Berlin", "2024-10-27T01:00:00Z", "2024-10-27T02:00:00Z"),
        // At Lord Howe the clock is changed by half an hour: from 02:00 to 02:30, and from 02:00 to 01:30.
        (Hour, "Australia/Lord_Howe", "2024-10-05T15:00:00Z", "2024-10-05T15:30:00Z"),
        (Hour, "Australia/Lord_Howe", "2024-10-05T15:30:00Z", "2024-10-05T16:00:00Z"),
        (Hour, "Australia/Lord_Howe", "2024-04-06T14:00:00Z", "2024-04-06T15:00:00Z"),
        (Hour, "Australia/Lord_Howe", "2024-04-06T15:00:00Z", "2024-04-06T15:30:00Z"),
        (Day, "UTC", "2024-02-28T12:00:00Z", "2024-02-29T00:00:00Z"),
        (Day, "Asia/Kolkata", "2025-06-15T18:29:59Z", "2025-06-15T18:30:00Z"),
        // 23 hours, and 25.
        (Day, "Europe/Berlin", "2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"),
        (Day, "Europe/Berlin", "2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z"),
        // Midnight does not exist in Santiago, and comes twice in Havana.
        (Day, "America/Santiago", "2024-09-07T12:00:00Z", "2024-09-08T04:00:00Z"),
        (Day, "America/Havana", "2024-11-02T12:00:00Z", "2024-11-03T04:00:00Z"),
        (Day, "America/Havana", "2024-11-03T05:30:00Z", "2024-11-04T05:00:00Z"),
        // In St. John's the clock went from 00:01 back to 23:01: the day that had begun goes on.
        (Day, "America/St_Johns", "2010-11-07T02:29:00Z", "2010-11-07T02:30:00Z"),
        (Day, "America/St_Johns", "2010-11-07T02:30:30Z", "2010-11-08T03:30:00Z"),
        (Day, "America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-08T03:30:00Z"),
        // Apia had no 30 December 2011.
        (Day, "Pacific/Apia", "2011-12-29T12:00:00Z", "2011-12-30T10:00:00Z"),
        (Day, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"),
        (Month, "Europe/Berlin", "2024-01-31T22:59:59Z", "2024-01-31T23:00:00Z"),
        (Month, "Europe/Berlin", "2024-02-29T23:00:00Z", "2024-03-31T22:00:00Z"),
    ];
    for (window, zone_name, instant, next) in cases {
        assert_eq!(window.next(at(instant), &zone(zone_name)), at(next), "{window:?} {zone_name} {instant}");
    }
}

#[test]
fn bounds_that_are_not_given_follow_from_the_others() {
    use Window::{Day, Hour, Minute, Month};
    let now = "2025-06-15T12:34:56.7Z";
    let cases = [
        // window, zone, from, to, the range's, its windows
        (Minute, "UTC", "", "", "2025-06-14T12:35:00Z", "2025-06-15T12:35:00Z", 1_440),
        (Hour, "UTC", "", "", "2025-06-14T13:00:00Z", "2025-06-15T13:00:00Z", 24),
        (Hour, "Asia/Kolkata", "", "", "2025-06-14T13:30:00Z", "2025-06-15T13:30:00Z", 24),
        // The period has begun today; a day earlier, it is the one before.
        (Day, "UTC", "", "", "2025-06-15T00:00:00Z", "2025-06-16T00:00:00Z", 1),
        (Day, "UTC", "", "2025-06-15T00:00:00Z", "2025-05-15T00:00:00Z", "2025-06-15T00:00:00Z", 31),
        // The period starts at midnight in UTC, which is in the middle of a day here.
        (Day, "Asia/Kolkata", "", "", "2025-06-15T00:00:00Z", "2025-06-15T18:30:00Z", 1),
        (Month, "UTC", "", "", "2024-07-01T00:00:00Z", "2025-07-01T00:00:00Z", 12),
        (Month, "Europe/Berlin", "", "", "2024-06-30T22:00:00Z", "2025-06-30T22:00:00Z", 12),
        (Month, "UTC", "", "2025-06-01T00:00:00Z", "2024-06-01T00:00:00Z", "2025-06-01T00:00:00Z", 12),
        // No further back than there is something.
        (Month, "UTC", "", "2024-12-25T00:00:00Z", "2024-05-11T12:35:00Z", "2024-12-25T00:00:00Z", 8),
        // Both bounds are moved up to whole minutes.
        (
            Minute,
            "UTC",
            "2025-06-15T12:00:00.001Z",
            "2025-06-15T12:01:01Z",
            "2025-06-15T12:01:00Z",
            "2025-06-15T12:02:00Z",
            1,
        ),
        // The first and the last window are cut off.
        (
            Day,
            "UTC",
            "2025-06-01T12:00:00Z",
            "2025-06-03T06:00:00Z",
            "2025-06-01T12:00:00Z",
            "2025-06-03T06:00:00Z",
            3,
        ),
        (
            Hour,
            "Europe/Berlin",
            "2025-03-29T23:00:00Z",
            "2025-03-30T22:00:00Z",
            "2025-03-29T23:00:00Z",
            "2025-03-30T22:00:00Z",
            23,
        ),
        (
            Hour,
            "Europe/Berlin",
            "2024-10-26T22:00:00Z",
            "2024-10-27T23:00:00Z",
            "2024-10-26T22:00:00Z",
            "2024-10-27T23:00:00Z",
            25,
        ),
    ];
    for (window, zone_name, from, to, first, last, count) in cases {
        let case = format!("{window:?} {zone_name} {from} {to}");
        let windows = windows(&question(window, zone_name, from, to), now).unwrap();
        assert_eq!((windows[0].start, windows.last().unwrap().end), (at(first), at(last)), "{case}");
        assert_eq!(windows.len(), count, "{case}");
    }
}

#[test]
fn a_range_that_is_none_or_has_too_much_in_it_is_refused_with_the_parameter() {
    use Window::{Day, Hour, Minute};
    let now = "2025-06-15T12:00:00Z";
    let cases = [
        // window, from, to, refusal
        (Day, "2025-06-02T00:00:00Z", "2025-06-01T00:00:00Z", Refusal::Empty),
        (Day, "2025-06-01T00:00:00Z", "2025-06-01T00:00:00Z", Refusal::Empty),
        (Day, "2025-06-01T00:00:01Z", "2025-06-01T00:01:00Z", Refusal::Empty),
        (Day, "2024-05-11T11:59:59Z", "", Refusal::FromTooFar(400)),
        (Day, "", "2026-07-20T12:00:01Z", Refusal::ToTooFar(400)),
        (Day, "-009999-01-02T01:59:59Z", "9999-12-30T22:00:00Z", Refusal::ToTooFar(400)),
        (Minute, "2025-06-08T11:59:00Z", "2025-06-15T12:00:00Z", Refusal::TooLong),
        (Hour, "2025-01-01T00:00:00Z", "2026-07-01T00:00:00Z", Refusal::TooLong),
    ];
    for (window, from, to, refusal) in cases {
        assert_eq!(windows(&question(window, "UTC", from, to), now), Err(refusal), "{window:?} {from} {to}");
    }
    let week = question(Minute, "UTC", "2025-06-08T12:00:00Z", "2025-06-15T12:00:00Z");
    assert_eq!(windows(&week, now).unwrap().len(), MAX_WINDOWS);
    let parameters = [Refusal::Empty, Refusal::TooLong, Refusal::FromTooFar(1), Refusal::ToTooFar(1)];
    assert_eq!(parameters.map(Refusal::parameter), ["from", "from", "from", "to"]);
}

#[test]
fn a_bound_is_an_instant_or_the_first_one_of_a_date() {
    let cases = [
        ("2026-06-15T12:00:00Z", Some("2026-06-15T12:00:00Z")),
        ("2026-06-15T14:00:00+02:00", Some("2026-06-15T12:00:00Z")),
        ("2026-06-15", Some("2026-06-14T22:00:00Z")),
        // Whose clock?
        ("2026-06-15T12:00:00", None),
        // What `+` becomes in a query.
        ("2026-06-15T14:00:00 02:00", None),
        ("2026-02-29", None),
        // ISO 8601, but not RFC 3339.
        ("20260615T120000Z", None),
        ("2026-06-15T14:00:00+02:00[Europe/Berlin]", None),
        ("2026-W25-1", None),
        ("2026-06-1", None),
        ("yesterday!", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(bound(text, &zone("Europe/Berlin")), expected.map(at), "{text}");
    }
}

#[test]
fn a_window_is_read_from_its_name() {
    for window in ALL {
        assert_eq!(window.as_str().parse(), Ok(window));
    }
    for text in ["", "Day", "week", "1d"] {
        assert_eq!(text.parse::<Window>(), Err(NotAWindow), "{text}");
    }
}

proptest! {
    #[test]
    fn windows_tile_the_range(
        second in 0_i64..4_000_000_000,
        seconds in 60_i64..3_000_000,
        window in 0_usize..4,
        zone_name in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Kolkata", "Pacific/Apia",
            "Australia/Lord_Howe", "America/Havana", "America/St_Johns", "Asia/Gaza", "Antarctica/Troll",
        ]),
    ) {
        let (window, zone) = (ALL[window], zone(zone_name));
        let from = Timestamp::from_second(second).unwrap();
        let to = from + SignedDuration::from_secs(if window == Window::Minute { seconds / 10 } else { seconds });
        let asked = Question { window, zone: zone.clone(), from: Some(from), to: Some(to) };
        let period_of = |_| unreachable!("both bounds are given");
        let windows = match asked.windows(to, 400, period_of) {
            Err(Refusal::Empty) => return Ok(()),
            windows => windows.unwrap(),
        };
        let (first, last) = (windows[0].start, windows[windows.len() - 1].end);
        prop_assert!(from <= first && first < from + MINUTE);
        prop_assert!(to <= last && last < to + MINUTE);
        for pair in windows.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start);
        }
        let longest = SignedDuration::from_hours(match window {
            Window::Minute | Window::Hour => 1,
            // The clocks of Troll are changed by two hours.
            Window::Day => 26,
            Window::Month => 31 * 24 + 2,
        });
        for one in &windows {
            prop_assert!(one.start < one.end);
            prop_assert!(one.end.duration_since(one.start) <= longest, "{:?}", one);
            // Its last minute lies in it, and the window after it does not begin earlier.
            prop_assert!(window.next(one.end - MINUTE, &zone) >= one.end, "{:?}", one);
        }
        // A range that is cut in two has the same windows, but for the one that the cut goes through.
        let middle = windows[windows.len() / 2].start;
        let part = |from, to| Question { from: Some(from), to: Some(to), ..asked.clone() };
        if middle > first {
            let mut parts = part(first, middle).windows(to, 400, period_of).unwrap();
            parts.extend(part(middle, last).windows(to, 400, period_of).unwrap());
            prop_assert_eq!(parts, windows);
        }
    }
}
