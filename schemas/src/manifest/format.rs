//! The canonical form of a manifest, its comments kept.
//!
//! A comment goes with what stands below it, or before it on its line. Where that is written in another place, or not at all because only
//! the server sets it, the comment stands above the nearest thing that is. The result is read again before it is given out: it has the
//! same Apps and the same comments, or it is refused.

use std::collections::BTreeMap;

use super::problem::{join, tokens};
use super::tree::{self, Comment, Content, Node};
use super::{Diagnostics, parse, to_yaml};

/// Why a manifest cannot be brought into the canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It has problems.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// A comment would be lost or changed.
    #[error("{file}: its comments cannot be kept: leave them out, or write the file by hand")]
    Comments {
        /// The file.
        file: String,
    },
}

/// `text` in the canonical form: block style, the fields in the order of the schema, defaults written out, one document for each App.
///
/// # Errors
/// Every problem of the file; or that its comments cannot be kept.
pub fn format(file: &str, text: &str) -> Result<String, FormatError> {
    let apps = parse(file, text).map_err(FormatError::Invalid)?;
    let lost = || FormatError::Comments { file: file.to_owned() };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // It was read before; so this finds nothing new.
    let documents = tree::read(text).map_err(|_| lost())?;
    let members: Vec<&Node> = documents.iter().flat_map(Node::members).collect();
    let comments = tree::comments(text).ok_or_else(lost)?;
    let mut places = BTreeMap::new();
    for (number, member) in members.iter().enumerate() {
        find_places(member, number, "", &mut places);
    }
    let mut blocks: Vec<Block> = apps.iter().map(|parsed| Block::new(&to_yaml(&parsed.app))).collect::<Option<_>>().ok_or_else(lost)?;
    let mut head = Vec::new();
    for comment in &comments {
        match home(comment, &places) {
            Home::Above(at) => blocks.get_mut(at.0).ok_or_else(lost)?.above(&at.1, &comment.text),
            Home::Beside(at) => blocks.get_mut(at.0).ok_or_else(lost)?.beside(&at.1, &comment.text),
            Home::Below(block) => blocks.get_mut(block).ok_or_else(lost)?.tail.push(comment.text.clone()),
            Home::Nowhere => head.push(format!("#{}\n", comment.text)),
        }
    }
    let out =
        head.concat() + &blocks.iter().enumerate().map(|(n, block)| block.write(n + 1 == blocks.len())).collect::<Vec<_>>().join("---\n");
    let again = parse(file, &out).map_err(|_| lost())?;
    let sorted = |comments: Vec<Comment>| {
        let mut texts: Vec<String> = comments.into_iter().map(|c| c.text.trim_end().to_owned()).collect();
        texts.sort();
        texts
    };
    let same_comments = tree::comments(&out).is_some_and(|found| sorted(found) == sorted(comments));
    let same_apps = again.iter().map(|parsed| &parsed.app).eq(apps.iter().map(|parsed| &parsed.app));
    if same_apps && same_comments { Ok(out) } else { Err(lost()) }
}

/// A field or an item: number of its document, and its pointer there.
type Place = (usize, String);

/// Where every key and every item of a list was written, by line and column.
fn find_places(node: &Node, document: usize, pointer: &str, found: &mut BTreeMap<(u32, u32), Place>) {
    let children: Vec<(tree::Mark, String, &Node)> = match &node.content {
        Content::Map(entries) => {
            let pointer = |key: Option<&str>| join(pointer, key.unwrap_or_default());
            entries.iter().map(|entry| (entry.mark, pointer(entry.key.as_deref()), &entry.value)).collect()
        }
        Content::List(items) => items.iter().enumerate().map(|(n, item)| (item.mark, format!("{pointer}/{n}"), item)).collect(),
        Content::Nothing | Content::Scalar(..) => Vec::new(),
    };
    for (mark, here, child) in children {
        // What an alias repeats belongs to where it was written.
        found.entry((mark.line, mark.column)).or_insert_with(|| (document, here.clone()));
        find_places(child, document, &here, found);
    }
}

/// Where a comment goes.
enum Home {
    /// On a line of its own above a field.
    Above(Place),
    /// At the end of the line of a field.
    Beside(Place),
    /// After the last line of a document.
    Below(usize),
    /// There is no App.
    Nowhere,
}

fn home(comment: &Comment, places: &BTreeMap<(u32, u32), Place>) -> Home {
    let here = (comment.line, comment.column);
    if let Some((_, place)) = places.range((comment.line, 0)..here).next() {
        return Home::Beside(place.clone());
    }
    let before = places.range(..here).next_back().map(|(_, place)| place);
    if let Some(before) = before.filter(|_| !comment.alone) {
        // Behind what closes a list or a mapping.
        return Home::Above(before.clone());
    }
    match (before, places.range(here..).next().map(|(_, place)| place)) {
        // Indented, it belongs to the document that it stands in.
        (Some(before), Some(next)) if before.0 != next.0 && comment.column > 1 => Home::Below(before.0),
        (_, Some(next)) => Home::Above(next.clone()),
        (Some(before), None) => Home::Below(before.0),
        (None, None) => Home::Nowhere,
    }
}

