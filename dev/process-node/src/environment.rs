//! A container's environment variables, as Kubernetes defines them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use kube::ResourceExt;

use crate::context::{Context, why};
use crate::record::Fault;
use crate::status::HOST;

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// The data of the objects that a container's variables refer to; an object that does not exist is
/// absent. There is no `Debug`: it holds secrets.
#[derive(Default)]
pub struct References {
    config_maps: BTreeMap<String, Variables>,
    secrets: BTreeMap<String, Variables>,
}

impl References {
    /// Asks the API server for all that `container` refers to.
    ///
    /// # Errors
    ///
    /// If the API server does not answer. An object that does not exist is no error here: it may be optional.
    pub async fn fetch(context: &Context, container: &Container) -> Result<Self, Fault> {
        let failed = |what: &str, name: &str, error: &kube::Error| {
            Fault::config(format!("failed to get {what} {name}: {}", why(error)))
        };
        let from = || container.env_from.iter().flatten();
        let sources = || container.env.iter().flatten().filter_map(|env| env.value_from.as_ref());

        let mut found = Self::default();
        let keyed = sources().filter_map(|source| source.config_map_key_ref.as_ref()).map(|key| &key.name);
        let whole = from().filter_map(|from| from.config_map_ref.as_ref()).map(|map| &map.name);
        for name in keyed.chain(whole).collect::<BTreeSet<_>>() {
            let object = context.api::<ConfigMap>().get_opt(name).await;
            if let Some(object) = object.map_err(|error| failed("ConfigMap", name, &error))? {
                found.config_maps.insert(name.clone(), object.data.unwrap_or_default());
            }
        }
        let keyed = sources().filter_map(|source| source.secret_key_ref.as_ref()).map(|key| &key.name);
        let whole = from().filter_map(|from| from.secret_ref.as_ref()).map(|secret| &secret.name);
        for name in keyed.chain(whole).collect::<BTreeSet<_>>() {
            let object = context.api::<Secret>().get_opt(name).await;
            if let Some(object) = object.map_err(|error| failed("Secret", name, &error))? {
                let data = object.data.unwrap_or_default().into_iter();
                let text = data.filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)));
                found.secrets.insert(name.clone(), text.collect());
            }
        }
        Ok(found)
    }
}

