//! Placeholders in a command: `${database.path}` and `${node.address}`. `$${` stands for a plain `${`; a `$` elsewhere is itself.
//!
//! The validation and the agent both read them here, so that what was accepted can be filled in.

/// Something that the agent fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placeholder {
    /// Path of the App's database.
    DatabasePath,
    /// First address of the node, without its prefix length.
    NodeAddress,
}

impl Placeholder {
    /// All placeholders.
    pub const ALL: [Self; 2] = [Self::DatabasePath, Self::NodeAddress];

    /// What stands between `${` and `}`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DatabasePath => "database.path",
            Self::NodeAddress => "node.address",
        }
    }
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// To be taken as it is.
    Text(&'a str),
    /// To be filled in.
    Placeholder(Placeholder),
}

/// Why a text could not be read or filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// `${` without a `}` after it.
    #[error("`${{` is not closed by `}}`")]
    Open,
    /// No placeholder has that name.
    #[error("there is no placeholder `${{{0}}}`")]
    Unknown(String),
    /// The placeholder has no value here.
    #[error("`${{{}}}` has no value here", .0.as_str())]
    NoValue(Placeholder),
}

/// Splits `text` into plain parts and placeholders.
///
/// # Errors
/// The first placeholder that is not closed or not known.
pub fn split(text: &str) -> Result<Vec<Piece<'_>>, PlaceholderError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            // `$${`: everything but one of the two dollars is plain.
            pieces.push(Piece::Text(before));
            pieces.push(Piece::Text("${"));
            rest = &after[2..];
            continue;
        }
        let inner = &after[2..];
        let end = inner.find('}').ok_or(PlaceholderError::Open)?;
        let name = &inner[..end];
        let known = Placeholder::ALL.into_iter().find(|p| p.as_str() == name);
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Placeholder(known.ok_or_else(|| PlaceholderError::Unknown(name.to_owned()))?));
        rest = &inner[end + 1..];
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Ok(pieces)
}

/// Fills in `text`; `value` gives what a placeholder stands for, `None` where there is nothing.
///
/// # Errors
/// As [`split`], and a placeholder without a value.
pub fn expand(text: &str, mut value: impl FnMut(Placeholder) -> Option<String>) -> Result<String, PlaceholderError> {
    let mut out = String::with_capacity(text.len());
    for piece in split(text)? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Placeholder(p) => out.push_str(&value(p).ok_or(PlaceholderError::NoValue(p))?),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, PlaceholderError> {
        expand(text, |p| match p {
            Placeholder::DatabasePath => Some("/data/app.db".to_owned()),
            Placeholder::NodeAddress => None,
        })
    }

    #[test]
    fn placeholders_are_filled_in_and_dollars_stay() {
        assert_eq!(filled("--db=${database.path}!").as_deref(), Ok("--db=/data/app.db!"));
        assert_eq!(filled("$HOME $$ $ 100$").as_deref(), Ok("$HOME $$ $ 100$"));
        assert_eq!(filled("$${database.path}").as_deref(), Ok("${database.path}"));
        assert_eq!(filled("$$${database.path}").as_deref(), Ok("$${database.path}"));
        assert_eq!(filled("${database.path}${database.path}").as_deref(), Ok("/data/app.db/data/app.db"));
        assert_eq!(filled("").as_deref(), Ok(""));
    }

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        assert_eq!(filled("${database.path"), Err(PlaceholderError::Open));
        assert_eq!(filled("${HOME}"), Err(PlaceholderError::Unknown("HOME".to_owned())));
        assert_eq!(filled("${}"), Err(PlaceholderError::Unknown(String::new())));
        assert_eq!(filled("${node.address}"), Err(PlaceholderError::NoValue(Placeholder::NodeAddress)));
        assert_eq!(filled("${HOME}").unwrap_err().to_string(), "there is no placeholder `${HOME}`");
        assert_eq!(filled("${node.address}").unwrap_err().to_string(), "`${node.address}` has no value here");
        assert_eq!(filled("${").unwrap_err().to_string(), "`${` is not closed by `}`");
    }
}
