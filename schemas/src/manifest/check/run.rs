//! What runs: a unit or a command.

use std::collections::BTreeMap;

use super::super::problem::{Problem, Side, join};
use super::super::rule::Rule;
use super::super::text::{did_you_mean, guess, list, quote};
use super::{Checker, unit_text};
use crate::app::{ExecSpec, LIMIT_NAMES, UnitSpec};
use crate::placeholder::{self, Piece, Placeholder, PlaceholderError};

/// Most arguments of a command, the program included.
pub(super) const COMMAND_ITEMS_MAX: usize = 256;
/// Most variables of an environment.
pub(super) const ENVIRONMENT_ITEMS_MAX: usize = 256;
/// Longest command or environment, all its texts together, in bytes.
pub(super) const EXEC_BYTES_MAX: usize = 32 << 10;
/// Longest name of a unit, in bytes: systemd's own limit.
pub(super) const UNIT_NAME_BYTES_MAX: usize = 255;

/// Types of units that systemd has beside services.
pub(crate) const OTHER_UNITS: [&str; 10] =
    [".socket", ".timer", ".mount", ".automount", ".swap", ".target", ".path", ".slice", ".scope", ".device"];

/// Services that a machine needs to be reached, to log in, or to carry the cluster: stopping one on a standby would break the node.
/// Names that end in `*` stand for all that begin so.
pub(crate) const RESERVED_UNITS: [&str; 22] = [
    "clusterctl-*",
    "systemd-*",
    "dbus",
    "dbus-broker",
    "cluster-agent",
    "cluster-guard",
    "cluster-controller",
    "nats-server",
    "nats",
    "ssh",
    "sshd",
    "getty@*",
    "serial-getty@*",
    "user@*",
    "user-runtime-dir@*",
    "networking",
    "NetworkManager",
    "polkit",
    "emergency",
    "rescue",
    "init",
    "ifup@*",
];

