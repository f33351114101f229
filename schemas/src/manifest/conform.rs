//! The second pass, first half: does the tree have the shape of an App? Says everything that does not fit, and makes a tree that does:
//! what is wrong or missing is left out or replaced by something harmless, and noted as bad.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::problem::{Bad, Problem, Problems, Side, join, moved};
use super::rule::Rule;
use super::shape::{Field, Shape};
use super::text::{did_you_mean, guess, list, quote};
use super::tree::{Content, Entry, Mark, Node, Written};

/// Set by the server; dropped, so that what `get -o yaml` printed can be applied.
const DROPPED: [&str; 7] = [
    "/status",
    "/metadata/uid",
    "/metadata/generation",
    "/metadata/creationTimestamp",
    "/metadata/deletionTimestamp",
    "/metadata/set",
    "/metadata/sourceRevision",
];

/// Fields that the design has and this version has not.
pub(super) const NOT_IMPLEMENTED: [&str; 6] = [
    "/spec/services",
    "/spec/hooks/onActive",
    "/spec/hooks/onPassive",
    "/spec/hooks/onStart",
    "/spec/hooks/onStop",
    "/spec/hooks/onMemberChange",
];

/// Most known fields that a message lists.
const LISTED_MAX: usize = 16;

/// Longest text that a hint writes in another way, in bytes: cut, it would be no help.
const REMEDY_BYTES_MAX: usize = 40;

/// A document that was brought into shape.
#[derive(Debug)]
pub(super) struct Conformed {
    /// Has the shape of an App.
    pub(super) value: Value,
    /// The fields of it that are not as the user wrote them.
    pub(super) bad: Bad,
    /// Why.
    pub(super) problems: Problems,
    /// Misspelt fields that were read as what they were meant to be: where the value is now, and where it was written.
    pub(super) renamed: Vec<(String, String)>,
}

/// Brings the tree of a document into `shape`.
pub(super) fn conform(document: &Node, shape: &Shape) -> Conformed {
    let mut pass = Pass { root: shape, bad: Bad::default(), problems: Problems::default(), renamed: Vec::new() };
    let value = pass.value(document, shape, "", document.place("", true)).unwrap_or_else(|| {
        pass.bad.insert(String::new());
        shape.blank()
    });
    Conformed { value, bad: pass.bad, problems: pass.problems, renamed: pass.renamed }
}

struct Pass<'a> {
    root: &'a Shape,
    bad: Bad,
    problems: Problems,
    renamed: Vec<(String, String)>,
}

