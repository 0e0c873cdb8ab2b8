//! What webhooks are signed with, in the form that Standard Webhooks gives it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The key that a secret stands for: `whsec_` and base64 of 24 to 64 bytes. `None` if it is of another form. Space around
/// it is dropped, since files end with a line break.
#[must_use]
pub fn key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.trim().strip_prefix("whsec_")?).ok()?;
    Some(key).filter(|key| (24..=64).contains(&key.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_of_the_form_that_standard_webhooks_gives_it() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(key(&of(24)), Some(vec![7; 24]));
        assert_eq!(key(&format!("{}\n", of(64))), Some(vec![7; 64]));
        for secret in [&of(23), &of(65), "", "whsec_", "whsec_!", &STANDARD.encode([7; 32])] {
            assert_eq!(key(secret), None, "{secret}");
        }
    }
}
