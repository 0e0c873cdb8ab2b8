//! Documents in a file: YAML or JSON, several in one, lists of objects, and the line on which each field stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Options, Spanned};

use super::prune::child;

/// The most documents of a file, those in lists included.
pub const MAX_DOCUMENTS: usize = 10_000;

/// The stack that a document is read on, in bytes: a level of it takes some 40 KiB without optimisation, and other
/// people's definitions are deep.
const STACK: usize = 16 << 20;

/// A file that cannot be read as YAML or JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    /// The line on which that shows, if one can be told.
    pub line: Option<u64>,
    /// What is wrong, without any of the file's text.
    pub message: String,
}

/// One document of a file, or one object of a list in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it says. Of a repeated field the last one, as kubectl reads it.
    pub value: Value,
    /// The line on which each field stands, by its path; the document's own under the empty one.
    lines: BTreeMap<String, u64>,
    duplicates: BTreeSet<String>,
}

impl Document {
    /// Reads all documents of a file's text. Empty ones are left out, and of a `List` its items are taken.
    ///
    /// # Errors
    ///
    /// [`Unreadable`]: the text is neither YAML nor JSON, or too much of it.
    pub fn read(text: &str) -> Result<Vec<Self>, Unreadable> {
        let failed = |message: String| Unreadable { line: None, message };
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || read(text));
            let reader = reader.map_err(|error| failed(format!("no thread to read it with: {error}")))?;
            reader.join().unwrap_or_else(|_| Err(failed("reading it failed".to_owned())))
        })
    }

    /// The line on which `path` stands, or what should hold it.
    #[must_use]
    pub fn line(&self, path: &str) -> u64 {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
        }
    }

    /// The paths of fields that are given twice.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = &str> {
        self.duplicates.iter().map(String::as_str)
    }
}

fn read(text: &str) -> Result<Vec<Document>, Unreadable> {
    let mut documents = Vec::new();
    for (text, first_line) in json_stream(text).unwrap_or_else(|| vec![(text, 0)]) {
        let roots: Result<Vec<Spanned<Kind>>, _> = serde_saphyr::from_multiple_with_options(text, options());
        for root in roots.map_err(|error| unreadable(&error, first_line))? {
            expand(Node::from(root), first_line, &mut documents)?;
        }
    }
    Ok(documents)
}

fn unreadable(error: &serde_saphyr::Error, first_line: u64) -> Unreadable {
    let message = error.without_snippet().to_string();
    let Some(location) = error.location() else { return Unreadable { line: None, message } };
    // Said once, and from the file's beginning.
    let place = format!(" at line {}, column {}", location.line(), location.column());
    let message = message.strip_suffix(&place).unwrap_or(&message).to_owned();
    Unreadable { line: Some(location.line() + first_line), message }
}

/// kubectl's reading of YAML, within bounds.
fn options() -> Options {
    let budget = serde_saphyr::budget! {
        max_documents: MAX_DOCUMENTS,
        max_depth: 64,
        max_nodes: 1_000_000,
        max_events: 4_000_000,
        simple_key_max_lookahead: 4_096,
    };
    serde_saphyr::options! {
        budget: budget,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        null_as_string: true,
        with_snippet: false,
    }
}

/// The documents of a text of JSON objects, one behind the other, each with the number of lines before it; `None` if
/// it is no such text.
fn json_stream(text: &str) -> Option<Vec<(&str, u64)>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut documents, mut start, mut line) = (Vec::new(), 0, 0);
    while let Some(document) = stream.next() {
        document.ok()?;
        let document = text.get(start..stream.byte_offset())?;
        documents.push((document, line));
        line += u64::try_from(document.matches('\n').count()).ok()?;
        start = stream.byte_offset();
    }
    Some(documents)
}

/// Adds what is in `node`: itself, or the items of a list.
fn expand(node: Node, first_line: u64, documents: &mut Vec<Document>) -> Result<(), Unreadable> {
    if documents.len() == MAX_DOCUMENTS {
        let message = format!("there are more than {MAX_DOCUMENTS} documents in it");
        return Err(Unreadable { line: Some(node.line + first_line), message });
    }
    match node.into_items() {
        Ok(items) => items.into_iter().try_for_each(|item| expand(item, first_line, documents)),
        Err(node) => {
            let mut document =
                Document { value: Value::Null, lines: BTreeMap::new(), duplicates: BTreeSet::new() };
            document.value = node.flatten("", first_line, &mut document);
            documents.push(document);
            Ok(())
        }
    }
}

/// A value, and the line of its key or, without one, its own.
struct Node {
    line: u64,
    kind: Kind,
}

enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Fields(Vec<(String, Node)>),
}

impl From<Spanned<Kind>> for Node {
    fn from(spanned: Spanned<Kind>) -> Self {
        Self { line: spanned.referenced.line(), kind: spanned.value }
    }
}

impl Node {
    /// The objects in a `List`; itself if it is none.
    fn into_items(self) -> Result<Vec<Self>, Self> {
        let Kind::Fields(fields) = &self.kind else { return Err(self) };
        let is_list = fields.iter().any(|(name, node)| {
            name == "kind"
                && matches!(&node.kind, Kind::Scalar(Value::String(kind)) if kind.ends_with("List"))
        });
        let is_items = |(name, node): &(String, Self)| name == "items" && matches!(node.kind, Kind::List(_));
        if !is_list || !fields.iter().any(is_items) {
            return Err(self);
        }
        let Kind::Fields(fields) = self.kind else { return Ok(Vec::new()) };
        let items = fields.into_iter().filter(is_items).filter_map(|(_, node)| match node.kind {
            Kind::List(items) => Some(items),
            _ => None,
        });
        Ok(items.flatten().collect())
    }

