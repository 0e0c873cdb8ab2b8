//! What has to happen to a tenant's key. No I/O.

use flagmeter_store::api_key::KeyHash;
use flagmeter_store::postgres::api_keys::TenantKey;
use jiff::{SignedDuration, Timestamp};

/// Former keys that work beside the current one at most: whoever rotates faster than they end loses the oldest.
const MAX_FORMER: usize = 4;

/// What stands where the tenant's key belongs.
#[derive(Debug)]
pub(in crate::tenant) enum Held {
    /// There is no Secret of that name.
    Nothing,
    /// The Secret of a Tenant that is gone, or one that is being deleted; it will not be there for long.
    Going,
    /// The tenant's own.
    Own(Own),
    /// A Secret that does not belong to the Tenant.
    Anothers,
}

/// The tenant's own Secret.
#[derive(Debug, Clone)]
pub(in crate::tenant) struct Own {
    /// What is kept of the key in it, if it is one.
    pub(in crate::tenant) key: Option<KeyHash>,
    /// The value of the annotation for which it was made.
    pub(in crate::tenant) rotation: Option<String>,
    /// The version that was seen, so that nothing newer is overwritten.
    pub(in crate::tenant) version: String,
}

/// Why a key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tenant) enum Why {
    /// The tenant never had one.
    First,
    /// Its Secret is gone.
    Gone,
    /// What was in the Secret is no key.
    Invalid,
    /// Somebody asked for it.
    Rotated,
}

/// What is to be in the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Current {
    /// The key that is there.
    Stays(KeyHash),
    /// A new one.
    Made(Why),
    /// Nothing that is ours.
    None,
}

/// What has to happen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) current: Current,
    /// The keys that work beside it, each until then. All others end at once.
    pub(super) former: Vec<TenantKey>,
}

/// What has to happen to the key of a tenant whose annotation asks for the rotation `wanted`, given its Secret and its
/// `rows`. A former key works for `overlap` if its end was asked for by the annotation, and not at all otherwise: who
/// deletes the Secret, or changes it by hand, wants the old key to end now.
pub(super) fn plan(
    held: &Held,
    wanted: Option<&str>,
    rows: &[TenantKey],
    now: Timestamp,
    overlap: SignedDuration,
) -> Plan {
    let (own, key) = match held {
        Held::Nothing => {
            let why = if rows.is_empty() { Why::First } else { Why::Gone };
            return Plan { current: Current::Made(why), former: Vec::new() };
        }
        Held::Going | Held::Anothers => return Plan { current: Current::None, former: Vec::new() },
        Held::Own(own) => match own.key {
            None => return Plan { current: Current::Made(Why::Invalid), former: Vec::new() },
            Some(key) => (own, key),
        },
    };
    let ending = |row: &&TenantKey| row.hash != key && row.expires_at.is_some_and(|at| at > now);
    let mut former: Vec<TenantKey> = rows.iter().filter(ending).copied().collect();
    let rotates = wanted.is_some() && wanted != own.rotation.as_deref();
    if !rotates {
        return Plan { current: Current::Stays(key), former };
    }
    // The end that an attempt which was cut off gave it stands, so that no number of attempts puts it off.
    let given = rows.iter().find(|row| row.hash == key).and_then(|row| row.expires_at);
    let end = given.unwrap_or_else(|| now.checked_add(overlap).unwrap_or(now));
    if end > now {
        former.push(TenantKey { hash: key, expires_at: Some(end) });
    }
    former.sort_by_key(|row| std::cmp::Reverse(row.expires_at));
    former.truncate(MAX_FORMER);
    Plan { current: Current::Made(Why::Rotated), former }
}

#[cfg(test)]
mod tests;
