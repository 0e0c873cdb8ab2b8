//! What a usage event is, and what is wrong with one that is none.

mod cloud;
mod fault;
mod names;
mod object;
mod plain;
mod unknown;
mod value;
mod wire;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

pub use fault::Fault;
pub use names::{FeatureName, NotAFeature, NotATenant, NotTokens, TenantName, TokenCount};
pub use unknown::{IgnoredField, MAX_IGNORED};
pub use wire::{Body, Checked, Form, Read, Reading, Refusal, decode, decode_binary};

/// How far in the past a timestamp may lie. The same as what the field's other meters take.
pub const MAX_AGE: SignedDuration = SignedDuration::from_hours(35 * 24);

/// How far in the future a timestamp may lie: clocks differ.
pub const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// How far ahead the time in a UUIDv7 may lie: it is made by the client's clock, and kept by its day.
pub const MAX_ID_AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// The longest id a client may give, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// When a request arrived, and what was known of ids by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrived.
    pub now: Timestamp,
    /// No UUIDv7 that was made earlier is taken: the ledger has forgotten those of its day, or is about to.
    pub ids_since: Timestamp,
}

impl Arrival {
    /// At `now`, where the ledger knows ids for as long as it is meant to, or since `ids_since` where that is later.
    #[must_use]
    pub fn at(now: Timestamp, ids_since: Option<Timestamp>) -> Self {
        let meant = now.checked_sub(MAX_AGE).unwrap_or(Timestamp::MIN);
        Self { now, ids_since: ids_since.map_or(meant, |since| since.max(meant)) }
    }
}

/// Tokens that a tenant used with a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    /// Who used them.
    pub tenant: TenantName,
    /// What for.
    pub feature: FeatureName,
    /// How many.
    pub tokens: TokenCount,
    /// The client's id for it, under which it counts once. Without one, each delivery counts.
    pub id: Option<EventId>,
    /// When it happened, in whole microseconds; minutes and billing periods follow this.
    pub occurred_at: Timestamp,
    /// The event that this one takes back. It then says what that one said, and counts against it.
    pub reverses: Option<EventId>,
}

impl UsageEvent {
    /// What it adds to a sum: fewer than none if it takes another event back.
    #[must_use]
    pub fn signed_tokens(&self) -> i64 {
        if self.reverses.is_some() { -self.tokens.get() } else { self.tokens.get() }
    }

    /// The id under which it counts once, if it has one: its own, or the one that taking back another gives it.
    #[must_use]
    pub fn counts_once_as(&self) -> Option<EventId> {
        self.reverses.map(EventId::of_reversal).or(self.id)
    }

    /// The key under which the ledger keeps that id.
    #[must_use]
    pub fn ledger_key(&self) -> Option<LedgerKey> {
        self.reverses.map(EventId::reversal_ledger_key).or_else(|| self.id.map(EventId::ledger_key))
    }
}

/// A client's id for an event as 128 bits: a UUID as it is, any other string as its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

/// Under what the ledger keeps an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerKey(Uuid);

/// A part of the ledger, which is forgotten by a rule of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The UUIDv7 that were made on a UTC day, as they are. The day is numbered from 1970.
    Day(i32),
    /// What was taken back, which is known for as long as the event that it takes back can be found: `fe` and 120 bits
    /// of a hash.
    Reversals,
    /// All other ids: `ff` and 120 bits of a hash. No UUIDv7 of this age of the world is as high as these two.
    Others,
}

impl LedgerKey {
    /// The 128 bits.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// Where it lies.
    #[must_use]
    pub fn place(self) -> Place {
        match self.0.as_bytes()[0] {
            0xff => Place::Others,
            0xfe => Place::Reversals,
            // 48 bits of milliseconds (RFC 9562, section 5.7) are 3.3 million days.
            _ => Place::Day(i32::try_from((self.0.as_u128() >> 80) / 86_400_000).unwrap_or(i32::MAX)),
        }
    }
}

/// 120 bits of `hash` after `byte`.
fn starting_with(byte: u8, hash: Uuid) -> Uuid {
    let mut bytes = hash.into_bytes();
    bytes[0] = byte;
    Uuid::from_bytes(bytes)
}

/// The namespace of hashed ids (RFC 9562, section 6.5). Never changed: it is part of every id kept.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0xf1a6_3e7e_0000_4000_8000_0000_0000_0001);

/// The namespace of the ids of events that take others back. Never changed, either.
const REVERSAL_NAMESPACE: Uuid = Uuid::from_u128(0xf1a6_3e7e_0000_4000_8000_0000_0000_0002);

