//! Every field of Istio's own schema is read, or reported as unsupported: none is unknown.

use std::{path::PathBuf, sync::Arc};

use serde_json::{Value as Json, json};

use super::shared_data;
use crate::config::{
    document::read_file,
    yaml::{Node, Value, chunks, parse},
};

fn field<'a>(node: &'a Node, path: &[&str]) -> Option<&'a Node> {
    path.iter()
        .try_fold(node, |node, key| Some(&node.get(key)?.node))
}

/// The schema of `spec` in the CRD of a kind.
fn schema(kind: &str) -> Node {
    let text = std::fs::read_to_string(shared_data().join("istio/crds/crd-all.gen.yaml")).unwrap();
    let documents = chunks(&text)
        .into_iter()
        .flat_map(|chunk| parse(&chunk).unwrap());
    let crd = documents
        .into_iter()
        .find(|node| field(node, &["spec", "names"]).unwrap().text("kind") == Some(kind))
        .unwrap();
    let Value::Sequence(versions) = &field(&crd, &["spec", "versions"]).unwrap().value else {
        panic!("versions are a list");
    };
    field(
        &versions[0],
        &["schema", "openAPIV3Schema", "properties", "spec"],
    )
    .unwrap()
    .clone()
}

/// Puts a value at every path of a schema, one at a time, into a copy of a good spec.
fn variants(schema: &Node, path: &mut Vec<String>, base: &Json, found: &mut Vec<(String, Json)>) {
    if let Some(items) = field(schema, &["items"]) {
        path.push("0".to_owned());
        variants(items, path, base, found);
        path.pop();
        return;
    }
    let Some(Value::Mapping(properties)) = field(schema, &["properties"]).map(|node| &node.value)
    else {
        return;
    };
    for property in properties {
        path.push(property.key.clone());
        let mut spec = base.clone();
        let mut at = &mut spec;
        for key in path.iter() {
            at = if key == "0" {
                if !at.is_array() {
                    *at = json!([{}]);
                }
                &mut at[0]
            } else {
                if !at.is_object() {
                    *at = json!({});
                }
                &mut at[key.as_str()]
            };
        }
        if at.is_null() {
            *at = sample(&property.node);
        }
        found.push((path.join("."), spec));
        variants(&property.node, path, base, found);
        path.pop();
    }
}

fn sample(schema: &Node) -> Json {
    match schema.text("type") {
        Some("object") => json!({}),
        Some("array") => json!([]),
        Some("boolean") => json!(true),
        Some("integer" | "number") => json!(1),
        _ => json!("x"),
    }
}

fn assert_classified(kind: &str, base: &Json) {
    assert_all_classified("networking.istio.io/v1", kind, base, 100);
}

fn assert_all_classified(api_version: &str, kind: &str, base: &Json, at_least: usize) {
    let mut found = Vec::new();
    variants(&schema(kind), &mut Vec::new(), base, &mut found);
    assert!(
        found.len() > at_least,
        "{kind} has many fields, found {}",
        found.len()
    );
    let mut unknown = Vec::new();
    for (_, spec) in found {
        let document = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": "a"},
            "spec": spec,
        });
        let file = Arc::new(PathBuf::from("a.json"));
        for document in read_file(&file, document.to_string().as_bytes()) {
            let warnings = document.report.warnings.into_iter();
            unknown.extend(warnings.filter(|text| text.starts_with("unknown field")));
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn no_field_of_a_virtual_service_is_unknown() {
    assert_classified(
        "VirtualService",
        &json!({
            "hosts": ["a"],
            "http": [{"route": [{"destination": {"host": "b"}}]}],
            "tcp": [{"route": [{"destination": {"host": "b"}}]}],
        }),
    );
}

#[test]
fn no_field_of_a_destination_rule_is_unknown() {
    assert_classified(
        "DestinationRule",
        &json!({"host": "a", "subsets": [{"name": "v1"}]}),
    );
}

#[test]
fn no_field_of_the_security_kinds_is_unknown() {
    let api_version = "security.istio.io/v1";
    assert_all_classified(api_version, "AuthorizationPolicy", &json!({}), 20);
    assert_all_classified(api_version, "PeerAuthentication", &json!({}), 3);
}
