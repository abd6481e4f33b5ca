use std::{path::PathBuf, sync::Arc};

use super::*;
use crate::config::model::Spec;

fn file(path: &str, content: &str) -> SourceFile {
    SourceFile {
        path: Arc::new(PathBuf::from(path)),
        content: Ok(content.as_bytes().into()),
    }
}

fn unreadable(path: &str) -> SourceFile {
    SourceFile {
        path: Arc::new(PathBuf::from(path)),
        content: Err("no permission".to_owned()),
    }
}

/// A rule for the host of its name, with a single subset that says which version of it this is.
fn rule(name: &str, version: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {name}\n\
         spec:\n  host: {name}\n  subsets:\n  - name: {version}\n---\n"
    )
}

/// Names of the objects in force with their versions: `a:v1 b:v2`.
fn in_force(outcome: &Outcome) -> String {
    let names: Vec<String> = outcome
        .objects
        .iter()
        .map(|object| match &object.spec {
            Spec::DestinationRule(rule) => {
                format!("{}:{}", object.meta.name.name, rule.subsets[0].name)
            }
            other => format!("{}:{}", object.meta.name.name, other.kind()),
        })
        .collect();
    names.join(" ")
}

fn rejected(outcome: &Outcome) -> Vec<&Report> {
    outcome
        .reports
        .iter()
        .filter(|report| report.state == State::Rejected)
        .collect()
}

#[test]
fn a_rejected_document_keeps_its_last_good_version() {
    let mut store = Store::default();
    store.load(vec![file("a.yaml", &(rule("a", "v1") + &rule("b", "v1")))]);
    let outcome = store.load(vec![file("a.yaml", &(rule("a", "v/2") + &rule("b", "v2")))]);
    assert_eq!(in_force(&outcome), "a:v1 b:v2");
    let report = rejected(&outcome)[0];
    assert_eq!((report.name.as_str(), report.line), ("a", 8));
    let reason = report.reason.as_deref().unwrap();
    assert!(
        reason.ends_with("; the last good version (read at a.yaml:1) stays in force"),
        "{reason}"
    );
    let outcome = store.load(vec![file("a.yaml", &(rule("a", "v3") + &rule("b", "v2")))]);
    assert_eq!(in_force(&outcome), "a:v3 b:v2");
    assert!(rejected(&outcome).is_empty());
}

#[test]
fn a_document_that_was_never_good_is_not_in_force() {
    let outcome = Store::default().load(vec![file("a.yaml", &rule("a", "v/1"))]);
    assert_eq!(in_force(&outcome), "");
    assert!(
        !rejected(&outcome)[0]
            .reason
            .as_deref()
            .unwrap()
            .contains("stays in force")
    );
}

#[test]
fn a_document_or_file_that_is_removed_removes_its_objects() {
    let mut store = Store::default();
    let both = rule("a", "v1") + &rule("b", "v1");
    store.load(vec![
        file("a.yaml", &both),
        file("c.yaml", &rule("c", "v1")),
    ]);
    let outcome = store.load(vec![
        file("a.yaml", &rule("b", "v1")),
        file("c.yaml", &rule("c", "v1")),
    ]);
    assert_eq!(in_force(&outcome), "b:v1 c:v1");
    let outcome = store.load(vec![file("c.yaml", &rule("c", "v1"))]);
    assert_eq!(in_force(&outcome), "c:v1");
}

#[test]
fn a_file_that_cannot_be_read_keeps_everything_of_it() {
    let mut store = Store::default();
    let text = rule("a", "v1") + &rule("b", "v1");
    store.load(vec![
        file("x/a.yaml", &text),
        file("z.yaml", &rule("z", "v1")),
    ]);
    for broken in [
        unreadable("x/a.yaml"),
        unreadable("x"),
        file("x/a.yaml", "\u{0}"),
    ] {
        let outcome = store.load(vec![broken, file("z.yaml", &rule("z", "v2"))]);
        assert_eq!(in_force(&outcome), "a:v1 b:v1 z:v2");
        let reason = rejected(&outcome)[0].reason.clone().unwrap();
        assert!(
            reason.contains("DestinationRule default/a, DestinationRule default/b"),
            "{reason}"
        );
    }
    let outcome = store.load(vec![SourceFile {
        path: Arc::new(PathBuf::from("x/a.yaml")),
        content: Ok(Arc::from([b'a', 0xff].as_slice())),
    }]);
    assert_eq!(in_force(&outcome), "a:v1 b:v1");
}

