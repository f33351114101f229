//! OpenAPI 3.1 documents, put together from the types that the code reads and writes.
//!
//! schemars describes each type once, for manifests and for this; OpenAPI 3.1 takes its JSON Schemas (2020-12) as they are. The ready-made
//! generators for axum either want a second derive on each type (utoipa) or are an alpha on this schemars (aide).

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::access::Role;
use crate::api::Problem;

/// Makes the schema of one type, and keeps those that it needs.
pub type Shape = fn(&mut SchemaGenerator) -> Schema;

/// The [`Shape`] of a type.
#[must_use]
pub fn shape<T: JsonSchema>() -> Shape {
    |generator| generator.subschema_for::<T>()
}

/// What one method of one path does.
#[derive(Debug, Clone)]
pub struct Operation {
    id: &'static str,
    summary: &'static str,
    query: Option<Shape>,
    body: Option<(Shape, Option<Value>)>,
    answers: Vec<(u16, Shape)>,
    events: Option<Shape>,
}

impl Operation {
    /// An operation; `id` is what generated clients call it.
    #[must_use]
    pub const fn new(id: &'static str, summary: &'static str) -> Self {
        Self { id, summary, query: None, body: None, answers: Vec::new(), events: None }
    }

    /// Its parameters are the fields of a type.
    #[must_use]
    pub fn query<T: JsonSchema>(self) -> Self {
        self.query_shape(|generator| T::json_schema(generator))
    }

    /// Its parameters are the properties of a schema.
    #[must_use]
    pub fn query_shape(mut self, shape: Shape) -> Self {
        self.query = Some(shape);
        self
    }

    /// It takes a body.
    #[must_use]
    pub fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some((shape::<T>(), None));
        self
    }

    /// It takes a body, such as this one.
    #[must_use]
    pub fn body_such_as<T: JsonSchema>(mut self, example: Value) -> Self {
        self.body = Some((shape::<T>(), Some(example)));
        self
    }

    /// What it answers with 200.
    #[must_use]
    pub fn answers<T: JsonSchema>(self) -> Self {
        self.answers_with::<T>(200)
    }

    /// What it answers with some other status of success.
    #[must_use]
    pub fn answers_with<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answers.push((status, shape::<T>()));
        self
    }

    /// It may be watched: the 200 is a stream of server-sent events then, whose data is this.
    #[must_use]
    pub fn watched<T: JsonSchema>(mut self) -> Self {
        self.events = Some(shape::<T>());
        self
    }
}

/// A document on its way.
#[derive(Debug)]
pub struct Document {
    generator: SchemaGenerator,
    paths: BTreeMap<String, Map<String, Value>>,
    parameters: &'static [(&'static str, &'static str, &'static str)],
}

impl Document {
    /// An empty one. `parameters` are those of paths: name, meaning, example.
    #[must_use]
    pub fn new(parameters: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self { generator: settings.into_generator(), paths: BTreeMap::new(), parameters }
    }

    /// Adds an operation. `path` is as axum writes it: `{*rest}` takes slashes too.
    pub fn add(&mut self, method: &str, path: &str, role: Role, operation: Operation) {
        let Operation { id, summary, query, body, answers, events } = operation;
        let mut parameters = Vec::new();
        for part in path.split('/') {
            let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else { continue };
            let name = inner.trim_start_matches('*');
            let (meaning, example) =
                self.parameters.iter().find(|(n, ..)| *n == name).map_or(("", ""), |(_, meaning, example)| (*meaning, *example));
            let mut parameter = json!({ "name": name, "in": "path", "required": true, "description": meaning, "schema": { "type": "string", "minLength": 1 } });
            if !example.is_empty() {
                parameter["example"] = example.into();
            }
            parameters.push(parameter);
        }
        if let Some(query) = query {
            parameters.extend(query_parameters(query(&mut self.generator).to_value()));
        }
        let mut responses = Map::new();
        for (status, answer) in answers {
            let mut content = Map::new();
            content.insert("application/json".to_owned(), json!({ "schema": answer(&mut self.generator) }));
            if let (200, Some(events)) = (status, events) {
                let data = events(&mut self.generator);
                let event = json!({ "type": "object", "properties": {
                    "event": { "type": "string" },
                    "id": { "type": "string" },
                    "data": { "type": "string", "contentMediaType": "application/json" },
                } });
                // OpenAPI 3.1 has no word for the events of a stream; 3.2 will say itemSchema.
                content.insert("text/event-stream".to_owned(), json!({ "schema": event, "x-event-data": data }));
            }
            responses.insert(status.to_string(), json!({ "description": "Done.", "content": content }));
        }
        let problem = self.generator.subschema_for::<Problem>();
        let content = json!({ "application/problem+json": { "schema": problem } });
        responses.insert("default".to_owned(), json!({ "description": "What is wrong (RFC 9457).", "content": content }));
        let mut entry = json!({
            "operationId": id,
            "summary": summary,
            "parameters": parameters,
            "responses": responses,
            "x-least-role": role.as_str(),
        });
        if let Some((body, example)) = body {
            let mut content = json!({ "schema": body(&mut self.generator) });
            if let Some(example) = example {
                content["example"] = example;
            }
            entry["requestBody"] = json!({ "required": true, "content": { "application/json": content } });
        }
        let path = path.replace("{*", "{");
        self.paths.entry(path).or_default().insert(method.to_lowercase(), entry);
    }

