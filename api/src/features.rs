//! How many features a tenant may have in a billing period: each is a row of every fold, for ever.
//!
//! What is counted says which features there are; what was taken in since then is remembered here. Each api
//! remembers for itself, so several may let a few more in between two snapshots than one would.

use std::sync::{Arc, Mutex, PoisonError};

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

    /// Whether the feature of `event` is one of its tenant's, or may become one.
    #[must_use]
    pub fn admit(&self, tenant: &tenant::Known, event: &UsageEvent, now: Timestamp) -> bool {
        // A panic while it was held leaves a set with a name more or less.
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&event.tenant) {
            Some(known) if known.until > now => {
                if known.names.contains(&event.feature) {
                    return true;
                }
                if known.names.len() >= self.limit {
                    return false;
                }
                known.names.insert(event.feature.clone());
                true
            }
            _ => {
                let mut known = self.counted(tenant, now);
                let room = known.names.contains(&event.feature) || known.names.len() < self.limit;
                if room {
                    known.names.insert(event.feature.clone());
                }
                all.insert(event.tenant.clone(), known);
                room
            }
        }
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
