//! `-o` of commands that list objects: the plain formats, and those that are made of paths.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, ValueEnum};
use serde_json::Value;

use super::columns::Columns;
use super::template::Template;
use crate::args::Format;
use crate::suggest;

/// How to print objects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// One of the plain formats.
    Plain(Format),
    /// kubectl's templates.
    JsonPath(Template),
    /// kubectl's columns.
    Columns(Columns),
}

impl Output {
    /// The plain format nearest to it, for what has no other: what is made of paths is made of the JSON.
    pub(crate) const fn plain(&self) -> Format {
        match self {
            Self::Plain(format) => *format,
            Self::JsonPath(_) | Self::Columns(_) => Format::Json,
        }
    }

    /// The text made of `document` (one object, or a list with `items`), where the format is made of paths.
    pub(crate) fn of_paths(&self, document: &Value, no_headers: bool) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::JsonPath(template) => Some(template.render(document)),
            Self::Columns(columns) => {
                let one = std::slice::from_ref(document);
                let items = document.get("items").and_then(Value::as_array).map_or(one, Vec::as_slice);
                Some(columns.table(items).render(no_headers))
            }
        }
    }
}

/// Reads [`Output`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputParser;

impl TypedValueParser for OutputParser {
    type Value = Output;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<Output, clap::Error> {
        let text = value.to_str().unwrap_or_default();
        parse(text).map_err(|message| command.clone().error(ErrorKind::ValueValidation, message))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let plain = Format::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let made = [
            PossibleValue::new("jsonpath=TEMPLATE")
                .help("Parts of the objects, as kubectl's templates name them: jsonpath='{.items[*].metadata.name}'"),
            PossibleValue::new("custom-columns=HEADER:PATH,...")
                .help("Columns made of paths: custom-columns=NAME:.metadata.name,MODE:.spec.mode"),
        ];
        Some(Box::new(plain.chain(made)))
    }
}

fn parse(text: &str) -> Result<Output, String> {
    if let Some(plain) = Format::value_variants().iter().find(|format| format.to_possible_value().is_some_and(|v| v.matches(text, false))) {
        return Ok(Output::Plain(*plain));
    }
    let (word, rest) = text.split_once('=').unwrap_or((text, ""));
    match word {
        "jsonpath" => Template::parse(rest).map(Output::JsonPath).map_err(|error| format!("-o jsonpath: {error}")),
        "custom-columns" => Columns::parse(rest).map(Output::Columns).map_err(|error| format!("-o custom-columns: {error}")),
        _ => {
            let names: Vec<String> =
                Format::value_variants().iter().filter_map(|f| Some(f.to_possible_value()?.get_name().to_owned())).collect();
            let known = names.iter().map(String::as_str).chain(["jsonpath", "custom-columns"]);
            let meant = suggest::similar(word, known.clone()).map(|name| format!("did you mean {name}? ")).unwrap_or_default();
            Err(format!("there is no format {word:?}; {meant}(known: {})", known.collect::<Vec<_>>().join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_and_mistakes_told() {
        assert_eq!(parse("wide"), Ok(Output::Plain(Format::Wide)));
        assert!(matches!(parse("jsonpath={.a}"), Ok(Output::JsonPath(_))));
        assert!(matches!(parse("custom-columns=A:.a"), Ok(Output::Columns(_))));
        for (text, part) in [
            ("jsn", "did you mean json?"),
            ("yml", "did you mean yaml?"),
            ("xml", "known: table, wide, json, yaml, name, jsonpath, custom-columns"),
            ("jsonpath", "the template is empty"),
            ("jsonpath={.a", "not closed"),
            ("custom-columns=NAME", "is no column"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
