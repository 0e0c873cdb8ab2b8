//! A cluster that has an older definition, and Tenants made under it, gets the present one.

use flagmeter_crds::lint::Document;
use flagmeter_crds::{Tenant, manifest};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, from, in_namespace};

/// What was published, with Tenants that were valid under it.
const HISTORY: [(&str, &str); 2] = [
    (
        include_str!("../../../crds/history/v1alpha1-1.yaml"),
        include_str!("../../../crds/history/v1alpha1-1.tenants.yaml"),
    ),
    (
        include_str!("../../../crds/history/v1alpha1-2.yaml"),
        include_str!("../../../crds/history/v1alpha1-2.tenants.yaml"),
    ),
];

/// A definition under a group of a test's own, so that others keep theirs. Every version of it that is applied has
/// the default `mark`, another each time, at `spec.mark`: where it shows, that version is in force.
struct Definition {
    client: Client,
    tenants: Api<DynamicObject>,
    group: String,
}

impl Definition {
    async fn install(cluster: &Cluster, group: &str, definition: Value) -> Self {
        let group = format!("{group}.{}.flagmeter.dev", cluster.namespace);
        let kind = ApiResource {
            group: group.clone(),
            api_version: format!("{group}/v1alpha1"),
            ..ApiResource::erase::<Tenant>(&())
        };
        let tenants = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &kind);
        let installed = Self { client: cluster.client.clone(), tenants, group };
        installed.apply(definition, 1).await;
        installed
    }

    fn name(&self) -> String {
        format!("tenants.{}", self.group)
    }

    fn definitions(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.client.clone())
    }

    /// Hands a version of the definition over.
    async fn write(&self, mut definition: Value) {
        definition["metadata"]["name"] = self.name().into();
        definition["spec"]["group"] = self.group.clone().into();
        let params = PatchParams::apply("flagmeter-tests").force();
        self.definitions().patch(&self.name(), &params, &Patch::Apply(definition)).await.unwrap();
    }

    /// Brings a version of the definition into force.
    async fn apply(&self, mut definition: Value, mark: i32) {
        spec_of(&mut definition)["properties"]["mark"] = json!({ "type": "integer", "default": mark });
        self.write(definition).await;
        eventually("the definition is in force", async || {
            let probe = self.object("mark", &json!({ "monthlyQuota": 1 }));
            let params = PostParams { dry_run: true, ..PostParams::default() };
            let made = self.tenants.create(&params, &probe).await.ok()?;
            (made.data["spec"]["mark"] == mark).then_some(())
        })
        .await;
    }

    fn object(&self, name: &str, spec: &Value) -> DynamicObject {
        from(json!({
            "apiVersion": format!("{}/v1alpha1", self.group),
            "kind": "Tenant",
            "metadata": { "name": name },
            "spec": spec,
        }))
    }

    async fn create(&self, name: &str, spec: &Value) -> DynamicObject {
        self.tenants.create(&PostParams::default(), &self.object(name, spec)).await.unwrap()
    }

    /// Changes fields of a Tenant.
    async fn edit(&self, name: &str, spec: Value) -> Result<DynamicObject, Error> {
        self.tenants.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await
    }

    async fn delete(self) {
        self.definitions().delete(&self.name(), &DeleteParams::default()).await.unwrap();
    }
}

fn spec_of(definition: &mut Value) -> &mut Value {
    &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

/// Whether all that `old` says is said by `new`.
fn keeps(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.iter().all(|(name, old)| new.get(name).is_some_and(|new| keeps(old, new)))
        }
        _ => old == new,
    }
}

