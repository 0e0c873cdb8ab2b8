//! A namespace of a test's own, on the control plane that `KUBECONFIG` names.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_runtime::env::Env;
use futures::FutureExt;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client, Config, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::RwLock;

/// How long anything may take. Most of it takes a second; what failed five times in a row is tried again after half a
/// minute.
const PATIENCE: Duration = Duration::from_mins(1);

/// The operator's ServiceAccount in the chart.
const ACCOUNT: &str = "flagmeter-operator";

/// The objects that give the operator its rights, as the chart renders them for a release in `namespace` whose value
/// `operator` says `watches`.
fn rights(namespace: &str, watches: &Value) -> Vec<Value> {
    let mut env = Env::process();
    let helm: Option<String> = env.with_default("FLAGMETER_HELM", "helm");
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/flagmeter");
    let rendered = std::process::Command::new(helm.unwrap())
        .args(["template", "flagmeter", chart, "--namespace", namespace])
        .args(["--values", &format!("{chart}/tests/required.yaml")])
        .args(["--set-json", &format!("operator={watches}")])
        .args([
            "--show-only",
            "templates/operator-rbac.yaml",
            "--show-only",
            "templates/serviceaccounts.yaml",
        ])
        .output()
        .expect("FLAGMETER_HELM names helm; `cargo xtask test operator` fetches it");
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let text = String::from_utf8(rendered.stdout).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// The control plane, as its admin sees it, and a namespace in which the definition is installed.
#[derive(Clone)]
pub(crate) struct Cluster {
    config: Config,
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Shared by the tests that need the definition; whoever takes it away is alone.
static DEFINITION: RwLock<()> = RwLock::const_new(());

/// Runs `test` in a namespace of its own, which is deleted afterwards, however the test ends.
pub(crate) async fn in_namespace<F>(test: impl FnOnce(Cluster) -> F)
where
    F: Future<Output = ()>,
{
    let _shared = DEFINITION.read().await;
    run(test).await;
}

/// The same while no other test runs.
pub(crate) async fn alone_in_namespace<F>(test: impl FnOnce(Cluster) -> F)
where
    F: Future<Output = ()>,
{
    let _alone = DEFINITION.write().await;
    run(test).await;
}

async fn run<F>(test: impl FnOnce(Cluster) -> F)
where
    F: Future<Output = ()>,
{
    let cluster = Cluster::connect().await;
    let outcome = AssertUnwindSafe(test(cluster.clone())).catch_unwind().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    for namespace in [cluster.namespace.clone(), format!("{}-b", cluster.namespace)] {
        // One that has ended already, or was never there, is as good.
        let _ = namespaces.delete(&namespace, &DeleteParams::default()).await;
    }
    for suffix in ["", "-finish", "-unfollowed"] {
        let (params, name) = (DeleteParams::default(), format!("{}-{ACCOUNT}{suffix}", cluster.namespace));
        let _ = Api::<ClusterRole>::all(cluster.client.clone()).delete(&name, &params).await;
        let _ = Api::<ClusterRoleBinding>::all(cluster.client.clone()).delete(&name, &params).await;
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// What `look` finds, as soon as it finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("not in {PATIENCE:?}: {what}"))
}

impl Cluster {
    async fn connect() -> Self {
        let mut env = Env::process();
        let kubeconfig: Option<String> = env.required("KUBECONFIG");
        assert!(
            kubeconfig.is_some(),
            "KUBECONFIG must name the admin kubeconfig of a real API server; `cargo xtask test operator` starts one"
        );
        flagmeter_runtime::install_tls_provider();
        let config = Config::infer().await.expect("KUBECONFIG is read");
        let client = Client::try_from(config.clone()).unwrap();
        let namespace = format!("test-{}", uuid::Uuid::now_v7());
        let cluster = Self { config, client, namespace };
        cluster.install_definition().await;
        let namespace = from(json!({ "metadata": { "name": cluster.namespace } }));
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        cluster
    }

    /// Tests that run at the same time apply the same, which changes nothing.
    pub(crate) async fn install_definition(&self) {
        let definition: Value = serde_saphyr::from_str(include_str!("../../../crds/tenants.yaml")).unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = "tenants.flagmeter.dev";
        let params = PatchParams::apply("flagmeter-tests").force();
        definitions.patch(name, &params, &Patch::Apply(definition)).await.unwrap();
        let tenants: Api<Tenant> = Api::all(self.client.clone());
        eventually("the definition is established", async || tenants.list(&ListParams::default()).await.ok())
            .await;
    }

    /// A client with the operator's rights: its ServiceAccount's token, and the chart's Roles.
    pub(crate) async fn as_operator(&self) -> Client {
        Client::try_from(self.operator_config(&[]).await).unwrap()
    }

    /// How such a client reaches the API server, with Roles in the namespaces of `others` too.
    pub(crate) async fn operator_config(&self, others: &[&Cluster]) -> Config {
        let watched: Vec<&str> = others.iter().map(|other| other.namespace.as_str()).collect();
        self.config_for(json!({ "watchNamespaces": watched }), others).await
    }

    /// The same with the `ClusterRole` that follows all namespaces, `other` among them.
    pub(crate) async fn cluster_wide_config(&self, other: &Cluster) -> Config {
        self.config_for(json!({ "clusterWide": true }), &[other]).await
    }

    /// The same with the `ClusterRole` that sees Tenants of namespaces which nobody follows.
    pub(crate) async fn reporting_config(&self) -> Config {
        self.config_for(json!({ "reportUnfollowed": true }), &[]).await
    }

    async fn config_for(&self, watches: Value, others: &[&Cluster]) -> Config {
        let mut config = self.config.clone();
        config.auth_info = from(json!({ "token": self.operator_token(&watches).await }));
        // The API server learns of new rights by a watch of its own.
        let client = Client::try_from(config.clone()).unwrap();
        let leases: Api<Lease> = Api::namespaced(client.clone(), &self.namespace);
        eventually("the rights hold", async || leases.get_opt("flagmeter-operator").await.ok()).await;
        for cluster in others.iter().copied().chain([self]) {
            let tenants: Api<Tenant> = Api::namespaced(client.clone(), &cluster.namespace);
            eventually("the rights hold", async || tenants.list(&ListParams::default()).await.ok()).await;
        }
        config
    }

    /// The same as a file for a process of its own.
    pub(crate) async fn operator_kubeconfig(&self) -> PathBuf {
        // Waits until the rights hold.
        self.operator_config(&[]).await;
        let mut env = Env::process();
        let admins: PathBuf = env.required("KUBECONFIG").unwrap();
        let mut kubeconfig: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(admins).unwrap()).unwrap();
        for user in kubeconfig["users"].as_array_mut().unwrap() {
            user["user"] = json!({ "token": self.operator_token(&json!({})).await });
        }
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.kubeconfig", self.namespace));
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    /// The token of the operator's account, which gets the chart's rights.
    async fn operator_token(&self, watches: &Value) -> String {
        for object in rights(&self.namespace, watches) {
            let object: DynamicObject = from(object);
            let types = object.types.clone().unwrap();
            let (group, version) = types.api_version.split_once('/').unwrap_or(("", "v1"));
            let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
            let namespace = object.namespace().unwrap_or_else(|| self.namespace.clone());
            let api: Api<DynamicObject> = if types.kind.starts_with("Cluster") {
                Api::all_with(self.client.clone(), &kind)
            } else {
                Api::namespaced_with(self.client.clone(), &namespace, &kind)
            };
            let params = PatchParams::apply("flagmeter-tests").force();
            api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await.unwrap();
        }
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = self.api();
        let token = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.unwrap();
        token.status.unwrap().token
    }

    /// Another namespace, which ends with the test's own.
    pub(crate) async fn beside(&self) -> Self {
        let namespace = format!("{}-b", self.namespace);
        let object = from(json!({ "metadata": { "name": namespace } }));
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        Self { namespace, ..self.clone() }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Server-side apply of a Tenant, as its owner would.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> Tenant {
        let tenant = json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": name },
            "spec": spec,
        });
        let params = PatchParams::apply("flagmeter-tests").force();
        self.api::<Tenant>().patch(name, &params, &Patch::Apply(tenant)).await.unwrap()
    }

    /// Makes the Secret hold `values`, and lets no tenant use it.
    pub(crate) async fn apply_secret(&self, name: &str, values: Value) {
        self.apply_secret_with(json!({ "name": name }), values).await;
    }

    /// Makes the Secret hold `values`, and lets the tenant use it.
    pub(crate) async fn apply_secret_for(&self, tenant: &str, name: &str, values: Value) {
        let labels = json!({ "flagmeter.dev/used-by": tenant });
        self.apply_secret_with(json!({ "name": name, "labels": labels }), values).await;
    }

    /// The same with this metadata.
    pub(crate) async fn apply_secret_with(&self, metadata: Value, values: Value) {
        let name = metadata["name"].as_str().unwrap().to_owned();
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "stringData": values,
        });
        let params = PatchParams::apply("flagmeter-tests").force();
        self.api::<Secret>().patch(&name, &params, &Patch::Apply(secret)).await.unwrap();
    }

    /// The tenant, once its Ready condition has `reason`, for the generation that it has now.
    pub(crate) async fn reported(&self, name: &str, reason: &str) -> Tenant {
        let tenants: Api<Tenant> = self.api();
        eventually(&format!("{name} is {reason}"), async || {
            let tenant = tenants.get(name).await.unwrap();
            let status = tenant.status.as_ref()?;
            let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready")?;
            let current = status.observed_generation == tenant.metadata.generation;
            (current && ready.reason == reason).then_some(tenant)
        })
        .await
    }
}

/// A Kubernetes object from JSON.
pub(crate) fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}
