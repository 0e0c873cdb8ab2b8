//! What was found out about each Tenant, so that it need not be found out again while nothing has changed. Losing it
//! costs a request; none of it is a secret.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flagmeter_store::postgres::tenants::FoundTenant;
use kube::ResourceExt;

use super::plan::Problem;

/// By namespace and name, with the resource's uid.
type Values<T> = HashMap<(String, String), (Option<String>, T)>;

/// A value for each Tenant, by namespace and name. That of an earlier resource of the same name is not the Tenant's.
#[derive(Debug)]
pub(super) struct Memo<T>(Mutex<Values<T>>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Memo<T> {
    /// Remembers `value`, and forgets what was remembered before.
    pub(super) fn put(&self, tenant: &impl ResourceExt, value: T) {
        self.lock().insert(key(tenant), (tenant.uid(), value));
    }

    /// What `look` makes of what is remembered, if anything is.
    pub(super) fn recall<R>(
        &self,
        tenant: &impl ResourceExt,
        look: impl FnOnce(&T) -> Option<R>,
    ) -> Option<R> {
        let values = self.lock();
        let (uid, value) = values.get(&key(tenant))?;
        if *uid == tenant.uid() { look(value) } else { None }
    }

    /// The Tenant is gone.
    pub(super) fn forget(&self, namespace: Option<&str>, name: &str) {
        self.lock().remove(&(namespace.unwrap_or_default().to_owned(), name.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, Values<T>> {
        // A panic while it was held cannot leave a value half put.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(tenant: &impl ResourceExt) -> (String, String) {
    (tenant.namespace().unwrap_or_default(), tenant.name_any())
}

/// That there was nothing to write, and from what that was planned. `plan` is made of nothing else, so as long as all
/// of it stays, there still is nothing, and no Secret has to be read to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Of the Tenant's spec.
    pub(super) generation: Option<i64>,
    /// The rows.
    pub(super) found: Option<FoundTenant>,
    /// The versions of the Secrets that the spec names, in its order, from before they were read; `None` is one that
    /// is not there.
    pub(super) secrets: Vec<Option<String>>,
    /// What only a person can put right.
    pub(super) problem: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use flagmeter_crds::Tenant;
    use serde_json::json;

    use super::*;

    fn tenant(uid: &str) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": "acme", "namespace": "shop", "uid": uid },
            "spec": { "monthlyQuota": 1 },
        }))
        .unwrap()
    }

    #[test]
    fn what_is_remembered_is_the_resources_own_and_goes_with_it() {
        let memo = Memo::default();
        memo.put(&tenant("uid-1"), 7);
        let recall = |uid| memo.recall(&tenant(uid), |value| Some(*value));
        assert_eq!(recall("uid-1"), Some(7));
        assert_eq!(recall("uid-2"), None, "another resource of the same name");
        memo.forget(Some("shop"), "acme");
        assert_eq!(recall("uid-1"), None);
    }
}
