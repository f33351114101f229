//! Whole sessions of the command line, as somebody sees them: one folder each in `tests/sessions`, with the files that they use and the text
//! `session`. A line `$ clusterctl ...` is typed, what follows is what is printed: stderr with `! ` before it, `[CODE]` where it does not end
//! well. `$? clusterctl ...` is typed again until it prints that (when anew, too: what is new takes its time). Times, revisions and the like stand as `<age>`, `<n>`; columns are two
//! spaces apart. `UPDATE_GOLDEN=1` writes them anew: read what changed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

use crate::world::{Dev, LIMIT, clusterctl, poll, repository};

/// Fewer would mean that they were not found.
const SESSIONS_MIN: usize = 40;

struct Redactions(Vec<(Regex, &'static str)>);

impl Redactions {
    fn new() -> Self {
        let rules = [
            (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
            (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<time>"),
            (r"http://127\.0\.0\.1:\d+", "<server>"),
            (r"\b127\.\d+\.\d+\.\d+(/\d+)?\b", "<ip>"),
            (r#"(resourceVersion"?: |epoch:? |revision |not )\d+"#, "${1}<n>"),
            (r"\b\d+([smhd])(\d+[smh])?\b", "<age>"),
            (r"\b\d+(\.\d+)? ms\b", "<ms>"),
            // The widths of columns follow what stands in them.
            (r" {2,}(\S)", "  ${1}"),
        ];
        Self(rules.into_iter().map(|(pattern, by)| (Regex::new(pattern).expect("a pattern"), by)).collect())
    }

    /// Leading spaces stay: they are the shape of YAML.
    fn apply(&self, line: &str) -> String {
        let body = line.trim_start_matches(' ');
        let body = self.0.iter().fold(body.trim_end().to_owned(), |text, (pattern, by)| pattern.replace_all(&text, *by).into_owned());
        format!("{}{body}", &line[..line.len() - line.trim_start_matches(' ').len()])
    }
}

/// Words as a shell has them, with single quotes only.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(!quoted, "a quote is open: {line}");
    words.extend(word);
    words
}

fn typed(line: &str, folder: &Path, dev: &Dev, redactions: &Redactions) -> String {
    let words = words(line);
    let (program, arguments) = words.split_first().expect("a command");
    assert_eq!(program, "clusterctl", "{line}");
    let mut command = Command::new(clusterctl());
    command.args(arguments).env("CLUSTERCTL_SERVERS", &dev.servers).env("HOME", "/nowhere").current_dir(folder).stdin(Stdio::null());
    let output = command.output().expect("clusterctl runs");
    let mut text = String::new();
    for (mark, bytes) in [("", &output.stdout), ("! ", &output.stderr)] {
        for line in String::from_utf8_lossy(bytes).lines() {
            // Which of them is seen depends on who is quicker.
            if line.starts_with("app/") && line.contains(": waiting for ") {
                continue;
            }
            text.push_str(format!("{mark}{}", redactions.apply(line)).trim_end());
            text.push('\n');
        }
    }
    match output.status.code() {
        Some(0) => text,
        code => format!("{text}[{}]\n", code.map_or_else(|| "signal".to_owned(), |code| code.to_string())),
    }
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copied(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copied file");
        }
    }
}

/// The text with what is printed now.
fn played(folder: &Path, text: &str, dev: &Dev, redactions: &Redactions) -> String {
    let mut told = String::new();
    // Before the first command stands what the session is about.
    let mut parts = text.split("\n$");
    told.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (line, wanted) = part.split_once('\n').unwrap_or((part, ""));
        let (again, command) = line.strip_prefix('?').map_or((false, line), |line| (true, line));
        let print = || typed(command.trim(), folder, dev, redactions);
        let wished = || Some(print()).filter(|printed| printed.trim_end() == wanted.trim_end());
        let printed = if again { poll(LIMIT, wished).unwrap_or_else(print) } else { print() };
        told.push_str(&format!("\n${line}\n{}", printed.trim_end()));
    }
    format!("{}\n", told.trim_end())
}

#[test]
fn sessions_are_as_they_are_written_down() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "3"]);
    dev.until("three voters", || (dev.says(&["get", "voters", "-o", "name"]).lines().count() == 3).then_some(()));
    let (update, redactions) = (std::env::var_os("UPDATE_GOLDEN").is_some(), Redactions::new());
    let sessions = repository().join("crates/dev/tests/sessions");
    let mut folders: Vec<_> = fs::read_dir(&sessions).expect("sessions").map(|entry| entry.expect("a folder").path()).collect();
    folders.sort();
    assert!(folders.len() >= SESSIONS_MIN, "only {} sessions", folders.len());
    let mut wrong = Vec::new();
    for folder in &folders {
        let path = folder.join("session");
        // What it writes is not for the repository.
        let copy = home.path().join(folder.file_name().expect("a name"));
        copied(folder, &copy);
        let written = fs::read_to_string(&path).expect("a session");
        let now = played(&copy, &written, &dev, &redactions);
        if update {
            fs::write(&path, &now).expect("a written session");
        } else if now != written {
            let first = written.lines().zip(now.lines()).position(|(a, b)| a != b).unwrap_or_else(|| written.lines().count());
            wrong.push(format!("{}, line {}:\n--- it says\n{now}", folder.display(), first + 1));
        }
        // What one leaves would show in the next.
        assert_eq!(dev.ok(&["get", "apps", "-o", "name"]), "", "{} leaves Apps behind", folder.display());
    }
    assert!(
        wrong.is_empty(),
        "{} of {} sessions differ (UPDATE_GOLDEN=1 writes them anew):\n{}",
        wrong.len(),
        folders.len(),
        wrong.join("\n")
    );
    println!("{} sessions", folders.len());
}

#[test]
fn what_changes_from_run_to_run_is_not_compared() {
    let redactions = Redactions::new();
    for (line, redacted) in [
        ("web    1/1     12s", "web  1/1  <age>"),
        ("  resourceVersion: 17", "  resourceVersion: <n>"),
        ("at 2026-01-02T03:04:05.6Z by 127.0.0.1", "at <time> by <ip>"),
        ("took 3.5 ms, epoch 4", "took <ms>, epoch <n>"),
    ] {
        assert_eq!(redactions.apply(line), redacted);
    }
    assert_eq!(words("clusterctl get app 'a b' -o ''"), ["clusterctl", "get", "app", "a b", "-o", ""]);
}
