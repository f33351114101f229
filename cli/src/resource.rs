//! Which objects a command is about: `apps`, `apps,nodes`, `app database cache`, `app/database node/n1`.

use crate::error::CliError;
use crate::habits;
use crate::suggest;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Apps.
    App,
    /// Nodes.
    Node,
    /// Assignments, by node.
    Assignment,
}

/// Every word for a kind.
const WORDS: [(&str, Kind); 8] = [
    ("apps", Kind::App),
    ("app", Kind::App),
    ("nodes", Kind::Node),
    ("node", Kind::Node),
    ("no", Kind::Node),
    ("assignments", Kind::Assignment),
    ("assignment", Kind::Assignment),
    ("asg", Kind::Assignment),
];

impl Kind {
    /// The singular: `app` in `app/database`.
    pub(crate) const fn singular(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Node => "node",
            Self::Assignment => "assignment",
        }
    }

    /// The plural, which is also the kind's folder in the API.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::App => "apps",
            Self::Node => "nodes",
            Self::Assignment => "assignments",
        }
    }

    /// Name of an object of this kind in a JSON answer.
    pub(crate) fn name_in(self, object: &serde_json::Value) -> Option<&str> {
        match self {
            Self::App => object.pointer("/metadata/name"),
            Self::Node => object.pointer("/node/name"),
            Self::Assignment => object.pointer("/node"),
        }
        .and_then(serde_json::Value::as_str)
    }

    /// All kinds, in the order of their names.
    pub(crate) const ALL: [Self; 3] = [Self::App, Self::Assignment, Self::Node];

    /// The kind that a word is for.
    pub(crate) fn known(word: &str) -> Option<Self> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind)
    }

    fn parse(word: &str, allowed: &[Self]) -> Result<Self, CliError> {
        let lower = word.to_ascii_lowercase();
        if let Some(kind) = Self::known(&lower).filter(|kind| allowed.contains(kind)) {
            return Ok(kind);
        }
        let words = || WORDS.iter().filter(|(_, kind)| allowed.contains(kind));
        let plurals: Vec<&str> = allowed.iter().map(|kind| kind.plural()).collect();
        let known = format!("known here: {}", plurals.join(", "));
        let hint = match (habits::kind(&lower), suggest::similar(&lower, words().map(|(known, _)| *known))) {
            (Some(habit), _) => format!("{habit} ({known})"),
            (None, Some(similar)) => format!("did you mean {similar}? ({known})"),
            (None, None) => known,
        };
        Err(CliError::Usage { message: format!("there is no kind {word:?}"), hint: Some(hint) })
    }
}

/// Objects of one kind: those named, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The kind.
    pub(crate) kind: Kind,
    /// Names; none means all.
    pub(crate) names: Vec<String>,
}

/// Reads the arguments as kinds and names. Only kinds of `allowed` are taken.
///
/// # Errors
/// An unknown kind, an empty name, or the two forms mixed.
pub(crate) fn parse(arguments: &[String], allowed: &[Kind]) -> Result<Vec<Selection>, CliError> {
    let usage = |message: &str, hint: &str| CliError::Usage { message: message.to_owned(), hint: Some(hint.to_owned()) };
    let Some((first, rest)) = arguments.split_first() else {
        return Err(usage("a kind of objects is missing", "such as: clusterctl get apps"));
    };
    if !first.contains('/') {
        if let Some(slashed) = rest.iter().find(|name| name.contains('/')) {
            return Err(usage(&format!("{slashed:?} cannot follow the kind {first:?}"), "write KIND NAME NAME, or KIND/NAME KIND/NAME"));
        }
        let mut selections: Vec<Selection> = Vec::new();
        for word in first.split(',').filter(|word| !word.is_empty()) {
            let kind = Kind::parse(word, allowed)?;
            if !selections.iter().any(|selection| selection.kind == kind) {
                selections.push(Selection { kind, names: rest.to_vec() });
            }
        }
        return if selections.is_empty() {
            Err(usage("a kind of objects is missing", "such as: clusterctl get apps"))
        } else {
            Ok(selections)
        };
    }
    let mut selections: Vec<Selection> = Vec::new();
    for argument in arguments {
        let Some((word, name)) = argument.split_once('/').filter(|(_, name)| !name.is_empty()) else {
            return Err(usage(&format!("{argument:?} has no name"), "write KIND/NAME, such as app/database"));
        };
        let kind = Kind::parse(word, allowed)?;
        match selections.iter_mut().find(|selection| selection.kind == kind) {
            Some(selection) => selection.names.push(name.to_owned()),
            None => selections.push(Selection { kind, names: vec![name.to_owned()] }),
        }
    }
    Ok(selections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Kind; 3] = [Kind::App, Kind::Node, Kind::Assignment];

    fn read(arguments: &[&str]) -> Result<Vec<(Kind, Vec<String>)>, String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        parse(&arguments, &ALL)
            .map(|all| all.into_iter().map(|s| (s.kind, s.names)).collect())
            .map_err(|e| format!("{e}; {}", e.hints().join("; ")))
    }

    #[test]
    fn both_forms_are_read() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(read(&["apps"]), Ok(vec![(Kind::App, vec![])]));
        assert_eq!(read(&["app", "a", "b"]), Ok(vec![(Kind::App, names(&["a", "b"]))]));
        assert_eq!(read(&["no,apps,node"]), Ok(vec![(Kind::Node, vec![]), (Kind::App, vec![])]));
        assert_eq!(read(&["app/a", "node/n1", "apps/b"]), Ok(vec![(Kind::App, names(&["a", "b"])), (Kind::Node, names(&["n1"]))]));
        assert_eq!(read(&["Assignments"]), Ok(vec![(Kind::Assignment, vec![])]));
    }

    #[test]
    fn mistakes_are_told_with_what_would_be_right() {
        assert_eq!(read(&["aps"]), Err("there is no kind \"aps\"; did you mean apps? (known here: apps, nodes, assignments)".to_owned()));
        assert_eq!(read(&["boxes"]), Err("there is no kind \"boxes\"; known here: apps, nodes, assignments".to_owned()));
        assert!(read(&["app/"]).unwrap_err().contains("has no name"));
        assert!(read(&["app/a", "b"]).unwrap_err().contains("\"b\" has no name"));
        assert!(read(&["app", "node/n1"]).unwrap_err().contains("cannot follow"));
        assert!(read(&[","]).unwrap_err().contains("missing"));
    }
}
