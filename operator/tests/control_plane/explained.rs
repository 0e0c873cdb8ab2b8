//! `kubectl explain`: what the API server publishes of the definition.

use flagmeter_crds::manifest;
use http::Request;
use kube::Client;
use serde_json::Value;

use crate::cluster::{eventually, in_namespace};

/// What kubectl asks for when it explains a field.
async fn published(client: &Client) -> Option<Value> {
    let request = Request::get("/openapi/v3/apis/flagmeter.dev/v1alpha1").body(Vec::new()).unwrap();
    let document: Value = client.request(request).await.ok()?;
    Some(document["components"]["schemas"]["dev.flagmeter.v1alpha1.Tenant"].clone())
}

#[tokio::test]
async fn every_field_is_explained_in_the_words_of_the_definition() {
    fn compare(path: &str, published: &Value, written: &Value) -> usize {
        let fields = written["properties"].as_object().into_iter().flatten();
        let fields = fields.map(|(name, written)| {
            let published = &published["properties"][name];
            let path = format!("{path}.{name}");
            // A sentence, not the field's name again.
            let text = published["description"].as_str().unwrap_or_default();
            assert!(text.split_whitespace().count() >= 3 && text.ends_with('.'), "{path}: {text:?}");
            assert_eq!(published["description"], written["description"], "{path}");
            assert_eq!(published["type"], written["type"], "{path}");
            1 + compare(&path, published, written)
        });
        let fields: usize = fields.sum();
        fields + written.get("items").map_or(0, |items| compare(path, &published["items"], items))
    }
    in_namespace(|cluster| async move {
        let definition = manifest::definition().unwrap();
        let written = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        // It is published some time after the definition is in force.
        let published = eventually("the definition is published", async || {
            let published = published(&cluster.client).await?;
            let told =
                |schema: &Value| schema["properties"]["spec"]["properties"]["alerts"]["description"].clone();
            (told(&published) == told(written)).then_some(published)
        })
        .await;
        assert_eq!(published["description"], written["description"]);
        assert!(compare("tenant", &published, written) >= 40);
    })
    .await;
}
