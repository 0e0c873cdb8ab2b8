//! A namespace of a test's own, on the control plane that `KUBECONFIG` names.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_runtime::env::Env;
use futures::FutureExt;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How long anything may take. Most of it takes a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rights of the operator: what the chart's Role gives it.
fn rules() -> Value {
    json!([
        { "apiGroups": ["flagmeter.dev"], "resources": ["tenants"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": ["flagmeter.dev"], "resources": ["tenants/status"], "verbs": ["patch"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "patch"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
        { "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "create", "patch"] },
    ])
}

/// The control plane, as its admin sees it, and a namespace in which the definition is installed.
#[derive(Clone)]
pub(crate) struct Cluster {
    config: Config,
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Runs `test` in a namespace of its own, which is deleted afterwards, however the test ends.
pub(crate) async fn in_namespace<F>(test: impl FnOnce(Cluster) -> F)
where
    F: Future<Output = ()>,
{
    let cluster = Cluster::connect().await;
    let outcome = AssertUnwindSafe(test(cluster.clone())).catch_unwind().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete(&cluster.namespace, &DeleteParams::default()).await.unwrap();
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
    async fn install_definition(&self) {
        let definition: Value = serde_saphyr::from_str(include_str!("../../../crds/tenants.yaml")).unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = "tenants.flagmeter.dev";
        let params = PatchParams::apply("flagmeter-tests").force();
        definitions.patch(name, &params, &Patch::Apply(definition)).await.unwrap();
        let tenants: Api<Tenant> = Api::all(self.client.clone());
        eventually("the definition is established", async || {
            tenants.list(&kube::api::ListParams::default()).await.ok()
        })
        .await;
    }

    /// A client with the operator's rights: a ServiceAccount's token, bound to [`rules`].
    pub(crate) async fn as_operator(&self) -> Client {
        let create = PostParams::default();
        let metadata = json!({ "name": "operator" });
        let accounts: Api<ServiceAccount> = self.api();
        if accounts.get_opt("operator").await.unwrap().is_none() {
            accounts.create(&create, &from(json!({ "metadata": metadata }))).await.unwrap();
            let role = json!({ "metadata": metadata, "rules": rules() });
            self.api::<Role>().create(&create, &from(role)).await.unwrap();
            let binding = json!({
                "metadata": metadata,
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator" },
                "subjects": [{ "kind": "ServiceAccount", "name": "operator", "namespace": self.namespace }],
            });
            self.api::<RoleBinding>().create(&create, &from(binding)).await.unwrap();
        }
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let token = accounts.create_token_request("operator", &create, &request).await.unwrap();
        let token = token.status.unwrap().token;
        let mut config = self.config.clone();
        config.auth_info = from(json!({ "token": token }));
        Client::try_from(config).unwrap()
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

    /// Makes the Secret hold `values`.
    pub(crate) async fn apply_secret(&self, name: &str, values: Value) {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name },
            "stringData": values,
        });
        let params = PatchParams::apply("flagmeter-tests").force();
        self.api::<Secret>().patch(name, &params, &Patch::Apply(secret)).await.unwrap();
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
