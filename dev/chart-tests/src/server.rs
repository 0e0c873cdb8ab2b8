//! A release in a namespace of its own on the API server of `KUBECONFIG`.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::chart::{REQUIRED_VALUES, chart};
use crate::tool::Tool;

/// Name of the release, and so the beginning of its objects' names.
pub const RELEASE: &str = "flagmeter";

/// An installed chart without the CRD, which all releases of a cluster would share. The namespace
/// enforces the Pod Security level `restricted`, and goes when this value goes.
#[derive(Debug)]
pub struct Release {
    /// The namespace it is in.
    pub namespace: String,
}

impl Release {
    /// Installs the chart with the required values.
    #[must_use]
    pub fn install() -> Self {
        let release = Self { namespace: unique_name() };
        let namespace = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": release.namespace,
                "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
            },
        });
        let created = Tool::Kubectl.run(&["create", "--filename", "-"], &namespace.to_string());
        let _ = created.expect_success("create a namespace");
        release.helm("install", &serde_json::json!({}));
        release
    }

    /// `helm upgrade` with `values` on top of the required ones.
    pub fn upgrade(&self, values: &Value) {
        self.helm("upgrade", values);
    }

    fn helm(&self, command: &str, values: &Value) {
        let (chart, required) = (chart(""), chart(REQUIRED_VALUES));
        let mut arguments = vec![command, RELEASE, &chart, "--namespace", &self.namespace];
        arguments.extend(["--set", "crds.install=false", "--values", &required, "--values", "-"]);
        let done = Tool::Helm.run(&arguments, &values.to_string());
        let _ = done.expect_success(&format!("{command} the chart"));
    }

    /// kubectl in the release's namespace.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> crate::Answer {
        let arguments = [arguments, &["--namespace", &self.namespace]].concat();
        Tool::Kubectl.run(&arguments, input)
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        // Not waited for: where no controller manager runs, the namespace would stay for ever.
        let _ = Tool::Kubectl.run(&["delete", "namespace", &self.namespace, "--wait=false"], "");
    }
}

/// Differs between the tests of a process, between processes, and between runs.
fn unique_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("chart-{:x}-{}-{count}", since.as_millis(), process::id())
}
