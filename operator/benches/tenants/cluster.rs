//! The API server: a namespace, an account for the operator, and what the server says it was asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use flagmeter_crds::Tenant;
use http::Request;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::operator::{label, temporary};
use crate::results::Calls;

/// The operator's account. It is no administrator's, which would be let through where others wait.
const ACCOUNT: &str = "operator";

/// What the operator is measured by; others ask for other things.
const RESOURCES: [&str; 4] = ["tenants", "secrets", "events", "leases"];

/// The API server as its administrator sees it, and a namespace of the benchmark's own.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// The operator's way to it.
    pub(crate) kubeconfig: PathBuf,
}

impl Cluster {
    /// Installs the definition, and makes a namespace with an account that may do everything in it.
    pub(crate) async fn prepare(administrator: &Path) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(administrator).context("failed to read KUBECONFIG")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let namespace = format!("tenants-{}", uuid::Uuid::now_v7());
        let cluster = Self { client, namespace, kubeconfig: temporary("kubeconfig") };
        let definition: Value = serde_saphyr::from_str(include_str!("../../../crds/tenants.yaml"))?;
        let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
        let apply = PatchParams::apply("flagmeter-bench").force();
        definitions.patch("tenants.flagmeter.dev", &apply, &Patch::Apply(definition)).await?;
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let namespace = serde_json::from_value(json!({ "metadata": { "name": cluster.namespace } }))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        cluster.account(administrator).await?;
        while cluster.tenants().list(&ListParams::default().limit(1)).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(cluster)
    }

    /// The Tenants of the namespace.
    pub(crate) fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Server-side apply of a Tenant, as its owner would.
    pub(crate) async fn apply(&self, name: &str, quota: i64) -> Result<()> {
        let tenant = json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": name },
            "spec": { "displayName": format!("Tenant {name}"), "monthlyQuota": quota, "billingDay": 15 },
        });
        let params = PatchParams::apply("flagmeter-bench").force();
        self.tenants().patch(name, &params, &Patch::Apply(tenant)).await?;
        Ok(())
    }

    /// What the API server was asked since its start, by its own account, whoever asked.
    pub(crate) async fn served(&self) -> Result<Calls> {
        let text = self.client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
        let mut calls = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let (labels, value) = line.rsplit_once(' ').context("a metric without a value")?;
            let resource = label(labels, "resource");
            if !RESOURCES.contains(&resource) {
                continue;
            }
            let subresource = label(labels, "subresource");
            let slash = if subresource.is_empty() { "" } else { "/" };
            let name = format!("{} {resource}{slash}{subresource}", label(labels, "verb"));
            *calls.entry(name).or_default() += value.parse::<u64>().context("a count that is none")?;
        }
        Ok(Calls(calls))
    }

    /// Deletes the namespace; that it ends is not waited for.
    pub(crate) async fn remove(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        // Whoever runs this throws the server away, or finds a namespace of its name.
        let _ = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        let _ = fs::remove_file(&self.kubeconfig);
    }

    async fn account(&self, administrator: &Path) -> Result<()> {
        let accounts: Api<ServiceAccount> = self.api();
        let roles: Api<Role> = self.api();
        let bindings: Api<RoleBinding> = self.api();
        let metadata = json!({ "name": ACCOUNT });
        let post = PostParams::default();
        accounts.create(&post, &serde_json::from_value(json!({ "metadata": metadata }))?).await?;
        let everything = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
        roles
            .create(&post, &serde_json::from_value(json!({ "metadata": metadata, "rules": everything }))?)
            .await?;
        let binding = json!({
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT },
            "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace }],
        });
        bindings.create(&post, &serde_json::from_value(binding)?).await?;
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let token = accounts.create_token_request(ACCOUNT, &post, &request).await?;
        self.write_kubeconfig(administrator, &token.status.context("the API server gave no token")?.token)
    }

    /// The administrator's kubeconfig with the account's token in place of his own.
    fn write_kubeconfig(&self, administrator: &Path, token: &str) -> Result<()> {
        let mut config: Value = serde_saphyr::from_str(&fs::read_to_string(administrator)?)?;
        for user in config["users"].as_array_mut().context("the kubeconfig has no users")? {
            user["user"] = json!({ "token": token });
        }
        fs::write(&self.kubeconfig, serde_json::to_vec(&config)?).context("failed to write a kubeconfig")
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
