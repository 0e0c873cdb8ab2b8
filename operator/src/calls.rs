//! What the API server is asked: counted, for its time and its disk are scarce on a small box.

use http::{Method, Request, Uri};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use prometheus::IntCounterVec;
use tower::util::MapRequestLayer;

/// What the operator asks for; a subresource counts apart. Everything else is `other`.
const RESOURCES: [&str; 10] = [
    "tenants",
    "tenants/status",
    "secrets",
    "events",
    "leases",
    "configmaps",
    "deployments",
    "deployments/scale",
    "horizontalpodautoscalers",
    "scaledobjects",
];

/// A client whose requests are counted in `calls`, which has the labels `verb` and `resource`. A request that is made
/// again because the server was busy counts once.
///
/// # Errors
///
/// If `config` names certificates or tokens that cannot be used.
pub fn counted(config: Config, calls: &IntCounterVec) -> Result<Client, kube::Error> {
    let calls = calls.clone();
    let count = move |request: Request<Body>| {
        let (verb, resource) = call(request.method(), request.uri());
        calls.with_label_values(&[verb, resource]).inc();
        request
    };
    Ok(ClientBuilder::try_from(config)?.with_layer(&MapRequestLayer::new(count)).build())
}

/// The request's verb and resource, as in Kubernetes' rules of access.
fn call(method: &Method, uri: &Uri) -> (&'static str, &'static str) {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty()).peekable();
    // /api/v1, or /apis/GROUP/VERSION; and in a namespace or not.
    let prefix = if parts.next() == Some("api") { 1 } else { 2 };
    let mut parts = parts.skip(prefix).peekable();
    if parts.next_if_eq(&"namespaces").is_some() {
        parts.next();
    }
    let (kind, name, subresource) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let is_it = |resource: &&&str| match resource.split_once('/') {
        None => **resource == kind && subresource.is_none(),
        Some((of, sub)) => of == kind && subresource == Some(sub),
    };
    let resource = RESOURCES.iter().find(is_it).copied().unwrap_or("other");
    let is_watch = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let verb = match *method {
        Method::GET if is_watch => "watch",
        Method::GET if name.is_none() => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_as_the_rules_of_access_name_it() {
        let tenants = "/apis/flagmeter.dev/v1alpha1/namespaces/shop/tenants";
        let cases = [
            (Method::GET, tenants.to_owned(), ("list", "tenants")),
            (Method::GET, format!("{tenants}?&limit=500"), ("list", "tenants")),
            (Method::GET, format!("{tenants}?&watch=true&resourceVersion=7"), ("watch", "tenants")),
            (Method::PATCH, format!("{tenants}/acme"), ("patch", "tenants")),
            (Method::PATCH, format!("{tenants}/acme/status?&force=true"), ("patch", "tenants/status")),
            (Method::GET, "/apis/flagmeter.dev/v1alpha1/tenants?".to_owned(), ("list", "tenants")),
            (Method::GET, "/api/v1/namespaces/shop/secrets/acme-slack".to_owned(), ("get", "secrets")),
            (Method::POST, "/api/v1/namespaces/shop/secrets?".to_owned(), ("create", "secrets")),
            (Method::GET, "/api/v1/namespaces/shop/pods/acme/log".to_owned(), ("get", "other")),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/shop/deployments/w/scale".to_owned(),
                ("patch", "deployments/scale"),
            ),
            (Method::GET, "/version".to_owned(), ("list", "other")),
        ];
        for (method, uri, expected) in cases {
            assert_eq!(call(&method, &uri.parse().unwrap()), expected, "{method} {uri}");
        }
    }
}
