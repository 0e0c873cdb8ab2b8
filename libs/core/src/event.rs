//! What a usage event is, and what is wrong with one that is none.

mod cloud;
mod fault;
mod names;
mod object;
mod plain;
mod value;
mod wire;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

pub use fault::Fault;
pub use names::{FeatureName, NotAFeature, NotATenant, NotTokens, TenantName, TokenCount};
pub use wire::{Body, Checked, Form, Refusal, decode, decode_binary};

/// How far in the past a timestamp may lie. The same as what the field's other meters take.
pub const MAX_AGE: SignedDuration = SignedDuration::from_hours(35 * 24);

/// How far in the future a timestamp may lie: clocks differ.
pub const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// How far ahead the time in a UUIDv7 may lie: it is made by the client's clock, and kept by its day.
pub const MAX_ID_AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// The longest id a client may give, in bytes.
pub const MAX_ID_BYTES: usize = 128;

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
}

/// A client's id for an event as 128 bits: a UUID as it is, any other string as its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

/// The namespace of hashed ids (RFC 9562, section 6.5). Never changed: it is part of every id kept.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0xf1a6_3e7e_0000_4000_8000_0000_0000_0001);

/// The namespace of the ids of events that take others back. Never changed, either.
const REVERSAL_NAMESPACE: Uuid = Uuid::from_u128(0xf1a6_3e7e_0000_4000_8000_0000_0000_0002);

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

    /// The key under which the ledger keeps the id. It follows from the id alone, so that a repeat meets
    /// it again whenever it comes: a UUIDv7 as it is, in the partition of its day; any other id with its
    /// first byte set, in the last partition, where no UUIDv7 of this age of the world lies.
    #[must_use]
    pub fn ledger_key(self) -> Uuid {
        match self.made_at() {
            Some(_) => self.0,
            None => Uuid::from_u128(self.0.as_u128() | (0xff << 120)),
        }
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
        assert_eq!(seven.ledger_key(), seven.uuid());
        assert_eq!(seven.made_at().unwrap().to_string(), "2024-11-21T15:54:21.338Z");
        let four = EventId::of("0b934f6e-7d1a-4000-8000-0123456789ab");
        assert_eq!(four.ledger_key().to_string(), "ff934f6e-7d1a-4000-8000-0123456789ab");
        assert_eq!(EventId::of("order-7").ledger_key().as_bytes()[0], 0xff);
        let reversal = EventId::of_reversal(seven);
        assert_ne!(reversal, EventId::of_reversal(four));
        assert_eq!(reversal.ledger_key().as_bytes()[0], 0xff);
    }
}
