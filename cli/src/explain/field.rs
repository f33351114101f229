//! One field of the schema.

use serde_json::{Map, Value};

use crate::error::CliError;
use crate::suggest;

/// Deepest fields within fields.
const DEPTH_MAX: usize = 12;

/// A field, with what is said of it where it is used (description, default, examples) and of its type.
pub(crate) struct Field<'s> {
    root: &'s Value,
    /// As it was asked for.
    path: String,
    used: &'s Value,
    /// `used`, or what it refers to.
    meant: &'s Value,
    required: bool,
}

impl<'s> Field<'s> {
    /// Finds `app.spec.vip`.
    ///
    /// # Errors
    /// The part that is no field, with the one that was probably meant.
    pub(crate) fn find(root: &'s Value, path: &str) -> Result<Self, CliError> {
        let mut parts = path.split('.');
        let kind = parts.next().unwrap_or_default();
        if !matches!(kind.to_ascii_lowercase().as_str(), "app" | "apps") {
            let hint = if path.starts_with("spec") || path.starts_with("metadata") {
                format!("begin with the kind: clusterctl explain app.{path}")
            } else {
                "fields of an App are explained: clusterctl explain app.spec".to_owned()
            };
            return Err(CliError::Usage { message: format!("there is no kind {kind:?}"), hint: Some(hint) });
        }
        let mut field = Self { root, path: "app".to_owned(), used: root, meant: root, required: true };
        for part in parts.filter(|part| !part.is_empty()) {
            // `hosts[0].name`, `hosts[].name`
            let name = part.split('[').next().unwrap_or(part);
            field = field.child(name)?;
        }
        Ok(field)
    }

