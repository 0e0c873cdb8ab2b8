//! API keys, and the hashes that stand for them wherever they are kept.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq as _;

/// What every key starts with, so that a search for lost secrets finds it.
const PREFIX: &str = "fm_";

/// A key as its tenant shows it: `fm_` and 256 random bits in base64url (RFC 4648, section 5) without padding.
/// Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// A text that is no key. It says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `fm_` and 32 bytes in base64url without padding")]
pub struct NotAnApiKey;

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random bytes to make a key of")]
pub struct NoRandomBytes;

impl ApiKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// [`NoRandomBytes`] if the system has none to give.
    pub fn random() -> Result<Self, NoRandomBytes> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomBytes)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The key itself. A search for this name finds every place that sees a secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl std::str::FromStr for ApiKey {
    type Err = NotAnApiKey;

    /// Space around a key is dropped: files end with a line break more often than not.
    fn from_str(text: &str) -> Result<Self, NotAnApiKey> {
        let text = text.trim();
        let random = text.strip_prefix(PREFIX).ok_or(NotAnApiKey)?;
        match URL_SAFE_NO_PAD.decode(random) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(text.to_owned())),
            _ => Err(NotAnApiKey),
        }
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ApiKey(..)")
    }
}

/// The SHA-256 of a key or a token. Only hashes are ever compared or looked up, and whether two are equal takes as long
/// to say wherever they differ: a time says nothing of how much of a hash was right.
#[derive(Clone, Copy, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "what is equal in constant time is equal")]
pub struct KeyHash([u8; 32]);

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl KeyHash {
    /// The hash of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }

    /// The hash from its bytes, of which there must be 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The hash from its text in base64.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::from_bytes(&URL_SAFE_NO_PAD.decode(text).ok()?)
    }

    /// Its text in base64.
    pub(crate) fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeyHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_read_again_is_unlike_any_other_and_does_not_print() {
        let (one, other) = (ApiKey::random().unwrap(), ApiKey::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.expose().len(), 46);
        assert_eq!(format!("{}\n", one.expose()).parse(), Ok(one.clone()));
        assert_eq!(KeyHash::from_text(&one.hash().to_text()), Some(one.hash()));
        assert_eq!(format!("{one:?} {:?}", one.hash()), "ApiKey(..) KeyHash(..)");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let key = ApiKey::random().unwrap();
        let random = &key.expose()[3..];
        for text in [
            "",
            "fm_",
            random,
            &format!("fm_{random}A"),
            &format!("sk_{random}"),
            &format!("fm_{}", "é".repeat(43)),
        ] {
            assert_eq!(text.parse::<ApiKey>(), Err(NotAnApiKey), "{text:?}");
        }
        assert_eq!("fm_".repeat(20).parse::<ApiKey>(), Err(NotAnApiKey));
    }

    #[test]
    fn hashes_are_equal_if_every_bit_is() {
        let hash = KeyHash::of("abc");
        assert_eq!(hash, KeyHash::of("abc"));
        for bit in 0..256 {
            let mut other = *hash.as_bytes();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(hash, KeyHash(other), "bit {bit}");
        }
    }

    #[test]
    fn the_hash_is_that_of_the_standard() {
        // FIPS 180-2, appendix B.1.
        let expected = [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea];
        assert_eq!(KeyHash::of("abc").as_bytes()[..8], expected);
    }
}
