//! Which Tenants are looked at.

use std::fmt;

use flagmeter_crds::Tenant;
use k8s_openapi::api::core::v1::Secret;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::{Api, Client};

/// A part of the cluster whose Tenants, and the Secrets they name, are watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One namespace: a Role in it is enough.
    Namespace(String),
    /// All namespaces, which takes a `ClusterRole` that reads every Secret.
    Cluster,
}

impl Scope {
    /// The scopes that `FLAGMETER_WATCH_NAMESPACES` asks for, each once: `*`, or names with commas between them; the
    /// operator's own namespace if there is none.
    ///
    /// # Errors
    ///
    /// What is allowed, if `text` is something else.
    pub fn parse(text: &str, own: &str) -> Result<Vec<Self>, NotNamespaces> {
        let mut scopes = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let scope = match name {
                "*" => Self::Cluster,
                _ if is_label(name) => Self::Namespace(name.to_owned()),
                _ => return Err(NotNamespaces),
            };
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        if scopes.is_empty() {
            scopes.push(Self::Namespace(own.to_owned()));
        }
        // Watched twice, a Tenant would be swept by half of what is known of it.
        let ambiguous = scopes.len() > 1 && scopes.contains(&Self::Cluster);
        if ambiguous || scopes.len() > MOST_NAMESPACES { Err(NotNamespaces) } else { Ok(scopes) }
    }

    /// The namespace; `None` if it is all of them.
    pub(super) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespace(name) => Some(name),
            Self::Cluster => None,
        }
    }

    /// The Tenants. One that does not parse is an `Err` of its own, and hides no other.
    pub(crate) fn tenants(&self, client: Client) -> Api<DeserializeGuard<Tenant>> {
        match self {
            Self::Namespace(name) => Api::namespaced(client, name),
            Self::Cluster => Api::all(client),
        }
    }

    /// The Secrets, without what they hold.
    pub(super) fn secrets(&self, client: Client) -> Api<PartialObjectMeta<Secret>> {
        match self {
            Self::Namespace(name) => Api::namespaced(client, name),
            Self::Cluster => Api::all(client),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(formatter, "namespace {name}"),
            Self::Cluster => formatter.write_str("all namespaces"),
        }
    }
}

/// Namespaces that one operator watches by name at most; each is two watches.
const MOST_NAMESPACES: usize = 100;

/// What names no namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be names of at most {MOST_NAMESPACES} namespaces with commas between them, or * alone")]
pub struct NotNamespaces;

fn is_label(name: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let outer = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    let bytes = name.as_bytes();
    bytes.len() <= 63 && bytes.iter().all(inner) && outer(bytes.first()) && outer(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_once_each_and_without_any_it_is_the_operators_own() {
        let named = |names: &[&str]| names.iter().map(|name| Scope::Namespace((*name).to_owned())).collect();
        let cases: [(&str, Result<Vec<Scope>, NotNamespaces>); 9] = [
            ("", Ok(named(&["own"]))),
            (" , ", Ok(named(&["own"]))),
            ("shop", Ok(named(&["shop"]))),
            ("shop, own,shop", Ok(named(&["shop", "own"]))),
            ("*", Ok(vec![Scope::Cluster])),
            ("*,shop", Err(NotNamespaces)),
            ("Shop", Err(NotNamespaces)),
            ("-shop", Err(NotNamespaces)),
            ("shop/own", Err(NotNamespaces)),
        ];
        for (text, expected) in cases {
            assert_eq!(Scope::parse(text, "own"), expected, "{text:?}");
        }
        let many = (0..101).map(|number| format!("n{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(Scope::parse(&many, "own"), Err(NotNamespaces));
    }
}
