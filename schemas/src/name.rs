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

/// Longest key of a label or annotation, in bytes.
pub const LABEL_KEY_MAX: usize = 128;
/// Longest value of a label, in bytes.
pub const LABEL_VALUE_MAX: usize = 63;

/// Why a label was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The key has no character.
    #[error("a key must not be empty")]
    Empty,
    /// More bytes than allowed.
    #[error("at most {most} characters, not {length}")]
    TooLong {
        /// How many are allowed.
        most: usize,
        /// How many there are.
        length: usize,
    },
    /// A character that labels do not have.
    #[error("only letters, digits, '.', '-', '_' and, in keys, '/', not {0:?}")]
    Character(char),
    /// A first or last character that is neither letter nor digit.
    #[error("begins and ends with a letter or digit")]
    Edge,
}

/// Checks the key of a label or annotation, such as `disk` or `example.com/rack`: 1 to [`LABEL_KEY_MAX`] letters, digits and `.-_/`,
/// a letter or digit at both ends.
///
/// # Errors
/// The first rule that `key` breaks.
pub fn check_label_key(key: &str) -> Result<(), LabelError> {
    if key.is_empty() {
        return Err(LabelError::Empty);
    }
    check_label(key, ".-_/", LABEL_KEY_MAX)
}

/// Checks the value of a label: up to [`LABEL_VALUE_MAX`] letters, digits and `.-_`, a letter or digit at both ends. It may be empty.
///
/// # Errors
/// The first rule that `value` breaks.
pub fn check_label_value(value: &str) -> Result<(), LabelError> {
    check_label(value, ".-_", LABEL_VALUE_MAX)
}

fn check_label(text: &str, others: &str, most: usize) -> Result<(), LabelError> {
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || others.contains(*c))) {
        return Err(LabelError::Character(bad));
    }
    if text.len() > most {
        return Err(LabelError::TooLong { most, length: text.len() });
    }
    let edge = |c: Option<char>| c.is_some_and(|c| !c.is_ascii_alphanumeric());
    if edge(text.chars().next()) || edge(text.chars().next_back()) {
        return Err(LabelError::Edge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_safe_keys_and_values() {
        for good in ["disk", "example.com/rack", "a", "A_1"] {
            assert_eq!(check_label_key(good), Ok(()), "{good}");
        }
        assert_eq!(check_label_key(""), Err(LabelError::Empty));
        assert_eq!(check_label_key("a b"), Err(LabelError::Character(' ')));
        assert_eq!(check_label_key("-a"), Err(LabelError::Edge));
        assert_eq!(check_label_key("a/"), Err(LabelError::Edge));
        assert_eq!(check_label_key(&"x".repeat(129)), Err(LabelError::TooLong { most: 128, length: 129 }));
        assert_eq!(check_label_value(""), Ok(()));
        assert_eq!(check_label_value("ssd-2.5"), Ok(()));
        assert_eq!(check_label_value("a/b"), Err(LabelError::Character('/')));
        assert_eq!(check_label_value(&"x".repeat(64)), Err(LabelError::TooLong { most: 63, length: 64 }));
    }

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
