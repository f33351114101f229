//! What an App asks of a node, and what a node has: processor time and memory.
//!
//! Amounts are written as Kubernetes and Nomad users write them: `500m` or `0.5` of a core, `256Mi` of memory. `M` and `G` are refused:
//! a million to Kubernetes, 1,048,576 to systemd.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const CPU_PATTERN: &str = "^([0-9]{1,7}m|[0-9]{1,4}([.][0-9]{1,3})?)$";
const MEMORY_PATTERN: &str = "^([0-9]{1,15}|[0-9]{1,6}([.][0-9]{1,3})?(Ki|Mi|Gi|Ti))$";
const ZERO_PATTERN: &str = "^[0.]+(m|Ki|Mi|Gi|Ti)?$";

/// What each instance asks of its node. It is set apart there, standbys included, so that a fail-over finds it; it limits nothing: see
/// `exec.limits` for that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Processor time: cores (`2`, `0.5`) or thousandths of one (`500m`).
    #[schemars(regex(pattern = CPU_PATTERN), extend("not" = { "type": "string", "pattern": ZERO_PATTERN }), extend("examples" = ["500m"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Memory: bytes, or with a unit of 1024 (`256Mi`, `1.5Gi`).
    #[schemars(regex(pattern = MEMORY_PATTERN), extend("not" = { "type": "string", "pattern": ZERO_PATTERN }), extend("examples" = ["256Mi"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

impl Resources {
    /// The amounts; 0 where nothing is asked for, and where a text is no amount, which the validation refuses.
    #[must_use]
    pub fn amounts(&self) -> Amounts {
        Amounts {
            cpu_millis: self.cpu.as_deref().and_then(cpu_millis).unwrap_or(0),
            memory_bytes: self.memory.as_deref().and_then(memory_bytes).unwrap_or(0),
        }
    }
}

/// Amounts of what a node has, or of what is set apart there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

impl Amounts {
    /// Whether it is nothing at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.cpu_millis == 0 && self.memory_bytes == 0
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// What is left without `other`, at least nothing.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
}

/// `cpu 500m, memory 256Mi`; what is nothing is left out.
impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = (self.cpu_millis > 0).then(|| format!("cpu {}", cpu_text(self.cpu_millis)));
        let memory = (self.memory_bytes > 0).then(|| format!("memory {}", memory_text(self.memory_bytes)));
        f.write_str(&cpu.into_iter().chain(memory).collect::<Vec<_>>().join(", "))
    }
}

/// `2` or `1500m`.
#[must_use]
pub fn cpu_text(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// The largest unit that keeps it above 1, with one digit after the point where it is not whole: `256Mi`, `3.2Gi`.
#[must_use]
pub fn memory_text(bytes: u64) -> String {
    let (unit, size) = UNITS.into_iter().rev().find(|(_, size)| bytes >= *size).unwrap_or(("", 1));
    let tenths = (u128::from(bytes) * 10 + u128::from(size) / 2) / u128::from(size);
    if tenths.is_multiple_of(10) { format!("{}{unit}", tenths / 10) } else { format!("{}.{}{unit}", tenths / 10, tenths % 10) }
}

const UNITS: [(&str, u64); 4] = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40)];

/// Thousandths of a core; `None` where `text` is no amount of processor time.
#[must_use]
pub fn cpu_millis(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(millis) => digits(millis, 7),
        None => thousandths(text, 4),
    }
}

/// Bytes, rounded up; `None` where `text` is no amount of memory.
#[must_use]
pub fn memory_bytes(text: &str) -> Option<u64> {
    let Some((number, size)) = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size))) else {
        return digits(text, 15);
    };
    let bytes = (u128::from(thousandths(number, 6)?) * u128::from(size)).div_ceil(1000);
    u64::try_from(bytes).ok()
}

fn digits(text: &str, most: usize) -> Option<u64> {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// A number with at most three digits after the point, times 1000.
fn thousandths(text: &str, most: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').map_or((text, None), |(whole, part)| (whole, Some(part)));
    let part = match part {
        None => 0,
        Some(part) => digits(part, 3)? * 10_u64.pow(3 - u32::try_from(part.len()).ok()?),
    };
    Some(digits(whole, most)? * 1000 + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_users_write_them() {
        for (text, millis) in [("500m", 500), ("2", 2000), ("0.5", 500), ("1.25", 1250), ("0.001", 1), ("9999", 9_999_000)] {
            assert_eq!(cpu_millis(text), Some(millis), "{text}");
        }
        for (text, bytes) in [("1024", 1024), ("1Ki", 1024), ("256Mi", 256 << 20), ("1.5Gi", 3 << 29), ("2Ti", 2 << 40), ("0.001Ki", 2)] {
            assert_eq!(memory_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "m", "1M", "1 Mi", "-1", "+1", "1e3", ".5", "5.", "1.2345", "1.5", "1mi", "Mi", "12345678901234567", "٣"] {
            assert_eq!(memory_bytes(bad), None, "{bad}");
        }
        for bad in ["", "m", "0.5m", "1,5", "-1", "1.2345", "12345", "100k", "1Mi"] {
            assert_eq!(cpu_millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn amounts_are_told_shortly() {
        assert_eq!([0, 500, 2000, 1500].map(cpu_text), ["0", "500m", "2", "1500m"]);
        let texts = [0, 512, 1 << 20, 3_435_973_836, 4 << 30, (4 << 30) - 1].map(memory_text);
        assert_eq!(texts, ["0", "512", "1Mi", "3.2Gi", "4Gi", "4Gi"]);
        let both = Amounts { cpu_millis: 500, memory_bytes: 1 << 30 };
        assert_eq!((both.to_string(), Amounts::default().to_string()), ("cpu 500m, memory 1Gi".to_owned(), String::new()));
    }
}