impl Pass<'_> {
    fn report(&mut self, pointer: &str, mark: Mark, rule: Rule, message: String, hint: Option<String>) {
        self.problems.push(Problem { pointer: pointer.to_owned(), side: Side::Value, mark: Some(mark), line: None, rule, message, hint });
    }

    /// `node` in `shape`; `None` after saying why it cannot be. `mark` is where the value is shown.
    fn value(&mut self, node: &Node, shape: &Shape, pointer: &str, mark: Mark) -> Option<Value> {
        if let Some((tag, mark)) = &node.tag {
            let message = format!("the tag {} has no meaning here", quote(tag));
            self.report(pointer, *mark, Rule::Tag, message, Some("leave it out; quote a text that begins with `!`".to_owned()));
            return None;
        }
        match (shape, &node.content) {
            (Shape::Text, Content::Scalar(text, Written::Plain | Written::Quoted | Written::Literal | Written::Folded)) => {
                Some(Value::from(text.as_str()))
            }
            (Shape::Word(words), Content::Scalar(text, Written::Plain | Written::Quoted)) => {
                if words.contains(text) {
                    return Some(Value::from(text.as_str()));
                }
                let words = || words.iter().map(String::as_str);
                let message = format!("{} is none of {}", quote(text), list(words(), "and"));
                self.report(pointer, mark, Rule::UnknownWord, message, did_you_mean(text, words()));
                None
            }
            (Shape::Integer { min, max }, content @ Content::Scalar(..)) => self.integer(content, *min..=*max, pointer, mark),
            (Shape::List(inner), Content::List(items)) => {
                let mut values = Vec::with_capacity(items.len());
                for (n, item) in items.iter().enumerate() {
                    let pointer = format!("{pointer}/{n}");
                    // A list keeps its length, so that pointers into it stay true.
                    values.push(self.value(item, inner, &pointer, item.place("", true)).unwrap_or_else(|| {
                        self.bad.insert(pointer);
                        inner.blank()
                    }));
                }
                Some(Value::Array(values))
            }
            (Shape::Map(inner), Content::Map(entries)) => {
                let mut values = Map::new();
                for (entry, key) in self.keys(entries, pointer) {
                    let pointer = join(pointer, key);
                    match self.value(&entry.value, inner, &pointer, entry.value_mark()) {
                        Some(value) => drop(values.insert(key.to_owned(), value)),
                        None => self.bad.insert(pointer),
                    }
                }
                Some(Value::Object(values))
            }
            (Shape::Object(fields), Content::Map(entries)) => Some(self.object(entries, fields, pointer, mark)),
            (_, content) => {
                let message = format!("expected {}, found {}", shape.expected(), found(content));
                self.report(pointer, mark, Rule::WrongType, message, remedy(shape, content));
                None
            }
        }
    }

    fn integer(&mut self, written: &Content, range: RangeInclusive<u64>, pointer: &str, mark: Mark) -> Option<Value> {
        let Content::Scalar(text, style) = written else { return None };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let plain = matches!(style, Written::Plain | Written::JsonNumber);
        let stripped = digits.trim_start_matches('0');
        if plain && whole && (digits == "0" || stripped == digits) {
            // What does not fit into 64 bits is out of every range.
            if let Some(number) = text.parse::<u64>().ok().filter(|n| range.contains(n)) {
                return Some(Value::from(number));
            }
            let message = format!("{} is not between {} and {}", quote(text), range.start(), range.end());
            self.report(pointer, mark, Rule::OutOfRange, message, None);
            return None;
        }
        let hint = if whole && !plain {
            Some(format!("write {text} without quotes"))
        } else if whole {
            Some(format!("write {} without leading zeros", if stripped.is_empty() { "0" } else { stripped }))
        } else {
            None
        };
        self.report(pointer, mark, Rule::WrongType, format!("expected a whole number, found {}", found(written)), hint);
        None
    }

    /// The entries with a usable key, each key once.
    fn keys<'n>(&mut self, entries: &'n [Entry], pointer: &str) -> Vec<(&'n Entry, &'n str)> {
        let mut first: BTreeMap<&str, Mark> = BTreeMap::new();
        let mut usable = Vec::new();
        for entry in entries {
            let Some(key) = entry.key.as_deref() else {
                let message = "a key is a text, not a list or a mapping".to_owned();
                self.report(pointer, entry.mark, Rule::ComplexKey, message, None);
                continue;
            };
            if entry.merge {
                let message = "merge keys (`<<`) are not supported".to_owned();
                self.report(pointer, entry.mark, Rule::MergeKey, message, Some("write the fields out".to_owned()));
            } else if let Some(before) = first.get(key) {
                let message = format!("{} stands here a second time", quote(key));
                let hint = Some(format!("the first is in line {}; leave one out", before.line));
                self.report(&join(pointer, key), entry.mark, Rule::DuplicateKey, message, hint);
            } else {
                first.insert(key, entry.mark);
                usable.push((entry, key));
            }
        }
        usable
    }

    fn object(&mut self, entries: &[Entry], fields: &BTreeMap<String, Field>, pointer: &str, mark: Mark) -> Value {
        let mut values = Map::new();
        let usable = self.keys(entries, pointer);
        let written: BTreeSet<&str> = usable.iter().map(|(_, key)| *key).collect();
        for (entry, key) in &usable {
            let here = join(pointer, key);
            if DROPPED.contains(&here.as_str()) {
                continue;
            }
            let Some(field) = fields.get(*key) else {
                values.extend(self.unknown(entry, key, fields, &written, pointer));
                continue;
            };
            if entry.value.content == Content::Nothing && entry.value.tag.is_none() {
                // `key:` with nothing after it is as good as no key; if it must be there, that is said below.
                continue;
            }
            match self.value(&entry.value, &field.shape, &here, entry.value_mark()) {
                Some(value) => drop(values.insert((*key).to_owned(), value)),
                None => self.bad.insert(here),
            }
        }
        for (name, field) in fields.iter().filter(|(_, field)| field.required) {
            if values.contains_key(name) {
                continue;
            }
            let here = join(pointer, name);
            if !self.bad.covers(&here) {
                let empty = usable.iter().find(|(_, key)| *key == name);
                let message = if empty.is_some() { format!("{} is empty", quote(name)) } else { format!("{} is missing", quote(name)) };
                let hint = field.example.as_ref().map(|example| format!("add `{name}: {example}`"));
                self.report(&here, empty.map_or(mark, |(entry, _)| entry.mark), Rule::MissingField, message, hint);
                self.bad.insert(here);
            }
            values.insert(name.clone(), field.shape.blank());
        }
        Value::Object(values)
    }

    fn unknown(
        &mut self,
        entry: &Entry,
        key: &str,
        fields: &BTreeMap<String, Field>,
        written: &BTreeSet<&str>,
        pointer: &str,
    ) -> Option<(String, Value)> {
        if self.problems.is_full() {
            // To search for what was meant takes time, and nobody will read it.
            self.problems.skip();
            return None;
        }
        let here = join(pointer, key);
        let path = pointer.trim_start_matches('/').replace('/', ".");
        if NOT_IMPLEMENTED.contains(&here.as_str()) {
            let message = format!("{} is not implemented yet", quote(here.trim_start_matches('/').replace('/', ".").as_str()));
            self.report(&here, entry.mark, Rule::NotImplemented, message, Some("leave it out".to_owned()));
            return None;
        }
        let place = if path.is_empty() { "an App".to_owned() } else { quote(&path) };
        let message = format!("{place} has no field {}", quote(key));
        let names = || fields.keys().map(String::as_str).filter(|name| !written.contains(name));
        let mut found = None;
        let hint = if let Some(meant) = guess(key, names()) {
            // The field is there, only misspelt: that it is missing would be said in vain.
            let there = join(pointer, meant);
            // What lies in it is read all the same, and stands for what was meant, for its problems.
            let value = fields.get(meant).and_then(|field| self.value(&entry.value, &field.shape, &here, entry.value_mark()));
            match value {
                Some(value) => {
                    // What is known of the things in it holds under the other name, too.
                    self.bad.mirror(&here, &there);
                    let within: Vec<(String, String)> =
                        self.renamed.iter().filter_map(|(taken, written)| Some((moved(taken, &here, &there)?, written.clone()))).collect();
                    self.renamed.extend(within);
                    self.renamed.push((there, here.clone()));
                    found = Some((meant.to_owned(), value));
                }
                None => self.bad.insert(there),
            }
            Some(format!("did you mean {}?", quote(meant)))
        } else {
            let homes = self.root.homes(key);
            if homes.is_empty() {
                let known = || fields.keys().map(String::as_str).filter(|name| !DROPPED.contains(&join(pointer, name).as_str()));
                (known().count() <= LISTED_MAX).then(|| format!("it has {}", list(known(), "and")))
            } else {
                Some(format!("this field belongs in {}", list(homes.iter().map(String::as_str), "or")))
            }
        };
        self.report(&here, entry.mark, Rule::UnknownField, message, hint);
        found
    }
}

