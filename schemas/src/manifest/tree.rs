//! The first pass: YAML into a tree that keeps what the user wrote and where.
//!
//! The tree is built from the parser's raw events, because every typed reading loses something: `yes` becomes true, `010` ten, `1.10`
//! becomes 1.1, a second key of the same name replaces the first.

use std::collections::HashMap;

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, Placement, ScalarStyle, ScanError, Span, Tag};

use super::problem::tokens;
use super::rule::Rule;
use super::syntax;
use super::{ALIASES_MAX, DEPTH_MAX, DOCUMENTS_MAX, FILE_BYTES_MAX, VALUES_MAX};

/// A place in a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// Line, from 1.
    pub(super) line: u32,
    /// Column in characters, from 1.
    pub(super) column: u32,
    /// How many characters; [`u32::MAX`] for all to the end of the line.
    pub(super) width: u32,
}

impl Mark {
    pub(super) fn at(marker: &Marker) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: narrow(marker.line()).max(1), column: narrow(marker.col()).saturating_add(1), width: 1 }
    }

    fn over(span: Span) -> Self {
        let mut mark = Self::at(&span.start);
        mark.width = if span.start.line() == span.end.line() {
            u32::try_from(span.end.col().saturating_sub(span.start.col())).unwrap_or(u32::MAX).max(1)
        } else {
            u32::MAX
        };
        mark
    }
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Without quotes.
    Plain,
    /// In quotes, or as a string of JSON.
    Quoted,
    /// As a block that keeps its lines, `|`, below its key.
    Literal,
    /// As a block that joins its lines, `>`, below its key.
    Folded,
    /// As a number of JSON.
    JsonNumber,
    /// As true or false of JSON.
    JsonBool,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing at all, or `~` or `null`.
    Nothing,
    /// A text, exactly as written, escapes resolved.
    Scalar(String, Written),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the text.
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The key; `None` for a key that is itself a list or mapping.
    pub(super) key: Option<String>,
    /// Whether the key is a merge key, `<<` without quotes.
    pub(super) merge: bool,
    /// Where the key is.
    pub(super) mark: Mark,
    /// The value.
    pub(super) value: Node,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// What it holds.
    pub(super) content: Content,
    /// Where it is.
    pub(super) mark: Mark,
    /// A tag that is not understood, and where it is.
    pub(super) tag: Option<(String, Mark)>,
    /// This node and all in it, counted.
    size: usize,
    /// Levels of mappings and lists in it.
    height: usize,
}

/// What stops the reading of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fatal {
    pub(super) mark: Mark,
    pub(super) rule: Rule,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// The documents of `text`, empty ones left out.
pub(super) fn read(text: &str) -> Result<Vec<Node>, Fatal> {
    if text.len() > FILE_BYTES_MAX {
        return Err(limit(Mark { line: 1, column: 1, width: 1 }, Rule::FileTooLarge, "the file has more than", FILE_BYTES_MAX, "bytes"));
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder { parser: Parser::new_from_str_with_options(text, options), anchors: HashMap::new(), values: 0, aliases: 0 };
    let mut documents = Vec::new();
    let mut count = 0;
    while let Some((event, span)) = builder.next()? {
        match event {
            Event::DocumentStart(..) => {
                count += 1;
                if count > DOCUMENTS_MAX {
                    return Err(limit(Mark::over(span), Rule::TooManyDocuments, "the file has more than", DOCUMENTS_MAX, "documents"));
                }
                builder.anchors.clear();
            }
            Event::StreamStart | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            event => documents.push(builder.node(event, span, 0)?),
        }
    }
    documents.retain(|document| document.content != Content::Nothing || document.tag.is_some());
    Ok(documents)
}

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comment {
    /// Line, from 1.
    pub(super) line: u32,
    /// Column in characters, from 1.
    pub(super) column: u32,
    /// Whether it has its line for itself.
    pub(super) alone: bool,
    /// What stands behind the `#`.
    pub(super) text: String,
}

/// The comments of `text`, which [`read`] can read; `None` if the parser finds it too much.
pub(super) fn comments(text: &str) -> Option<Vec<Comment>> {
    let mut options = Options::default();
    options.max_buffered_comment_events = FILE_BYTES_MAX;
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut found = Vec::new();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.ok()?;
        if let Event::Comment(text, placement) = event {
            let mark = Mark::over(span);
            found.push(Comment { line: mark.line, column: mark.column, alone: placement != Placement::Right, text: text.into_owned() });
        }
    }
    Some(found)
}

fn limit(mark: Mark, rule: Rule, what: &str, most: usize, unit: &str) -> Fatal {
    Fatal { mark, rule, message: format!("{what} {most} {unit}"), hint: None }
}

