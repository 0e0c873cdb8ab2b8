//! What an `Authorization` header says (RFC 9110, section 11.4).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest key or token, in bytes: more is not even hashed.
const MAX_BYTES: usize = 1_024;

/// What a caller shows. Without `Debug`, since it holds secrets.
pub(super) enum Credentials<'a> {
    /// A key or the admin token (RFC 6750).
    Bearer(&'a str),
    /// User and password, as browsers ask for them (RFC 7617).
    Basic { user: String, password: String },
}

impl<'a> Credentials<'a> {
    /// The credentials of a header's value, if it is one of ours. The scheme's name has no case.
    pub(super) fn read(value: &'a str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(' ').filter(|_| value.len() <= MAX_BYTES)?;
        let rest = rest.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") {
            return (!rest.is_empty() && !rest.contains(' ')).then_some(Self::Bearer(rest));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}