    fn child(&self, name: &str) -> Result<Self, CliError> {
        let fields = self.properties();
        let Some((key, used)) = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) else {
            let names: Vec<&str> = fields.iter().map(|(key, _)| *key).collect();
            let meant = suggest::similar(name, names.iter().copied()).map(|similar| format!("did you mean {}.{similar}? ", self.path));
            let known = if names.is_empty() { "it has no fields".to_owned() } else { format!("fields there: {}", names.join(", ")) };
            let hint = format!("{}{known}", meant.unwrap_or_default());
            return Err(CliError::Usage { message: format!("{} has no field {name:?}", self.path), hint: Some(hint) });
        };
        let required = self.object().get("required").and_then(Value::as_array).is_some_and(|all| all.iter().any(|r| r == key));
        Ok(Self { root: self.root, path: format!("{}.{key}", self.path), used, meant: resolve(self.root, used), required })
    }

    /// The schema that has the fields: of a list that of its items.
    fn object(&self) -> &'s Value {
        let meant = self.meant.get("items").map_or(self.meant, |items| resolve(self.root, items));
        match meant.get("additionalProperties") {
            Some(values) if values.is_object() && meant.get("properties").is_none() => resolve(self.root, values),
            _ => meant,
        }
    }

    fn properties(&self) -> Vec<(&'s str, &'s Value)> {
        let properties: Option<&Map<String, Value>> = self.object().get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().map(|(key, value)| (key.as_str(), value)).collect()
    }

    fn children(&self) -> Vec<Self> {
        self.properties().into_iter().filter_map(|(key, _)| self.child(key).ok()).collect()
    }

    fn own(&self, key: &str) -> Option<&'s Value> {
        self.used.get(key).or_else(|| self.meant.get(key))
    }

    /// `string`, `[]string`, `object`, `Singleton | Spread`.
    fn kind(&self) -> String {
        kind(self.root, self.used)
    }

    /// Everything about it, and a line for each field within it.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("FIELD:    {} <{}>{}\n", self.path, self.kind(), if self.required { "  required" } else { "" });
        let mut line = |name: &str, value: String| text.push_str(&format!("{name:<10}{value}\n"));
        if let Some(default) = self.own("default") {
            line("DEFAULT:", compact(default));
        }
        let values = values(self.meant);
        if !values.is_empty() {
            line("VALUES:", values.iter().map(|(value, _)| value.as_str()).collect::<Vec<_>>().join(", "));
        }
        let bounds: Vec<String> = [
            ("minimum", "at least"),
            ("maximum", "at most"),
            ("minItems", "entries at least"),
            ("maxItems", "entries at most"),
            ("maxLength", "characters at most"),
        ]
        .into_iter()
        .filter_map(|(key, words)| Some(format!("{words} {}", self.own(key)?)))
        .collect();
        if !bounds.is_empty() {
            line("LIMITS:", bounds.join(", "));
        }
        for example in self.own("examples").and_then(Value::as_array).into_iter().flatten() {
            line("EXAMPLE:", compact(example));
        }
        if let Some(description) = self.own("description").and_then(Value::as_str) {
            text.push_str(&format!("\n{}\n", description.trim()));
        }
        for (value, meaning) in values.iter().filter(|(_, meaning)| !meaning.is_empty()) {
            text.push_str(&format!("  {value}: {meaning}\n"));
        }
        let children = self.children();
        if !children.is_empty() {
            text.push_str("\nFIELDS:\n");
            let heads: Vec<String> = children.iter().map(Self::head).collect();
            let width = heads.iter().map(|head| head.chars().count()).max().unwrap_or_default();
            for (child, head) in children.iter().zip(&heads) {
                let first = child.own("description").and_then(Value::as_str).map(first_sentence).unwrap_or_default();
                text.push_str(format!("  {head:<width$}  {first}").trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn head(&self) -> String {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        format!("{name} <{}>{}", self.kind(), if self.required { " required" } else { "" })
    }

    /// The names of all fields within it, indented.
    pub(crate) fn tree(&self) -> String {
        let mut text = format!("{} <{}>\n", self.path, self.kind());
        self.branch(1, &mut text);
        text
    }

    fn branch(&self, depth: usize, text: &mut String) {
        for child in self.children().into_iter().filter(|_| depth <= DEPTH_MAX) {
            text.push_str(&format!("{:indent$}{}\n", "", child.head(), indent = 2 * depth));
            child.branch(depth + 1, text);
        }
    }
}

/// What a `$ref` refers to.
fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
    target.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

fn kind(root: &Value, schema: &Value) -> String {
    let meant = resolve(root, schema);
    if !values(meant).is_empty() {
        return "string".to_owned();
    }
    let word = match meant.get("type") {
        Some(Value::String(word)) => word.clone(),
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).filter(|word| *word != "null").collect::<Vec<_>>().join(" or "),
        _ if meant.get("properties").is_some() => "object".to_owned(),
        _ => "any".to_owned(),
    };
    match word.as_str() {
        "array" => format!("[]{}", meant.get("items").map_or_else(|| "any".to_owned(), |items| kind(root, items))),
        "object" => match meant.get("additionalProperties") {
            Some(values) if values.is_object() && meant.get("properties").is_none() => format!("map of {}", kind(root, values)),
            _ => word,
        },
        _ => word,
    }
}

/// The values that are allowed, each with its meaning where the schema tells one.
fn values(schema: &Value) -> Vec<(String, String)> {
    if let Some(all) = schema.get("enum").and_then(Value::as_array) {
        return all.iter().filter_map(Value::as_str).map(|value| (value.to_owned(), String::new())).collect();
    }
    let all = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let of = |one: &Value| {
        let value = one.get("const").or_else(|| one.get("enum")?.get(0))?.as_str()?.to_owned();
        Some((value, one.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()))
    };
    all.filter_map(of).collect()
}

fn compact(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn first_sentence(text: &str) -> String {
    let line = text.lines().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" ");
    line.split_once(". ").map_or(line.clone(), |(first, _)| format!("{first}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::schema::app_schema;

    #[test]
    fn every_field_of_the_schema_is_found_and_told() {
        let schema = app_schema();
        let mut open = vec!["app".to_owned()];
        let mut count = 0;
        while let Some(path) = open.pop() {
            let field = Field::find(&schema, &path).unwrap_or_else(|e| panic!("{path}: {e}"));
            count += 1;
            // Limits have the names and the meaning that systemd gives them.
            let told = field.own("description").is_some() || path.starts_with("app.spec.exec.limits.");
            assert!(told, "{path} has no description");
            assert!(field.describe().starts_with(&format!("FIELD:    {path} <")), "{path}");
            // The status is the server's own: whatever stands there is taken and left out.
            assert!(field.kind() != "any" || path == "app.status", "{path}");
            open.extend(field.children().into_iter().map(|child| child.path));
        }
        assert!(count > 60, "{count} fields only");
    }

    #[test]
    fn a_field_is_told_with_default_values_and_example() {
        let schema = app_schema();
        let text = |path: &str| Field::find(&schema, path).unwrap().describe();
        let mode = text("app.spec.mode");
        assert!(mode.contains("DEFAULT:  Singleton\n") && mode.contains("VALUES:   Singleton, Spread, Replicas, Ring\n"), "{mode}");
        let address = text("app.spec.VIP.address");
        assert!(address.starts_with("FIELD:    app.spec.vip.address <string>  required\n"), "{address}");
        assert!(address.contains("EXAMPLE:  10.0.0.100/24\n"), "{address}");
        assert!(Field::find(&schema, "app.spec").unwrap().tree().contains("\n  vip <object>\n    address <string> required\n"));
    }

    #[test]
    fn what_is_no_field_is_told_with_what_is() {
        let schema = app_schema();
        let told = |path: &str| Field::find(&schema, path).map(|_| ()).map_err(|e| format!("{e}; {}", e.hints().join("; "))).unwrap_err();
        assert!(
            told("app.spec.vipp").starts_with("app.spec has no field \"vipp\"; did you mean app.spec.vip? fields there: "),
            "{}",
            told("app.spec.vipp")
        );
        assert!(told("app.spec.mode.x").contains("it has no fields"));
        assert!(told("spec.vip").contains("clusterctl explain app.spec.vip"));
        assert!(told("pod").contains("clusterctl explain app.spec"));
    }
}
