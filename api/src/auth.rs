//! Who may ask for what: tenants' keys, and the admin token.
//!
//! A request costs one SHA-256 of what it shows and one look-up in a snapshot that nobody locks; neither PostgreSQL nor
//! Valkey is asked. Keys and token are never compared themselves, only their hashes ([`KeyHash`]) and those in constant
//! time, so the time that an answer takes says nothing of them.

mod credentials;
mod keys;

#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use flagmeter_core::event::TenantName;
use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::env::Secret;
use flagmeter_store::api_key::KeyHash;

use self::credentials::Credentials;
pub use self::credentials::Malformed;
pub use self::keys::{Key, Keys};
use crate::error::ApiError;
use crate::routes::{Access, Route};

/// The user of the page, whose password is the admin token.
const ADMIN: &str = "admin";

/// `FLAGMETER_AUTH`: whether callers must say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each request needs a key or the admin token.
    Required,
    /// Anyone who can reach the port may do all.
    Disabled,
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "required" => Ok(Self::Required),
            "disabled" => Ok(Self::Disabled),
            _ => Err("it is `required` or `disabled`"),
        }
    }
}

/// The admin token, of which only the hash is kept.
#[derive(Debug, Clone, Copy)]
pub struct AdminToken(KeyHash);

/// The fewest characters of an admin token. `openssl rand -hex 32` makes 64.
const MIN_TOKEN_CHARS: usize = 16;

impl TryFrom<&Secret<String>> for AdminToken {
    type Error = &'static str;

    fn try_from(token: &Secret<String>) -> Result<Self, Self::Error> {
        let token = token.expose().trim();
        if token.chars().count() < MIN_TOKEN_CHARS {
            return Err("must have at least 16 characters; `openssl rand -hex 32` makes a good one");
        }
        Ok(Self(KeyHash::of(token)))
    }
}

/// What callers are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Policy {
    /// A key, or this token.
    Required(AdminToken),
    /// Nothing.
    Disabled,
}

/// The check of each request. Clones share what is known of the keys.
#[derive(Clone)]
pub struct Auth {
    policy: Policy,
    keys: Keys,
    clock: Clock,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Nobody was asked who they are.
    Anyone,
    /// Whoever has the admin token.
    Admin,
    /// Whoever has this tenant's key.
    Tenant(Arc<Key>),
}

impl Caller {
    /// Whether what belongs to `tenant` is the caller's to read and to add to.
    pub(crate) fn may_act_for(&self, tenant: &str) -> bool {
        match self {
            Self::Anyone | Self::Admin => true,
            Self::Tenant(key) => key.tenant.as_str() == tenant,
        }
    }

    /// The tenant whose key it is.
    pub(crate) fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Anyone | Self::Admin => None,
            Self::Tenant(key) => Some(&key.tenant),
        }
    }
}

/// Why a request was turned away: a label of the metrics, finer than what its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It shows nothing.
    Missing,
    /// What it shows is neither a key nor a token by its form.
    Malformed,
    /// Nobody has this key.
    Unknown,
    /// Somebody had this key.
    Expired,
    /// The key is another tenant's.
    WrongTenant,
    /// The key is a tenant's, and the admin token is asked for.
    NotAdmin,
}

impl Reason {
    /// Every reason, for counters that start at zero.
    pub(crate) const ALL: [Self; 6] =
        [Self::Missing, Self::Malformed, Self::Unknown, Self::Expired, Self::WrongTenant, Self::NotAdmin];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::WrongTenant => "wrong_tenant",
            Self::NotAdmin => "not_admin",
        }
    }
}

/// How a caller may say who they are, as `WWW-Authenticate` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// With a key or the token (RFC 6750).
    Bearer,
    /// The same, after one that was not good.
    AnotherBearer,
    /// With user and password, for which browsers have a window (RFC 7617).
    Basic,
}