    fn flatten(self, path: &str, first_line: u64, document: &mut Document) -> Value {
        document.lines.insert(path.to_owned(), self.line + first_line);
        match self.kind {
            Kind::Scalar(value) => value,
            Kind::List(items) => {
                let items = items.into_iter().enumerate();
                items.map(|(at, item)| item.flatten(&format!("{path}[{at}]"), first_line, document)).collect()
            }
            Kind::Fields(fields) => {
                let mut object = Map::new();
                for (name, node) in fields {
                    let path = child(path, &name);
                    let value = node.flatten(&path, first_line, document);
                    if object.insert(name, value).is_some() {
                        document.duplicates.insert(path);
                    }
                }
                Value::Object(object)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Kind>>()? {
            list.push(item.into());
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let value: Spanned<Kind> = entries.next_value()?;
            fields.push((key.value, Node { line: key.referenced.line(), kind: value.value }));
        }
        Ok(Kind::Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Vec<Document> {
        Document::read(text).unwrap()
    }

    #[test]
    fn every_field_has_its_line() {
        let text = "# a tenant\nkind: Tenant\nspec:\n  a: 1\n  list:\n  - x\n  - b: 2\n    c: {d: 3,\n      e: 4}\n\
                    ---\n---\nkind: Other\n";
        let documents = read(text);
        assert_eq!(documents.len(), 2, "an empty document is left out");
        let lines: Vec<u64> =
            ["", "kind", "spec.a", "spec.list[0]", "spec.list[1].c.e", "spec.gone", "spec.list[7].x"]
                .map(|path| documents[0].line(path))
                .into();
        assert_eq!(lines, [2, 2, 4, 6, 9, 3, 5]);
        assert_eq!(documents[1].line("kind"), 12);
    }

    #[test]
    fn yaml_is_read_as_kubectl_reads_it() {
        let text = "a: 010\nb: 0o10\nc: yes\nd: off\ne: 1_000\nf: 0x10\ng: ~\nh: 2026-03-10T00:00:00Z\ni: '5'\n\
                    j: 1e3\nk: !!str 5\nl: 99999999999999999999\nbase: &x {m: 1}\nn:\n  <<: *x\n  o: 2\n";
        let expected = json!({
            "a": 8, "b": 8, "c": true, "d": false, "e": 1000, "f": 16, "g": null, "h": "2026-03-10T00:00:00Z",
            "i": "5", "j": 1000.0, "k": "5", "l": 1e20, "base": { "m": 1 }, "n": { "m": 1, "o": 2 },
        });
        assert_eq!(read(text)[0].value, expected);
    }

    #[test]
    fn a_field_given_twice_is_known_and_the_last_one_counts() {
        for text in ["a: 1\nb:\n- c: 1\n  c: 2\na: 3\n", r#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": 3}"#] {
            let document = &read(text)[0];
            assert_eq!(document.value, json!({ "a": 3, "b": [{ "c": 2 }] }));
            assert_eq!(document.duplicates().collect::<Vec<_>>(), ["a", "b[0].c"]);
        }
    }

    #[test]
    fn json_objects_may_stand_behind_each_other_and_lists_are_their_items() {
        let documents = read(
            "{\"kind\": \"A\"}\n{\n\t\"kind\": \"TenantList\", \"items\": [\n{\"kind\": \"B\"},\n{\"kind\": \"C\"}]}\n",
        );
        let kinds: Vec<_> =
            documents.iter().map(|document| (&document.value["kind"], document.line("kind"))).collect();
        assert_eq!(kinds, [(&json!("A"), 1), (&json!("B"), 4), (&json!("C"), 5)]);
        let list = read("kind: List\nitems:\n- kind: A\n- kind: B\n");
        assert_eq!((list.len(), list[1].line("")), (2, 4));
    }

    #[test]
    fn what_is_no_document_says_where_and_shows_nothing_of_it() {
        for (text, line) in [
            ("a: s3cret\nb: [s3cret\n", Some(2)),
            ("a: 1\n{{ .Values.s3cret }}\n", Some(2)),
            ("{\"a\": \"s3cret\"", Some(1)),
        ] {
            let error = Document::read(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(!error.message.is_empty() && !error.message.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_file_that_grows_when_it_is_read_is_refused() {
        let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
                    c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
                    e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]\n\
                    g: [*f, *f, *f, *f, *f, *f, *f, *f, *f]\n";
        Document::read(bomb).unwrap_err();
        Document::read(&format!("a: {}{}", "[".repeat(100), "]".repeat(100))).unwrap_err();
        Document::read(&"---\na: 1\n".repeat(MAX_DOCUMENTS + 1)).unwrap_err();
        let list = format!("{{\"kind\": \"List\", \"items\": [{}{{}}]}}", "{},".repeat(MAX_DOCUMENTS));
        assert!(Document::read(&list).unwrap_err().message.contains("more than 10000 documents"));
    }
}
