//! Parts of objects: templates and paths as kubectl writes them, columns made of them, order by them, and label selectors.

pub(crate) mod columns;
pub(crate) mod format;
pub(crate) mod labels;
pub(crate) mod path;
pub(crate) mod template;

/// Why a path, template or selector makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SelectError(pub(crate) String);
