#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

#[test]
fn every_part_knows_its_place() {
    let root =
        read("a: 1\nb:\n  - x: yes\n    y: 1.5\n  - ~\n  - \"q\"\nc: {d: null, e: true}\n").unwrap().root;
    let mut seen = Vec::new();
    walk(&root, &mut seen);
    assert_eq!(
        seen,
        [
            "1:1 map",
            "1:1 a",
            "1:4 1",
            "2:1 b",
            "3:3 list",
            "3:5 map",
            "3:5 x",
            "3:8 yes",
            "4:5 y",
            "4:8 1.5",
            "5:5 nothing",
            "6:5 q",
            "7:1 c",
            "7:4 map",
            "7:5 d",
            "7:8 nothing",
            "7:14 e",
            "7:17 true",
        ]
    );
}

fn walk(node: &Node, seen: &mut Vec<String>) {
    let Place { line, column } = node.at;
    match &node.value {
        Value::List(items) => {
            seen.push(format!("{line}:{column} list"));
            items.iter().for_each(|item| walk(item, seen));
        }
        Value::Map(entries) => {
            seen.push(format!("{line}:{column} map"));
            for entry in entries {
                seen.push(format!("{}:{} {}", entry.at.line, entry.at.column, entry.key));
                walk(&entry.value, seen);
            }
        }
        value => seen.push(format!("{line}:{column} {value}")),
    }
}

#[test]
fn a_key_may_stand_twice_and_is_kept_twice() {
    let Value::Map(entries) = read("a: 1\na: 2\n").unwrap().root.value else { panic!("no map") };
    assert_eq!(entries.iter().map(|entry| entry.value.value.to_string()).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn an_empty_text_is_nothing_and_documents_are_counted() {
    assert!(matches!(read("").unwrap().root.value, Value::Null));
    assert!(!read("a: 1\n").unwrap().more);
    assert!(read("a: 1\n---\nb: 2\n").unwrap().more);
}

#[test]
fn what_is_no_yaml_has_a_place() {
    for text in ["a: *none\n", "a: [\n", "a: b: c\n", "a: {{ .X }}\n"] {
        let (at, message) = read(text).map(|_| ()).unwrap_err();
        assert!(
            at.line == 1 && !message.is_empty() && !message.contains("line 1"),
            "{text}: {at:?} {message}"
        );
    }
}