impl Challenge {
    /// The header's value.
    pub(crate) const fn value(self) -> &'static str {
        match self {
            Self::Bearer => r#"Bearer realm="FlagMeter""#,
            Self::AnotherBearer => r#"Bearer realm="FlagMeter", error="invalid_token""#,
            Self::Basic => {
                r#"Basic realm="FlagMeter: user admin, password the admin token", charset="UTF-8""#
            }
        }
    }

    const fn again(self) -> Self {
        match self {
            Self::Bearer | Self::AnotherBearer => Self::AnotherBearer,
            Self::Basic => Self::Basic,
        }
    }
}

/// A request that goes no further.
#[derive(Debug)]
pub(crate) enum Turned {
    /// For what it shows.
    Away(Reason, ApiError),
    /// Because no key was read yet.
    NotYet,
}

impl Auth {
    /// Checks each request by `policy`.
    #[must_use]
    pub fn new(policy: Policy, keys: Keys, clock: Clock) -> Self {
        Self { policy, keys, clock }
    }

    /// Whether nothing is checked.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        matches!(self.policy, Policy::Disabled)
    }

    /// Who sends a request of these headers, if they may send it to this path.
    pub(crate) fn admit(&self, headers: &HeaderMap, route: Route, path: &str) -> Result<Caller, Turned> {
        let Policy::Required(admin) = self.policy else { return Ok(Caller::Anyone) };
        let access = route.access(path);
        let challenge = if access == Access::Page { Challenge::Basic } else { Challenge::Bearer };
        let caller = self.caller(headers, admin, challenge)?;
        match (access, caller.tenant()) {
            (_, None) | (Access::Body | Access::Any, Some(_)) => Ok(caller),
            (Access::Tenant(tenant), Some(own)) if own.as_str() == tenant => Ok(caller),
            (Access::Tenant(_), Some(_)) => Err(Turned::Away(Reason::WrongTenant, ApiError::WrongTenant)),
            (Access::Page, Some(_)) => Err(Turned::Away(Reason::NotAdmin, ApiError::AdminOnly)),
        }
    }

    fn caller(&self, headers: &HeaderMap, admin: AdminToken, challenge: Challenge) -> Result<Caller, Turned> {
        let invalid = |reason| Turned::Away(reason, ApiError::InvalidKey(challenge.again()));
        let value = headers.get(AUTHORIZATION);
        let value = value.ok_or(Turned::Away(Reason::Missing, ApiError::MissingKey(challenge)))?;
        let malformed = |fault: Malformed| {
            // What stands there may well be base64 of a user and a password, but they are for browsers.
            let fault = if fault == Malformed::NotBasic && challenge != Challenge::Basic {
                Malformed::BasicHere
            } else {
                fault
            };
            Turned::Away(Reason::Malformed, ApiError::MalformedKey(challenge.again(), fault))
        };
        if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
            return Err(malformed(Malformed::Several));
        }
        // A key is visible ASCII. Anything else is not a key.
        let shown = value.to_str().map_err(|_| Malformed::NotOneKey).and_then(Credentials::read);
        match shown.map_err(malformed)? {
            // Browsers send these by themselves, even where another site asked them to, so they open what can be
            // read in a browser and nothing else.
            Credentials::Basic { user, password } if challenge == Challenge::Basic => {
                let token = KeyHash::of(&password) == admin.0;
                if user == ADMIN && token { Ok(Caller::Admin) } else { Err(invalid(Reason::Unknown)) }
            }
            Credentials::Basic { .. } => Err(malformed(Malformed::BasicHere)),
            Credentials::Bearer(text) => {
                let hash = KeyHash::of(text);
                if hash == admin.0 {
                    return Ok(Caller::Admin);
                }
                let key = self.keys.find(&hash).map_err(|_| Turned::NotYet)?;
                let key = key.ok_or_else(|| invalid(Reason::Unknown))?;
                if key.expires_at.is_some_and(|at| at <= self.clock.now()) {
                    return Err(invalid(Reason::Expired));
                }
                Ok(Caller::Tenant(key))
            }
        }
    }
}
