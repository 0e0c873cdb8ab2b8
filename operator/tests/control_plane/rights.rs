//! What the chart's Roles let the operator do, and what they do not.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::cluster::in_namespace;

/// Whether the client may `verb` `resource` (`group/resource/subresource`) in `namespace`.
async fn may(client: &Client, namespace: &str, verb: &str, resource: &str, name: Option<&str>) -> bool {
    let mut parts = resource.split('/');
    let (group, kind, subresource) = (parts.next(), parts.next(), parts.next());
    let attributes = ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        verb: Some(verb.to_owned()),
        group: group.map(ToOwned::to_owned),
        resource: kind.map(ToOwned::to_owned),
        subresource: subresource.map(ToOwned::to_owned),
        name: name.map(ToOwned::to_owned),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

#[tokio::test]
async fn the_operator_may_do_its_work_and_nothing_else() {
    in_namespace(async |cluster| {
        let client = cluster.as_operator().await;
        let own = cluster.namespace.as_str();
        let tenants = "flagmeter.dev/tenants";
        let cases = [
            // namespace, verb, resource, name, allowed
            (own, "list", tenants, None, true),
            (own, "watch", tenants, None, true),
            (own, "patch", tenants, None, true),
            (own, "patch", "flagmeter.dev/tenants/status", None, true),
            (own, "get", "/secrets", None, true),
            (own, "watch", "/secrets", None, true),
            (own, "create", "/secrets", None, true),
            (own, "delete", "/secrets", None, false),
            (own, "create", "events.k8s.io/events", None, true),
            (own, "create", "coordination.k8s.io/leases", None, true),
            (own, "patch", "coordination.k8s.io/leases", Some("flagmeter-operator"), true),
            (own, "patch", "coordination.k8s.io/leases", Some("another"), false),
            (own, "get", tenants, None, false),
            (own, "create", tenants, None, false),
            (own, "delete", tenants, None, false),
            (own, "deletecollection", tenants, None, false),
            (own, "create", "/pods/exec", None, false),
            (own, "list", "/pods", None, false),
            (own, "get", "/configmaps", Some("another"), false),
            (own, "get", "apps/deployments/scale", Some("flagmeter-worker"), false),
            (own, "patch", "apps/deployments", None, false),
            (own, "delete", "apps/deployments", None, false),
            (own, "patch", "apps/deployments/scale", Some("flagmeter-worker"), true),
            (own, "patch", "apps/deployments", Some("flagmeter-worker"), false),
            (own, "patch", "apps/deployments/scale", Some("flagmeter-api"), false),
            (own, "patch", "apps/deployments/scale", Some("another"), false),
            (own, "create", "rbac.authorization.k8s.io/rolebindings", None, false),
            (own, "create", "/serviceaccounts/token", None, false),
            ("default", "get", "/secrets", None, false),
            ("default", "list", "/secrets", None, false),
            ("kube-system", "get", "/secrets", None, false),
            ("default", "list", tenants, None, false),
            ("", "list", tenants, None, false),
            ("", "list", "/secrets", None, false),
            ("", "list", "/namespaces", None, false),
            ("", "patch", "apiextensions.k8s.io/customresourcedefinitions", None, false),
        ];
        for (namespace, verb, resource, name, allowed) in cases {
            let seen = may(&client, namespace, verb, resource, name).await;
            assert_eq!(seen, allowed, "{verb} {resource} {name:?} in {namespace:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_namespace_that_is_watched_too_is_opened_and_no_other() {
    in_namespace(async |cluster| {
        let other = cluster.beside().await;
        let config = cluster.operator_config(&[&other]).await;
        let client = Client::try_from(config).unwrap();
        for (namespace, allowed) in [(&cluster.namespace, true), (&other.namespace, true)] {
            assert_eq!(may(&client, namespace, "list", "flagmeter.dev/tenants", None).await, allowed);
            assert_eq!(may(&client, namespace, "get", "/secrets", None).await, allowed);
        }
        assert!(!may(&client, &other.namespace, "create", "coordination.k8s.io/leases", None).await);
        // A namespace that is deleted loses its Roles first; what waits in it must still be let go.
        for (verb, resource, allowed) in [
            ("patch", "flagmeter.dev/tenants", true),
            ("patch", "flagmeter.dev/tenants/status", true),
            ("get", "flagmeter.dev/tenants", false),
            ("list", "flagmeter.dev/tenants", false),
            ("delete", "flagmeter.dev/tenants", false),
            ("list", "/secrets", false),
        ] {
            assert_eq!(may(&client, "default", verb, resource, None).await, allowed, "{verb} {resource}");
        }
        assert!(!may(&client, "default", "get", "/secrets", None).await);
    })
    .await;
}

#[tokio::test]
async fn all_namespaces_are_opened_for_tenants_and_their_secrets_and_for_nothing_else() {
    in_namespace(async |cluster| {
        let other = cluster.beside().await;
        let client = Client::try_from(cluster.cluster_wide_config(&other).await).unwrap();
        for (verb, resource, name, allowed) in [
            ("list", "flagmeter.dev/tenants", None, true),
            ("patch", "flagmeter.dev/tenants/status", None, true),
            ("list", "/secrets", None, true),
            ("create", "/secrets", None, true),
            ("delete", "/secrets", None, false),
            ("delete", "flagmeter.dev/tenants", None, false),
            ("patch", "apps/deployments", None, false),
            ("patch", "apps/deployments/scale", Some("flagmeter-worker"), false),
            ("create", "coordination.k8s.io/leases", None, false),
            ("create", "/pods/exec", None, false),
            ("list", "/namespaces", None, false),
            ("patch", "rbac.authorization.k8s.io/clusterroles", None, false),
        ] {
            for namespace in ["", &other.namespace] {
                let seen = may(&client, namespace, verb, resource, name).await;
                assert_eq!(seen, allowed, "{verb} {resource} in {namespace:?}");
            }
        }
    })
    .await;
}
