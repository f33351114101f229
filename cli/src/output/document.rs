//! Objects as JSON and YAML, the same for every command.

use cluster_schemas::manifest;
use serde_json::Value;

/// The answer of the API, indented, with a line feed at its end.
pub(crate) fn json(value: &Value) -> String {
    // `Display` of a value cannot fail; the alternate form indents.
    format!("{value:#}\n")
}

/// The same as YAML.
pub(crate) fn yaml(value: &Value) -> String {
    let mut text = manifest::to_yaml_value(value);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_end_with_a_line_feed_and_say_the_same() {
        let value = serde_json::json!({"name": "database", "ready": "1/1", "epoch": 9_007_199_254_740_991u64});
        assert_eq!(serde_json::from_str::<Value>(&json(&value)).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml(&value)).unwrap(), value);
        assert!(json(&value).ends_with("}\n") && yaml(&value).ends_with('\n') && !yaml(&value).ends_with("\n\n"));
    }
}
