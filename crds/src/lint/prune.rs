//! What the API server does with an object before it judges it: fields that the definition does not have go, and are
//! named; nulls count as absent; what is absent gets its default.

use serde_json::{Map, Value};

use super::{Found, Reason};

/// Fields that every object has, whatever its definition says.
const EVERY_OBJECT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Takes away the fields that are in no definition, and names them.
pub(super) fn unknown_fields(object: &mut Value, schema: &Value, found: &mut Found) {
    let Some(fields) = object.as_object_mut() else { return };
    for_each_field(fields, schema, "", found);
}

fn for_each_field(fields: &mut Map<String, Value>, schema: &Value, path: &str, found: &mut Found) {
    fields.retain(|name, value| {
        if path.is_empty() && EVERY_OBJECT.contains(&name.as_str()) {
            return true;
        }
        let path = child(path, name);
        let Some(schema) = schema["properties"].get(name) else {
            found.add(&path, Reason::BadRequest, format!("unknown field \"{path}\""));
            return false;
        };
        descend(value, schema, &path, found);
        true
    });
}

fn descend(value: &mut Value, schema: &Value, path: &str, found: &mut Found) {
    match value {
        Value::Object(fields) => for_each_field(fields, schema, path, found),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                descend(item, &schema["items"], &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// Takes away nulls, for no field may be null. In a list one stays.
pub(super) fn nulls(value: &mut Value, schema: &Value) {
    if let Value::Object(fields) = value {
        fields.retain(|name, value| !(value.is_null() && schema["properties"].get(name).is_some()));
    }
    for_each_known(value, schema, nulls);
}

/// Puts defaults where nothing stands.
pub(super) fn defaults(value: &mut Value, schema: &Value) {
    if let (Value::Object(fields), Some(properties)) = (&mut *value, schema["properties"].as_object()) {
        for (name, property) in properties {
            if let Some(default) = property.get("default").filter(|_| !fields.contains_key(name)) {
                fields.insert(name.clone(), default.clone());
            }
        }
    }
    for_each_known(value, schema, defaults);
}

fn for_each_known(value: &mut Value, schema: &Value, change: impl Fn(&mut Value, &Value)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = schema["properties"].get(name) {
                    change(value, schema);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| change(item, &schema["items"])),
        _ => {}
    }
}

/// What is in an object or a list.
pub(super) fn entries_mut(value: &mut Value) -> Box<dyn Iterator<Item = &mut Value> + '_> {
    match value {
        Value::Object(fields) => Box::new(fields.values_mut()),
        Value::Array(items) => Box::new(items.iter_mut()),
        _ => Box::new(std::iter::empty()),
    }
}

/// The path of a field.
pub(super) fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
