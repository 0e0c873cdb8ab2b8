//! Secrets that Tenants name: whether those among the files let them be used.

use std::collections::BTreeMap;

use flagmeter_crds::lint::Document;
use flagmeter_crds::used_by::{self, USED_BY};

use super::report::{Finding, texts};

/// Where a Tenant names a Secret, and the key that it takes by default.
const PLACES: [(&[&str], &str); 3] = [
    (&["slack", "secretRef"], "url"),
    (&["webhook", "urlSecretRef"], "url"),
    (&["webhook", "secretRef"], "secret"),
];

/// The Secrets among the files, and what Tenants name.
#[derive(Default)]
pub(super) struct Secrets {
    given: BTreeMap<String, Vec<Given>>,
    named: Vec<Named>,
}

/// A Secret in a file.
struct Given {
    namespace: Option<String>,
    label: Option<String>,
    annotation: Option<String>,
    keys: Vec<String>,
}

/// A Secret that a Tenant names.
struct Named {
    secret: String,
    key: String,
    finding: Finding,
}

impl Secrets {
    /// Remembers the Secret in `document`, if there is one.
    pub(super) fn give(&mut self, document: &Document) {
        let value = &document.value;
        if value["apiVersion"] != "v1" || value["kind"] != "Secret" {
            return;
        }
        let (namespace, Some(name)) = texts(document) else { return };
        let text = |of: &str| value["metadata"][of][USED_BY].as_str().map(str::to_owned);
        let keys = ["data", "stringData"].into_iter().filter_map(|field| value[field].as_object());
        let keys = keys.flat_map(|values| values.keys().cloned()).collect();
        let given = Given { namespace, label: text("labels"), annotation: text("annotations"), keys };
        self.given.entry(name).or_default().push(given);
    }

    /// Remembers the Secrets that the Tenant in `document` names.
    pub(super) fn name(&mut self, file: &str, document: &Document) {
        for (path, default) in PLACES {
            let reference = path.iter().fold(&document.value["spec"]["alerts"], |value, name| &value[*name]);
            let text = |field: &str| reference[field].as_str().map(str::to_owned);
            let Some(secret) = text("name") else { continue };
            let field = format!("spec.alerts.{}", path.join("."));
            let finding = Finding { field: Some(field.clone()), ..Finding::at(file, document, &field) };
            self.named.push(Named {
                secret,
                key: text("key").unwrap_or_else(|| default.to_owned()),
                finding,
            });
        }
    }

    /// What the operator would not use, and how many of the Secrets that are named are not among the files.
    pub(super) fn judge(self) -> (Vec<Finding>, usize) {
        let (mut warnings, mut unknown) = (Vec::new(), 0);
        for Named { secret, key, finding } in self.named {
            let is_beside = |given: &&Given| match (&given.namespace, &finding.namespace) {
                (Some(theirs), Some(own)) => theirs == own,
                // The person who applies it says where.
                _ => true,
            };
            let Some(given) = self.given.get(&secret).and_then(|all| all.iter().find(is_beside)) else {
                unknown += 1;
                continue;
            };
            let tenant = finding.name.as_deref().unwrap_or_default();
            let message = if !used_by::allows(given.label.as_deref(), given.annotation.as_deref(), tenant) {
                format!(
                    "the Secret {secret:?} does not let this tenant use it: it needs the label {USED_BY}: {tenant}, or an \
                     annotation of that name with a list of tenants, or \"*\""
                )
            } else if !given.keys.contains(&key) {
                format!("the Secret {secret:?} has no key {key:?}")
            } else {
                continue;
            };
            warnings.push(Finding { reason: "SecretUnavailable", message, ..finding });
        }
        (warnings, unknown)
    }
}