    /// The finished document.
    #[must_use]
    pub fn finish(mut self, title: &str, version: &str, description: &str) -> Value {
        json!({
            "openapi": "3.1.0",
            "info": { "title": title, "version": version, "description": description },
            "paths": self.paths,
            "components": {
                "schemas": self.generator.take_definitions(true),
                "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            },
            "security": [{ "bearer": [] }],
        })
    }
}

/// One parameter for each property of an object.
fn query_parameters(mut schema: Value) -> Vec<Value> {
    let required: Vec<String> =
        schema["required"].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(ToOwned::to_owned)).collect();
    let Value::Object(properties) = schema["properties"].take() else { return Vec::new() };
    properties
        .into_iter()
        .map(|(name, mut schema)| {
            let description = schema.as_object_mut().and_then(|fields| fields.remove("description"));
            // In a query, nothing is absence and not a word.
            if let Some(Value::Array(kinds)) = schema.get("type") {
                let kinds: Vec<Value> = kinds.iter().filter(|kind| *kind != "null").cloned().collect();
                schema["type"] = if let [only] = kinds.as_slice() { only.clone() } else { kinds.into() };
            }
            json!({ "name": name, "in": "query", "required": required.contains(&name), "description": description.unwrap_or_default(), "schema": schema })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{List, NodeView};

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Query {
        /// At most so many.
        limit: Option<u32>,
        key: String,
    }

    #[test]
    fn a_document_names_parameters_bodies_and_answers() {
        let mut document = Document::new(&[("name", "The node.", "n1")]);
        let operation = Operation::new("listNodes", "Nodes").query::<Query>().answers::<List<NodeView>>();
        document.add("GET", "/v1/nodes/{name}/x/{*rest}", Role::Viewer, operation);
        let made = document.finish("t", "1", "d");
        let get = &made["paths"]["/v1/nodes/{name}/x/{rest}"]["get"];
        let names: Vec<_> = get["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .map(|p| (p["name"].as_str(), p["in"].as_str(), p["required"].as_bool()))
            .collect();
        let there = [("name", "path", true), ("rest", "path", true), ("key", "query", true), ("limit", "query", false)];
        let mut names: Vec<_> = names.into_iter().map(|(n, i, r)| (n.unwrap_or(""), i.unwrap_or(""), r.unwrap_or(false))).collect();
        names[2..].sort_unstable();
        assert_eq!(names, there);
        let limit = get["parameters"].as_array().expect("parameters").iter().find(|p| p["name"] == "limit").expect("it");
        assert_eq!((&limit["schema"]["type"], &limit["description"]), (&json!("integer"), &json!("At most so many.")));
        let text = made.to_string();
        let defined = made["components"]["schemas"].as_object().expect("schemas");
        for reference in text.split("\"$ref\":\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let name = reference.strip_prefix("#/components/schemas/").expect("a schema of the document");
            assert!(defined.contains_key(name), "{reference} is not there");
        }
        assert!(get["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"].is_string());
    }
}
