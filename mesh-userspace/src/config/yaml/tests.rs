use std::fmt::Write;

use super::*;

fn one(text: &str) -> Node {
    let chunks = chunks(text);
    assert_eq!(chunks.len(), 1, "one chunk of {text:?}");
    let mut nodes = parse(&chunks[0]).unwrap();
    assert_eq!(nodes.len(), 1, "one document in {text:?}");
    nodes.remove(0)
}

fn error(text: &str) -> SyntaxError {
    chunks(text)
        .iter()
        .find_map(|chunk| parse(chunk).err())
        .unwrap_or_else(|| panic!("no error in {text:?}"))
}

fn json(text: &str) -> Result<Vec<Node>, SyntaxError> {
    parse(&Chunk {
        text,
        line: 1,
        json: true,
    })
}

fn at<'a>(node: &'a Node, path: &[&str]) -> &'a Entry {
    let (last, before) = path.split_last().unwrap();
    let node = before
        .iter()
        .fold(node, |node, key| &node.get(key).unwrap().node);
    node.get(last).unwrap()
}

#[test]
fn nodes_know_their_lines_in_the_whole_file() {
    let text = "# comment\n---\na: 1\n---\n\nb:\n  - x\n  - c: 2\n    d: 3\n";
    let chunks = chunks(text);
    assert_eq!(
        chunks.iter().map(|chunk| chunk.line).collect::<Vec<_>>(),
        [1, 2, 4]
    );
    let last = parse(&chunks[2]).unwrap().remove(0);
    assert_eq!(last.line, 6);
    let Value::Sequence(items) = &at(&last, &["b"]).node.value else {
        panic!("a list: {last:?}");
    };
    assert_eq!((items[0].line, items[1].line), (7, 8));
    assert_eq!(at(&items[1], &["d"]).line, 9);
}

#[test]
fn empty_and_comment_only_documents_are_none() {
    for text in [
        "",
        "\n\n",
        "# only\n",
        "---\n---\n# x\n---\n",
        "null\n",
        "---\n~\n...\n",
    ] {
        let documents: Vec<Node> = chunks(text)
            .iter()
            .flat_map(|chunk| parse(chunk).unwrap())
            .collect();
        assert!(documents.is_empty(), "{text:?}: {documents:?}");
    }
}

#[test]
fn a_separator_is_only_one_at_the_left_margin() {
    let text = "a: |\n  ---\n  b\nc: '--- d'\n--- # next\ne: ---f\n----: g\n";
    let chunks = chunks(text);
    assert_eq!(chunks.len(), 2);
    assert_eq!(parse(&chunks[0]).unwrap()[0].text("a"), Some("---\nb\n"));
    assert_eq!(parse(&chunks[1]).unwrap()[0].text("----"), Some("g"));
}

#[test]
fn directives_stay_with_their_document() {
    let node = one("%YAML 1.2\n# x\n---\na: b\n");
    assert_eq!((node.text("a"), at(&node, &["a"]).line), (Some("b"), 4));
}

#[test]
fn the_end_marker_ends_a_document_too() {
    let chunks = chunks("a: 1\n...\nb: 2\n");
    assert_eq!(parse(&chunks[0]).unwrap().len(), 2);
}

#[test]
fn scalars_are_told_apart_by_quotes_and_text() {
    let node =
        one("a: 5\nb: '5'\nc: true\nd: \"true\"\ne: ~\nf: !!str 7\ng: off\nh: .5\ni: -0x1F\n");
    let kind = |key| match &at(&node, &[key]).node.value {
        Value::Scalar(scalar) => (scalar.kind(), scalar.integer()),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind("a"), (ScalarKind::Number, Some(5)));
    assert_eq!(kind("b"), (ScalarKind::String, None));
    assert_eq!(kind("c").0, ScalarKind::Bool);
    assert_eq!(kind("d").0, ScalarKind::String);
    assert_eq!(kind("e").0, ScalarKind::Null);
    assert_eq!(kind("f").0, ScalarKind::String);
    assert_eq!(kind("g").0, ScalarKind::String);
    assert_eq!(kind("h"), (ScalarKind::Number, None));
    assert_eq!(kind("i"), (ScalarKind::Number, Some(-31)));
}

#[test]
fn whole_numbers_may_be_written_as_floats_where_nothing_is_lost() {
    let integer = |text: &str| {
        Scalar {
            text: text.to_owned(),
            plain: true,
        }
        .integer()
    };
    assert_eq!(integer("5.0"), Some(5));
    assert_eq!(integer("1e3"), Some(1000));
    assert_eq!(integer("5.5"), None);
    assert_eq!(integer("1e300"), None);
    assert_eq!(integer("99999999999999999999"), None);
}

