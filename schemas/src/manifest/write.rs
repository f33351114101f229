//! The canonical YAML of objects.

use serde::Serialize;
use serde_saphyr::SerializerOptions;

/// `value` as YAML: block style, two spaces, texts that another reader could take for something else in quotes, texts of several lines
/// as literal blocks.
pub(super) fn write<T: Serialize + ?Sized>(value: &T) -> String {
    let mut options = SerializerOptions::default();
    options.compact_list_indent = false;
    // Never folded: a long command stays one line that can be searched for.
    options.folded_wrap_chars = usize::MAX;
    serde_saphyr::to_string_with_options(&value, options)
        // JSON is YAML too. Nothing of ours gets here; a map with keys that are no texts would.
        .or_else(|_| serde_json::to_string_pretty(value))
        .unwrap_or_default()
}
