//! How many features a tenant may have in a billing period: each is a row of every fold, for ever.
//!
//! What is counted says which features there are; what was taken in since then is remembered here. Each api
//! remembers for itself, so several may let a few more in between two snapshots than one would.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flagmeter_core::event::{FeatureName, TenantName, UsageEvent};
use foldhash::{HashMap, HashSet};
use jiff::Timestamp;

use crate::tenant;
use crate::usage::Usage;

/// The features that are known. Clones share them.
#[derive(Clone)]
pub struct Features {
    limit: usize,
    usage: Usage,
    known: Arc<Mutex<HashMap<TenantName, Known>>>,
}

/// A tenant's features in its open period.
struct Known {
    until: Timestamp,
    names: HashSet<FeatureName>,
}

impl Features {
    /// At most `limit` a tenant and period; `usage` has those that are counted.
    #[must_use]
    pub fn new(limit: usize, usage: Usage) -> Self {
        Self { limit, usage, known: Arc::default() }
    }

    /// How many a tenant may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The names that one request brings.
    #[must_use]
    pub fn brought(&self) -> Brought<'_> {
        Brought { features: self, names: Vec::new() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TenantName, Known>> {
        // A panic while it was held leaves a set with a name more or less.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The features in which the tenant's usage is counted.
    fn counted(&self, tenant: &tenant::Known, now: Timestamp) -> Known {
        let Some(snapshot) = self.usage.newest() else {
            // PostgreSQL is away. It is asked again with the next event.
            return Known { until: now, names: HashSet::default() };
        };
        let current = snapshot.current(tenant, now);
        let names =
            current.usage.features.keys().filter_map(|name| FeatureName::try_from(name.as_str()).ok());
        Known { until: current.period.end, names: names.collect() }
    }
}

/// The names that one request brings and nobody had before. They count from the beginning, or many requests at once
/// could bring more than there may be; and are given back if the request is refused after all.
pub struct Brought<'a> {
    features: &'a Features,
    names: Vec<(TenantName, FeatureName)>,
}

impl Brought<'_> {
    /// Whether the feature of `event` is one of its tenant's, or may become one. That of a late event, too, is held
    /// against those of the open period.
    #[must_use]
    pub fn admit(&mut self, tenant: &tenant::Known, event: &UsageEvent, now: Timestamp) -> bool {
        let mut all = self.features.known();
        let known = match all.get_mut(&event.tenant) {
            Some(known) if known.until > now => known,
            _ => all.entry(event.tenant.clone()).insert_entry(self.features.counted(tenant, now)).into_mut(),
        };
        if known.names.contains(&event.feature) {
            return true;
        }
        if known.names.len() >= self.features.limit {
            return false;
        }
        known.names.insert(event.feature.clone());
        self.names.push((event.tenant.clone(), event.feature.clone()));
        true
    }

    /// The request was answered 202.
    pub fn keep(mut self) {
        self.names.clear();
    }
}

impl Drop for Brought<'_> {
    fn drop(&mut self) {
        if self.names.is_empty() {
            return;
        }
        let mut all = self.features.known();
        for (tenant, feature) in &self.names {
            if let Some(known) = all.get_mut(tenant) {
                known.names.remove(feature);
            }
        }
    }
}
