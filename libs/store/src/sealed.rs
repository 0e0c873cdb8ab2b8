//! Secrets at rest: AES-256-GCM under a key that the database never sees.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// Seals texts for a tenant. What was sealed for one tenant does not open for another. Its `Debug`
/// shows nothing of the key.
///
/// A sealed text is a nonce of 12 random bytes, the ciphertext, and a tag of 16 bytes; the tenant's id
/// is the associated data. A random nonce is safe for 2^32 texts under one key (NIST SP 800-38D, 8.3).
pub struct Sealer {
    cipher: LessSafeKey,
    marker: hmac::Key,
    random: SystemRandom,
}

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 bytes in base64; `openssl rand -base64 32` makes one")]
pub struct NotAKey;

/// The system gave no random bytes, or the text is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed to seal a secret")]
pub struct SealError;

impl std::str::FromStr for Sealer {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| NotAKey)?;
        let cipher = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| NotAKey)?;
        // A key of its own for each use, made from the one that was given.
        let given = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let marker = hmac::sign(&given, b"flagmeter fingerprint");
        Ok(Self {
            cipher: LessSafeKey::new(cipher),
            marker: hmac::Key::new(hmac::HMAC_SHA256, marker.as_ref()),
            random: SystemRandom::new(),
        })
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Sealer(..)")
    }
}

impl Sealer {
    /// `text`, sealed for `tenant`. The same text never gives the same bytes twice.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the system has no random bytes to give.
    pub fn seal(&self, tenant: &str, text: &str) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![0; NONCE_LEN];
        self.random.fill(&mut sealed).map_err(|_| SealError)?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed).map_err(|_| SealError)?;
        let mut body = text.as_bytes().to_vec();
        self.cipher.seal_in_place_append_tag(nonce, Aad::from(tenant), &mut body).map_err(|_| SealError)?;
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// The text that was sealed for `tenant`; `None` if it was for another one or with another key, or
    /// the bytes were changed.
    #[must_use]
    pub fn open(&self, tenant: &str, sealed: &[u8]) -> Option<String> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let text = self.cipher.open_in_place(nonce, Aad::from(tenant), &mut body).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }

    /// 16 characters that stand for `text` where it must not be seen: in comparisons and in the
    /// trail of changes. Without the key they say nothing about it.
    #[must_use]
    pub fn fingerprint(&self, tenant: &str, text: &str) -> String {
        // A tenant's id holds no slash, so two pairs never read the same.
        let tag = hmac::sign(&self.marker, format!("{tenant}/{text}").as_bytes());
        STANDARD.encode(&tag.as_ref()[..12])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://hooks.slack.com/services/T0/B0/x";

    fn sealer(byte: u8) -> Sealer {
        STANDARD.encode([byte; 32]).parse().unwrap()
    }

    #[test]
    fn only_the_same_key_and_tenant_open_what_was_sealed() {
        let sealed = sealer(1).seal("acme", URL).unwrap();
        assert_eq!(sealed.len(), 12 + URL.len() + 16);
        assert_eq!(sealer(1).open("acme", &sealed).as_deref(), Some(URL));
        assert_eq!(sealer(1).open("globex", &sealed), None, "another tenant");
        assert_eq!(sealer(2).open("acme", &sealed), None, "another key");
        assert_eq!(sealer(1).open("acme", &sealed[..11]), None, "cut off");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(sealer(1).open("acme", &changed), None, "byte {index} changed");
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_to_the_same_bytes_but_has_one_fingerprint() {
        let sealer = sealer(1);
        assert_ne!(sealer.seal("acme", URL).unwrap(), sealer.seal("acme", URL).unwrap());
        let fingerprint = sealer.fingerprint("acme", URL);
        assert_eq!(fingerprint, sealer.fingerprint("acme", URL));
        assert_eq!(fingerprint.len(), 16);
        assert_ne!(fingerprint, sealer.fingerprint("acme", &format!("{URL}y")));
        assert_ne!(fingerprint, sealer.fingerprint("globex", URL));
        assert_ne!(fingerprint, self::sealer(2).fingerprint("acme", URL));
    }

    #[test]
    fn a_key_is_32_bytes_in_base64_and_does_not_print() {
        for text in ["", "short", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33])] {
            assert_eq!(text.parse::<Sealer>().unwrap_err(), NotAKey, "{text:?}");
        }
        let key = format!("{}\n", STANDARD.encode([1; 32]));
        assert_eq!(format!("{:?}", key.parse::<Sealer>().unwrap()), "Sealer(..)");
    }
}
