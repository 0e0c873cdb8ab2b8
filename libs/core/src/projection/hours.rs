//! Usage of the last days, hour by hour, kept from one reading to the next, so that only what may have changed is read
//! again.

use std::collections::VecDeque;
use std::ops::Range;

use jiff::{SignedDuration, Timestamp};

use super::{DAYS, hour};

/// Hours that are looked at: those of the days, and the one that has begun.
const HOURS: usize = DAYS * 24 + 1;

/// Older hours that are read each time, in turn. Read once a minute, all of them are within half an hour, and with them
/// whatever came late.
const IN_TURN: usize = 6;

/// What a tenant used in each of the last [`hours`].
///
/// A tenant's minutes lie scattered among those of all others, so that each costs a page. All tenants' hours together
/// are read in the same order, a few of each at a time: then they share the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    /// Of each hour, the oldest first.
    tokens: VecDeque<i64>,
    /// When the last of them began.
    begun: Timestamp,
    /// Which of the older ones is next to be read.
    turn: usize,
    /// Whether all were read.
    whole: bool,
}

/// The hours that the last [`days`](super::days) before `now` are made of, the oldest first. The last is the one that
/// has begun.
#[must_use]
pub fn hours(now: Timestamp) -> Vec<Range<Timestamp>> {
    let (begun, end) = (hour(now), super::end(now));
    let start = |place: usize| {
        let before = i64::try_from(HOURS - 1 - place).unwrap_or_default();
        begun - SignedDuration::from_hours(before)
    };
    (0..HOURS).map(|place| start(place)..if place == HOURS - 1 { end } else { start(place + 1) }).collect()
}

impl Hours {
    /// The hours before `now`, of which nothing was read.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { tokens: VecDeque::from([0; HOURS]), begun: hour(now), turn: 0, whole: false }
    }

    /// Makes these the [`hours`] before `now`, and answers the places of those to be read and [kept](Self::keep):
    /// some older ones, and what was the last full hour with all that begun since.
    pub fn advance(&mut self, now: Timestamp) -> [Range<usize>; 2] {
        let passed = usize::try_from(hour(now).duration_since(self.begun).as_hours()).ok();
        let passed = passed.filter(|passed| passed + IN_TURN < HOURS).unwrap_or_else(|| {
            *self = Self::new(now);
            0
        });
        self.begun = hour(now);
        self.tokens.drain(..passed);
        self.tokens.resize(HOURS, 0);
        let recent = HOURS - 2 - passed;
        let turn = self.turn.saturating_sub(passed);
        let end = recent.min(turn + IN_TURN);
        self.whole |= end == recent;
        self.turn = if end == recent { 0 } else { end };
        [turn..end, recent..HOURS]
    }

    /// Whether all hours were read, once what the last [`advance`](Self::advance) asked for is kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Keeps what was read of the hours from `place` on.
    pub fn keep(&mut self, place: usize, sums: &[i64]) {
        for (kept, sum) in self.tokens.iter_mut().skip(place).zip(sums) {
            *kept = *sum;
        }
    }

    /// Tokens of each of the days, if all hours were read.
    #[must_use]
    pub fn days(&self) -> Option<[i64; DAYS]> {
        let mut days = [0_i64; DAYS];
        for (place, tokens) in self.tokens.iter().enumerate() {
            // The hour that has begun belongs to the last day.
            let day = &mut days[(place / 24).min(DAYS - 1)];
            *day = day.saturating_add(*tokens);
        }
        self.whole.then_some(days)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Reads what is asked for from hours of which each has as many tokens as `of` says; answers how many hours it was.
    fn read(hours: &mut Hours, now: Timestamp, of: impl Fn(Timestamp) -> i64) -> usize {
        let windows = super::hours(now);
        let parts = hours.advance(now);
        for part in &parts {
            let sums: Vec<i64> = windows[part.clone()].iter().map(|window| of(window.start)).collect();
            hours.keep(part.start, &sums);
        }
        parts.into_iter().map(|part| part.len()).sum()
    }

    /// Reads until all is read.
    fn read_all(now: Timestamp, of: impl Fn(Timestamp) -> i64) -> Hours {
        let mut hours = Hours::new(now);
        while !hours.is_whole() {
            assert_eq!(hours.days(), None);
            read(&mut hours, now, &of);
        }
        hours
    }

    #[test]
    fn hours_tile_the_days() {
        let now = at("2026-06-15T12:30:30Z");
        let (hours, days) = (hours(now), crate::projection::days(now));
        assert_eq!((hours.len(), hours[168].clone()), (169, at("2026-06-15T12:00:00Z")..days[6].end));
        assert!(hours.windows(2).all(|pair| pair[0].end == pair[1].start));
        for (day, range) in days.iter().enumerate() {
            assert_eq!(hours[day * 24].start, range.start);
        }
    }

    #[test]
    fn little_is_read_at_a_time_and_what_comes_late_is_seen() {
        let start = at("2026-06-15T12:30:00Z");
        let mut hours = read_all(start, |_| 1);
        assert_eq!(hours.days(), Some([24, 24, 24, 24, 24, 24, 25]));
        // Five tokens come late in each hour: those of the last full hour are seen at once, all others by and by.
        for minute in 1..=35 {
            let now = start + SignedDuration::from_mins(minute);
            let count = read(&mut hours, now, |_| 6);
            assert!(count <= IN_TURN + 3, "{count} hours were read at once");
            if minute == 1 {
                assert_eq!(hours.days(), Some([54, 24, 24, 24, 24, 24, 35]));
            }
        }
        assert_eq!(hours.days(), Some([144, 144, 144, 144, 144, 144, 150]));
    }

    #[test]
    fn an_hour_that_begins_while_the_first_are_read_leaves_none_out() {
        let (start, of) = (at("2026-06-15T12:30:00Z"), |hour: Timestamp| hour.as_second() / 3_600);
        let (mut hours, mut now) = (Hours::new(start), start);
        while !hours.is_whole() {
            read(&mut hours, now, of);
            now += SignedDuration::from_mins(25);
        }
        read(&mut hours, now, of);
        assert_eq!(hours.days(), read_all(now, of).days());
    }

    #[test]
    fn after_a_pause_what_was_missed_is_read_and_after_a_week_everything() {
        let (start, of) = (at("2026-06-15T12:30:00Z"), |hour: Timestamp| hour.as_second() / 3_600);
        let known = read_all(start, of);
        for (days, whole) in [(0, true), (2, true), (6, true), (7, false), (900, false), (-1, false)] {
            let (mut hours, now) = (known.clone(), start + SignedDuration::from_hours(24 * days));
            read(&mut hours, now, of);
            assert_eq!(hours.is_whole(), whole, "{days}");
            assert_eq!(hours.days(), whole.then(|| read_all(now, of).days()).flatten(), "{days}");
        }
    }
}