impl Checker<'_> {
    pub(super) fn run(&mut self) {
        let spec = &self.app.spec;
        match (&spec.unit, &spec.exec) {
            (None, None) if self.sound("/spec/unit") && self.sound("/spec/exec") => {
                let hint = "add `unit: {name: nginx}` for an installed unit, or `exec: {command: [/usr/bin/myapp]}`".to_owned();
                self.value("/spec/exec", Rule::NothingRuns, "nothing runs: there is neither `unit` nor `exec`", hint);
            }
            (Some(_), Some(_)) => {
                self.key("/spec/exec", Rule::TwoRun, "an App has either `unit` or `exec`, not both", "leave one of them out".to_owned());
            }
            _ => {}
        }
        if let Some(unit) = &spec.unit {
            self.unit(unit);
        }
        if let Some(exec) = &spec.exec {
            self.exec(exec);
        }
    }

    fn unit(&mut self, unit: &UnitSpec) {
        self.unit_name(unit);
        if let Some(content) = &unit.content {
            for problem in unit_text::check(content) {
                let (pointer, side) = ("/spec/unit/content".to_owned(), Side::Value);
                let unit_text::UnitProblem { rule, line, message, hint } = problem;
                self.add(Problem { pointer, side, mark: None, line, rule, message, hint });
            }
        }
    }

    fn unit_name(&mut self, unit: &UnitSpec) {
        const AT: &str = "/spec/unit/name";
        let (name, full) = (unit.name.as_str(), unit.full_name());
        let stem = full.strip_suffix(".service").unwrap_or(&full);
        if let Some(other) = OTHER_UNITS.iter().find(|suffix| name.ends_with(*suffix)) {
            let message = format!("{} is no service: only services can be run, not {} units", quote(name), quote(&other[1..]));
            return self.value(AT, Rule::UnitName, message, None);
        }
        if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || ":-_.\\@".contains(*c))) {
            let hint = "letters, digits and `:-_.\\@`; systemd-escape(1) writes the rest".to_owned();
            let message = format!("{} cannot stand in the name of a unit", quote(&bad.to_string()));
            return self.value(AT, Rule::UnitName, message, hint);
        }
        if full.len() > UNIT_NAME_BYTES_MAX {
            let message = format!("the name of a unit has at most {UNIT_NAME_BYTES_MAX} characters, this one has {}", full.len());
            return self.value(AT, Rule::UnitName, message, None);
        }
        match stem.split_once('@') {
            Some((template, "")) if !template.is_empty() => {
                let message = format!("{} is a template, and a template does not run", quote(name));
                return self.value(
                    AT,
                    Rule::UnitName,
                    message,
                    format!("name an instance, such as {}", quote(&format!("{template}@main.service"))),
                );
            }
            Some(("", _)) => return self.value(AT, Rule::UnitName, format!("{} has nothing before the `@`", quote(name)), None),
            None if stem.is_empty() => return self.value(AT, Rule::UnitName, "the unit has no name", "such as `nginx`".to_owned()),
            _ => {}
        }
        if stem.starts_with("clusterctl-") {
            let message = format!("{} is a name for units that clusterctl writes itself", quote(name));
            return self.value(AT, Rule::UnitReserved, message, "choose a name that does not begin with `clusterctl-`".to_owned());
        }
        let reserved = |word: &str| word.strip_suffix('*').map_or(stem == word, |start| stem.starts_with(start));
        if RESERVED_UNITS.into_iter().any(reserved) {
            let message = format!("{} belongs to the machine: started and stopped by the cluster, it could cut the node off", quote(name));
            self.value(AT, Rule::UnitReserved, message, None);
        }
    }

    fn exec(&mut self, exec: &ExecSpec) {
        const COMMAND: &str = "/spec/exec/command";
        self.command(COMMAND, &exec.command);
        self.environment("/spec/exec/environment", &exec.environment);
        self.account("/spec/exec/user", "user", exec.user.as_deref());
        self.account("/spec/exec/group", "group", exec.group.as_deref());
        if let Some(directory) = &exec.working_directory
            && self.path("/spec/exec/workingDirectory", Rule::WorkingDirectory, directory)
            && directory.ends_with(|c: char| c == '\\' || c.is_whitespace())
        {
            let message = format!("{} ends with a backslash or white space, which systemd does not take", quote(directory));
            self.value("/spec/exec/workingDirectory", Rule::WorkingDirectory, message, None);
        }
        self.limits(exec);
    }

    /// A program with its arguments.
    pub(super) fn command(&mut self, at: &str, command: &[String]) {
        match command.first() {
            None => {
                let hint = "the first item is the program: `[/usr/bin/myapp]`".to_owned();
                self.value(at, Rule::CommandEmpty, "the command is empty", hint);
            }
            Some(program) if !program.starts_with('/') => {
                let message = format!("{} is not the absolute path of a program", quote(program));
                let hint = if program.contains(' ') && command.len() == 1 {
                    let words = program.split_whitespace().collect::<Vec<_>>().join(", ");
                    format!("there is no shell: write {}", quote(&format!("[{words}]")))
                } else {
                    "the path begins with `/`; no PATH is searched".to_owned()
                };
                self.value(&format!("{at}/0"), Rule::CommandPath, message, hint);
            }
            Some(program)
                if program.ends_with('/') || program.contains(['"', '\'', '\\']) || program.split('/').any(|part| part == "..") =>
            {
                let message = format!("{} is no path that systemd executes", quote(program));
                let hint = "no quotes, no backslashes, no `..`, no `/` at the end".to_owned();
                self.value(&format!("{at}/0"), Rule::CommandPath, message, hint);
            }
            Some(_) => {}
        }
        self.at_most(at, command.len(), COMMAND_ITEMS_MAX, "argument");
        self.at_most(at, command.iter().map(String::len).sum(), EXEC_BYTES_MAX, "byte");
        for (n, argument) in command.iter().enumerate() {
            self.exec_text(&format!("{at}/{n}"), argument);
        }
    }

    pub(super) fn environment(&mut self, at: &str, environment: &BTreeMap<String, String>) {
        self.at_most(at, environment.len(), ENVIRONMENT_ITEMS_MAX, "variable");
        self.at_most(at, environment.iter().map(|(k, v)| k.len() + v.len()).sum(), EXEC_BYTES_MAX, "byte");
        for (name, value) in environment {
            let pointer = join(at, name);
            let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                let hint = "letters, digits and `_`, the first no digit".to_owned();
                self.key(&pointer, Rule::EnvironmentName, format!("{} is no name of a variable", quote(name)), hint);
            }
            self.exec_text(&pointer, value);
        }
    }

    /// A text that stands in the unit and may have placeholders.
    fn exec_text(&mut self, pointer: &str, text: &str) {
        if self.control(pointer, text) {
            return;
        }
        let names = || Placeholder::ALL.into_iter().map(Placeholder::as_str);
        match placeholder::split(text) {
            Ok(pieces) => {
                let database = pieces.contains(&Piece::Placeholder(Placeholder::DatabasePath));
                if database && self.app.spec.database.is_none() && self.sound("/spec/database") {
                    let hint = "add `database: {path: /data/app.db}`, or write `$${` for a plain `${`".to_owned();
                    self.value(pointer, Rule::PlaceholderDatabase, "`${database.path}` needs a `database`, and this App has none", hint);
                }
            }
            Err(error) => {
                let hint = match &error {
                    PlaceholderError::Unknown(name) => guess(name, names())
                        .map(|meant| format!("did you mean {}?", quote(&format!("${{{meant}}}"))))
                        .unwrap_or_else(|| format!("there are {}; write `$${{` for a plain `${{`", list(names(), "and"))),
                    _ => "write `$${` for a plain `${`".to_owned(),
                };
                let message = match &error {
                    PlaceholderError::Unknown(name) => format!("there is no placeholder {}", quote(&format!("${{{name}}}"))),
                    other => other.to_string(),
                };
                self.value(pointer, Rule::Placeholder, message, hint);
            }
        }
    }

    /// A name that useradd(8) and systemd take, or a number.
    pub(super) fn account(&mut self, pointer: &str, noun: &str, given: Option<&str>) {
        let Some(given) = given else { return };
        let number = given.parse::<u32>().is_ok_and(|n| n < u32::MAX && n.to_string() == given);
        let first = given.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = given.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !(number || (first && rest && given.len() <= 31)) {
            let hint = "a letter or `_`, then letters, digits, `_` and `-`, at most 31; or a number".to_owned();
            self.value(pointer, Rule::Account, format!("{} is no name of a {noun}", quote(given)), hint);
        }
    }

    fn limits(&mut self, exec: &ExecSpec) {
        for (name, value) in &exec.limits {
            let pointer = join("/spec/exec/limits", name);
            if !LIMIT_NAMES.contains(&name.as_str()) {
                let hint = did_you_mean(name, LIMIT_NAMES).unwrap_or_else(|| format!("there are {}", list(LIMIT_NAMES, "and")));
                self.key(&pointer, Rule::LimitName, format!("there is no limit {}", quote(name)), hint);
            }
            // The value of a misspelt limit is checked as that of the one it was meant to be.
            let meant = guess(name, LIMIT_NAMES).unwrap_or(name);
            if LIMIT_NAMES.contains(&meant)
                && let Some(right) = wrong_limit(meant, value)
            {
                let message = format!("{} is no value of `{meant}`", quote(value));
                self.value(&pointer, Rule::LimitValue, message, format!("write {right}"));
            }
        }
    }
}

