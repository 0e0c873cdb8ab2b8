//! Windows: a range of time cut at the minutes, hours, days or months of a time zone's clock.

use std::ops::Range;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use crate::minute::Minute;
use crate::period::{BillingPeriod, start_of};
use crate::rfc3339;

/// Windows in one series at most: a week of minutes, or the hours of 420 days.
pub const MAX_WINDOWS: usize = 10_080;

/// The length of a series of minutes or hours that nobody gave a beginning.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The shortest window, and what bounds are moved up to.
const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// A minute, which is the same in every zone.
    Minute,
    /// From one whole hour of the clock to the next, or to where the clock is changed: as a rule an hour.
    Hour,
    /// From the first instant of a date to that of the next: as a rule 24 hours, 23 or 25 where the
    /// clock is changed.
    Day,
    /// A month of the calendar.
    Month,
}

/// A text that is no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be minute, hour, day or month")]
pub struct NotAWindow;

impl FromStr for Window {
    type Err = NotAWindow;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Minute, Self::Hour, Self::Day, Self::Month];
        all.into_iter().find(|window| window.as_str() == text).ok_or(NotAWindow)
    }
}

impl Window {
    /// The window's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The first instant after `instant` at which a window starts.
    #[must_use]
    pub fn next(self, instant: Timestamp, zone: &TimeZone) -> Timestamp {
        let date = || zone.to_datetime(instant).date();
        match self {
            Self::Minute => plus(Minute::of(instant).start(), MINUTE),
            Self::Hour => next_hour(instant, zone),
            Self::Day => first_after(instant, zone, date(), |days| Span::new().days(days)),
            Self::Month => {
                first_after(instant, zone, date().first_of_month(), |months| Span::new().months(months))
            }
        }
    }
}

/// The next whole hour of the clock, or the change of the clock if that comes first.
fn next_hour(instant: Timestamp, zone: &TimeZone) -> Timestamp {
    let offset = zone.to_offset(instant);
    let time = offset.to_datetime(instant).time();
    let seconds = i64::from(time.minute()) * 60 + i64::from(time.second());
    let hour = plus(instant, SignedDuration::new(3_600 - seconds, -time.subsec_nanosecond()));
    if zone.to_offset(hour - SignedDuration::from_secs(1)) == offset {
        return hour;
    }
    let mut changes = zone.following(instant).take_while(|change| change.timestamp() < hour);
    changes.find(|change| change.offset() != offset).map_or(hour, |change| change.timestamp())
}

/// The first instant of the day or month after that of `date`, on which `instant` lies. Of the one after
/// that, where the clock had passed midnight when it was set back: the next one has begun by then.
fn first_after(instant: Timestamp, zone: &TimeZone, date: Date, span: impl Fn(i64) -> Span) -> Timestamp {
    let starts = (1..=2).map(|count| start_of(date.saturating_add(span(count)), zone));
    starts.into_iter().find(|start| *start > instant).unwrap_or(Timestamp::MAX)
}

fn plus(instant: Timestamp, duration: SignedDuration) -> Timestamp {
    instant.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// An instant as people write a bound: RFC 3339, or a date, which stands for its first instant in `zone`.
#[must_use]
pub fn bound(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    rfc3339::date(text).map(|date| start_of(date, zone)).or_else(|| rfc3339::instant(text))
}

/// A series that somebody asks for. Bounds that are not given follow from the others.
#[derive(Debug, Clone)]
pub struct Question {
    /// How the range is cut.
    pub window: Window,
    /// Whose clock cuts it.
    pub zone: TimeZone,
    /// The range's first instant.
    pub from: Option<Timestamp>,
    /// The first instant after it.
    pub to: Option<Timestamp>,
}

/// Why there is no such series. The text says what the parameter must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The beginning lies further from now than this number of days.
    #[error("must lie within {0} days of now")]
    FromTooFar(u16),
    /// The end does.
    #[error("must lie within {0} days of now")]
    ToTooFar(u16),
    /// The range has no minute in it.
    #[error("must lie before to, by a minute or more")]
    Empty,
    /// The range has more than [`MAX_WINDOWS`] windows.
    #[error("must be later, or window larger: a series has at most {MAX_WINDOWS} points")]
    TooLong,
}

impl Refusal {
    /// The name of the parameter that is not as it must be.
    #[must_use]
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::ToTooFar(_) => "to",
            Self::FromTooFar(_) | Self::Empty | Self::TooLong => "from",
        }
    }
}

impl Question {
    /// The windows of the range, in order: they tile it, the first and the last cut off where it ends.
    ///
    /// Usage is kept by the minute, and a minute belongs to the range in which it starts: so both bounds
    /// are moved up to the next whole minute, and ranges that tile time still do.
    ///
    /// Without an end, it is that of the window in which `now` lies. Without a beginning, it is, for
    /// minutes and hours, 24 hours before the end; for days, the beginning of the billing period in which
    /// the range ends, which `period_of` says; for months, that of the month 11 months before.
    ///
    /// Usage is kept for `kept_days`. A range that reaches back further is refused: there, no usage could
    /// not be told from usage that is forgotten.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn windows(
        &self,
        now: Timestamp,
        kept_days: u16,
        period_of: impl Fn(Timestamp) -> BillingPeriod,
    ) -> Result<Vec<Range<Timestamp>>, Refusal> {
        let kept = DAY * i32::from(kept_days);
        let far = |instant: Timestamp| instant.duration_since(now).abs() > kept;
        if self.to.is_some_and(far) {
            return Err(Refusal::ToTooFar(kept_days));
        }
        if self.from.is_some_and(far) {
            return Err(Refusal::FromTooFar(kept_days));
        }
        let to = whole_minute(self.to.unwrap_or_else(|| self.window.next(now, &self.zone)));
        let from = self.from.unwrap_or_else(|| self.beginning(to, period_of).max(plus(now, -kept)));
        let from = whole_minute(from);
        if from >= to {
            return Err(Refusal::Empty);
        }
        self.cut(from..to)
    }

    /// Where the series begins that ends at `to`.
    fn beginning(&self, to: Timestamp, period_of: impl Fn(Timestamp) -> BillingPeriod) -> Timestamp {
        let last = to - MINUTE;
        match self.window {
            Window::Minute | Window::Hour => to - DAY,
            Window::Day => period_of(last).start,
            Window::Month => {
                let month = self.zone.to_datetime(last).date().first_of_month();
                start_of(month.saturating_sub(Span::new().months(11)), &self.zone)
            }
        }
    }

    fn cut(&self, range: Range<Timestamp>) -> Result<Vec<Range<Timestamp>>, Refusal> {
        let mut windows = Vec::new();
        let mut start = range.start;
        while start < range.end {
            if windows.len() == MAX_WINDOWS {
                return Err(Refusal::TooLong);
            }
            let end = self.window.next(start, &self.zone).min(range.end);
            windows.push(start..end);
            start = end;
        }
        Ok(windows)
    }
}

/// The first whole minute that does not lie before `instant`.
fn whole_minute(instant: Timestamp) -> Timestamp {
    let start = Minute::of(instant).start();
    if start < instant { plus(start, MINUTE) } else { start }
}

#[cfg(test)]
mod tests;