fn found(content: &Content) -> String {
    match content {
        Content::Nothing => "nothing".to_owned(),
        Content::Scalar(text, Written::JsonNumber) => format!("the number {}", quote(text)),
        Content::Scalar(text, Written::JsonBool) => format!("the boolean {}", quote(text)),
        Content::Scalar(text, Written::Quoted) => format!("the text {}", quote(&format!("\"{text}\""))),
        Content::Scalar(text, _) => quote(text),
        Content::List(_) => "a list".to_owned(),
        Content::Map(_) => "a mapping".to_owned(),
    }
}

/// How to write what was probably meant.
fn remedy(shape: &Shape, content: &Content) -> Option<String> {
    match (shape, content) {
        (Shape::List(_) | Shape::Object(_), Content::Scalar(text, _)) if text.len() > REMEDY_BYTES_MAX => None,
        (Shape::List(_), Content::Scalar(text, _)) => {
            let words: Vec<&str> = text.split_whitespace().collect();
            Some(format!("write a list: {}", quote(&format!("[{}]", words.join(", ")))))
        }
        (Shape::Object(_), Content::Scalar(text, _)) => shape.sketch(text).map(|sketch| format!("write {}", quote(&sketch))),
        (Shape::Text | Shape::Word(_) | Shape::Integer { .. }, Content::List(items)) => match items.as_slice() {
            [Node { content: Content::Scalar(text, _), .. }] if text.len() <= REMEDY_BYTES_MAX => Some(format!("write {}", quote(text))),
            _ => None,
        },
        (Shape::Text, Content::Nothing) => Some("write `\"\"` for an empty text, and `\"null\"` or `\"~\"` for that text".to_owned()),
        (Shape::Text, Content::Scalar(_, Written::JsonNumber | Written::JsonBool)) => Some("put it in quotes".to_owned()),
        _ => None,
    }
}
