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

/// Why an `Authorization` header shows nothing that could be looked up. Its text says what to send instead, and nothing
/// of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The commonest mistake: a key, and nothing before it.
    #[error("Authorization must start with `Bearer `: send `Authorization: Bearer KEY`")]
    NoBearer,
    /// `Bearer`, and then no key, or more than one word.
    #[error("after `Bearer ` comes one key without spaces in it: send `Authorization: Bearer KEY`")]
    NotOneKey,
    /// User and password where no browser asks for them.
    #[error("user and password open the dashboard alone; here send `Authorization: Bearer KEY`")]
    BasicHere,
    /// They are not in the form that browsers send.
    #[error(
        "after `Basic ` comes base64 of `admin:` and the admin token; or send `Authorization: Bearer` and the token"
    )]
    NotBasic,
    /// One header would be another answer than the other.
    #[error("there are several Authorization headers; send one, `Authorization: Bearer KEY`")]
    Several,
    /// More than any key has.
    #[error("Authorization is longer than any key; send `Authorization: Bearer KEY`")]
    TooLong,
}

impl<'a> Credentials<'a> {
    /// The credentials of a header's value, if it is one of ours. The scheme's name has no case.
    pub(super) fn read(value: &'a str) -> Result<Self, Malformed> {
        if value.len() > MAX_BYTES {
            return Err(Malformed::TooLong);
        }
        let value = value.trim();
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        let rest = rest.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") {
            let is_one = !rest.is_empty() && !rest.contains(' ');
            return if is_one { Ok(Self::Bearer(rest)) } else { Err(Malformed::NotOneKey) };
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Malformed::NoBearer);
        }
        basic(rest).ok_or(Malformed::NotBasic)
    }
}

fn basic<'a>(encoded: &str) -> Option<Credentials<'a>> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
}