#[test]
fn a_document_without_a_name_keeps_what_is_missing_of_its_kind() {
    let mut store = Store::default();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n\n---\n";
    store.load(vec![file(
        "a.yaml",
        &(rule("a", "v1") + &rule("b", "v1") + namespace),
    )]);
    let nameless = rule("a", "v2").replace("metadata:\n  name: a\n", "metadata:\nname: a\n");
    let outcome = store.load(vec![file("a.yaml", &(nameless + &rule("b", "v2")))]);
    assert_eq!(
        in_force(&outcome),
        "a:v1 b:v2",
        "the Namespace is gone, `a` is not"
    );
}

#[test]
fn a_document_that_is_no_yaml_keeps_the_object_that_it_names() {
    let mut store = Store::default();
    let all = rule("a", "v1") + &rule("b", "v1") + &rule("c", "v1");
    store.load(vec![file("a.yaml", &all)]);
    let broken = rule("a", "v2").replace("spec:", "spec: {");
    let outcome = store.load(vec![file("a.yaml", &(broken + &rule("c", "v2")))]);
    assert_eq!(
        in_force(&outcome),
        "a:v1 c:v2",
        "`b` was removed beside the broken `a`"
    );
    let report = rejected(&outcome)[0];
    assert_eq!(
        (report.kind.as_str(), report.name.as_str()),
        ("DestinationRule", "a")
    );
}

#[test]
fn of_two_definitions_the_first_by_file_name_is_in_force() {
    let mut store = Store::default();
    let files = || {
        vec![
            file("b.yaml", &rule("a", "v2")),
            file("a.yaml", &rule("a", "v1")),
        ]
    };
    let outcome = store.load(files());
    assert_eq!(in_force(&outcome), "a:v1");
    let report = rejected(&outcome)[0];
    assert_eq!(report.file, "b.yaml");
    assert!(
        report
            .reason
            .as_deref()
            .unwrap()
            .contains("already defined at a.yaml:1"),
        "{report:?}"
    );
    let outcome = store.load(vec![file("b.yaml", &rule("a", "v2"))]);
    assert_eq!(
        in_force(&outcome),
        "a:v2",
        "the first is gone: the second takes its place"
    );
}

#[test]
fn a_new_broken_document_does_not_stand_in_the_way_of_a_good_one() {
    let mut store = Store::default();
    store.load(vec![file("b.yaml", &rule("a", "v1"))]);
    let outcome = store.load(vec![
        file("a.yaml", &rule("a", "v/0")),
        file("b.yaml", &rule("a", "v2")),
    ]);
    assert_eq!(in_force(&outcome), "a:v2");
}

#[test]
fn an_object_that_moves_to_another_file_broken_keeps_its_last_good_version() {
    let mut store = Store::default();
    store.load(vec![file("a.yaml", &rule("a", "v1"))]);
    for _ in 0..2 {
        let outcome = store.load(vec![file("b.yaml", &rule("a", "v/2"))]);
        assert_eq!(in_force(&outcome), "a:v1");
    }
}

#[test]
fn what_did_not_change_is_the_same_object() {
    let mut store = Store::default();
    let first = store.load(vec![file("a.yaml", &(rule("a", "v1") + &rule("b", "v1")))]);
    assert!(first.changed);
    let same = store.load(vec![file("a.yaml", &(rule("a", "v1") + &rule("b", "v1")))]);
    assert!(!same.changed);
    let edited = store.load(vec![file("a.yaml", &(rule("a", "v1") + &rule("b", "v2")))]);
    assert!(edited.changed);
    assert!(
        Arc::ptr_eq(&first.objects[0], &edited.objects[0]),
        "`a` was not read again"
    );
    let broken = store.load(vec![file("a.yaml", &(rule("a", "v1") + &rule("b", "v/2")))]);
    assert!(!broken.changed, "the last good version is the same object");
}

#[test]
fn lists_are_taken_apart() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "y"}}]}"#;
    let outcome = Store::default().load(vec![file("a.json", text)]);
    assert_eq!(in_force(&outcome), "x:Namespace y:Namespace");
    let lines: Vec<u32> = outcome.reports.iter().map(|report| report.line).collect();
    assert_eq!(lines, [2, 3]);
    let typed = "apiVersion: v1\nkind: NamespaceList\nitems:\n- metadata: {name: z}\n";
    let outcome = Store::default().load(vec![file("a.yaml", typed)]);
    assert_eq!(in_force(&outcome), "z:Namespace");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_no_trouble() {
    let text = format!("\u{feff}{}", rule("a", "v1") + &rule("b", "v/1")).replace('\n', "\r\n");
    let outcome = Store::default().load(vec![file("a.yaml", &text)]);
    assert_eq!(in_force(&outcome), "a:v1");
    assert_eq!(rejected(&outcome)[0].line, 17);
}
