//! What is printed, for people and for machines.

use std::fmt::Write as _;
use std::process::ExitCode;

use flagmeter_crds::lint::Document;
use flagmeter_crds::used_by::USED_BY;
use serde::Serialize;
use serde_json::json;

/// One problem of one Tenant.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    pub(super) file: String,
    pub(super) line: u64,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) field: Option<String>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Finding {
    /// Nothing yet, at `place` in `document`.
    pub(super) fn at(file: &str, document: &Document, place: &str) -> Self {
        let (namespace, name) = texts(document);
        Self {
            file: file.to_owned(),
            line: document.line(place),
            namespace,
            name,
            field: None,
            reason: "",
            message: String::new(),
        }
    }
}

/// A document's namespace and name, where they are texts.
pub(super) fn texts(document: &Document) -> (Option<String>, Option<String>) {
    let text = |name: &str| {
        let text = document.value["metadata"][name].as_str().filter(|text| !text.is_empty());
        text.map(|text| text.chars().filter(|character| !character.is_control()).take(253).collect())
    };
    (text("namespace"), text("name"))
}

/// A file that could not be checked.
#[derive(Serialize)]
struct Unreadable {
    file: String,
    line: Option<u64>,
    message: String,
}

/// What was found in all files.
#[derive(Default)]
pub(super) struct Report {
    pub(super) files: usize,
    pub(super) passed_over: usize,
    /// Files and folders of the command line.
    pub(super) without_tenant: Vec<String>,
    tenants: usize,
    invalid: usize,
    problems: Vec<Finding>,
    unreadable: Vec<Unreadable>,
    /// What the API server takes, and what will not do what it should.
    pub(super) warnings: Vec<Finding>,
    /// Whether the API server leaves rules unchecked because of some of the problems.
    pub(super) unchecked: bool,
    /// Times that a Secret is named which is not among the files.
    pub(super) unknown_secrets: usize,
}

impl Report {
    /// A Tenant with its problems.
    pub(super) fn tenant(&mut self, problems: Vec<Finding>) {
        self.tenants += 1;
        self.invalid += usize::from(!problems.is_empty());
        self.problems.extend(problems);
    }

    pub(super) fn unreadable(&mut self, file: &str, line: Option<u64>, message: String) {
        self.unreadable.push(Unreadable { file: file.to_owned(), line, message });
    }

    /// A line a problem, as a compiler gives it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Unreadable { file, line, message } in &self.unreadable {
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            let _ = writeln!(text, "{file}{line}: {message}");
        }
        let warnings = self.warnings.iter().map(|warning| (warning, "warning: "));
        for (finding, kind) in self.problems.iter().map(|problem| (problem, "")).chain(warnings) {
            let Finding { file, line, namespace, name, field, message, .. } = finding;
            let _ = write!(text, "{file}:{line}: Tenant");
            match (namespace, name) {
                (Some(namespace), Some(name)) => _ = write!(text, " {namespace}/{name}"),
                (None, Some(name)) => _ = write!(text, " {name}"),
                (_, None) => {}
            }
            if let Some(field) = field {
                let _ = write!(text, ": {field}");
            }
            let _ = writeln!(text, ": {kind}{message}");
        }
        text
    }

    /// The same as one JSON object.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let object = json!({
            "problems": self.problems,
            "warnings": self.warnings,
            "unreadable": self.unreadable,
            "withoutTenant": self.without_tenant,
            "summary": {
                "files": self.files,
                "tenants": self.tenants,
                "invalidTenants": self.invalid,
                "passedOver": self.passed_over,
                "unknownSecrets": self.unknown_secrets,
            },
        });
        Ok(serde_json::to_string_pretty(&object)? + "\n")
    }

    /// Sentences for the person who ran it.
    pub(super) fn summary(&self) -> String {
        let mut text = String::new();
        for path in &self.without_tenant {
            let _ = writeln!(text, "{path}: no Tenant in it");
        }
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let _ = write!(
            text,
            "{} in {}: {} valid",
            count(self.tenants, "Tenant"),
            count(self.files, "file"),
            self.tenants - self.invalid
        );
        if self.invalid > 0 {
            let _ = write!(text, ", {} with {}", self.invalid, count(self.problems.len(), "problem"));
        }
        if !self.warnings.is_empty() {
            let _ = write!(text, ", {}", count(self.warnings.len(), "warning"));
        }
        if self.passed_over > 0 {
            let _ = write!(text, "; {} of other kinds passed over", count(self.passed_over, "object"));
        }
        if !self.unreadable.is_empty() {
            let _ = write!(text, "; {} could not be read", count(self.unreadable.len(), "file"));
        }
        text.push('\n');
        if self.unchecked {
            text.push_str("some rules are only checked once these problems are corrected; lint again then\n");
        }
        if self.unknown_secrets > 0 {
            let _ = writeln!(
                text,
                "{} to a Secret that is not in these files: whether it is in the cluster, and lets the tenant use it by \
                 {USED_BY}, is not known here",
                count(self.unknown_secrets, "reference")
            );
        }
        text
    }

    /// 2 if something was not checked, 1 if a Tenant has a problem.
    pub(super) fn exit_code(&self) -> ExitCode {
        if !self.unreadable.is_empty() {
            ExitCode::from(2)
        } else if self.problems.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
