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
pub(super) fn single(out: &mut impl Write, name: &str, unit: &str, value: f64, parameters: &Value) -> Result<(), Failure> {
    write(out, &json!({ "name": name, "value": round(value), "unit": unit, "parameters": parameters }))
}

/// The median of some values, with the least and the greatest.
pub(super) fn median(out: &mut impl Write, name: &str, unit: &str, values: &[f64], parameters: &Value) -> Result<(), Failure> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(median), Some(min), Some(max)) = (sorted.get(sorted.len() / 2), sorted.first(), sorted.last()) else {
        return Err(Failure::new(format!("at least one measurement of {name}"), "none"));
    };
    let stat = format!("median of {}", sorted.len());
    let (value, min, max) = (round(*median), round(*min), round(*max));
    write(out, &json!({ "name": name, "value": value, "unit": unit, "stat": stat, "min": min, "max": max, "parameters": parameters }))
}

/// Milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn write(out: &mut impl Write, line: &Value) -> Result<(), Failure> {
    writeln!(out, "{line}").map_err(|error| Failure::new("the figures can be written", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_with_its_extremes() {
        let mut out = Vec::new();
        median(&mut out, "x", "ms", &[3.0, 1.0, 2.00049], &json!({ "n": 1 })).unwrap();
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((line["value"].as_f64(), line["min"].as_f64(), line["max"].as_f64()), (Some(2.0), Some(1.0), Some(3.0)));
        assert!(median(&mut out, "x", "ms", &[], &json!({})).is_err());
    }
}