struct Builder<'a> {
    parser: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    /// Nodes that an alias can repeat; `None` while the node is being read, so that it cannot hold itself.
    anchors: HashMap<usize, Option<Node>>,
    values: usize,
    aliases: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Fatal> {
        self.parser.next_event().transpose().map_err(|error: ScanError| syntax::explain(&error))
    }

    /// The event that the grammar promises.
    fn expect(&mut self, mark: Mark) -> Result<(Event<'a>, Span), Fatal> {
        let end = || Fatal { mark, rule: Rule::Syntax, message: "the text ends within this".to_owned(), hint: None };
        self.next()?.ok_or_else(end)
    }

    fn count(&mut self, size: usize, mark: Mark) -> Result<(), Fatal> {
        self.values = self.values.saturating_add(size);
        if self.values > VALUES_MAX {
            return Err(limit(
                mark,
                Rule::TooManyValues,
                "the file has more than",
                VALUES_MAX,
                "keys and values, counting what aliases repeat",
            ));
        }
        Ok(())
    }

    /// Reads the node that begins with `event`, `depth` levels down. The recursion is bounded by [`DEPTH_MAX`].
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Fatal> {
        let mark = Mark::over(span);
        if let Event::Alias(id) = event {
            return self.alias(id, mark, depth);
        }
        self.count(1, mark)?;
        let id = event.anchor_id().unwrap_or(0);
        if id != 0 {
            self.anchors.insert(id, None);
        }
        let node = match event {
            Event::Scalar(text, style, _, tag) => {
                let written = match style {
                    ScalarStyle::Plain => Written::Plain,
                    ScalarStyle::Literal => Written::Literal,
                    ScalarStyle::Folded => Written::Folded,
                    _ => Written::Quoted,
                };
                // `!!str` says that a text is meant: so it is here anyway, and never nothing.
                let told = tag.as_deref().and_then(Tag::core_suffix) == Some("str");
                let absent_text = written == Written::Plain && span.is_empty();
                let nothing = absent_text || (written == Written::Plain && matches!(&*text, "~" | "null" | "Null" | "NULL"));
                let nothing = nothing && !told;
                // The parser gives `~` for a plain scalar that is not there.
                let text = if absent_text { String::new() } else { text.into_owned() };
                let content = if nothing { Content::Nothing } else { Content::Scalar(text, written) };
                Node { content, mark, tag: unknown_tag(tag.as_deref(), span, "str"), size: 1, height: 0 }
            }
            Event::SequenceStart(_, _, tag) => self.list(mark, unknown_tag(tag.as_deref(), span, "seq"), depth)?,
            Event::MappingStart(_, _, tag) => self.map(mark, unknown_tag(tag.as_deref(), span, "map"), depth)?,
            other => {
                let message = format!("a value is expected here, not {other:?}");
                return Err(Fatal { mark, rule: Rule::Syntax, message, hint: None });
            }
        };
        if id != 0 {
            // The copy counts as well: nested anchors would else hold the innermost many times.
            self.count(node.size, mark)?;
            self.anchors.insert(id, Some(node.clone()));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, mark: Mark, depth: usize) -> Result<Node, Fatal> {
        self.aliases += 1;
        if self.aliases > ALIASES_MAX {
            return Err(limit(mark, Rule::TooManyAliases, "the file has more than", ALIASES_MAX, "aliases"));
        }
        let Some(node) = self.anchors.get(&id).and_then(Option::as_ref) else {
            let message = "this alias stands within what it repeats".to_owned();
            return Err(Fatal { mark, rule: Rule::Syntax, message, hint: None });
        };
        let (size, height) = (node.size, node.height);
        // Counted before it is copied: a few aliases of aliases would else fill the memory.
        self.count(size, mark)?;
        check_depth(depth + height, mark)?;
        let mut node = self.anchors.get(&id).cloned().flatten().unwrap_or_else(|| Node::nothing(mark));
        node.mark = mark;
        Ok(node)
    }

    fn list(&mut self, mark: Mark, tag: Option<(String, Mark)>, depth: usize) -> Result<Node, Fatal> {
        check_depth(depth + 1, mark)?;
        let mut items = Vec::new();
        let (mut size, mut height) = (1, 0);
        loop {
            let (event, span) = self.expect(mark)?;
            if event == Event::SequenceEnd {
                break;
            }
            let item = self.node(event, span, depth + 1)?;
            size += item.size;
            height = height.max(item.height);
            items.push(item);
        }
        Ok(Node { content: Content::List(items), mark, tag, size, height: height + 1 })
    }

    fn map(&mut self, mark: Mark, tag: Option<(String, Mark)>, depth: usize) -> Result<Node, Fatal> {
        check_depth(depth + 1, mark)?;
        let mut entries = Vec::new();
        let (mut size, mut height) = (1, 0);
        loop {
            let (event, span) = self.expect(mark)?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.expect(mark)?;
            let value = self.node(event, span, depth + 1)?;
            size += key.size + value.size;
            height = height.max(key.height).max(value.height);
            let merge = key.content == Content::Scalar("<<".to_owned(), Written::Plain);
            let (text, mark) = match key.content {
                Content::Scalar(text, _) => (Some(text), key.mark),
                Content::Nothing => (Some(String::new()), key.mark),
                Content::List(_) | Content::Map(_) => (None, key.mark),
            };
            entries.push(Entry { key: text, merge, mark, value });
        }
        Ok(Node { content: Content::Map(entries), mark, tag, size, height: height + 1 })
    }
}

