//! What has to happen to a tenant's key. No I/O.

use flagmeter_store::api_key::KeyHash;
use flagmeter_store::postgres::api_keys::TenantKey;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Former keys that work beside the current one at most: rotating faster than they end loses the oldest.
const MAX_FORMER: usize = 4;

/// What stands where the tenant's key belongs.
#[derive(Debug)]
pub(in crate::tenant) enum Held {
    /// There is no Secret of that name.
    Nothing,
    /// One that is being deleted, or that Kubernetes is about to collect; it will not be there for long.
    Going,
    /// The tenant's own.
    Own(Own),
    /// One that holds a key, and that nothing else controls.
    Loose(Loose),
    /// One that something else controls, or that holds something else than a key.
    Taken,
}

/// A Secret with a key that has lost its owner, as after a restore, or that was there before the Tenant. It becomes
/// the tenant's own: metadata is no reason for a key to end.
#[derive(Debug, Clone)]
pub(in crate::tenant) struct Loose {
    /// What is kept of the key in it.
    pub(in crate::tenant) key: KeyHash,
    /// Its owners beside the Tenant, none of which controls it.
    pub(in crate::tenant) owners: Vec<OwnerReference>,
    /// The version that was seen, so that nothing newer is overwritten.
    pub(in crate::tenant) version: String,
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
    /// The key that is there, in a Secret that has to become the tenant's own.
    Adopted(KeyHash),
    /// A new one.
    Made(Why),
    /// Nothing; every key ends.
    None,
    /// Nothing of the tenant's. Keys that work go on working.
    Untouched,
}

/// What has to happen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) current: Current,
    /// The keys that work beside it, each until then. All others end at once.
    pub(super) former: Vec<TenantKey>,
}

/// What has to happen to the key of a tenant whose annotation asks for the rotation `wanted`, given its Secret and its
/// `rows`. A former key works for `overlap` if its end was asked for by the annotation, or if it gives way to the key of
/// a Secret that is adopted. Otherwise it ends at once: anyone who deletes the Secret, or changes it by hand, wants that.
pub(super) fn plan(
    held: &Held,
    wanted: Option<&str>,
    rows: &[TenantKey],
    now: Timestamp,
    overlap: SignedDuration,
) -> Plan {
    let alone = |current| Plan { current, former: Vec::new() };
    let in_time = now.checked_add(overlap).unwrap_or(now);
    match held {
        Held::Nothing if rows.is_empty() => alone(Current::Made(Why::First)),
        Held::Nothing => alone(Current::Made(Why::Gone)),
        Held::Going => alone(Current::None),
        Held::Taken => alone(Current::Untouched),
        Held::Loose(Loose { key, .. }) => {
            let others = rows.iter().filter(|row| row.hash != *key).map(|row| ending(row, in_time));
            Plan { current: Current::Adopted(*key), former: working(others, now) }
        }
        Held::Own(Own { key: None, .. }) => alone(Current::Made(Why::Invalid)),
        Held::Own(Own { key: Some(key), rotation, .. }) => {
            let others = rows.iter().filter(|row| row.hash != *key && row.expires_at.is_some()).copied();
            if wanted.is_none() || wanted == rotation.as_deref() {
                return Plan { current: Current::Stays(*key), former: working(others, now) };
            }
            // The end that an attempt which was cut off gave it stands, so that no number of attempts puts it off.
            let given = rows.iter().find(|row| row.hash == *key);
            let given = given.copied().unwrap_or(TenantKey { hash: *key, expires_at: None });
            let former = others.chain([ending(&given, in_time)]);
            Plan { current: Current::Made(Why::Rotated), former: working(former, now) }
        }
    }
}

/// The key with its end; one that has none gets `end`.
fn ending(row: &TenantKey, end: Timestamp) -> TenantKey {
    TenantKey { hash: row.hash, expires_at: row.expires_at.or(Some(end)) }
}

/// Those of `keys` that still work, the one that works longest first, and not too many.
fn working(keys: impl Iterator<Item = TenantKey>, now: Timestamp) -> Vec<TenantKey> {
    let mut keys: Vec<TenantKey> = keys.filter(|row| row.expires_at.is_none_or(|at| at > now)).collect();
    keys.sort_by_key(|row| std::cmp::Reverse(row.expires_at));
    keys.truncate(MAX_FORMER);
    keys
}

#[cfg(test)]
mod tests;
