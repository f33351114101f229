//! Text of the unit files that the agent writes. Pure: no disk, no systemd.
//!
//! A command is an argument array and stays one: each argument reaches the program byte for byte, whatever quotes, dollar or percent
//! signs it has. `ExecStart=:` switches systemd's own `$` expansion off, so only quoting (systemd.syntax(7)) and `%` specifiers are
//! left to escape.

use std::collections::BTreeMap;

use cluster_schemas::app::{ExecSpec, LIMIT_NAMES};
use cluster_schemas::name::{NAME_MAX, check_name};

use crate::local::{SOCKET, SOCKET_VARIABLE};

/// What the mark, the first line of every unit file we write, begins with. The App's name follows, then [`MARK_END`].
const MARK_BEGIN: &str = "# Written by clusterctl for App ";
/// What the mark ends with.
const MARK_END: &str = ": changes made here are lost.";
/// Longest line that can be the mark, in bytes.
pub const MARK_MAX: usize = MARK_BEGIN.len() + NAME_MAX + MARK_END.len();
/// Longest unit text, in bytes.
pub const UNIT_TEXT_MAX: usize = 256 * 1024;
/// Longest single argument or value after substitution, in bytes: what Linux takes as one argument (`MAX_ARG_STRLEN`).
const VALUE_MAX: usize = 128 * 1024 - 1;
/// Longest value of a limit, in bytes.
const LIMIT_VALUE_MAX: usize = 64;

/// Why an `exec` cannot be written as a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The App's name is not one.
    #[error("App name {0:?} is not a name")]
    App(String),
    /// There is no program to run.
    #[error("the command is empty")]
    NoCommand,
    /// systemd takes no such program.
    #[error("program {program:?}: {reason}")]
    Program {
        /// The program.
        program: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A placeholder has no value on this node.
    #[error("{0} has no value here")]
    NoValue(&'static str),
    /// A value cannot be handed to a program or to systemd.
    #[error("{field}: {reason}")]
    Value {
        /// Where it stands.
        field: String,
        /// The rule it breaks.
        reason: &'static str,
    },
}

/// What the agent fills in.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// Name of this node.
    pub node: &'a str,
    /// For `${node.address}`: this node's address, without prefix length.
    pub node_address: Option<&'a str>,
    /// For `${database.path}`: path of the App's database file.
    pub database_path: Option<&'a str>,
    /// Folder that holds the App's role file and partitions file, normally `/run/clusterctl/APP`.
    pub app_runtime_dir: &'a str,
}

/// Name of the role file in the App's runtime folder.
pub const ROLE_FILE: &str = "role.json";
/// Name of the partitions file in the App's runtime folder.
pub const PARTITIONS_FILE: &str = "partitions.json";

/// The text with the mark of `app` as its first line, as [`Units::install`](super::Units::install) wants it.
#[must_use]
pub fn owned(app: &str, content: &str) -> String {
    let newline = if content.ends_with('\n') { "" } else { "\n" };
    format!("{MARK_BEGIN}{app}{MARK_END}\n{content}{newline}")
}

/// The App that a unit file was written for; `None` if it does not carry our mark.
#[must_use]
pub fn owner(text: &str) -> Option<&str> {
    let app = text.lines().next()?.strip_prefix(MARK_BEGIN)?.strip_suffix(MARK_END)?;
    check_name(app).is_ok().then_some(app)
}

