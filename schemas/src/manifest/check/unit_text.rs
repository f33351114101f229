//! The text of a unit file: enough of systemd's syntax to tell what would not load as a service.

use super::super::rule::Rule;
use super::super::text::{count, quote};

/// Longest text of a unit, in bytes.
pub(super) const UNIT_BYTES_MAX: usize = 64 << 10;

/// What is wrong with a unit's text.
pub(super) struct UnitProblem {
    pub(super) rule: Rule,
    /// The line of the text, from 1, where one line is to blame.
    pub(super) line: Option<u32>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Everything that is wrong with `content`.
pub(super) fn check(content: &str) -> Vec<UnitProblem> {
    let one = |rule, message: String, hint: &str| {
        vec![UnitProblem { rule, line: None, message, hint: (!hint.is_empty()).then(|| hint.to_owned()) }]
    };
    if content.trim().is_empty() {
        return one(Rule::UnitContent, "the text of the unit is empty".to_owned(), "leave `content` out to run an installed unit");
    }
    if content.len() > UNIT_BYTES_MAX {
        let message = format!("{} here, and at most {UNIT_BYTES_MAX} are allowed", count(content.len(), "byte"));
        return one(Rule::TooLong, message, "");
    }
    if let Some(bad) = content.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        return one(Rule::ControlCharacter, format!("the character {} cannot stand in a unit", quote(&bad.to_string())), "");
    }
    let mut problems = Vec::new();
    let mut section = None;
    let mut has_service = false;
    // systemd's own words: an empty assignment takes back the earlier ones.
    let (mut commands, mut kind, mut kind_line, mut remain) = (0_usize, "", None, "");
    for (number, line) in logical_lines(content) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name);
            has_service |= name == "Service";
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            let message = format!("{} in line {number} of the unit is neither a section nor an assignment", quote(line));
            problems.push(UnitProblem {
                rule: Rule::UnitContent,
                line: Some(number),
                message,
                hint: Some("write `Name=value`, or `#` before a comment".to_owned()),
            });
            continue;
        };
        if section.is_none() {
            let message = format!("{} in line {number} of the unit stands before any section", quote(line));
            problems.push(UnitProblem {
                rule: Rule::UnitContent,
                line: Some(number),
                message,
                hint: Some("begin with `[Service]` or `[Unit]`".to_owned()),
            });
            section = Some("");
        }
        if section == Some("Service") {
            let value = value.trim();
            match key.trim() {
                "ExecStart" if value.is_empty() => commands = 0,
                "ExecStart" => commands += 1,
                "Type" => (kind, kind_line) = (value, Some(number)),
                "RemainAfterExit" => remain = value,
                _ => {}
            }
        }
    }
    if !has_service {
        problems.push(UnitProblem {
            rule: Rule::UnitContent,
            line: None,
            message: "the unit has no section `[Service]`".to_owned(),
            hint: Some("add `[Service]` and `ExecStart=` with the program".to_owned()),
        });
    } else if commands == 0 {
        problems.push(UnitProblem {
            rule: Rule::UnitContent,
            line: None,
            message: "the section `[Service]` has no `ExecStart=`".to_owned(),
            hint: Some("add `ExecStart=` with the program".to_owned()),
        });
    }
    if kind == "oneshot" && !matches!(remain, "yes" | "true" | "on" | "1") {
        problems.push(UnitProblem {
            rule: Rule::UnitOneshot,
            line: kind_line,
            message: "a oneshot unit is over as soon as its command ends, and would be started again for ever".to_owned(),
            hint: Some("add `RemainAfterExit=yes`, or choose another `Type=`".to_owned()),
        });
    }
    problems
}

/// Lines with their numbers (from 1), blank ones and comments left out. Of a line that `\` continues, the first part stands for all:
/// the rules look at names and at whether there is a value.
fn logical_lines(content: &str) -> impl Iterator<Item = (u32, &str)> {
    let mut continued = false;
    (1..).zip(content.lines()).filter_map(move |(n, line)| {
        let line = line.trim();
        // systemd takes comments out before it joins lines.
        if line.starts_with('#') || line.starts_with(';') {
            return None;
        }
        let inner = std::mem::replace(&mut continued, line.ends_with('\\'));
        (!inner && !line.is_empty()).then_some((n, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(content: &str) -> Vec<Rule> {
        check(content).iter().map(|problem| problem.rule).collect()
    }

    #[test]
    fn good_units_pass() {
        for good in [
            "[Service]\nExecStart=/bin/sleep 1\n",
            "# comment\n; comment\n[Unit]\nDescription=x\n\n[Service]\nType = oneshot\nRemainAfterExit = yes\nExecStart = /bin/a \\\n  --flag \\\n# between\n  more\n[X-Ours]\nA=b",
            "[Service]\nExecStart=\nExecStart=/bin/a",
        ] {
            assert_eq!(rules(good), [], "{good}");
        }
    }

    #[test]
    fn what_would_not_load_is_said() {
        assert_eq!(rules(" \n"), [Rule::UnitContent]);
        assert_eq!(rules("[Unit]\nDescription=x"), [Rule::UnitContent]);
        assert_eq!(rules("[Service]\nExecStart=/bin/a\nExecStart="), [Rule::UnitContent]);
        assert_eq!(rules("ExecStart=/bin/a"), [Rule::UnitContent, Rule::UnitContent]);
        assert_eq!(rules("[Service]\nExecStart=/bin/a\nrestart always"), [Rule::UnitContent]);
        assert_eq!(rules("[Service]\nType=oneshot\nExecStart=/bin/a"), [Rule::UnitOneshot]);
        assert_eq!(rules("[Install]\nWantedBy=x\nExecStart=/bin/a"), [Rule::UnitContent]);
        assert_eq!(rules("[Service]\nExecStart=/bin/a\0"), [Rule::ControlCharacter]);
        assert_eq!(rules(&"#".repeat(UNIT_BYTES_MAX + 1)), [Rule::TooLong]);
    }
}
