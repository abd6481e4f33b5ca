//! What each kind's documents are read as, and how each mistake is told.

mod destination_rule;
mod kubernetes;
mod security;
mod virtual_service;

use std::sync::Arc;

use crate::config::{
    model::{Object, State},
    tests::{good, read, refused},
};

/// Asserts that a document is refused at a field and line, with these words in the reason.
fn assert_refused(text: &str, field: &str, line: u32, words: &str) {
    let report = refused(text);
    assert_eq!(report.field.as_deref(), Some(field), "{report:?}");
    assert_eq!(report.line, line, "{report:?}");
    let reason = report.reason.unwrap();
    assert!(!reason.contains(&format!("{field}:")), "{reason}");
    assert!(reason.contains(words), "{reason}");
}

fn good_without_remarks(text: &str) -> Arc<Object> {
    let (object, report) = good(text);
    assert!(
        report.warnings.is_empty() && report.unsupported.is_empty(),
        "{report:?}"
    );
    object
}

#[test]
fn kinds_that_are_not_acted_on_are_ignored_with_the_reason() {
    for (api_version, kind, words) in [
        (
            "apps/v1",
            "Deployment",
            "does not act on Deployment of apps/v1",
        ),
        (
            "networking.istio.io/v1",
            "Gateway",
            "does not act on Gateway",
        ),
        (
            "serving.knative.dev/v1",
            "Service",
            "does not act on Service of serving.knative.dev/v1",
        ),
        (
            "networking.istio.io/v1alpha1",
            "VirtualService",
            "networking.istio.io/v1beta1",
        ),
        ("v2", "Pod", "known in v1, not in v2"),
    ] {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: A:b}}\n");
        let document = read(&text).remove(0);
        assert_eq!(document.report.state, State::Ignored);
        assert_eq!(
            (document.report.kind.as_str(), document.report.name.as_str()),
            (kind, "A:b")
        );
        let reason = document.report.reason.unwrap();
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn what_is_no_object_is_refused() {
    assert_refused("kind: Service\n", "apiVersion", 1, "is missing");
    assert_refused("apiVersion: v1\n", "kind", 1, "is missing");
    for text in ["a: b\n", "- a\n", "just text\n"] {
        let report = refused(text);
        assert_eq!((report.field, report.line), (None, 1));
    }
    assert!(
        refused("a: b\n")
            .reason
            .unwrap()
            .contains("no Kubernetes object")
    );
}

#[test]
fn names_are_checked() {
    let with = |metadata: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {metadata}\n");
    assert_refused(
        &with("{}"),
        "metadata.name",
        3,
        "every Namespace needs a name",
    );
    assert_refused(&with("{name: ''}"), "metadata.name", 3, "must not be empty");
    assert_refused(
        &with("{name: A_b}"),
        "metadata.name",
        3,
        "lower-case letters",
    );
    assert_refused(
        &with("{name: 5}"),
        "metadata.name",
        3,
        "put it in quotes, \"5\"",
    );
    assert_refused(&with("[name]"), "metadata", 3, "remove the `-`");
    assert_refused(
        &with("{generateName: a}"),
        "metadata.name",
        3,
        "generateName",
    );
    assert_refused(
        &with("{name: a, labels: {b: 1}}"),
        "metadata.labels[b]",
        3,
        "in quotes",
    );
}

#[test]
fn namespaces_are_default_where_none_is_named_and_none_where_there_can_be_none() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}\n";
    assert_eq!(
        good_without_remarks(service).meta.name.to_string(),
        "default/a"
    );
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n";
    assert_eq!(good_without_remarks(namespace).meta.name.to_string(), "a");
}