/// The namespace of the ledger's keys of UUIDs that are neither in the order of time nor hashes. Never changed, either.
const LEDGER_NAMESPACE: Uuid = Uuid::from_u128(0xf1a6_3e7e_0000_4000_8000_0000_0000_0003);

impl EventId {
    /// The id that `text` stands for. UUIDs in their usual form with hyphens are kept, whatever
    /// their case; UUIDv7 are the fastest, because their neighbours in time are neighbours on disk.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let uuid = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
        Self(uuid.unwrap_or_else(|| Uuid::new_v5(&ID_NAMESPACE, text.as_bytes())))
    }

    /// The id of the event that takes this one back: one for each, however often that is asked for.
    #[must_use]
    pub fn of_reversal(target: Self) -> Self {
        Self(Uuid::new_v5(&REVERSAL_NAMESPACE, target.0.as_bytes()))
    }

    /// When the id was made, to the millisecond, if it says so: a UUIDv7 does.
    #[must_use]
    pub fn made_at(self) -> Option<Timestamp> {
        let milliseconds = (self.0.get_version_num() == 7).then(|| self.0.as_u128() >> 80)?;
        Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()
    }

    /// The key under which the ledger keeps the id. It follows from the id alone, so that a repeat meets it again
    /// whenever it comes.
    ///
    /// An id that is no UUIDv7 is hashed, and not only marked: a client may count in the first byte, and a
    /// `UUIDv1` (RFC 9562, section 5.1) has part of its time there, so that of 1,000 a second 2 % would pass for repeats of
    /// others. A UUIDv5 is a hash already, such as that of every other string.
    #[must_use]
    pub fn ledger_key(self) -> LedgerKey {
        if self.made_at().is_some() {
            return LedgerKey(self.0);
        }
        let hash = match self.0.get_version_num() {
            5 => self.0,
            _ => Uuid::new_v5(&LEDGER_NAMESPACE, self.0.as_bytes()),
        };
        LedgerKey(starting_with(0xff, hash))
    }

    /// The key under which the ledger keeps that the event of this id was taken back.
    #[must_use]
    pub fn reversal_ledger_key(self) -> LedgerKey {
        LedgerKey(starting_with(0xfe, Self::of_reversal(self).0))
    }

    /// An id that is known to be one, such as one from the queue or the database.
    #[must_use]
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The 128 bits.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_kept_and_another_string_is_hashed() {
        let uuid = "01934f6e-7d1a-7000-8000-0123456789ab";
        assert_eq!(EventId::of(uuid).uuid().to_string(), uuid);
        assert_eq!(EventId::of(&uuid.to_uppercase()), EventId::of(uuid));
        assert_ne!(EventId::of("order-7"), EventId::of("order-8"));
        // Part of every id kept: this value can never change.
        assert_eq!(EventId::of("order-7").uuid().to_string(), "1ad61e23-1ace-5662-b97a-5a6515dff7cd");
    }

    #[test]
    fn the_ledgers_key_follows_from_the_id_alone() {
        let seven = EventId::of("01934f6e-7d1a-7000-8000-0123456789ab");
        assert_eq!(seven.made_at().unwrap().to_string(), "2024-11-21T15:54:21.338Z");
        assert_eq!(
            (seven.ledger_key().uuid(), seven.ledger_key().place()),
            (seven.uuid(), Place::Day(20_048))
        );
        let four = EventId::of("0b934f6e-7d1a-4000-8000-0123456789ab");
        // Parts of every ledger kept: these values can never change.
        for (key, place, expected) in [
            (four.ledger_key(), Place::Others, "ffe2ff67-abf2-5825-83e1-62db5f2f861d"),
            (EventId::of("order-7").ledger_key(), Place::Others, "ffd61e23-1ace-5662-b97a-5a6515dff7cd"),
            (seven.reversal_ledger_key(), Place::Reversals, "fe0138d1-fa04-50ba-b897-612d16f21c23"),
            (four.reversal_ledger_key(), Place::Reversals, "fed3b726-b49c-5d9c-a328-0628b5a64313"),
        ] {
            assert_eq!((key.uuid().to_string().as_str(), key.place()), (expected, place));
        }
    }

    #[test]
    fn ids_that_differ_in_one_byte_only_are_two_ids_to_the_ledger() {
        let of_version = |version: u128| 0x0c93_4f6e_7d1a_0000_8000_0123_4567_89ab | (version << 76);
        for version in [1, 4, 6, 8] {
            let id = of_version(version);
            let others = (0..16).map(|byte| id ^ (0x20 << (8 * byte)));
            let mut keys: Vec<LedgerKey> =
                others.chain([id]).map(|id| EventId::from_uuid(Uuid::from_u128(id)).ledger_key()).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), 17, "version {version}");
        }
    }
}
