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
}

/// A client's id for an event as 128 bits: a UUID as it is, any other string as its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

/// The namespace of hashed ids (RFC 9562, section 6.5). Never changed: it is part of every id kept.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0xf1a6_3e7e_0000_4000_8000_0000_0000_0001);

impl EventId {
    /// The id that `text` stands for. UUIDs in their usual form with hyphens are kept, whatever
    /// their case; UUIDv7 are the fastest, because their neighbours in time are neighbours on disk.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let uuid = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
        Self(uuid.unwrap_or_else(|| Uuid::new_v5(&ID_NAMESPACE, text.as_bytes())))
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
}