#[test]
fn a_key_that_is_there_twice_is_refused_with_both_lines() {
    let error = error("a: 1\nb: 2\na: 3\n");
    assert_eq!(error.line, 3);
    assert!(
        error.reason.contains("`a` is here twice: first on line 1"),
        "{error}"
    );
}

#[test]
fn aliases_and_merge_keys_stand_for_what_they_name() {
    let node = one("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\nlist:\n  <<: [*b, {z: 4}]\n");
    assert_eq!(node.get("more").unwrap().node.text("x"), Some("1"));
    assert_eq!(node.get("more").unwrap().node.text("y"), Some("3"));
    assert_eq!(node.get("list").unwrap().node.text("z"), Some("4"));
}

#[test]
fn an_alias_bomb_is_refused_before_it_is_expanded() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = level - 1;
        let aliases = vec![format!("*a{before}"); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    let error = error(&text);
    assert!(error.reason.contains("aliases expanded"), "{error}");
}

#[test]
fn an_alias_of_what_contains_it_is_refused() {
    assert!(error("a: &a [1, *a]\n").reason.contains("contains it"));
}

#[test]
fn nesting_is_bounded_in_yaml_and_json() {
    assert!(
        error(&format!("a: {}", "[".repeat(5000)))
            .reason
            .contains("nested deeper")
    );
    let deep = json(&"[".repeat(5000)).unwrap_err();
    assert!(deep.reason.contains("nested deeper"), "{deep}");
}

#[test]
fn a_tab_in_the_indentation_is_named() {
    let error = error("a:\n  b: 1\n\tc: 2\n");
    assert_eq!((error.line, error.column), (3, 1));
    assert!(
        error
            .reason
            .contains("indented with a tab: YAML wants spaces"),
        "{error}"
    );
}

#[test]
fn control_characters_are_refused_instead_of_ending_the_text() {
    let error = error("a: 1\nb: 2\0\nc: 3\n");
    assert_eq!((error.line, error.column), (2, 5));
    assert!(error.reason.contains("U+0000"), "{error}");
}

#[test]
fn a_tag_that_means_nothing_here_is_refused() {
    assert!(error("a: !secret b\n").reason.contains("tag"));
}

#[test]
fn json_is_read_with_lines_escapes_and_surrogates() {
    let nodes =
        json("{\n\t\"a\": [1, -2.5e3, true, null],\n\"b\": \"\\u00e9\\ud83d\\ude00\\n\"}\n{}")
            .unwrap();
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[0].text("b"), Some("é😀\n"));
    assert_eq!(at(&nodes[0], &["b"]).line, 3);
}

#[test]
fn json_that_is_none_is_refused_with_the_place() {
    for (text, line) in [
        ("{\"a\": 1,}", 1),
        ("{\"a\": 01}", 1),
        ("{\n\"a\" 1}", 2),
        ("{\"a\": \"x\ny\"}", 2),
        ("{\"a\": \"\\ud83d\"}", 1),
        ("{\"a\": \"\\ud83d\\u0041\"}", 1),
        ("{a: 1}", 1),
        ("[1, 2", 1),
        ("{\"a\": 1, \"a\": 2}", 1),
        ("truth", 1),
        ("{\"a\": +1}", 1),
    ] {
        let error = json(text).expect_err(text);
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
}

#[test]
fn braces_open_yaml_too_outside_json_files() {
    assert_eq!(one("{a: b}\n").text("a"), Some("b"));
    assert_eq!(one("{\"a\":\t\"b\"}\n").text("a"), Some("b"));
}

#[test]
fn common_mistakes_are_told_with_their_mend() {
    for (text, line, words) in [
        ("a:\n  b: 1\n c: 2\n", 3, "not indented like its neighbours"),
        ("a: 1\nb: *.local\n", 2, "begins with `*` must be in quotes"),
        ("a: \"1\nb: 2\n", 1, "a quote is not closed"),
        ("a: '1\nb: 2\n", 1, "a quote is not closed"),
        ("a: 1\nb\nc: 2\n", 2, "must be followed by `: `"),
        ("a: [1, 2\nb: 3\n", 2, "a `[` or `{` is not closed"),
        ("a: {b: 1\nc: 2\n", 2, "a `{` is not closed"),
        ("a: b: c\n", 1, "a value with `: ` in it must be in quotes"),
        ("a: \"\\d+\"\n", 1, "use single quotes"),
        ("a: @b\n", 1, "must be in quotes"),
        ("a: 1\n  b: 2\n", 2, "a value with `: ` in it"),
    ] {
        let error = error(text);
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.reason.contains(words), "{text:?}: {error}");
    }
}
