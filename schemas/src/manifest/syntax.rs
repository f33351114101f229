//! Syntax errors of YAML in words that say what to do.

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use super::rule::Rule;
use super::tree::{Fatal, Mark};

/// The error with its place, what would be right, and its rule.
pub(super) fn explain(error: &ScanError) -> Fatal {
    let hint = match error.kind() {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation | ErrorKind::TabAtBlockScalarStart => {
            "indent with spaces"
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            "check the indentation of this line and the line above; quote a text that has `: ` in it"
        }
        ErrorKind::UnclosedQuotedScalar => "this quote is never closed",
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::MismatchedFlowCollectionEnd { .. } => "close every `[` with `]` and every `{` with `}`",
        ErrorKind::UnexpectedCharacter { .. } => "quote a text that begins with this character",
        ErrorKind::UnknownAnchor => "an anchor (`&name`) must stand before the alias (`*name`); quote a text that begins with `*`",
        ErrorKind::UndeclaredTagHandle | ErrorKind::ExpectedTagBang | ErrorKind::InvalidTagTerminator => {
            "quote a text that begins with `!`"
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation | ErrorKind::SimpleKeyExpected => {
            "keys of one mapping begin in the same column, and each has a `:` and a space after it"
        }
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::BlockSequenceEntryNotAllowed => {
            "items of one list begin with `- ` in the same column"
        }
        ErrorKind::ExpectedDocumentStart => "a line with `---` begins the next document",
        ErrorKind::UnknownQuotedScalarEscape => "write `\\\\` for a backslash, or use single quotes",
        _ => "",
    };
    let rule = if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) { Rule::TooDeep } else { Rule::Syntax };
    let message = if error.info().is_empty() { "this is not YAML".to_owned() } else { error.info() };
    Fatal { mark: Mark::at(error.marker()), rule, message, hint: (!hint.is_empty()).then(|| hint.to_owned()) }
}
