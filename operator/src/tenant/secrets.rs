//! Which Secrets there are, and in which versions, as their watches say: enough to know that one need not be read
//! again. Nothing that a Secret holds is kept.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;

use super::scope::Scope;

/// A Secret's namespace and name.
pub(super) type Name = (String, String);

/// The versions of all Secrets that are watched.
#[derive(Debug, Default)]
pub(super) struct Versions(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    versions: HashMap<Name, String>,
    /// Whose Secrets were all seen at least once.
    listed: HashSet<Scope>,
    /// Whose Secrets cannot be watched now: what was seen may be old.
    failing: HashSet<Scope>,
}

impl Seen {
    /// Whether it is known what there is in the namespace.
    fn covers(&self, namespace: &str) -> bool {
        let covers = |scope: &&Scope| scope.namespace().is_none_or(|watched| watched == namespace);
        self.listed.iter().any(|scope| covers(&scope)) && !self.failing.iter().any(|scope| covers(&scope))
    }
}

impl Versions {
    /// The versions of the Secrets of these names, of which `None` is one that is not there. `None` for all of them while
    /// it is not known: not all were seen yet, or they cannot be watched.
    pub(super) fn of<'a>(
        &self,
        namespace: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Option<Vec<Option<String>>> {
        let seen = self.lock();
        let version = |name: &str| seen.versions.get(&(namespace.to_owned(), name.to_owned())).cloned();
        seen.covers(namespace).then(|| names.map(version).collect())
    }

    /// Whether all Secrets of the namespace were seen, and this was not among them. It may have come since.
    pub(super) fn is_unseen(&self, namespace: &str, name: &str) -> bool {
        let seen = self.lock();
        seen.covers(namespace) && !seen.versions.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A panic while it was held cannot leave a version half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings one watch's events to the versions.
pub(super) struct Follower {
    versions: Arc<Versions>,
    scope: Scope,
    /// What has been listed so far, while the watch begins.
    listed: HashSet<Name>,
}

impl Follower {
    pub(super) fn new(versions: Arc<Versions>, scope: Scope) -> Self {
        Self { versions, scope, listed: HashSet::new() }
    }

    /// The watch has failed, and begins anew.
    pub(super) fn lose_sight(&self) {
        self.versions.lock().failing.insert(self.scope.clone());
    }

    /// Notes what happened. Answers which Secrets are new, changed or gone, also where that was while nobody watched.
    pub(super) fn news(&mut self, event: Event<PartialObjectMeta<Secret>>) -> Vec<Name> {
        let mut seen = self.versions.lock();
        let Seen { versions, listed: scopes, failing } = &mut *seen;
        // While it lists anew, what went meanwhile is still there.
        if !matches!(event, Event::Init | Event::InitApply(_)) {
            failing.remove(&self.scope);
        }
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(secret) => {
                self.listed.insert(name(&secret));
                put(versions, &secret)
            }
            Event::InitDone => {
                scopes.insert(self.scope.clone());
                let listed = std::mem::take(&mut self.listed);
                let watched = self.scope.namespace();
                let is_gone = |name: &Name| {
                    watched.is_none_or(|namespace| namespace == name.0) && !listed.contains(name)
                };
                let gone: Vec<Name> = versions.keys().filter(|name| is_gone(name)).cloned().collect();
                versions.retain(|name, _| !is_gone(name));
                gone
            }
            Event::Apply(secret) => put(versions, &secret),
            Event::Delete(secret) => {
                let name = name(&secret);
                versions.remove(&name);
                vec![name]
            }
        }
    }
}

fn put(versions: &mut HashMap<Name, String>, secret: &PartialObjectMeta<Secret>) -> Vec<Name> {
    let (name, version) = (name(secret), secret.resource_version().unwrap_or_default());
    let before = versions.insert(name.clone(), version.clone());
    if before == Some(version) { Vec::new() } else { vec![name] }
}

fn name(secret: &PartialObjectMeta<Secret>) -> Name {
    (secret.namespace().unwrap_or_default(), secret.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(namespace: &str, name: &str, version: &str) -> PartialObjectMeta<Secret> {
        let metadata = json!({ "namespace": namespace, "name": name, "resourceVersion": version });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn only_what_has_changed_is_news_also_after_a_time_without_a_watch() {
        let versions = Arc::new(Versions::default());
        let mut shop = Follower::new(Arc::clone(&versions), Scope::Namespace("shop".into()));
        let mut other = Follower::new(Arc::clone(&versions), Scope::Namespace("other".into()));
        let name = |name: &str| vec![("shop".to_owned(), name.to_owned())];
        other.news(Event::Apply(secret("other", "a", "9")));

        assert!(shop.news(Event::Init).is_empty());
        assert_eq!(shop.news(Event::InitApply(secret("shop", "a", "1"))), name("a"));
        assert_eq!(shop.news(Event::InitApply(secret("shop", "b", "2"))), name("b"));
        assert!(!versions.is_unseen("shop", "c"), "not all were listed yet");
        assert!(shop.news(Event::InitDone).is_empty());
        assert!(versions.is_unseen("shop", "c") && !versions.is_unseen("shop", "a"));
        assert!(!versions.is_unseen("other", "c"), "nobody listed those");
        assert_eq!(shop.news(Event::Apply(secret("shop", "a", "3"))), name("a"));
        assert!(shop.news(Event::Apply(secret("shop", "a", "3"))).is_empty(), "seen already");
        let of = |namespace: &str, name: &str| versions.of(namespace, [name].into_iter());
        assert_eq!(of("shop", "a"), Some(vec![Some("3".to_owned())]));
        assert_eq!(of("other", "a"), None, "not all of those were seen");

        shop.lose_sight();
        assert_eq!(of("shop", "a"), None, "it may have changed meanwhile");

        // The watch begins anew: b is as it was, c is new, and a went meanwhile.
        assert!(shop.news(Event::Init).is_empty());
        assert!(shop.news(Event::InitApply(secret("shop", "b", "2"))).is_empty());
        assert_eq!(shop.news(Event::InitApply(secret("shop", "c", "4"))), name("c"));
        assert_eq!(of("shop", "a"), None, "not all were seen again");
        assert_eq!(shop.news(Event::InitDone), name("a"));
        assert_eq!(of("shop", "a"), Some(vec![None]));
        other.news(Event::InitApply(secret("other", "a", "9")));
        other.news(Event::InitDone);
        assert_eq!(of("other", "a"), Some(vec![Some("9".to_owned())]), "another watch's");

        assert_eq!(shop.news(Event::Delete(secret("shop", "b", "5"))), name("b"));
        assert_eq!(of("shop", "b"), Some(vec![None]));
    }
}
