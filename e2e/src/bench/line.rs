//! A figure as a line of JSON.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::tour::Failure;

/// Rounds to three digits after the point.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A figure of one value.
pub(crate) fn single(out: &mut impl Write, name: &str, unit: &str, value: f64, parameters: &Value) -> Result<(), Failure> {
    write(out, &json!({ "name": name, "value": round(value), "unit": unit, "stat": "single", "parameters": parameters }))
}

/// So many values are needed before a 95th percentile is one.
const P95_FROM: usize = 100;

/// The median of some values, their maximum, and from [`P95_FROM`] on their 95th percentile, a line each; `n` among the parameters says how many there were.
pub(crate) fn median(out: &mut impl Write, name: &str, unit: &str, values: &[f64], parameters: &Value) -> Result<(), Failure> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(median), Some(max)) = (sorted.get(sorted.len() / 2), sorted.last()) else {
        return Err(Failure::new(format!("at least one measurement of {name}"), "none"));
    };
    let mut parameters = parameters.clone();
    if let Some(parameters) = parameters.as_object_mut() {
        parameters.insert("n".to_owned(), sorted.len().into());
    }
    let p95 = sorted.get(sorted.len() * 95 / 100).filter(|_| sorted.len() >= P95_FROM).map(|value| ("p95", value));
    for (stat, value) in [("median", median), ("max", max)].into_iter().chain(p95) {
        write(out, &json!({ "name": name, "value": round(*value), "unit": unit, "stat": stat, "parameters": parameters }))?;
    }
    Ok(())
}

/// Milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn write(out: &mut impl Write, line: &Value) -> Result<(), Failure> {
    writeln!(out, "{line}").map_err(|error| Failure::new("the figures can be written", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_with_its_maximum() {
        let mut out = Vec::new();
        median(&mut out, "x", "ms", &[3.0, 1.0, 2.00049], &json!({ "nodes": 5 })).unwrap();
        let lines: Vec<Value> = serde_json::Deserializer::from_slice(&out).into_iter().map(Result::unwrap).collect();
        let line = |stat, value| json!({ "name": "x", "value": value, "unit": "ms", "stat": stat, "parameters": { "nodes": 5, "n": 3 } });
        assert_eq!(lines, [line("median", 2.0), line("max", 3.0)]);
        assert!(median(&mut out, "x", "ms", &[], &json!({})).is_err());

        let (many, mut out): (Vec<f64>, _) = ((0..100_u8).map(f64::from).collect(), Vec::new());
        median(&mut out, "x", "ms", &many, &json!({})).unwrap();
        let last = String::from_utf8(out).unwrap().lines().last().map(ToOwned::to_owned);
        assert!(last.is_some_and(|line| line.contains("p95") && line.contains("95.0")));
    }
}