/// Text of the unit that runs the command of App `app`, mark included. Equal input gives equal text.
///
/// The program learns who it is from `CLUSTERCTL_APP`, `CLUSTERCTL_NODE`, `CLUSTERCTL_ROLE_FILE`, `CLUSTERCTL_PARTITIONS_FILE` and
/// `CLUSTERCTL_SOCKET`, which win over the App's own environment. A reload sends SIGHUP to the main process: one that does not handle it ends, as programs do.
/// The unit is not started at boot: only the agent starts it.
///
/// # Errors
/// What of the command cannot be written as a unit; see [`TextError`].
pub fn exec_unit(app: &str, exec: &ExecSpec, values: &Values<'_>) -> Result<String, TextError> {
    check_name(app).map_err(|_| TextError::App(app.to_owned()))?;
    let mut text = String::from("[Unit]\n");
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key}={value}\n"));
    line("Description", &format!("clusterctl App {app}"));
    // A program that keeps failing is left failed after five tries in a minute: the agent goes on from there, with its own pauses.
    line("StartLimitIntervalSec", "60s");
    line("StartLimitBurst", "5");

    text.push_str("\n[Service]\n");
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key}={value}\n"));
    // `exec`: the start is through only when the program executes, so a program that is missing fails the start.
    line("Type", "exec");
    line("ExecStart", &exec_start(exec, values)?);
    line("ExecReload", "/bin/kill -HUP $MAINPID");
    for (name, value) in environment(app, Some(&exec.environment), values)? {
        line("Environment", &quote(&format!("{name}={}", specifiers(&value))));
    }
    if let Some(user) = &exec.user {
        line("User", check_account("user", user)?);
    }
    if let Some(group) = &exec.group {
        line("Group", check_account("group", group)?);
    }
    if let Some(folder) = &exec.working_directory {
        line("WorkingDirectory", &specifiers(check_folder(folder)?));
    }
    line("Restart", "on-failure");
    line("RestartSec", "1s");
    line("TimeoutStopSec", "10s");
    for (name, value) in &exec.limits {
        line(name, check_limit(name, value)?);
    }
    Ok(owned(app, &text))
}

/// Arguments and environment of a command that the agent itself runs for App `app`, with everything filled in: the environment of the
/// App's own command, and ours.
///
/// # Errors
/// What of it cannot be handed to a program; see [`TextError`].
pub fn process(app: &str, command: &[String], exec: Option<&ExecSpec>, values: &Values<'_>) -> Result<Process, TextError> {
    let arguments = |(index, argument): (usize, &String)| {
        substitute(argument, values).and_then(|value| check_value(&format!("command[{index}]"), value))
    };
    let command = command.iter().enumerate().map(arguments).collect::<Result<Vec<_>, _>>()?;
    check_program(command.first().ok_or(TextError::NoCommand)?)?;
    let own = exec.map(|exec| &exec.environment);
    Ok((command, environment(app, own, values)?))
}

/// Arguments and environment.
pub type Process = (Vec<String>, Vec<(String, String)>);

fn exec_start(exec: &ExecSpec, values: &Values<'_>) -> Result<String, TextError> {
    let mut arguments = Vec::with_capacity(exec.command.len());
    for (index, argument) in exec.command.iter().enumerate() {
        arguments.push(substitute(argument, values).and_then(|value| check_value(&format!("command[{index}]"), value))?);
    }
    let program = arguments.first().ok_or(TextError::NoCommand)?;
    check_program(program)?;
    let mut words = Vec::with_capacity(arguments.len());
    // The colon (no `$` expansion) belongs to the first word; systemd looks for it after unquoting.
    words.push(word(&format!(":{program}")));
    words.extend(arguments.iter().skip(1).map(|argument| word(argument)));
    let line = words.join(" ");
    if line.len() > UNIT_TEXT_MAX / 2 {
        return Err(TextError::Value { field: "command".to_owned(), reason: "is too long" });
    }
    Ok(line)
}

/// The App's environment with ours behind it: the later one of two equal names wins.
fn environment(app: &str, own: Option<&BTreeMap<String, String>>, values: &Values<'_>) -> Result<Vec<(String, String)>, TextError> {
    let mut all = Vec::new();
    let mut total = 0;
    for (name, value) in own.into_iter().flatten() {
        let field = format!("environment {name}");
        let good = name.chars().enumerate().all(|(at, c)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()));
        if !good || name.is_empty() {
            return Err(TextError::Value { field, reason: "a name has only letters, digits and '_', no digit first" });
        }
        let value = substitute(value, values).and_then(|value| check_value(&field, value))?;
        if value.chars().any(|c| c.is_ascii_control() && c != '\t' && c != '\n') {
            return Err(TextError::Value { field, reason: "systemd takes no control characters but tab and newline" });
        }
        total += name.len() + value.len();
        all.push((name.clone(), value));
    }
    if total > UNIT_TEXT_MAX / 4 {
        return Err(TextError::Value { field: "environment".to_owned(), reason: "is too long" });
    }
    let folder = values.app_runtime_dir;
    all.push(("CLUSTERCTL_APP".to_owned(), app.to_owned()));
    all.push(("CLUSTERCTL_NODE".to_owned(), values.node.to_owned()));
    all.push(("CLUSTERCTL_ROLE_FILE".to_owned(), format!("{folder}/{ROLE_FILE}")));
    all.push(("CLUSTERCTL_PARTITIONS_FILE".to_owned(), format!("{folder}/{PARTITIONS_FILE}")));
    all.push((SOCKET_VARIABLE.to_owned(), socket(folder)));
    Ok(all)
}

