//! Which tenants a Secret lets the operator use it for: said on the Secret itself, by someone who may write it. So the
//! right to write Tenants is no right to use, or to learn of, anyone else's Secrets. No I/O.

/// The label, or the annotation, of a Secret that names the tenants which may use it.
pub const USED_BY: &str = "flagmeter.dev/used-by";

/// The CEL rule of a Secret's name; [`is_secret_name`] says the same.
pub const NAME_RULE: &str =
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')";

/// Stands for every tenant of the Secret's namespace. Kubernetes takes it in an annotation only.
const ANY: &str = "*";

/// Whether a Secret whose label and annotation [`USED_BY`] are these may be used for `tenant`: one of them names it, is a
/// list with commas that does, or is `*`.
#[must_use]
pub fn allows(label: Option<&str>, annotation: Option<&str>, tenant: &str) -> bool {
    let names = [label, annotation].into_iter().flatten().flat_map(|text| text.split(','));
    names.map(str::trim).any(|name| name == tenant || name == ANY)
}

/// Whether a Secret can have this name: a DNS subdomain (RFC 1123).
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(is_alphanumeric)
            && bytes.last().is_some_and(is_alphanumeric)
            && bytes.iter().all(|byte| *byte == b'-' || is_alphanumeric(byte))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_says_by_name_which_tenants_may_use_it() {
        for (label, annotation, expected) in [
            (None, None, false),
            (Some("acme"), None, true),
            (None, Some("acme"), true),
            (Some("globex"), Some("acme"), true),
            (Some("globex"), None, false),
            (None, Some("globex, acme"), true),
            (None, Some("globex,initech"), false),
            (None, Some("*"), true),
            (None, Some("globex,*"), true),
            (Some(""), Some(""), false),
            (None, Some("acme-corp"), false),
            (None, Some("Acme"), false),
            (None, Some("ac*"), false),
        ] {
            assert_eq!(allows(label, annotation, "acme"), expected, "{label:?} {annotation:?}");
        }
    }

    #[test]
    fn a_name_that_no_secret_can_have_is_none() {
        for name in ["acme", "a.b-c.7", "7", &"a".repeat(253)] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "",
            "Acme",
            "a/b",
            "..",
            "a..b",
            "-a",
            "a-",
            "a?x=1",
            "a%2fb",
            "a b",
            "a\0",
            "ä",
            &"a".repeat(254),
        ] {
            assert!(!is_secret_name(name), "{name:?}");
        }
    }
}
