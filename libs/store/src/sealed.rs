//! Secrets at rest: AES-256-GCM under a key that the database never sees.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// Seals texts for a column of a tenant. What was sealed for one tenant or one column does not open for another. Its
/// `Debug` shows nothing of the key.
///
/// A sealed text is a nonce of 12 random bytes, the ciphertext, and a tag of 16 bytes; the column and the tenant's id
/// are the associated data. A random nonce is safe for 2^32 texts under one key (NIST SP 800-38D, 8.3).
///
/// Versions before this one bound a text to its tenant alone. Such a text opens, as what it is in the column that it
/// stands in, until it is sealed anew, which happens when it changes. A version before this one cannot open what this
/// one has sealed: its operator takes that for a row of another key and seals it anew in the former form, which opens
/// here; its worker tries the message again later.
pub struct Sealer {
    cipher: LessSafeKey,
    marker: hmac::Key,
    random: SystemRandom,
}

/// Where a sealed text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// `slack_webhooks.url`.
    SlackUrl,
    /// `webhooks.url`.
    WebhookUrl,
    /// `webhooks.secret`, and `webhooks.previous_secret`, which was one.
    WebhookSecret,
}

impl Column {
    /// The associated data of a text in this column of `tenant`. A tenant's id holds no slash, so neither two pairs nor
    /// the id alone, which is the former associated data, ever read the same.
    fn of(self, tenant: &str) -> String {
        let name = match self {
            Self::SlackUrl => "slack_webhooks.url",
            Self::WebhookUrl => "webhooks.url",
            Self::WebhookSecret => "webhooks.secret",
        };
        format!("{name}/{tenant}")
    }
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
    /// `text`, sealed for this column of `tenant`. The same text never gives the same bytes twice.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the system has no random bytes to give.
    pub fn seal(&self, tenant: &str, column: Column, text: &str) -> Result<Vec<u8>, SealError> {
        self.seal_with(&column.of(tenant), text)
    }

    fn seal_with(&self, associated: &str, text: &str) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![0; NONCE_LEN];
        self.random.fill(&mut sealed).map_err(|_| SealError)?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed).map_err(|_| SealError)?;
        let mut body = text.as_bytes().to_vec();
        self.cipher
            .seal_in_place_append_tag(nonce, Aad::from(associated), &mut body)
            .map_err(|_| SealError)?;
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// The text that was sealed for this column of `tenant`; `None` if it was for another one or with another key, or
    /// the bytes were changed. One that a former version sealed opens in every column of its tenant.
    #[must_use]
    pub fn open(&self, tenant: &str, column: Column, sealed: &[u8]) -> Option<String> {
        self.open_with(&column.of(tenant), sealed).or_else(|| self.open_with(tenant, sealed))
    }

    fn open_with(&self, associated: &str, sealed: &[u8]) -> Option<String> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let text = self.cipher.open_in_place(nonce, Aad::from(associated), &mut body).ok()?;
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

    /// [`URL`], sealed for `acme` under the key of ones by a version whose associated data was the tenant's id alone.
    const FORMER: &str =
        "AAECAwQFBgcICQoL09LhVlPEKVaWBYivU0e7z8+lACSW/igvAq9K9sjkWMF9h+qLM/M90DqYT58qkU0wl8KOOUVa9Q8=";

    fn sealer(byte: u8) -> Sealer {
        STANDARD.encode([byte; 32]).parse().unwrap()
    }

    #[test]
    fn only_the_same_key_tenant_and_column_open_what_was_sealed() {
        let column = Column::WebhookUrl;
        let sealed = sealer(1).seal("acme", column, URL).unwrap();
        assert_eq!(sealed.len(), 12 + URL.len() + 16);
        assert_eq!(sealer(1).open("acme", column, &sealed).as_deref(), Some(URL));
        assert_eq!(sealer(1).open("globex", column, &sealed), None, "another tenant");
        for other in [Column::SlackUrl, Column::WebhookSecret] {
            assert_eq!(sealer(1).open("acme", other, &sealed), None, "another column");
        }
        assert_eq!(sealer(2).open("acme", column, &sealed), None, "another key");
        assert_eq!(sealer(1).open("acme", column, &sealed[..11]), None, "cut off");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(sealer(1).open("acme", column, &changed), None, "byte {index} changed");
        }
    }

    #[test]
    fn what_a_former_version_sealed_still_opens_for_its_tenant_alone() {
        let sealed = STANDARD.decode(FORMER).unwrap();
        for column in [Column::SlackUrl, Column::WebhookUrl, Column::WebhookSecret] {
            assert_eq!(sealer(1).open("acme", column, &sealed).as_deref(), Some(URL));
            assert_eq!(sealer(1).open("globex", column, &sealed), None);
        }
        // And so a former version does not open what this one seals: its associated data are the tenant's id.
        let sealed = sealer(1).seal("acme", Column::SlackUrl, URL).unwrap();
        assert_eq!(sealer(1).open_with("acme", &sealed), None);
    }

    #[test]
    fn the_same_text_is_never_sealed_to_the_same_bytes_but_has_one_fingerprint() {
        let sealer = sealer(1);
        let seal = || sealer.seal("acme", Column::SlackUrl, URL).unwrap();
        assert_ne!(seal(), seal());
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
