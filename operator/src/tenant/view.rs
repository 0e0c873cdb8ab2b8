//! Whether the Tenants of all scopes are in view.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::scope::Scope;
use super::watching::Unwatchable;

/// Hears whether all are in view, or what keeps one scope from being so.
type Tell = Box<dyn Fn(Result<(), Unwatchable>) + Send + Sync>;

/// What is known of each scope.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// All its Tenants were seen at least once.
    listed: bool,
    obstacle: Option<Unwatchable>,
}

/// All scopes.
pub(super) struct View {
    scopes: Mutex<HashMap<Scope, Known>>,
    tell: Tell,
}

impl View {
    /// Nothing of `scopes` is in view yet.
    pub(super) fn of(
        scopes: &[Scope],
        tell: impl Fn(Result<(), Unwatchable>) + Send + Sync + 'static,
    ) -> Self {
        let scopes = scopes.iter().map(|scope| (scope.clone(), Known::default())).collect();
        Self { scopes: Mutex::new(scopes), tell: Box::new(tell) }
    }

    /// All Tenants of `scope` were seen, or cannot be.
    pub(super) fn see(&self, scope: &Scope, seen: Result<(), Unwatchable>) {
        self.change(scope, |known| match seen {
            Ok(()) => *known = Known { listed: true, obstacle: None },
            Err(obstacle) => known.obstacle = Some(obstacle),
        });
    }

    /// Nothing keeps the Tenants of `scope` from being seen any more.
    pub(super) fn see_again(&self, scope: &Scope) {
        self.change(scope, |known| known.obstacle = None);
    }

    fn change(&self, scope: &Scope, change: impl FnOnce(&mut Known)) {
        // A panic while it was held cannot leave a scope half changed.
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        change(scopes.entry(scope.clone()).or_default());
        if let Some(obstacle) = scopes.values().find_map(|known| known.obstacle) {
            (self.tell)(Err(obstacle));
        } else if scopes.values().all(|known| known.listed) {
            (self.tell)(Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn all_are_in_view_when_each_scope_was_seen_and_none_is_kept_from_it() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let [shop, other] = ["shop", "other"].map(|name| Scope::Namespace(name.to_owned()));
        let hears = Arc::clone(&told);
        let view = View::of(&[shop.clone(), other.clone()], move |seen| hears.lock().unwrap().push(seen));
        view.see(&shop, Ok(()));
        assert!(told.lock().unwrap().is_empty(), "the other was not seen yet");
        view.see(&other, Err(Unwatchable::NotDefined));
        view.see_again(&other);
        view.see(&other, Ok(()));
        view.see(&shop, Err(Unwatchable::Forbidden));
        view.see_again(&shop);
        let expected = [Err(Unwatchable::NotDefined), Ok(()), Err(Unwatchable::Forbidden), Ok(())];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}
