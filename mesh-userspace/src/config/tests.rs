//! What users' own files come to, and that nothing in a file brings the reader down.

mod classified;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;

use super::{
    document::{Document, read_file},
    folder::SourceFile,
    load_paths,
    model::{Object, Report, State},
    store::Store,
};

/// Reads the documents of a text as those of the file `test.yaml`.
pub fn read(text: &str) -> Vec<Document> {
    read_file(&Arc::new(PathBuf::from("test.yaml")), text.as_bytes())
}

/// The object of a text with a single document that must be good.
pub fn good(text: &str) -> (Arc<Object>, Report) {
    let mut documents = read(text);
    assert_eq!(documents.len(), 1, "one document: {documents:?}");
    let document = documents.remove(0);
    let object = document
        .object
        .unwrap_or_else(|| panic!("{:?}", document.report));
    (object, document.report)
}

/// The report of a text with a single document that must be refused.
pub fn refused(text: &str) -> Report {
    let mut documents = read(text);
    assert_eq!(documents.len(), 1, "one document: {documents:?}");
    let document = documents.remove(0);
    assert_eq!(document.report.state, State::Rejected, "{document:?}");
    document.report
}

fn shared_data() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("ZEROHOP_SHARED_DATA").map_or_else(default, PathBuf::from);
    assert!(
        folder.is_dir(),
        "{} is missing: set ZEROHOP_SHARED_DATA to the folder of other projects' manifests",
        folder.display()
    );
    folder
}

fn reports(path: &str) -> Vec<Report> {
    load_paths(&[shared_data().join(path)]).reports
}

#[test]
fn every_file_of_bookinfo_loads_alone() {
    for folder in ["istio/bookinfo/platform", "istio/bookinfo/networking"] {
        for entry in std::fs::read_dir(shared_data().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let outcome = load_paths(std::slice::from_ref(&path));
            assert!(
                !outcome.reports.is_empty(),
                "{} has documents",
                path.display()
            );
            for report in outcome.reports {
                assert_ne!(report.state, State::Rejected, "{report:?}");
                assert_eq!(report.warnings, Vec::<String>::new(), "{report:?}");
            }
        }
    }
}

#[test]
fn bookinfo_has_the_services_and_rules_that_it_is_known_for() {
    let outcome = load_paths(&[
        shared_data().join("istio/bookinfo/platform/bookinfo.yaml"),
        shared_data().join("istio/bookinfo/networking/destination-rule-all.yaml"),
        shared_data().join("istio/bookinfo/networking/virtual-service-all-v1.yaml"),
    ]);
    let mut names: Vec<String> = outcome
        .objects
        .iter()
        .map(|object| format!("{} {}", object.spec.kind(), object.meta.name))
        .collect();
    names.sort();
    let apps = ["details", "productpage", "ratings", "reviews"];
    let kinds = ["DestinationRule", "Service", "VirtualService"];
    let expected: Vec<String> = kinds
        .iter()
        .flat_map(|kind| apps.iter().map(move |app| format!("{kind} default/{app}")))
        .collect();
    assert_eq!(names, expected);
    let ignored = outcome
        .reports
        .iter()
        .filter(|report| report.state == State::Ignored);
    assert!(
        ignored.clone().count() >= 6,
        "the Deployments are listed as ignored"
    );
    assert!(ignored.clone().all(|report| report.reason.is_some()));
}

#[test]
fn the_tutorials_that_are_valid_load_as_written() {
    for number in [
        "01-header-canary",
        "02-traffic-shift",
        "03-circuit-breaker",
        "04-delay",
        "05-retries",
        "06-delay-for-one-user",
    ] {
        let reports = reports(&format!("tutorials/{number}.yaml"));
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].state, State::Applied, "{:?}", reports[0]);
    }
    let old = reports("tutorials/04-delay.yaml");
    assert!(
        old[0].warnings[0].contains("`spec.http[0].fault.delay.percent` (line 11)"),
        "{old:?}"
    );
    let limits = reports("tutorials/03-circuit-breaker.yaml");
    assert_eq!(
        limits[0].unsupported,
        [
            "spec.subsets[0].trafficPolicy.connectionPool.tcp.maxConnections (line 14)",
            "spec.subsets[0].trafficPolicy.connectionPool.http.http1MaxPendingRequests (line 16)",
        ]
    );
    let mixer = reports("tutorials/08-custom-metric-mixer.yaml");
    assert!(
        mixer.iter().all(|report| report.state == State::Ignored),
        "{mixer:?}"
    );
}

#[test]
fn the_tutorial_without_indentation_is_told_what_to_indent() {
    let reports = reports("tutorials/07-malformed-as-published.yaml");
    assert_eq!(reports.len(), 1);
    let report = &reports[0];
    assert_eq!((report.state, report.line), (State::Rejected, 4));
    assert_eq!(report.kind, "VirtualService");
    assert_eq!(report.field.as_deref(), Some("metadata.name"));
    assert_eq!(
        report.reason.as_deref(),
        Some(
            "is missing: line 4 has `name` at the top level; indent it by two \
             spaces, below `metadata`; likewise `hosts` (line 6), `http` (line 8) at the top \
             level: indent below `spec`"
        )
    );
}

