use std::{path::PathBuf, sync::Arc, time::Duration};

use super::*;
use crate::config::yaml::{chunks, parse};

/// Runs a check over the fields of a one-document text.
fn with<T>(text: &str, check: impl FnOnce(&Fields<'static>) -> T) -> (T, Findings) {
    // Leaked: what is handed to the check may then be a method, with no lifetime of its own.
    let node = Box::leak(Box::new(parse(&chunks(text)[0]).unwrap().remove(0)));
    let context = Box::leak(Box::new(Context::new(Arc::new(PathBuf::from("a.yaml")))));
    let fields = Fields::of_document(context, node).unwrap();
    let result = check(&fields);
    (result, context.findings().clone())
}

/// The refusal of `v` by a typed reading.
fn refusal<T: std::fmt::Debug>(
    value: &str,
    convert: impl Fn(&Cursor<'static>) -> Parsed<T>,
) -> String {
    let (result, _) = with(&format!("v: {value}\n"), |fields| {
        fields.required("v", &convert)
    });
    result.expect_err(value).reason
}

fn reading<T>(value: &str, convert: impl Fn(&Cursor<'static>) -> Parsed<T>) -> T {
    let (result, _) = with(&format!("v: {value}\n"), |fields| {
        fields.required("v", &convert)
    });
    result.unwrap_or_else(|rejection| panic!("{rejection}"))
}

#[test]
fn a_refusal_names_path_line_and_mend() {
    let text = "spec:\n  http:\n  - route:\n    - weight: 1\n    - weight: x\n";
    let (result, _) = with(text, |root| {
        root.required("spec", Cursor::fields)?.list("http", |item| {
            item.fields()?.list("route", |item| {
                item.fields()?.required("weight", Cursor::unsigned)
            })
        })
    });
    let rejection = result.unwrap_err();
    assert_eq!(rejection.field, "spec.http[0].route[1].weight");
    assert_eq!(rejection.line, 5);
    assert_eq!(
        rejection.reason,
        "is the text \"x\", but must be a whole number from 0 to 2147483647"
    );
}

#[test]
fn what_nobody_asked_for_is_warned_about_with_the_likely_name() {
    let text = "hosts: [a]\nrouet: 1\nper_try_timeout: 2s\nzzz: 3\nhints: 4\n";
    let ((), findings) = with(text, |fields| {
        fields.get("hosts");
        fields.get("route");
        fields.get("perTryTimeout");
        fields.finish_with(|name| (name == "hints").then(|| "move it".to_owned()));
    });
    assert_eq!(
        findings.warnings,
        [
            "unknown field `rouet` (line 2): ignored; did you mean `route`?",
            "unknown field `per_try_timeout` (line 3): ignored; did you mean `perTryTimeout`?",
            "unknown field `zzz` (line 4): ignored",
            "unknown field `hints` (line 5): ignored; move it",
        ]
    );
}

#[test]
fn known_fields_without_effect_are_listed_not_warned_about() {
    let (found, findings) = with("a: 1\nmirror: {host: x}\n", |fields| {
        fields.get("a");
        let found = fields.any_unsupported(&["mirror", "mirrors"]);
        fields.finish();
        found
    });
    assert!(found);
    assert_eq!(findings.unsupported, ["mirror (line 2)"]);
    assert!(findings.warnings.is_empty());
}

#[test]
fn null_is_as_good_as_absent() {
    let (result, _) = with("a: null\nb:\n", |fields| {
        (
            fields.optional("a", Cursor::string).unwrap(),
            fields.list("b", Cursor::string).unwrap(),
        )
    });
    assert_eq!(result, (None, Vec::new()));
}

#[test]
fn texts_that_look_like_something_else_need_quotes() {
    assert_eq!(
        refusal("123", Cursor::string),
        "is the number 123, but must be a text: put it in quotes, \"123\""
    );
    assert!(refusal("true", Cursor::string).contains("put it in quotes"));
    assert_eq!(reading("\"123\"", Cursor::string), "123");
    assert_eq!(reading("off", Cursor::string), "off");
    assert!(refusal("[a]", Cursor::string).contains("is a list, but must be a text"));
}

#[test]
fn numbers_in_quotes_lose_them() {
    assert!(refusal("\"80\"", Cursor::port).contains("remove the quotes"));
    assert!(refusal("\"1.5\"", |value| value.number(0.0..=100.0)).contains("remove the quotes"));
    assert!(refusal("\"true\"", Cursor::boolean).contains("remove the quotes"));
}

#[test]
fn numbers_have_their_ranges() {
    assert_eq!(reading("65535", Cursor::port), 65535);
    for bad in [
        "0",
        "65536",
        "-1",
        "1.5",
        "99999999999999999999",
        "1e400",
        ".inf",
        "0x",
        "a",
    ] {
        refusal(bad, Cursor::port);
    }
    assert!(refusal("080", Cursor::port).contains("leading 0"));
    assert_eq!(reading("0x50", Cursor::port), 80);
    refusal("100.1", |value| value.number(0.0..=100.0));
    refusal(".nan", |value| value.number(0.0..=100.0));
    assert!((reading("0.1", |value| value.number(0.0..=100.0)) - 0.1).abs() < f64::EPSILON);
}

#[test]
fn durations_are_those_of_go_and_protobuf() {
    for (text, millis) in [
        ("10s", 10_000),
        ("1.5s", 1_500),
        ("0.001s", 1),
        ("1h2m3.5s", 3_723_500),
        ("250ms", 250),
        ("1000us", 1),
        ("1000000ns", 1),
        (".5m", 30_000),
        ("+2s", 2_000),
        ("87600h", 315_360_000_000),
    ] {
        assert_eq!(
            reading(text, Cursor::duration),
            Duration::from_millis(millis),
            "{text}"
        );
    }
}

#[test]
fn durations_that_make_no_sense_are_refused_with_the_mend() {
    assert_eq!(
        refusal("5", Cursor::duration),
        "is the number 5, but must be a duration: give it a unit, `5s`"
    );
    assert!(refusal("0s", Cursor::duration).contains("at least 1ms: leave the field out"));
    assert!(refusal("-1s", Cursor::duration).contains("negative"));
    assert!(refusal("1.0005s", Cursor::duration).contains("finer than a millisecond"));
    assert!(refusal("500us", Cursor::duration).contains("at least 1ms"));
    for bad in [
        "\"\"",
        "s",
        "1",
        "1x",
        "1s2",
        "1..2s",
        "ten seconds",
        "1.2.3s",
        "1h-2m",
        "[1s]",
    ] {
        refusal(bad, Cursor::duration);
    }
    assert!(refusal("99999999999999999999h", Cursor::duration).contains("no duration"));
    assert!(refusal("9999999999h", Cursor::duration).contains("100 years"));
}

#[test]
fn a_misspelt_choice_is_told_the_right_one() {
    let choices = [("ROUND_ROBIN", 1), ("RANDOM", 2)];
    assert_eq!(reading("RANDOM", |value| value.one_of(&choices)), 2);
    assert_eq!(
        refusal("round_robin", |value| value.one_of(&choices)),
        "is `round_robin`, but must be one of ROUND_ROBIN, RANDOM; did you mean `ROUND_ROBIN`?"
    );
}

#[test]
fn a_list_that_should_be_a_block_is_told_about_the_dash() {
    assert!(refusal("[{a: b}]", |value| value.fields().map(|_| ())).contains("remove the `-`"));
    assert!(refusal("{a: b}", |value| value.items().map(|_| ())).contains("begin each item"));
    assert!(refusal("text", |value| value.fields().map(|_| ())).contains("indent them below it"));
}

#[test]
fn addresses_are_of_both_families() {
    assert_eq!(reading("10.0.0.1", Cursor::address).to_string(), "10.0.0.1");
    assert_eq!(
        reading("\"fd00::1\"", Cursor::address).to_string(),
        "fd00::1"
    );
    assert!(refusal("10.0.0", Cursor::address).contains("no IP address"));
}
