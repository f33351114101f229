//! What fields an App has and what each holds: read from the JSON Schema that the types themselves generate, so that neither the reader
//! of manifests nor its suggestions can lag behind the types.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// A whole number.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// One of some words.
    Word(Vec<String>),
    /// A list of such.
    List(Box<Shape>),
    /// A mapping with free keys.
    Map(Box<Shape>),
    /// A mapping with known keys.
    Object(BTreeMap<String, Field>),
}

/// A known key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// What it holds.
    pub(super) shape: Shape,
    /// Whether it must be there.
    pub(super) required: bool,
    /// An example of its value, as one line of YAML.
    pub(super) example: Option<String>,
}

static APP: LazyLock<Shape> = LazyLock::new(|| {
    let schema = schemars::schema_for!(crate::app::App);
    let root = schema.as_value();
    // A test reads every field, so that a type which this module cannot read is found there.
    build(root, &root["$defs"], 0).unwrap_or(Shape::Object(BTreeMap::new()))
});

/// The shape of an App.
pub(super) fn app() -> &'static Shape {
    &APP
}

/// Types of ours are nested less deep than this; a type that holds itself would never end.
const NESTED_MAX: usize = 16;

fn build(schema: &Value, defs: &Value, nested: usize) -> Option<Shape> {
    if nested > NESTED_MAX {
        return None;
    }
    if let Some(reference) = schema["$ref"].as_str() {
        return build(&defs[reference.strip_prefix("#/$defs/")?], defs, nested + 1);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        // What an Option becomes.
        return build(choices.iter().find(|choice| choice["type"] != "null")?, defs, nested + 1);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        // What an enum with documented variants becomes.
        return choices.iter().map(|choice| Some(choice["const"].as_str()?.to_owned())).collect::<Option<_>>().map(Shape::Word);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null")?.as_str()?,
        kind => kind.as_str()?,
    };
    match kind {
        "string" => Some(Shape::Text),
        "integer" => {
            let widest = match schema["format"].as_str()? {
                "uint8" => u64::from(u8::MAX),
                "uint16" => u64::from(u16::MAX),
                "uint32" => u64::from(u32::MAX),
                "uint64" => crate::COUNTER_LIMIT - 1,
                _ => return None,
            };
            Some(Shape::Integer { min: schema["minimum"].as_u64()?, max: schema["maximum"].as_u64().unwrap_or(widest) })
        }
        "array" => Some(Shape::List(Box::new(build(&schema["items"], defs, nested + 1)?))),
        "object" if schema["properties"].is_object() => {
            let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let fields = schema["properties"].as_object()?.iter().map(|(name, property)| {
                let shape = build(property, defs, nested + 1)?;
                let example = property["examples"].get(0).map(one_line);
                Some((name.clone(), Field { shape, required: required.contains(&name.as_str()), example }))
            });
            fields.collect::<Option<_>>().map(Shape::Object)
        }
        "object" => Some(Shape::Map(Box::new(build(&schema["additionalProperties"], defs, nested + 1)?))),
        _ => None,
    }
}

/// A value in the flow style of YAML, texts without quotes where that is safe.
fn one_line(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./%".contains(c)) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(one_line).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {}", one_line(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

impl Shape {
    /// What it is called in a message.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Integer { .. } => "a whole number".to_owned(),
            Self::Word(words) => format!("one of {}", super::text::list(words.iter().map(String::as_str), "or")),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) | Self::Object(_) => "a mapping".to_owned(),
        }
    }

    /// Something harmless of this shape, to put where a value is missing or wrong.
    pub(super) fn blank(&self) -> Value {
        match self {
            Self::Text => Value::from(""),
            Self::Integer { min, .. } => Value::from(*min),
            Self::Word(words) => words.first().map_or(Value::Null, |word| Value::from(word.as_str())),
            Self::List(_) => Value::Array(Vec::new()),
            Self::Map(_) => Value::Object(serde_json::Map::new()),
            Self::Object(fields) => {
                let required = fields.iter().filter(|(_, field)| field.required);
                Value::Object(required.map(|(name, field)| (name.clone(), field.shape.blank())).collect())
            }
        }
    }

    /// The smallest mapping with the required fields, as one line of YAML; `first` stands for the first text or, in words, list in it.
    pub(super) fn sketch(&self, first: &str) -> Option<String> {
        let Self::Object(fields) = self else { return None };
        let mut first = Some(first);
        let mut parts = Vec::new();
        for (name, field) in fields.iter().filter(|(_, field)| field.required) {
            let value = match (&field.shape, first.take()) {
                (Self::Text, Some(text)) => text.to_owned(),
                (Self::List(_), Some(text)) => format!("[{}]", text.split_whitespace().collect::<Vec<_>>().join(", ")),
                (_, _) => field.example.clone()?,
            };
            parts.push(format!("{name}: {value}"));
        }
        (!parts.is_empty()).then(|| format!("{{{}}}", parts.join(", ")))
    }

    /// Paths such as `spec.ring` of the mappings that have a field called `name`.
    pub(super) fn homes(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        self.find_homes(name, "", &mut found);
        found
    }

    fn find_homes(&self, name: &str, path: &str, found: &mut Vec<String>) {
        let Self::Object(fields) = self else { return };
        if fields.contains_key(name) && !path.is_empty() {
            found.push(path.to_owned());
        }
        for (key, field) in fields {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            field.shape.find_homes(name, &path, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(shape: &'a Shape, name: &str) -> &'a Field {
        match shape {
            Shape::Object(fields) => &fields[name],
            other => panic!("{other:?} has no fields"),
        }
    }

    #[test]
    fn the_shape_has_every_field_of_the_types() {
        let spec = &field(app(), "spec").shape;
        assert!(field(app(), "spec").required);
        assert_eq!(field(spec, "mode").shape, Shape::Word(["Singleton", "Spread", "Replicas", "Ring"].map(str::to_owned).to_vec()));
        assert_eq!(field(spec, "replicas").shape, Shape::Integer { min: 1, max: 1000 });
        let ring = &field(spec, "ring").shape;
        assert_eq!(field(ring, "partitions").shape, Shape::Integer { min: 1, max: 4096 });
        let exec = &field(spec, "exec").shape;
        assert_eq!(field(exec, "command").shape, Shape::List(Box::new(Shape::Text)));
        assert_eq!(field(exec, "environment").shape, Shape::Map(Box::new(Shape::Text)));
        assert!(!field(spec, "vip").required);
    }

    #[test]
    fn a_field_is_found_at_home() {
        assert_eq!(app().homes("partitions"), ["spec.ring"]);
        assert_eq!(app().homes("name"), ["metadata", "spec.unit"]);
        assert!(app().homes("nothing").is_empty());
    }

    #[test]
    fn what_was_meant_is_sketched_from_the_examples() {
        let spec = &field(app(), "spec").shape;
        assert_eq!(field(spec, "vip").shape.sketch("10.0.0.7/24").as_deref(), Some("{address: 10.0.0.7/24, interface: eth0}"));
        assert_eq!(field(spec, "unit").shape.sketch("nginx").as_deref(), Some("{name: nginx}"));
    }
}
