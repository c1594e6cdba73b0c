//! Text into documents.
//!
//! Enters: YAML or JSON, one document or many. Leaves: the documents that are not empty, as JSON values, each with its
//! number; or an error with the number of the document and the line. It must not know what a document means.
//!
//! YAML is read as `kubectl` reads it, by the rules of 1.1 where the versions differ: `yes` is a boolean, `0644` is octal,
//! `<<` merges; anchors are replayed within bounds. A key given twice is an error in both notations: the API server would
//! take one of the two, and a reader the other.

use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::options::DuplicateKeyPolicy;

/// A document with its place in the file, counted from 1. Empty documents count, but do not leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub number: usize,
    pub value: Value,
}

/// Text that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub document: usize,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// JSON where it begins like it and can be read so, else YAML.
    Any,
    /// By the file's name.
    Json,
}

/// # Errors
/// The first document that cannot be read.
pub fn documents(text: &str, notation: Notation) -> Result<Vec<Document>, Unreadable> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match notation {
        Notation::Json => json(text),
        // JSON is YAML too, but its own parser is many times faster, and `kubectl get -o json` of a large cluster is large.
        Notation::Any if text.trim_start().starts_with('{') => json(text).or_else(|_| yaml(text)),
        Notation::Any => yaml(text),
    }
}

fn json(text: &str) -> Result<Vec<Document>, Unreadable> {
    let mut documents = Vec::new();
    for (number, value) in (1..).zip(serde_json::Deserializer::from_str(text).into_iter::<Tree>()) {
        match value {
            Ok(Tree(Value::Null)) => {}
            Ok(Tree(value)) => documents.push(Document { number, value }),
            Err(error) => return Err(Unreadable { document: number, text: error.to_string() }),
        }
    }
    Ok(documents)
}

fn yaml(text: &str) -> Result<Vec<Document>, Unreadable> {
    let mut documents = Vec::new();
    for chunk in chunks(text) {
        let values: Vec<Tree> = serde_saphyr::from_multiple_with_options(chunk.text, options()).map_err(|error| {
            let place = error.location().map_or(String::new(), |at| {
                format!("line {}, column {}: ", chunk.first_line as u64 + at.line() - 1, at.column())
            });
            Unreadable { document: chunk.number, text: format!("{place}{}", words(&error)) }
        })?;
        documents.extend(values.into_iter().map(|Tree(value)| Document { number: chunk.number, value }));
    }
    documents.retain(|document| !document.value.is_null());
    Ok(documents)
}

/// The error without the place in it, which is counted from the beginning of the document: one line.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
    let place = error.location().map_or(String::new(), |at| format!("line {}, column {}", at.line(), at.column()));
    let text = text.lines().next().unwrap_or_default();
    let text = text.replace(&format!(" at {place}"), "").replace(&format!("{place}: "), "");
    text.trim().to_owned()
}

/// Room for `kubectl get nodes -o yaml` of 5,000 nodes with 50 images each, and none for a bomb of anchors.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 100_000_000,
            max_nodes: 100_000_000,
            max_total_scalar_bytes: 1024 * 1024 * 1024,
            max_depth: 100,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

struct Chunk<'a> {
    number: usize,
    first_line: usize,
    text: &'a str,
}

/// Cut before each line that begins with `---`: such a line ends a document wherever it stands, also within a quoted text.
/// The parser itself would skip empty documents without counting them.
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut cuts = vec![(0, 1)];
    let mut at = 0;
    for (line_number, line) in (1..).zip(text.split_inclusive('\n')) {
        if at > 0 && is_separator(line) {
            cuts.push((at, line_number));
        }
        at += line.len();
    }
    let ends = cuts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let pieces = cuts.iter().zip(ends).filter_map(|((from, line), to)| Some((*line, text.get(*from..to)?)));
    // What stands before the first separator is a document only if it says something.
    let pieces = pieces.filter(|(line, piece)| *line > 1 || is_separator(piece) || piece.lines().any(has_content));
    (1..).zip(pieces).map(|(number, (first_line, text))| Chunk { number, first_line, text }).collect()
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Neither blank, nor a comment, nor a directive such as `%YAML 1.2`.
fn has_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with(['#', '%'])
}