fn refusal(result: Result<DynamicObject, Error>) -> String {
    match result {
        Err(Error::Api(status)) if status.code == 422 => status.message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tenants_of_every_published_definition_live_on_under_the_present_one() {
    in_namespace(|cluster| async move {
        for (number, (definition, tenants)) in HISTORY.into_iter().enumerate() {
            let old: Value = serde_saphyr::from_str(definition).unwrap();
            let definition = Definition::install(&cluster, &format!("upgrade-{number}"), old).await;
            let mut before = Vec::new();
            for document in Document::read(tenants).unwrap() {
                let name = document.value["metadata"]["name"].as_str().unwrap();
                definition.create(name, &document.value["spec"]).await;
                let status = json!({ "status": {
                    "observedGeneration": 1,
                    "conditions": [{ "type": "Ready", "status": "True", "reason": "Synced", "message": "",
                        "lastTransitionTime": "2026-11-01T00:00:00Z" }],
                    "usage": { "totalTokens": 5, "percent": 50, "periodStart": "2026-11-01T00:00:00Z",
                        "periodEnd": "2026-12-01T00:00:00Z", "updatedAt": "2026-11-02T00:00:00Z" },
                }});
                let params = PatchParams::default();
                before.push(
                    definition.tenants.patch_status(name, &params, &Patch::Merge(status)).await.unwrap(),
                );
            }

            definition.apply(manifest::definition().unwrap(), 2).await;
            for mut before in before {
                let name = before.name_any();
                let after = definition.tenants.get(&name).await.unwrap();
                // The mark was stored when the object was written.
                before.data["spec"]["mark"].take();
                for part in ["spec", "status"] {
                    let mut old = before.data[part].clone();
                    old.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                    assert!(keeps(&old, &after.data[part]), "{name}: {} became {}", old, after.data[part]);
                }
                // As the operator reads it; what is new has its default.
                let tenant: Tenant = serde_json::from_value(serde_json::to_value(&after).unwrap()).unwrap();
                assert_eq!(after.data["spec"]["alerts"]["thresholds"], json!(tenant.spec.alerts.thresholds));
                for field in ["suspended", "deletionPolicy", "billingDay", "timeZone"] {
                    assert!(!after.data["spec"][field].is_null(), "{name}: {field} has no default");
                }

                // Written as it is, edited, and applied as its owner's file still says.
                let same = definition.tenants.replace(&name, &PostParams::default(), &after).await.unwrap();
                assert_eq!(same.metadata.generation, after.metadata.generation);
                definition.edit(&name, json!({ "monthlyQuota": 7 })).await.unwrap();
                let mut spec = before.data["spec"].clone();
                spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                let file = definition.object(&name, &spec);
                let params = PatchParams::apply("owner").force();
                definition.tenants.patch(&name, &params, &Patch::Apply(file)).await.unwrap();
            }
            definition.delete().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_that_hides_something_stays_as_it_was_stored_and_is_refused_where_it_changes() {
    in_namespace(|cluster| async move {
        let old: Value = serde_saphyr::from_str(HISTORY[1].0).unwrap();
        let definition = Definition::install(&cluster, "hidden", old).await;
        let boost = json!({ "tokens": 1, "from": "2026-03-10T00:00:00Z", "until": "2026-03-20T00:00:00Z", "reason": "a\0b" });
        let spec = json!({ "monthlyQuota": 9, "displayName": "Acme\0\u{202e}Corp", "quotaBoosts": [boost] });
        definition.create("acme", &spec).await;
        definition.apply(manifest::definition().unwrap(), 2).await;
        definition.edit("acme", json!({ "monthlyQuota": 10 })).await.unwrap();
        let status = json!({ "status": { "observedGeneration": 2 } });
        definition.tenants.patch_status("acme", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let refused = refusal(definition.edit("acme", json!({ "displayName": "Acme\u{202e}" })).await);
        assert!(refused.contains("displayName must be one line"), "{refused}");
        definition.edit("acme", json!({ "displayName": "Acme" })).await.unwrap();
        definition.delete().await;
    })
    .await;
}

/// What the API server does when a definition is narrower than the one before, which FlagMeter's never is: a field
/// that breaks a bound or a rule may stay as it is, unless something that is required is missing.
#[tokio::test]
async fn a_narrower_definition_leaves_what_is_not_touched_and_refuses_what_is() {
    in_namespace(|cluster| async move {
        let present = || manifest::definition().unwrap();
        let definition = Definition::install(&cluster, "ratchet", present()).await;
        let spec = json!({ "monthlyQuota": 9, "displayName": "Acme Corporation", "timeZone": "Europe/Berlin", "alerts": { "thresholds": [80, 90] } });
        definition.create("acme", &spec).await;

        let mut narrower = present();
        let fields = &mut spec_of(&mut narrower)["properties"];
        fields["displayName"]["maxLength"] = 4.into();
        fields["timeZone"]["x-kubernetes-validations"] = json!([{ "rule": "self == 'UTC'", "message": "must be UTC" }]);
        fields["alerts"]["properties"]["thresholds"]["items"]["maximum"] = 85.into();
        definition.apply(narrower.clone(), 2).await;

        let read = definition.tenants.get("acme").await.unwrap();
        assert!(keeps(&spec, &read.data["spec"]), "it can be read: {}", read.data["spec"]);
        definition.tenants.replace("acme", &PostParams::default(), &read).await.unwrap();
        definition.edit("acme", json!({ "monthlyQuota": 10, "suspended": true })).await.unwrap();
        let field = |name: &str, value: Value| definition.edit("acme", json!({ name: value }));
        assert!(refusal(field("displayName", json!("Acme Corp")).await).contains("spec.displayName"));
        assert!(refusal(field("timeZone", json!("Europe/Paris")).await).contains("must be UTC"));
        // A list is one thing to it: whoever touches it has to put all of it right.
        let thresholds = |percents: Value| field("alerts", json!({ "thresholds": percents }));
        assert!(refusal(thresholds(json!([90, 70])).await).contains("spec.alerts.thresholds[0]"));
        thresholds(json!([85, 70])).await.unwrap();
        let made = definition.tenants.create(&PostParams::default(), &definition.object("new", &spec)).await;
        assert!(refusal(made).contains("spec.displayName"), "a new one has to be right from the start");

        spec_of(&mut narrower)["properties"]["owner"] = json!({ "type": "string" });
        spec_of(&mut narrower)["required"] = json!(["monthlyQuota", "owner"]);
        definition.write(narrower).await;
        let bare = definition.object("bare", &json!({ "monthlyQuota": 1 }));
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        eventually("owner is required", async || {
            let refused = definition.tenants.create(&dry, &bare).await.err()?;
            refused.to_string().contains("spec.owner: Required value").then_some(())
        })
        .await;
        let refused = refusal(field("monthlyQuota", json!(11)).await);
        assert!(refused.contains("spec.owner: Required value"), "{refused}");
        definition.tenants.get("acme").await.unwrap();
        definition.delete().await;
    })
    .await;
}