fn check_depth(depth: usize, mark: Mark) -> Result<(), Fatal> {
    if depth > DEPTH_MAX {
        return Err(limit(mark, Rule::TooDeep, "this lies deeper than", DEPTH_MAX, "levels"));
    }
    Ok(())
}

/// The tag as the user wrote it, unless it says what is so anyway.
fn unknown_tag(tag: Option<&Tag>, span: Span, natural: &str) -> Option<(String, Mark)> {
    let tag = tag.filter(|tag| tag.core_suffix() != Some(natural))?;
    Some((tag.original(), Mark::over(span.tag_span().unwrap_or(span))))
}

impl Node {
    fn nothing(mark: Mark) -> Self {
        Self { content: Content::Nothing, mark, tag: None, size: 1, height: 0 }
    }

    /// The tree of a JSON value, without places; `None` if it is nested too deep.
    pub(super) fn from_json(value: &Value, depth: usize) -> Option<Self> {
        if depth > DEPTH_MAX {
            return None;
        }
        let content = match value {
            Value::Null => Content::Nothing,
            Value::Bool(b) => Content::Scalar(b.to_string(), Written::JsonBool),
            Value::Number(n) => Content::Scalar(n.to_string(), Written::JsonNumber),
            Value::String(s) => Content::Scalar(s.clone(), Written::Quoted),
            Value::Array(items) => Content::List(items.iter().map(|item| Self::from_json(item, depth + 1)).collect::<Option<_>>()?),
            Value::Object(fields) => Content::Map(
                fields
                    .iter()
                    .map(|(key, value)| {
                        let value = Self::from_json(value, depth + 1)?;
                        Some(Entry { key: Some(key.clone()), merge: false, mark: Mark::default(), value })
                    })
                    .collect::<Option<_>>()?,
            ),
        };
        Some(Self { content, ..Self::nothing(Mark::default()) })
    }

    /// The items of a document that is a list of objects, as `get` prints several; else the document itself.
    pub(super) fn members(&self) -> &[Self] {
        let Content::Map(entries) = &self.content else { return std::slice::from_ref(self) };
        let field = |name: &str| entries.iter().find(|entry| entry.key.as_deref() == Some(name));
        match field("items").map(|entry| &entry.value.content) {
            Some(Content::List(items)) if field("spec").is_none() => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// Where `pointer` was written, or else the nearest thing that it lies in. With `key`, its key.
    pub(super) fn place(&self, pointer: &str, key: bool) -> Mark {
        let mut node = self;
        let mut mark = self.own_mark();
        for token in tokens(pointer) {
            match &node.content {
                Content::Map(entries) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key.as_deref() == Some(token.as_str())) else { return mark };
                    node = &entry.value;
                    mark = if key { entry.mark } else { entry.value_mark() };
                }
                Content::List(items) => {
                    let Some(item) = token.parse().ok().and_then(|n: usize| items.get(n)) else { return mark };
                    node = item;
                    mark = item.own_mark();
                }
                Content::Nothing | Content::Scalar(..) => return mark,
            }
        }
        mark
    }

    /// Where the line of a text, counted from 1, was written; `None` unless the text is a literal block.
    pub(super) fn place_in_text(&self, pointer: &str, line: u32) -> Option<Mark> {
        let mut node = self;
        for token in tokens(pointer) {
            let Content::Map(entries) = &node.content else { return None };
            node = &entries.iter().find(|entry| entry.key.as_deref() == Some(token.as_str()))?.value;
        }
        match &node.content {
            Content::Scalar(text, Written::Literal) => {
                // The mark of a block is its first line that is not empty.
                let empty = text.bytes().take_while(|b| *b == b'\n').count();
                let below = line.checked_sub(1)?.checked_sub(u32::try_from(empty).ok()?)?;
                Some(Mark { line: node.mark.line.saturating_add(below), width: u32::MAX, ..node.mark })
            }
            _ => None,
        }
    }

    /// A mapping is shown by its first key: the mark of the mapping itself is the empty space before it.
    fn own_mark(&self) -> Mark {
        match &self.content {
            Content::Map(entries) => entries.first().map_or(self.mark, |entry| entry.mark),
            _ => self.mark,
        }
    }
}

impl Entry {
    /// The place of the value where it stands on its own; its key's where it is a collection, a block or nothing.
    pub(super) fn value_mark(&self) -> Mark {
        match self.value.content {
            Content::Scalar(_, written) if !matches!(written, Written::Literal | Written::Folded) => self.value.mark,
            _ => self.mark,
        }
    }
}