/// A document in the canonical form, with the comments of each line.
struct Block {
    tree: Node,
    lines: Vec<Line>,
    tail: Vec<String>,
}

#[derive(Default)]
struct Line {
    above: Vec<String>,
    text: String,
    beside: Option<String>,
}

impl Block {
    fn new(yaml: &str) -> Option<Self> {
        let tree = tree::read(yaml).ok()?.into_iter().next()?;
        let lines = yaml.lines().map(|line| Line { text: line.to_owned(), ..Line::default() }).collect();
        Some(Self { tree, lines, tail: Vec::new() })
    }

    /// The line of the field, or of the nearest thing that it would lie in.
    fn line(&mut self, pointer: &str) -> Option<&mut Line> {
        let mark = self.tree.place(pointer, true);
        self.lines.get_mut(usize::try_from(mark.line.checked_sub(1)?).ok()?)
    }

    fn above(&mut self, pointer: &str, text: &str) {
        match self.line(pointer) {
            Some(line) => line.above.push(text.to_owned()),
            None => self.tail.push(text.to_owned()),
        }
    }

    fn beside(&mut self, pointer: &str, text: &str) {
        let exists = has(&self.tree, pointer);
        match self.line(pointer).filter(|line| exists && line.beside.is_none()) {
            Some(line) => line.beside = Some(text.to_owned()),
            None => self.above(pointer, text),
        }
    }

    /// The text; `last` if no document follows.
    fn write(&self, last: bool) -> String {
        let mut out = String::new();
        for Line { above, text, beside } in &self.lines {
            let indent = &text[..text.len() - text.trim_start().len()];
            above.iter().for_each(|comment| out.push_str(&format!("{indent}#{comment}\n")));
            out.push_str(text);
            out.extend(beside.iter().map(|comment| format!(" #{comment}")));
            out.push('\n');
        }
        // Not indented, it would belong to the document below.
        let indent = if last { "" } else { "  " };
        self.tail.iter().for_each(|comment| out.push_str(&format!("{indent}#{comment}\n")));
        out
    }
}

/// Whether something stands at `pointer`.
fn has(tree: &Node, pointer: &str) -> bool {
    let mut node = tree;
    tokens(pointer).all(|token| {
        let next = match &node.content {
            Content::Map(entries) => entries.iter().find(|e| e.key.as_deref() == Some(token.as_str())).map(|e| &e.value),
            Content::List(items) => token.parse::<usize>().ok().and_then(|n| items.get(n)),
            Content::Nothing | Content::Scalar(..) => None,
        };
        next.is_some_and(|next| {
            node = next;
            true
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "\
# Our web.
apiVersion: cluster/v1 # the only one
kind: App
metadata:
  name: web
  # set by the server
  uid: abc # of old
spec:
  # as in the book
  exec: {command: [/bin/web, \"#1\"]} # one line
  placement:
    nodes:
      - n2
      # the spare
      - n1   # in the cellar
    prefer: [
      {labels: {disk: ssd}, weight: 5}, # fast
    ] # all
  mode: Spread
  # replicas: 3
---
# Another.
{apiVersion: cluster/v1, kind: App, metadata: {name: api}, spec: {mode: Spread, exec: {command: [/bin/api]}}} # short
# The end.
";

    const CANONICAL: &str = "\
# Our web.
apiVersion: cluster/v1 # the only one
kind: App
# set by the server
# of old
metadata:
  name: web
spec:
  mode: Replicas
";

    #[test]
    fn comments_go_with_what_they_are_about() {
        let written = WRITTEN.replace("mode: Spread\n  # replicas", "mode: Replicas\n  replicas: 3\n  # replicas");
        let out = format("x.yaml", &written).unwrap_or_else(|error| panic!("{error}"));
        assert!(out.starts_with(CANONICAL), "{out}");
        for part in [
            "  # as in the book\n  exec: # one line\n    command:\n      - /bin/web\n      - \"#1\"\n",
            "      - n2\n      # the spare\n      - n1 # in the cellar\n",
            "  # all\n",
            "  # replicas: 3\n---\n# Another.\napiVersion: cluster/v1 # short\n",
            "# The end.\n",
        ] {
            assert!(out.contains(part), "{part:?} is not in\n{out}");
        }
        assert_eq!(format("x.yaml", &out).as_deref(), Ok(out.as_str()), "what is canonical stays");
    }

    #[test]
    fn nothing_but_comments_stays_and_problems_are_told() {
        assert_eq!(format("x.yaml", "# nothing\n").as_deref(), Ok("# nothing\n"));
        assert!(matches!(format("x.yaml", "kind: [\n"), Err(FormatError::Invalid(_))));
    }
}
