//! Why a tour or a benchmark stopped.

use crate::error::{LabError, Result};

/// What was expected, and what was seen instead.
#[derive(Debug, Clone, thiserror::Error)]
#[error("expected {expected}; seen: {seen}")]
pub struct Failure {
    /// In the words of the step.
    pub expected: String,
    /// The last thing seen, or what went wrong.
    pub seen: String,
}

impl Failure {
    /// A failure of these words.
    #[must_use]
    pub fn new(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { expected: expected.into(), seen: seen.into() }
    }
}

/// Says what was expected where the lab only knows what failed.
pub trait Expected<T> {
    /// The value, or a [`Failure`] with these words and the lab's.
    ///
    /// # Errors
    /// [`Failure`].
    fn expected(self, what: &str) -> Result<T, Failure>;
}

impl<T> Expected<T> for Result<T, LabError> {
    fn expected(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(what, error.chain()))
    }
}