#[test]
fn istio_s_own_valid_and_invalid_rules_are_read_without_a_crash() {
    let valid = reports("istio/validation/destinationrule-valid.yaml");
    assert!(!valid.is_empty());
    for report in valid {
        // Several documents there have one and the same name.
        let twice = report
            .reason
            .as_deref()
            .is_some_and(|text| text.contains("already defined"));
        assert!(report.state == State::Applied || twice, "{report:?}");
        assert_eq!(report.warnings, Vec::<String>::new());
    }
    assert!(!reports("istio/validation/destinationrule-invalid.yaml").is_empty());
    assert!(!reports("istio").is_empty());
    assert!(!reports("gateway-api").is_empty());
}

const VALID: &str = include_str!("tests/valid.yaml");

#[test]
fn the_file_that_the_properties_start_from_is_good() {
    for document in read(VALID) {
        assert_eq!(
            document.report.state,
            State::Applied,
            "{:?}",
            document.report
        );
        assert_eq!(document.report.warnings, Vec::<String>::new());
    }
}

/// Bytes that a failing case prints as text.
#[derive(Clone)]
struct Edited(Vec<u8>);

impl std::fmt::Debug for Edited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// A valid file with bytes replaced, removed or put in.
fn mutated() -> impl Strategy<Value = Edited> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(vec![
            "\n",
            " ",
            "\t",
            "---\n",
            "- ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "&a ",
            "*a",
            "|\n",
            ">\n",
            "\"",
            "'",
            "!!str ",
            "? ",
            "#",
            "%",
            "<<: ",
            "null",
            "0",
            "-1",
            "99999999999999999999",
            "\u{feff}",
            "...\n",
            "\u{2028}",
            "1e400",
            "0s",
            "*",
            "\\",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let edit = (any::<prop::sample::Index>(), 0_usize..40, piece);
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, removed, piece) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, piece);
        }
        Edited(bytes)
    })
}

fn file(content: impl Into<Vec<u8>>) -> SourceFile {
    SourceFile {
        path: Arc::new(PathBuf::from("mesh.yaml")),
        content: Ok(content.into().into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_bring_the_reader_down(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_file(&Arc::new(PathBuf::from("a.yaml")), &bytes);
        read_file(&Arc::new(PathBuf::from("a.json")), &bytes);
    }

    #[test]
    fn no_text_brings_the_reader_down(text in "[-:{}\\[\\],&*!|>'\"%@`#?\n\t a-c0-9\\\\u]{0,200}") {
        read_file(&Arc::new(PathBuf::from("a.yaml")), text.as_bytes());
        read_file(&Arc::new(PathBuf::from("a.json")), text.as_bytes());
    }

    #[test]
    fn no_edit_brings_the_reader_down_and_every_line_is_in_the_file(Edited(bytes) in mutated()) {
        let lines = bytes.iter().filter(|b| matches!(**b, b'\n' | b'\r')).count() as u32 + 1;
        for document in read_file(&Arc::new(PathBuf::from("a.yaml")), &bytes) {
            let report = document.report;
            prop_assert!((1..=lines).contains(&report.line), "{report:?} of {lines} lines");
            prop_assert_eq!(report.state == State::Applied, document.object.is_some());
            prop_assert_eq!(report.state != State::Applied, report.reason.is_some());
        }
    }

    #[test]
    fn an_object_whose_rewrite_is_rejected_stays_in_force(Edited(bytes) in mutated()) {
        let mut store = Store::default();
        let before = store.load(vec![file(VALID)]);
        let after = store.load(vec![file(bytes)]);
        let broken = after.reports.iter().filter(|report| report.state == State::Rejected);
        let nameless = broken.clone().count() > 0
            && broken.clone().all(|report| report.kind.is_empty() && report.name.is_empty());
        for object in &before.objects {
            let same = |report: &&Report| {
                report.kind == object.spec.kind()
                    && report.name == *object.meta.name.name
                    && report.namespace == *object.meta.name.namespace
            };
            let rejected = broken.clone().any(|report| same(&report));
            let in_force = after.objects.iter().any(|now| {
                now.spec.kind() == object.spec.kind() && now.meta.name == object.meta.name
            });
            prop_assert!(in_force || !(rejected || nameless), "{}", object.meta.name);
        }
        // Mended, everything is as at first.
        let mended = store.load(vec![file(VALID)]);
        prop_assert_eq!(mended.objects.len(), before.objects.len());
        prop_assert!(mended.reports.iter().all(|report| report.state == State::Applied));
    }
}
