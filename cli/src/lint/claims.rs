//! Ids that two Tenants claim: an id is a Tenant's name, whatever its namespace.

use std::collections::BTreeMap;

use flagmeter_crds::lint::Document;

use super::report::{Finding, texts};

/// Who has claimed which id so far.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<String, Claim>);

struct Claim {
    namespace: Option<String>,
    file: String,
    line: u64,
}

impl Claims {
    /// Adds the Tenant in `document`; what is wrong with it if another has its id.
    pub(super) fn add(&mut self, file: &str, document: &Document) -> Option<Finding> {
        let (namespace, name) = texts(document);
        let finding = Finding::at(file, document, "metadata.name");
        let name = name?;
        let Some(first) = self.0.get(&name) else {
            self.0.insert(name, Claim { namespace, file: file.to_owned(), line: finding.line });
            return None;
        };
        let place = format!("{}:{}", first.file, first.line);
        let (reason, message) = match (&first.namespace, &namespace) {
            (Some(other), Some(own)) if other != own => (
                "TenantIdTaken",
                format!(
                    "the id \"{name}\" is claimed in namespace \"{other}\" too ({place}): whichever is there first has it; choose another name"
                ),
            ),
            _ => (
                "DefinedTwice",
                format!(
                    "the Tenant \"{name}\" is defined twice ({place}): the one that is applied last would win"
                ),
            ),
        };
        Some(Finding { reason, field: Some("metadata.name".to_owned()), message, ..finding })
    }
}
