//! The form in which events wait in the queue: all events of one flush as one string of bytes.
//!
//! ```text
//! entry    = version(1) batch_id(16) received(8: µs since 1970, little-endian)
//!            names(tenants) names(features) count event… checksum(4: CRC-32, little-endian)
//! names    = count (length(1) text)…
//! event    = tenant feature tokens offset id
//!            tenant, feature: index of a name; offset: occurred − received in µs, zigzag
//! id       = 0 | 1 uuid(16) | 2 uuid(16)        2: takes the event of this id back
//! ```
//! Numbers without a size are LEB128 varints. A version's meaning never changes; a new field is a
//! new version, which workers learn to read one release before the api writes it.
//!
//! Events of no tokens are written as all others are, but a worker from before there were any takes an entry that has
//! one for malformed. It keeps the entry in `dead_letters`, where a newer worker finds and counts it.

use foldhash::{HashMap, HashMapExt as _};
use jiff::Timestamp;
use uuid::Uuid;

use crate::event::{EventId, FeatureName, TenantName, TokenCount, UsageEvent};

/// The version that is written.
const VERSION: u8 = 1;

/// Everything before the names.
const HEADER_BYTES: usize = 1 + 16 + 8;

const CHECKSUM_BYTES: usize = 4;

/// Different names in an entry that are expected; there may be more.
const USUAL_NAMES: usize = 64;

/// The most events in one entry: an event's own id is the batch's plus its place, in 16 bits.
pub const MAX_EVENTS: usize = 1 << 16;

/// The most events in an entry that an api makes: a list of as many as one may have, and what a flush has beside it.
/// Workers reckon with it when they decide how many entries to read.
pub const LARGEST_ENTRY_EVENTS: usize = 11_000;

/// The events of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Made once by the api; an entry that comes again brings the same.
    pub batch_id: Uuid,
    /// When the api took the events in, in whole microseconds.
    pub received_at: Timestamp,
    /// The events, in the order in which they were taken in.
    pub events: Vec<UsageEvent>,
}

/// Why bytes are no entry. They are kept as they are, with this reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It may be one that a newer api wrote.
    #[error("the entry has version {0}, which this worker does not know")]
    Version(u8),
    /// Cut off, or not written by an api.
    #[error("the entry's checksum is wrong")]
    Checksum,
    /// Written by something that is broken.
    #[error("the entry is malformed")]
    Malformed,
}

impl Batch {
    /// The id of the event at `index`: the client's, or one that follows from the batch's.
    #[must_use]
    pub fn event_id(&self, index: usize) -> Uuid {
        self.events
            .get(index)
            .and_then(|event| event.id)
            .map_or_else(|| id_in(self.batch_id, index), EventId::uuid)
    }

    /// The bytes that [`Batch::decode`] reads.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // 40 bytes an event are enough for most; the buffer grows for the rest.
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 64 + self.events.len() * 40);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.batch_id.as_bytes());
        bytes.extend_from_slice(&self.received_at.as_microsecond().to_le_bytes());
        let tenants = Names::of(self.events.iter().map(|event| event.tenant.as_str()));
        let features = Names::of(self.events.iter().map(|event| event.feature.as_str()));
        tenants.write(&mut bytes);
        features.write(&mut bytes);
        write_number(&mut bytes, self.events.len() as u64);
        let indices = tenants.indices.into_iter().zip(features.indices);
        for (event, (tenant, feature)) in self.events.iter().zip(indices) {
            write_number(&mut bytes, tenant);
            write_number(&mut bytes, feature);
            write_number(&mut bytes, event.tokens.get().unsigned_abs());
            let offset = event.occurred_at.as_microsecond() - self.received_at.as_microsecond();
            write_number(&mut bytes, zigzag(offset));
            match (event.reverses, event.id) {
                (Some(target), _) => write_id(&mut bytes, 2, target),
                (None, Some(id)) => write_id(&mut bytes, 1, id),
                (None, None) => bytes.push(0),
            }
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// [`Unreadable`], for every string of bytes that [`Batch::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) => return Err(Unreadable::Version(version)),
            None => return Err(Unreadable::Malformed),
        }
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Unreadable::Malformed)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(Unreadable::Checksum);
        }
        Reader(&body[1..]).batch().ok_or(Unreadable::Malformed)
    }
}

/// The id of the event at `index` of a batch, for events that bring none. Batch ids hold 62 random
/// bits, of which this moves the last 16.
#[must_use]
pub fn id_in(batch_id: Uuid, index: usize) -> Uuid {
    Uuid::from_u128(batch_id.as_u128().wrapping_add(index as u128))
}

/// The events' names of one kind.
struct Names<'a> {
    /// Each once, in the order of their first use.
    order: Vec<&'a str>,
    /// The place there of each event's.
    indices: Vec<u64>,
}

impl<'a> Names<'a> {
    fn of(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let usual = names.len().min(USUAL_NAMES);
        let (mut order, mut known) = (Vec::with_capacity(usual), HashMap::with_capacity(usual));
        let index = |name| {
            *known.entry(name).or_insert_with(|| {
                order.push(name);
                order.len() as u64 - 1
            })
        };
        let indices = names.map(index).collect();
        Self { order, indices }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        write_number(bytes, self.order.len() as u64);
        for name in &self.order {
            // Tenants have at most 63 bytes, features at most 128.
            bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(name.as_bytes());
        }
    }
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f).to_le_bytes()[0];
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn write_id(bytes: &mut Vec<u8>, kind: u8, id: EventId) {
    bytes.push(kind);
    bytes.extend_from_slice(id.uuid().as_bytes());
}

