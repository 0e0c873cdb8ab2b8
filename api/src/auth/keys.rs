//! The keys as this api knows them: read, kept and remembered with the tenants (`directory`).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use flagmeter_core::event::TenantName;
use flagmeter_store::api_key::KeyHash;
use flagmeter_store::postgres::api_keys::KnownKey;
use jiff::Timestamp;

use crate::directory::NotKnownYet;

/// What a key opens.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Whose it is.
    pub tenant: TenantName,
    /// From when on it is worth nothing; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// The keys by their hashes, or nothing until they were read for the first time. A reader never waits. Clones share
/// them.
#[derive(Clone, Default)]
pub struct Keys(Arc<ArcSwapOption<HashMap<KeyHash, Arc<Key>>>>);

impl Keys {
    /// From now on, these are the keys.
    pub fn know(&self, keys: Vec<KnownKey>) {
        let by_hash = keys
            .into_iter()
            .map(|KnownKey { hash, tenant, expires_at }| (hash, Arc::new(Key { tenant, expires_at })));
        self.0.store(Some(Arc::new(by_hash.collect())));
    }

    /// What the key of this hash opens, if there is one.
    ///
    /// # Errors
    ///
    /// [`NotKnownYet`], so that nobody is told "no such key" by an api that does not know.
    pub fn find(&self, hash: &KeyHash) -> Result<Option<Arc<Key>>, NotKnownYet> {
        let keys = self.0.load();
        let keys = keys.as_ref().ok_or(NotKnownYet)?;
        Ok(keys.get(hash).cloned())
    }
}
