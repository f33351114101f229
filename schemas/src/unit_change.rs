//! What a changed unit text asks for: pure.
//!
//! Most settings shape the process, so a change needs a restart. Some are only ever read by systemd itself, at the next stop, reload or
//! crash, from what it loaded last: a running process need not be interrupted for them.

use std::collections::BTreeMap;

/// Settings of `[Service]` that systemd reads when it needs them, not when it starts the process.
const READ_LATER: [&str; 19] = [
    "ExecReload",
    "ExecStop",
    "ExecStopPost",
    "FinalKillSignal",
    "KillMode",
    "KillSignal",
    "Restart",
    "RestartForceExitStatus",
    "RestartKillSignal",
    "RestartMaxDelaySec",
    "RestartPreventExitStatus",
    "RestartSec",
    "RestartSteps",
    "SendSIGHUP",
    "SendSIGKILL",
    "SuccessExitStatus",
    "TimeoutAbortSec",
    "TimeoutStartSec",
    "TimeoutStopSec",
];

/// Whether a process that was started with `old` has to be restarted to run as `new` says. False for comments, white space, `[Unit]` and
/// `[Install]`, and for what systemd reads from the newest text anyway. When in doubt it is true.
#[must_use]
pub fn needs_restart(old: &str, new: &str) -> bool {
    shaping(old) != shaping(new)
}

/// The settings that shape the process: by section and key, the values in order, since most lists depend on it.
fn shaping(text: &str) -> BTreeMap<(String, String), Vec<String>> {
    let mut settings: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut section = String::new();
    for line in logical_lines(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((&line, ""));
        let key = key.trim_end();
        let read_later = section == "Service" && READ_LATER.contains(&key);
        let about_others = matches!(section.as_str(), "Unit" | "Install") || section.starts_with("X-") || key.starts_with("X-");
        if !read_later && !about_others {
            settings.entry((section.clone(), key.to_owned())).or_default().push(value.trim_start().to_owned());
        }
    }
    settings
}

/// Lines as systemd counts them (systemd.syntax(7)): a backslash at the end joins, with a space; comments within are left out.
#[must_use]
pub fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with('#') || trimmed.starts_with(';') {
            continue;
        }
        let mut whole = open.take().map_or_else(String::new, |begun| begun + " ");
        if let Some(continued) = line.strip_suffix('\\') {
            whole.push_str(continued);
            open = Some(whole);
            continue;
        }
        whole.push_str(line);
        lines.push(whole.trim().to_owned());
    }
    lines.extend(open.map(|line| line.trim().to_owned()));
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[Unit]\nDescription=a\n[Service]\nExecStart=/bin/a -x \\\n  -y\nEnvironment=A=1\nEnvironment=B=2\nRestart=no\n";

    #[test]
    fn what_the_process_does_not_see_needs_no_restart() {
        for (from, to) in [
            ("Description=a", "Description=b\nAfter=b.service\nStartLimitBurst=7"),
            ("Restart=no", "Restart=always\nRestartSec=1s\nTimeoutStopSec=3s\nExecReload=/bin/kill -HUP $MAINPID\nKillMode=mixed"),
            ("[Service]", "# a comment\n\n; another\n[Service]  "),
            ("Restart=no", "Restart = no"),
            ("Restart=no\n", "Restart=no\n[Install]\nWantedBy=multi-user.target\n[X-Ours]\nA=b\n"),
            ("-x \\\n  -y", "-x \\\n# between\n  -y"),
        ] {
            let changed = TEXT.replace(from, to);
            assert!(changed != TEXT && !needs_restart(TEXT, &changed), "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn everything_else_needs_one() {
        for (from, to) in [
            ("-y", "-z"),
            ("Environment=B=2", ""),
            ("Environment=A=1\nEnvironment=B=2", "Environment=B=2\nEnvironment=A=1"),
            ("Restart=no", "User=nobody"),
            ("Restart=no", "MemoryMax=1G"),
            ("Restart=no", "ExecStartPre=/bin/true"),
            ("[Service]", "[Service]\nExecStart="),
            ("Restart=no", "SomethingNew=yes"),
            // In the wrong section it means nothing; better once too often.
            ("Restart=no\n", "[Other]\nRestart=no\n"),
        ] {
            let changed = TEXT.replace(from, to);
            assert!(changed != TEXT && needs_restart(TEXT, &changed), "{from:?} -> {to:?}");
        }
    }
}