/// A JSON value of which no key is given twice.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(TreeVisitor).map(Self)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML or JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key}")));
            }
            let Tree(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Vec<(usize, Value)> {
        let documents = documents(text, Notation::Any).expect("readable");
        documents.into_iter().map(|document| (document.number, document.value)).collect()
    }

    fn refused(text: &str) -> (usize, String) {
        let error = documents(text, Notation::Any).expect_err("unreadable");
        (error.document, error.text)
    }

    #[test]
    fn documents_are_counted_as_people_count_them_and_empty_ones_are_left_out() {
        assert_eq!(read("a: 1\n---\n---\n# nothing\n---\nb: 2\n---\n"), [(1, json!({"a": 1})), (4, json!({"b": 2}))]);
        assert_eq!(read("# a comment\n%YAML 1.2\n---\na: 1\n"), [(1, json!({"a": 1}))]);
        assert_eq!(read("---\na: 1\n--- {b: 2}\n"), [(1, json!({"a": 1})), (2, json!({"b": 2}))]);
        assert_eq!(read("\u{feff}a: 1\r\n---\r\nb: 2\r\n"), [(1, json!({"a": 1})), (2, json!({"b": 2}))]);
        assert_eq!(read(""), []);
        assert_eq!(read("---\n"), []);
    }

    #[test]
    fn a_line_of_dashes_within_a_text_block_is_text() {
        assert_eq!(read("a: |\n  x\n  ---\n  y\nb: 1\n"), [(1, json!({"a": "x\n---\ny\n", "b": 1}))]);
    }

    #[test]
    fn scalars_are_what_kubectl_makes_of_them() {
        assert_eq!(
            read("a: yes\nb: 0644\nc: 1.5\nd: ~\ne: \"1\"\nf: 2026-11-24T00:00:00Z\ng: 1\nh: latest\n"),
            [(
                1,
                json!({"a": true, "b": 420, "c": 1.5, "d": null, "e": "1", "f": "2026-11-24T00:00:00Z", "g": 1, "h": "latest"})
            )]
        );
    }

    #[test]
    fn anchors_and_merge_keys_are_followed() {
        let text = "base: &b {image: \"x:1\", name: a}\nitem: {<<: *b, name: c}\n";
        assert_eq!(
            read(text),
            [(1, json!({"base": {"image": "x:1", "name": "a"}, "item": {"image": "x:1", "name": "c"}}))]
        );
    }

    #[test]
    fn a_bomb_of_anchors_ends_in_an_error() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert_eq!(refused(&text).0, 1);
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        assert_eq!(refused(&format!("a: {}{}", "[".repeat(5000), "]".repeat(5000))).0, 1);
        assert_eq!(refused(&format!("{{\"a\": {}{}}}", "[".repeat(5000), "]".repeat(5000))).0, 1);
    }

    #[test]
    fn json_documents_may_follow_each_other_and_flow_mappings_are_yaml() {
        assert_eq!(read("{\"a\": 1}\n{\"b\": 2}"), [(1, json!({"a": 1})), (2, json!({"b": 2}))]);
        assert_eq!(read("{a: 1}\n---\n{b: 2}"), [(1, json!({"a": 1})), (2, json!({"b": 2}))]);
    }

    #[test]
    fn a_key_given_twice_is_an_error_in_both_notations() {
        let (document, text) = refused("a: 1\n---\nimage: a\nname: x\nimage: b\n");
        assert_eq!(document, 2);
        assert!(text.contains("line 5") && text.contains("image"), "{text}");
        let (document, text) = refused("{\"image\": \"a\", \"image\": \"b\"}");
        assert!(document == 1 && text.contains("image"), "{text}");
    }

    #[test]
    fn an_error_of_syntax_names_the_line_of_the_file() {
        let (document, text) = refused("a: 1\n---\nb: [1, 2\nc: }\n");
        assert_eq!(document, 2);
        assert!(text.contains("line 4"), "{text}");
        let error = documents("{\n\"a\": }", Notation::Json).expect_err("unreadable");
        assert!(error.text.contains("line 2"), "{}", error.text);
    }
}
