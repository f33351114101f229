//! Names: clusters, nodes, Apps and locks are one DNS label.

/// Longest name, in bytes.
pub const NAME_MAX: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no character.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`NAME_MAX`] bytes.
    #[error("a name has at most {NAME_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A character outside a-z, 0-9 and `-`.
    #[error("a name has only a-z, 0-9 and '-', not {0:?}")]
    Character(char),
    /// `-` in the first or last place.
    #[error("a name begins and ends with a letter or digit")]
    Edge,
}

/// Checks that `name` is one DNS label (a-z, 0-9, `-`, 1 to 63 characters, no `-` at either end).
///
/// # Errors
/// The first rule that `name` breaks.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
        return Err(NameError::Character(bad));
    }
    if name.len() > NAME_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(NameError::Edge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_pass_and_everything_else_names_its_rule() {
        for good in ["a", "api", "n1", "a-b", "0", &"x".repeat(63)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name("Api"), Err(NameError::Character('A')));
        assert_eq!(check_name("a.b"), Err(NameError::Character('.')));
        assert_eq!(check_name("a/../b"), Err(NameError::Character('/')));
        assert_eq!(check_name("-a"), Err(NameError::Edge));
        assert_eq!(check_name("a-"), Err(NameError::Edge));
        assert_eq!(check_name(&"x".repeat(64)), Err(NameError::TooLong(64)));
    }
}