/// Small numbers of either sign to small numbers without one.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// What is left to read. Every step answers `None` when there is not enough of it.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn batch(mut self) -> Option<Batch> {
        let batch_id = Uuid::from_bytes(self.array()?);
        let received = i64::from_le_bytes(self.array()?);
        let received_at = Timestamp::from_microsecond(received).ok()?;
        let tenants = self.names(|text| TenantName::try_from(text).ok())?;
        let features = self.names(|text| FeatureName::try_from(text).ok())?;
        let count = self.count()?;
        let mut events = Vec::with_capacity(count);
        for _ in 0..count {
            events.push(self.event(received, &tenants, &features)?);
        }
        self.0.is_empty().then_some(Batch { batch_id, received_at, events })
    }

    fn event(
        &mut self,
        received: i64,
        tenants: &[TenantName],
        features: &[FeatureName],
    ) -> Option<UsageEvent> {
        let tenant = tenants.get(usize::try_from(self.number()?).ok()?)?.clone();
        let feature = features.get(usize::try_from(self.number()?).ok()?)?.clone();
        let tokens = TokenCount::try_from(i64::try_from(self.number()?).ok()?).ok()?;
        let occurred = received.checked_add(unzigzag(self.number()?))?;
        let occurred_at = Timestamp::from_microsecond(occurred).ok()?;
        let (id, reverses) = match self.array::<1>()? {
            [0] => (None, None),
            [1] => (Some(self.id()?), None),
            [2] => (None, Some(self.id()?)),
            _ => return None,
        };
        Some(UsageEvent { tenant, feature, tokens, id, occurred_at, reverses })
    }

    fn id(&mut self) -> Option<EventId> {
        self.array().map(Uuid::from_bytes).map(EventId::from_uuid)
    }

    fn names<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            let [length] = self.array()?;
            let (text, rest) = self.0.split_at_checked(length.into())?;
            self.0 = rest;
            names.push(read(std::str::from_utf8(text).ok()?)?);
        }
        Some(names)
    }

    /// A number of things that follow, each at least a byte long: so it reserves no more memory
    /// than the entry itself has.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len() && count <= MAX_EVENTS).then_some(count)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let part = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && part > 1 {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = UsageEvent> {
        let micros = -62_135_596_800_000_000_i64..253_402_207_200_000_000;
        let id = proptest::option::of((any::<bool>(), any::<u128>()));
        ("[a-z0-9]{1,63}", "[!-~]{1,128}", 0..=crate::quota::MAX_TOKENS, id, micros).prop_map(
            |(tenant, feature, tokens, id, micros)| UsageEvent {
                tenant: tenant.try_into().unwrap(),
                feature: feature.try_into().unwrap(),
                tokens: tokens.try_into().unwrap(),
                id: id.filter(|(own, _)| *own).map(|(_, id)| EventId::from_uuid(Uuid::from_u128(id))),
                reverses: id.filter(|(own, _)| !*own).map(|(_, id)| EventId::from_uuid(Uuid::from_u128(id))),
                occurred_at: Timestamp::from_microsecond(micros).unwrap(),
            },
        )
    }

    fn batch(events: std::ops::Range<usize>) -> impl Strategy<Value = Batch> {
        (any::<u128>(), 0..4_000_000_000_000_000_i64, proptest::collection::vec(event(), events)).prop_map(
            |(id, received, events)| Batch {
                batch_id: Uuid::from_u128(id),
                received_at: Timestamp::from_microsecond(received).unwrap(),
                events,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_packed_is_read_back(batch in batch(0..40)) {
            prop_assert_eq!(Batch::decode(&batch.encode()), Ok(batch));
        }

        #[test]
        fn an_entry_cut_off_anywhere_is_never_an_event(batch in batch(0..6)) {
            let bytes = batch.encode();
            for cut in 0..bytes.len() {
                prop_assert!(Batch::decode(&bytes[..cut]).is_err(), "{} bytes of {:?}", cut, bytes);
            }
        }

        #[test]
        fn bytes_with_a_right_checksum_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            bytes.insert(0, VERSION);
            let checksum = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            // What is read, if anything, is what those bytes say.
            if let Ok(batch) = Batch::decode(&bytes) {
                prop_assert_eq!(Batch::decode(&batch.encode()), Ok(batch));
            }
        }
    }

    #[test]
    fn an_unknown_version_says_so() {
        assert_eq!(Batch::decode(&[9, 0, 0]), Err(Unreadable::Version(9)));
        assert_eq!(Batch::decode(&[]), Err(Unreadable::Malformed));
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn version_1_is_read_forever() {
        let vectors = [
            (
                1_500_i64,
                "0101934f6e7d1a700080000123456789ab01d0dc9049540600010461636d6501056770742d34\
                 010000dc0b81897a011ad61e231ace5662b97a5a6515dff7cd54f28e75",
            ),
            (
                0,
                "0101934f6e7d1a700080000123456789ab01d0dc9049540600010461636d6501056770742d34\
                 0100000081897a011ad61e231ace5662b97a5a6515dff7cd3a8c658d",
            ),
        ];
        for (tokens, hex) in vectors {
            let batch = Batch {
                batch_id: Uuid::from_u128(0x0193_4f6e_7d1a_7000_8000_0123_4567_89ab),
                received_at: "2026-06-15T12:00:00.000001Z".parse().unwrap(),
                events: vec![UsageEvent {
                    tenant: "acme".try_into().unwrap(),
                    feature: "gpt-4".try_into().unwrap(),
                    tokens: tokens.try_into().unwrap(),
                    id: Some(EventId::of("order-7")),
                    occurred_at: "2026-06-15T11:59:59Z".parse().unwrap(),
                    reverses: None,
                }],
            };
            assert_eq!(Batch::decode(&bytes(hex)), Ok(batch), "{tokens} tokens");
        }
    }
}
