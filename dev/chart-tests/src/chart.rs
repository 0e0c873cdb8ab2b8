//! The chart, and the objects it renders to.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::tool::{Answer, Tool};

/// The values that have no default, beside the chart.
pub const REQUIRED_VALUES: &str = "tests/required.yaml";

/// Where a file of the repository is.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

/// The text of a file of the repository.
///
/// # Panics
///
/// If it cannot be read.
#[must_use]
pub fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("failed to read {path}: {error}"))
}

/// Where a file of the chart is; with an empty path the chart itself.
#[must_use]
pub fn chart(path: &str) -> String {
    repository("charts/flagmeter").join(path).to_string_lossy().into_owned()
}

/// `helm template` with `arguments`, which may name another namespace, and `values` on top of them.
#[must_use]
pub fn template(release: &str, arguments: &[&str], values: &Value) -> Answer {
    let chart = chart("");
    let mut command = vec!["template", release, &chart, "--namespace", "flagmeter"];
    command.extend_from_slice(arguments);
    command.extend_from_slice(&["--values", "-"]);
    Tool::Helm.run(&command, &values.to_string())
}

/// The objects of a release named `flagmeter`, with `values` on top of the required ones.
///
/// # Panics
///
/// If the chart does not render.
#[must_use]
pub fn render(values: &Value) -> Objects {
    let rendered = template("flagmeter", &["--values", &chart(REQUIRED_VALUES)], values);
    Objects::parse(&rendered.expect_success("render the chart"))
}

/// Reads YAML of any number of documents; empty ones are left out.
///
/// # Panics
///
/// If it is not YAML.
#[must_use]
pub fn yaml(text: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("not YAML: {error}\n{text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// What a release consists of.
#[derive(Debug)]
pub struct Objects(Vec<Value>);

impl Objects {
    /// Reads the output of `helm template`.
    #[must_use]
    pub fn parse(manifests: &str) -> Self {
        Self(yaml(manifests))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    /// Those of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.iter().filter(move |object| object["kind"] == kind)
    }

    /// What is at `path` of `object`, null if there is no such thing.
    ///
    /// `object` is `Kind/name`. A step of the path is a field, or the name of an item of a list, or its
    /// index: `spec/template/spec/containers/api/env/VALKEY_URL/valueFrom`.
    #[must_use]
    pub fn at(&self, object: &str, path: &str) -> &Value {
        let found = object.split_once('/').and_then(|(kind, name)| {
            self.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        });
        let steps = path.split('/').filter(|step| !step.is_empty());
        steps.fold(found.unwrap_or(&Value::Null), |value, step| match value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .find(|(index, item)| item["name"] == step || index.to_string() == step)
                .map_or(&Value::Null, |(_, item)| item),
            _ => &value[step],
        })
    }

    /// The pod templates of the Deployments, each with its Deployment's name.
    pub fn pod_templates(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.of_kind("Deployment").map(|deployment| {
            (deployment["metadata"]["name"].as_str().unwrap_or_default(), &deployment["spec"]["template"])
        })
    }

    /// The containers of all pods, those that come first included.
    pub fn containers(&self) -> impl Iterator<Item = &Value> {
        self.pod_templates().flat_map(|(_, pod)| {
            let of = |list: &str| pod["spec"][list].as_array().into_iter().flatten();
            of("initContainers").chain(of("containers"))
        })
    }
}