/// What a limit takes, if `value` is something else. Named as in systemd.resource-control(5) and systemd.exec(5).
fn wrong_limit(name: &str, value: &str) -> Option<&'static str> {
    let number = |text: &str| {
        (!text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<u64>().ok()).flatten()
    };
    let sized = |text: &str| number(text.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(text)).is_some();
    let percent = |text: &str, most: u64| text.strip_suffix('%').and_then(number).is_some_and(|n| (1..=most).contains(&n));
    // A soft and a hard limit, or one for both.
    let pair = |one: &dyn Fn(&str) -> bool| value.splitn(2, ':').all(|part| part == "infinity" || one(part));
    let (fits, right) = match name {
        "CPUQuota" => (percent(value, 1_000_000), "a percentage of one CPU, such as `150%`"),
        "CPUWeight" | "IOWeight" => (number(value).is_some_and(|n| (1..=10_000).contains(&n)), "a number from 1 to 10000"),
        "MemoryHigh" | "MemoryMax" | "MemorySwapMax" => {
            (value == "infinity" || percent(value, 100) || sized(value), "bytes, such as `512M`, a percentage, or `infinity`")
        }
        "TasksMax" => (value == "infinity" || percent(value, 100) || number(value).is_some(), "a number, a percentage, or `infinity`"),
        "LimitCORE" | "LimitMEMLOCK" => (pair(&sized), "bytes, such as `64M`, `infinity`, or `SOFT:HARD`"),
        "LimitNOFILE" | "LimitNPROC" => (pair(&|text| number(text).is_some()), "a number, such as `65536`, `infinity`, or `SOFT:HARD`"),
        "Nice" => {
            let digits = value.strip_prefix('-').unwrap_or(value);
            (number(digits).is_some_and(|n| n <= if value.starts_with('-') { 20 } else { 19 }), "a number from -20 to 19")
        }
        _ => (false, "one of the limits that are known"),
    };
    (!fits).then_some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_takes_its_values_and_no_line_of_its_own() {
        let good = [
            ("CPUQuota", "150%"),
            ("CPUWeight", "10000"),
            ("IOWeight", "1"),
            ("LimitCORE", "0"),
            ("LimitMEMLOCK", "64M:infinity"),
            ("LimitNOFILE", "1024:65536"),
            ("LimitNPROC", "infinity"),
            ("MemoryHigh", "50%"),
            ("MemoryMax", "512M"),
            ("MemorySwapMax", "0"),
            ("Nice", "-20"),
            ("TasksMax", "100"),
        ];
        assert_eq!(good.map(|(name, _)| name), LIMIT_NAMES, "every limit has an example here");
        for (name, value) in good {
            assert_eq!(wrong_limit(name, value), None, "{name}={value}");
            for bad in ["", "x", "1 2", "1\nExecStart=/bin/false", "+1", "0x10", "1.5", "%", ":", "1:2:3", "99999999999999999999"] {
                assert!(wrong_limit(name, bad).is_some(), "{name}={bad:?}");
            }
        }
        for (name, value) in
            [("Nice", "20"), ("Nice", "-21"), ("CPUQuota", "0%"), ("CPUWeight", "0"), ("MemoryMax", "101%"), ("TasksMax", "1K")]
        {
            assert!(wrong_limit(name, value).is_some(), "{name}={value}");
        }
    }
}
