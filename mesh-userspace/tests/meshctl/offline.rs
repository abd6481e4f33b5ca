//! `explain --config-dir` and `analyze`: no agent, no privilege.

use serde_json::{Value, json};

use crate::support::{Folder, meshctl, meshctl_json, shared_data, stderr, stdout};

fn explain(folder: &Folder, arguments: &[&str]) -> Value {
    let path = folder.path().to_str().expect("UTF-8");
    let fixed = [
        "explain",
        "--from",
        "default/productpage-v1",
        "--config-dir",
        path,
    ];
    meshctl_json(&fixed.iter().chain(arguments).copied().collect::<Vec<_>>())
}

#[test]
fn a_header_decides_who_gets_the_new_version() {
    let folder = Folder::published("canary");
    folder.copy("networking/virtual-service-reviews-test-v2.yaml");
    let url = "http://reviews:9080/reviews/0";
    let jason = explain(&folder, &["-H", "end-user: jason", url]);
    assert_eq!(jason["way"], "agent");
    assert_eq!(jason["virtualService"], "default/reviews");
    assert_eq!(
        (&jason["routeIndex"], &jason["matchIndex"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(jason["destinations"][0]["subset"], "v2");
    assert_eq!(
        jason["destinations"][0]["endpoints"],
        json!(["10.0.0.12:9080"])
    );
    assert_eq!(
        jason["source"]["principal"],
        "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
    );
    let others = explain(&folder, &[url]);
    assert_eq!(others["routeIndex"], 1);
    assert_eq!(others["matchIndex"], Value::Null);
    assert_eq!(others["destinations"][0]["subset"], "v1");
}

#[test]
fn weights_stand_as_they_were_written() {
    let folder = Folder::published("weights");
    folder.copy("networking/virtual-service-reviews-90-10.yaml");
    let answer = explain(&folder, &["http://reviews.default.svc.cluster.local:9080/"]);
    let weights: Vec<_> = answer["destinations"]
        .as_array()
        .expect("destinations")
        .iter()
        .map(|destination| (&destination["subset"], &destination["weight"]))
        .collect();
    assert_eq!(
        weights,
        [(&json!("v1"), &json!(90)), (&json!("v2"), &json!(10))]
    );
}

#[test]
fn faults_are_for_those_whom_the_rule_names() {
    let folder = Folder::published("faults");
    folder.copy("networking/virtual-service-ratings-test-delay.yaml");
    let url = "http://ratings:9080/ratings/0";
    let jason = explain(&folder, &["-H", "end-user: jason", url]);
    assert_eq!(jason["fault"]["delay"]["ms"], 7000);
    assert!(explain(&folder, &[url]).get("fault").is_none());
}

#[test]
fn the_answer_can_be_read_as_yaml_and_as_a_table() {
    let folder = Folder::published("formats");
    let path = folder.path().to_str().expect("UTF-8");
    let command = [
        "explain",
        "--from",
        "default/productpage-v1",
        "--config-dir",
        path,
        "http://details:9080/",
    ];
    let yaml = stdout(&meshctl(command.iter().chain(&["-o", "yaml"])));
    assert!(
        yaml.contains("\nservice: details.default.svc.cluster.local\n"),
        "{yaml}"
    );
    let table = stdout(&meshctl(command.iter().chain(&["-o", "table"])));
    assert!(
        table.contains("details.default.svc.cluster.local"),
        "{table}"
    );
    assert!(!table.contains('\x1b'), "no colour in a pipe: {table}");
    // Piped and not asked otherwise: JSON.
    let piped = stdout(&meshctl(command));
    assert!(serde_json::from_str::<Value>(&piped).is_ok(), "{piped}");
}

#[test]
fn an_unknown_client_is_named() {
    let folder = Folder::published("unknown");
    let path = folder.path().to_str().expect("UTF-8");
    let output = meshctl([
        "explain",
        "--from",
        "default/nobody",
        "--config-dir",
        path,
        "http://reviews:9080/",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("default/nobody"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    for command in [
        &[
            "explain",
            "--from",
            "default/a",
            "--config-dir",
            "/nonexistent",
            "http://a/",
        ][..],
        &["analyze", "--config-dir", "/nonexistent"],
        &["analyze", "/nonexistent/a.yaml"],
    ] {
        let output = meshctl(command);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{command:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("/nonexistent"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn bookinfo_is_valid() {
    let folder = Folder::published("valid");
    folder.copy("networking/virtual-service-all-v1.yaml");
    let path = folder.path().to_str().expect("UTF-8");
    let reports = meshctl_json(&["analyze", "--config-dir", path]);
    let reports = reports.as_array().expect("a list");
    let find = |kind: &str, name: &str| {
        let named = |report: &&Value| report["kind"] == kind && report["name"] == name;
        reports
            .iter()
            .find(named)
            .unwrap_or_else(|| panic!("{kind} {name}"))
    };
    assert_eq!(find("VirtualService", "reviews")["state"], "applied");
    assert_eq!(find("Service", "reviews")["state"], "applied");
    assert_eq!(find("Deployment", "reviews-v1")["state"], "ignored");
    assert!(reports.iter().all(|report| report["state"] != "rejected"));
}

#[test]
fn what_a_beginner_pastes_is_refused_with_its_line() {
    let file = shared_data().join("tutorials/07-malformed-as-published.yaml");
    let file = file.to_str().expect("UTF-8");
    let output = meshctl(["analyze", file, "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let rejected = reports
        .iter()
        .find(|report| report["state"] == "rejected")
        .expect("a rejection");
    assert_eq!(rejected["file"], file);
    let line = rejected["line"].as_u64().expect("a line");
    assert!(line > 0 && rejected["reason"].is_string(), "{rejected}");
    let table = stdout(&meshctl(["analyze", file, "-o", "table"]));
    assert!(table.contains(&format!("{file}:{line}")), "{table}");
}

#[test]
fn a_rule_that_names_an_unknown_subset_is_warned_about() {
    let folder = Folder::published("subset");
    folder.write(
        "rule.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\n\
         spec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: {host: reviews, subset: v9}\n",
    );
    let path = folder.path().to_str().expect("UTF-8");
    let reports = meshctl_json(&["analyze", "--config-dir", path]);
    let rule = reports
        .as_array()
        .expect("a list")
        .iter()
        .find(|report| report["kind"] == "VirtualService")
        .expect("the rule");
    let warnings = rule["warnings"].to_string();
    assert!(warnings.contains("v9"), "{rule}");
}