/// Path of the local API's socket, which is beside the App's runtime folder.
pub(super) fn socket(app_runtime_dir: &str) -> String {
    let (folder, _) = app_runtime_dir.rsplit_once('/').unwrap_or((".", ""));
    format!("{folder}/{SOCKET}")
}

/// Fills in the placeholders, in one pass: a value that looks like a placeholder stays as it is, and so does `${` with any other name.
/// `$${` is a plain `${`, as [`cluster_schemas::placeholder`] says.
pub(super) fn substitute(text: &str, values: &Values<'_>) -> Result<String, TextError> {
    let known = [("${database.path}", values.database_path), ("${node.address}", values.node_address)];
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((placeholder, value)) = known.iter().find(|(placeholder, _)| rest.starts_with(placeholder)) {
            filled.push_str(value.ok_or(TextError::NoValue(placeholder))?);
            rest = &rest[placeholder.len()..];
        } else {
            filled.push_str("${");
            rest = &rest[2..];
        }
        // A short text with many placeholders must not grow without bound.
        if filled.len() > VALUE_MAX {
            return Err(TextError::Value { field: "a value".to_owned(), reason: "is too long" });
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

pub(super) fn check_value(field: &str, value: String) -> Result<String, TextError> {
    let reason = if value.contains('\0') {
        "has a NUL character"
    } else if value.len() > VALUE_MAX {
        "is too long"
    } else {
        return Ok(value);
    };
    Err(TextError::Value { field: field.to_owned(), reason })
}

/// systemd's rules for what it executes (`string_is_safe`, no trailing slash), and an absolute path.
fn check_program(program: &str) -> Result<(), TextError> {
    let reason = if !program.starts_with('/') {
        "needs an absolute path"
    } else if program.ends_with('/') {
        "is a folder"
    } else if program.split('/').any(|part| part == "..") {
        "must not have '..'"
    } else if program.len() > 4095 {
        "is too long"
    } else if program.chars().any(|c| c.is_ascii_control() || matches!(c, '"' | '\'' | '\\')) {
        "systemd takes no quotes, backslashes or control characters here"
    } else {
        return Ok(());
    };
    Err(TextError::Program { program: program.to_owned(), reason })
}

pub(super) fn check_account<'a>(field: &str, name: &'a str) -> Result<&'a str, TextError> {
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if first && rest && name.len() <= 31 {
        return Ok(name);
    }
    Err(TextError::Value { field: field.to_owned(), reason: "is no account name: letters, digits, '_', '-' and '.', at most 31" })
}

/// Paths of directories are not unquoted by systemd: they are the rest of the line, without white space at its ends.
fn check_folder(folder: &str) -> Result<&str, TextError> {
    let reason = if !folder.starts_with('/') {
        "needs an absolute path"
    } else if folder.chars().any(char::is_control) || folder.ends_with(|c: char| c == '\\' || c.is_whitespace()) {
        "systemd takes no control characters, and no backslash or white space at the end"
    } else if folder.len() > 4095 {
        "is too long"
    } else {
        return Ok(folder);
    };
    Err(TextError::Value { field: "workingDirectory".to_owned(), reason })
}

fn check_limit<'a>(name: &str, value: &'a str) -> Result<&'a str, TextError> {
    let reason = if !LIMIT_NAMES.contains(&name) {
        "is not one of the limits that may be set"
    } else if value.is_empty() || value.len() > LIMIT_VALUE_MAX {
        "is empty or too long"
    } else if !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '%' | '-' | '+')) {
        "has characters that no limit has"
    } else {
        return Ok(value);
    };
    Err(TextError::Value { field: format!("limits {name}"), reason })
}

/// One word of a command line: `%` doubled, and in quotes unless it has only harmless characters.
fn word(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | ',' | ':' | '=' | '@' | '+' | '-' | '_' | '%');
    let escaped = specifiers(text);
    if !text.is_empty() && text.chars().all(harmless) { escaped } else { quote(&escaped) }
}

/// Doubles `%`, which begins a specifier.
fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

/// Puts a word in double quotes, with C escapes for what cannot stand there as it is.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