/// The variables of `container`: `envFrom` first, then `env` in its order.
///
/// # Errors
///
/// A fault that names the variable and what is missing or not supported, never a value.
pub fn resolve(
    container: &Container,
    pod: &Pod,
    ip: Ipv4Addr,
    references: &References,
) -> Result<Variables, Fault> {
    let mut variables = Variables::new();
    for from in container.env_from.iter().flatten() {
        let (kind, name, optional, data) = if let Some(map) = &from.config_map_ref {
            ("ConfigMap", &map.name, map.optional, references.config_maps.get(&map.name))
        } else if let Some(secret) = &from.secret_ref {
            ("Secret", &secret.name, secret.optional, references.secrets.get(&secret.name))
        } else {
            continue;
        };
        if data.is_none() && optional != Some(true) {
            return Err(Fault::config(format!("{kind} \"{name}\" not found")));
        }
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let data = data.into_iter().flatten();
        variables.extend(data.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
    }
    for variable in container.env.iter().flatten() {
        let value = match (variable.value.as_deref(), &variable.value_from) {
            (Some(text), _) if !text.is_empty() => Some(expand(text, &variables)),
            (_, Some(source)) => from_source(source, pod, ip, references)
                .map_err(|what| Fault::config(format!("variable {}: {what}", variable.name)))?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// The value of one `valueFrom`; `None` if it is optional and absent.
fn from_source(
    source: &EnvVarSource,
    pod: &Pod,
    ip: Ipv4Addr,
    references: &References,
) -> Result<Option<String>, String> {
    let (kind, name, key, optional, objects) = if let Some(field) = &source.field_ref {
        return from_field(&field.field_path, pod, ip).map(Some);
    } else if let Some(wanted) = &source.config_map_key_ref {
        ("ConfigMap", &wanted.name, &wanted.key, wanted.optional, &references.config_maps)
    } else if let Some(wanted) = &source.secret_key_ref {
        ("Secret", &wanted.name, &wanted.key, wanted.optional, &references.secrets)
    } else {
        return Err("the process node knows fieldRef, configMapKeyRef and secretKeyRef only".to_owned());
    };
    match objects.get(name).map(|data| data.get(key)) {
        Some(Some(value)) => Ok(Some(value.clone())),
        _ if optional == Some(true) => Ok(None),
        None => Err(format!("{kind} \"{name}\" not found")),
        Some(None) => Err(format!("key {key} not found in {kind} \"{name}\"")),
    }
}

/// The downward API.
fn from_field(path: &str, pod: &Pod, ip: Ipv4Addr) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let value = match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => Some(ip.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(HOST.to_string()),
        _ => {
            let (object, key) = path
                .strip_suffix("']")
                .and_then(|path| path.split_once("['"))
                .ok_or_else(|| format!("the process node does not know the field {path}"))?;
            match object {
                "metadata.labels" => pod.labels().get(key).cloned(),
                "metadata.annotations" => pod.annotations().get(key).cloned(),
                _ => return Err(format!("the process node does not know the field {path}")),
            }
        }
    };
    Ok(value.unwrap_or_default())
}

/// Replaces each `$(NAME)` whose variable is set. `$$` is one `$`, so `$$(NAME)` stays as it is, without
/// one of its `$`; a reference to a variable that is not set stays altogether.
#[must_use]
pub fn expand(text: &str, variables: &Variables) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const IP: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 7);

    fn container(env: &serde_json::Value, env_from: &serde_json::Value) -> Container {
        serde_json::from_value(json!({ "name": "api", "env": env, "envFrom": env_from })).unwrap()
    }

    fn references() -> References {
        let data = Variables::from([("url".to_owned(), "postgres://$(POD_IP)".to_owned())]);
        References {
            config_maps: BTreeMap::from([("settings".to_owned(), data.clone())]),
            secrets: BTreeMap::from([("database".to_owned(), data)]),
        }
    }

    fn pod() -> Pod {
        let metadata = json!({ "name": "api-1", "labels": { "app.kubernetes.io/version": "1" } });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn references_expand_as_in_kubernetes() {
        let variables = Variables::from(
            [("A", "1"), ("B", "$(A)")].map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let cases = [
            ("$(A):3000", "1:3000"),
            ("x$(A)$(A)", "x11"),
            // A value is not expanded again.
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            // Not set, not closed, no reference at all.
            ("$(NONE)-$(A)", "$(NONE)-1"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("$()", "$()"),
            ("ü$(A)ü", "ü1ü"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn variables_come_in_order_from_every_source_and_only_values_are_expanded() {
        let env = json!([
            { "name": "LISTEN_EARLY", "value": "$(POD_IP):1" },
            { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "LISTEN", "value": "$(POD_IP):3000" },
            { "name": "URL", "valueFrom": { "secretKeyRef": { "name": "database", "key": "url" } } },
            { "name": "VERSION",
              "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app.kubernetes.io/version']" } } },
            { "name": "ABSENT",
              "valueFrom": { "secretKeyRef": { "name": "none", "key": "url", "optional": true } } },
            { "name": "EMPTY" },
        ]);
        let from = json!([
            { "prefix": "S_", "configMapRef": { "name": "settings" } },
            { "secretRef": { "name": "none", "optional": true } },
        ]);
        let variables = resolve(&container(&env, &from), &pod(), IP, &references()).unwrap();
        let expected = [
            ("EMPTY", ""),
            ("LISTEN", "127.64.0.7:3000"),
            ("LISTEN_EARLY", "$(POD_IP):1"),
            ("POD_IP", "127.64.0.7"),
            ("S_url", "postgres://$(POD_IP)"),
            ("URL", "postgres://$(POD_IP)"),
            ("VERSION", "1"),
        ];
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(variables, expected);
    }

    #[test]
    fn what_is_missing_or_not_supported_is_named() {
        let cases = [
            (json!({ "secretKeyRef": { "name": "none", "key": "url" } }), "Secret \"none\" not found"),
            (
                json!({ "configMapKeyRef": { "name": "settings", "key": "port" } }),
                "key port not found in ConfigMap \"settings\"",
            ),
            (json!({ "resourceFieldRef": { "resource": "limits.cpu" } }), "the process node knows fieldRef"),
            (
                json!({ "fieldRef": { "fieldPath": "spec.hostname" } }),
                "does not know the field spec.hostname",
            ),
        ];
        for (source, expected) in cases {
            let container = container(&json!([{ "name": "X", "valueFrom": source }]), &json!([]));
            let fault = resolve(&container, &pod(), IP, &references()).unwrap_err();
            assert_eq!(fault.reason, "CreateContainerConfigError");
            assert!(fault.message.starts_with("variable X: "), "{fault:?}");
            assert!(fault.message.contains(expected), "{fault:?}");
        }
    }
}
