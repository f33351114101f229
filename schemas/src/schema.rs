//! The published JSON Schema of manifests, generated from the types: for editors, and for tools that check manifests without us.

use serde_json::{Value, json};

use crate::app::LIMIT_NAMES;
use crate::manifest;

/// Schema of one document of a manifest.
///
/// It is made from the same types as everything else and then fitted to files: an absent field is left out, never null; where a text is
/// free, a number or a boolean may stand without quotes, as YAML users write them; and `status` may stay where it was pasted.
#[must_use]
pub fn app_schema() -> Value {
    let mut schema = schemars::schema_for!(crate::app::App).to_value();
    strip_null(&mut schema);
    for (object, fields) in [
        ("Metadata", ["labels", "annotations"].as_slice()),
        ("ExecSpec", &["environment", "limits"]),
        ("Placement", &["nodeSelector", "avoidLabels"]),
        ("Preference", &["labels"]),
        ("HookSpec", &["environment"]),
    ] {
        for field in fields {
            free_text(&mut schema["$defs"][object]["properties"][*field]["additionalProperties"]);
        }
    }
    free_text(&mut schema["$defs"]["ExecSpec"]["properties"]["command"]["items"]);
    free_text(&mut schema["$defs"]["HookSpec"]["properties"]["command"]["items"]);
    free_text(&mut schema["$defs"]["ExecCheck"]["properties"]["command"]["items"]);
    schema["$defs"]["HttpCheck"]["properties"]["status"]["type"] = json!(["string", "integer"]);
    for amount in ["cpu", "memory"] {
        let schema = &mut schema["$defs"]["Resources"]["properties"][amount];
        schema["type"] = json!(["string", "number"]);
        schema["exclusiveMinimum"] = json!(0);
    }
    limits(&mut schema["$defs"]["ExecSpec"]["properties"]["limits"]);
    let reserved = manifest::RESERVED_UNITS.map(|name| name.replace('*', ".*")).join("|");
    let others = manifest::OTHER_UNITS.join("|").replace('.', "");
    let bare = "@.*|[^@]*@([.]service)?|[.]service";
    schema["$defs"]["UnitSpec"]["properties"]["name"]["not"] =
        json!({ "pattern": format!("^({bare}|.*[.]({others})|({reserved})([.]service)?)$") });
    let forgetful = manifest::NOT_KEPT.join("|");
    schema["$defs"]["DatabaseSpec"]["properties"]["path"]["not"] = json!({ "pattern": format!("^({forgetful})(/|$)|/[.]{{1,2}}(/|$)") });
    schema["properties"]["status"] = json!({ "description": "Set by the server; dropped when it stands in a manifest." });
    schema
}

/// Makes `anyOf [T, null]` and `type [T, null]` plain `T`: a wrong field inside an optional object is else only reported as "matches none".
fn strip_null(schema: &mut Value) {
    if let Value::Object(fields) = schema {
        if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
            choices.retain(|choice| choice["type"] != "null");
            if let [only] = choices.as_mut_slice()
                && let Value::Object(only) = only.take()
            {
                fields.remove("anyOf");
                for (key, value) in only {
                    fields.entry(key).or_insert(value);
                }
            }
        }
        if let Some(kinds) = fields.get_mut("type")
            && let Value::Array(list) = kinds
        {
            list.retain(|kind| kind != "null");
            if let [only] = list.as_mut_slice() {
                *kinds = only.take();
            }
        }
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(strip_null),
        Value::Array(items) => items.iter_mut().for_each(strip_null),
        _ => {}
    }
}

/// Names every limit, so that editors can complete them and check the values.
fn limits(schema: &mut Value) {
    let text = |pattern: &str| json!({ "type": "string", "pattern": format!("^({pattern})$") });
    let number = |min: i64, max: Option<i64>, pattern: &str| {
        let mut schema = json!({ "type": ["integer", "string"], "minimum": min, "pattern": format!("^({pattern})$") });
        if let Some(max) = max {
            schema["maximum"] = json!(max);
        }
        schema
    };
    let each = LIMIT_NAMES.map(|name| {
        let value = match name {
            "CPUQuota" => text("[1-9][0-9]*%"),
            "CPUWeight" | "IOWeight" => number(1, Some(10_000), "[1-9][0-9]{0,3}|10000"),
            "Nice" => number(-20, Some(19), "-?[0-9]|-?1[0-9]|-20"),
            "TasksMax" => number(0, None, "[0-9]+|[1-9][0-9]?%|100%|infinity"),
            "MemoryHigh" | "MemoryMax" | "MemorySwapMax" => number(0, None, "[0-9]+[KMGT]?|[1-9][0-9]?%|100%|infinity"),
            "LimitCORE" | "LimitMEMLOCK" => number(0, None, "([0-9]+[KMGT]?|infinity)(:([0-9]+[KMGT]?|infinity))?"),
            _ => number(0, None, "([0-9]+|infinity)(:([0-9]+|infinity))?"),
        };
        (name.to_owned(), value)
    });
    schema["properties"] = Value::Object(each.into_iter().collect());
    schema["additionalProperties"] = json!(false);
}

fn free_text(schema: &mut Value) {
    schema["type"] = json!(["string", "number", "boolean"]);
}
