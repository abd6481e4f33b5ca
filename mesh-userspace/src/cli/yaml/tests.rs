//! What is written is read back, by a parser that is not ours.

use proptest::prelude::*;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value, json};

use super::to_string;

/// The core schema of YAML 1.2 over the parser's events.
fn read(text: &str) -> Value {
    let mut events = Parser::new_from_str(text)
        .map(|event| event.expect("valid YAML").0)
        .filter(|event| {
            !matches!(
                event,
                Event::StreamStart
                    | Event::StreamEnd
                    | Event::DocumentStart(_)
                    | Event::DocumentEnd
            )
        })
        .peekable();
    let value = node(&mut events);
    assert!(events.next().is_none(), "one document: {text}");
    value
}

fn node<'a, I: Iterator<Item = Event<'a>>>(events: &mut std::iter::Peekable<I>) -> Value {
    match events.next().expect("a node") {
        Event::Scalar(text, ScalarStyle::Plain, ..) => scalar(&text),
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            while !matches!(events.peek(), Some(Event::SequenceEnd)) {
                items.push(node(events));
            }
            events.next();
            Value::Array(items)
        }
        Event::MappingStart(..) => {
            let mut fields = Map::new();
            while !matches!(events.peek(), Some(Event::MappingEnd)) {
                let Value::String(key) = node(events) else {
                    panic!("a key that is no string")
                };
                fields.insert(key, node(events));
            }
            events.next();
            Value::Object(fields)
        }
        other => panic!("unexpected {other:?}"),
    }
}

fn scalar(text: &str) -> Value {
    match text {
        "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => {
            let whole = text.parse::<i64>().ok().map(Number::from);
            // Not through serde_json, which rounds where it parses.
            let number = whole.or_else(|| text.parse().ok().and_then(Number::from_f64));
            number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[-?:,\\[\\]{}#&*!|>'\"%@` a-z0-9.~\n\t]{0,8}",
        proptest::sample::select(vec![
            "no", "Off", "null", "~", "1e3", "0x1f", "1:30", "- a", ""
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| json!(n)),
        (-1e6..1e6).prop_map(|n: f64| json!(n)),
        text.clone().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((text.clone(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in any_value()) {
        let text = to_string(&value);
        prop_assert_eq!(read(&text), value, "{}", text);
    }
}

#[test]
fn it_looks_as_people_write_it() {
    let value = json!({
        "service": "reviews.default.svc.cluster.local",
        "port": 9080,
        "answer": "no",
        "empty": [],
        "none": {},
        "why": "a rule: \"jason\"\n",
        "destinations": [
            {"subset": "v2", "weight": 50, "endpoints": ["10.0.0.12:9080"]},
            {"subset": "v3", "weight": 50},
        ],
        "pairs": [["a", 1], []],
    });
    assert_eq!(
        to_string(&value),
        r#"service: reviews.default.svc.cluster.local
port: 9080
answer: "no"
empty: []
none: {}
why: "a rule: \"jason\"\n"
destinations:
- subset: v2
  weight: 50
  endpoints:
  - "10.0.0.12:9080"
- subset: v3
  weight: 50
pairs:
- - a
  - 1
- []
"#
    );
}

#[test]
fn a_bare_value_is_a_document() {
    assert_eq!(to_string(&json!("off")), "\"off\"\n");
    assert_eq!(to_string(&json!([])), "[]\n");
}
