//! Unit text: golden, read back by an independent reading of systemd.syntax(7), and read by systemd itself.
#![expect(clippy::expect_used, clippy::panic, reason = "a text that cannot be read back fails the test")]

use std::collections::BTreeMap;
use std::process::Command;

use cluster_agent::drivers::unit_text::{TextError, Values, exec_unit, owned, owner};
use cluster_schemas::app::{ExecSpec, LIMIT_NAMES};
use proptest::prelude::*;

fn values<'a>() -> Values<'a> {
    Values { node: "n1", node_address: Some("10.0.0.1"), database_path: Some("/data/app.db"), app_runtime_dir: "/run/clusterctl/api" }
}

fn exec(command: &[&str]) -> ExecSpec {
    ExecSpec {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        environment: BTreeMap::new(),
        user: None,
        group: None,
        working_directory: None,
        limits: BTreeMap::new(),
    }
}

/// All values of a setting, in order.
fn settings<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The words of a line after unquoting and specifiers, by systemd.syntax(7), QUOTING, and systemd.unit(5), SPECIFIERS. None if the line
/// is not well-formed, or if a word uses anything that means more than itself.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Some(words);
        }
        let ahead: String = rest.clone().take(2).collect();
        if ahead.trim_end() == ";" {
            // Begins a second command.
            return None;
        }
        let mut bytes = Vec::new();
        let mut quote = None;
        while let Some(c) = rest.next_if(|c| quote.is_some() || !c.is_ascii_whitespace()) {
            match c {
                '"' | '\'' if quote.is_none() => quote = Some(c),
                _ if quote == Some(c) => quote = None,
                '\\' => {
                    let number = |digits: String, radix| u8::from_str_radix(&digits, radix).ok();
                    match rest.next()? {
                        'a' => bytes.push(7),
                        'b' => bytes.push(8),
                        't' => bytes.push(9),
                        'n' => bytes.push(10),
                        'v' => bytes.push(11),
                        'f' => bytes.push(12),
                        'r' => bytes.push(13),
                        's' => bytes.push(32),
                        literal @ ('\\' | '"' | '\'') => bytes.push(literal as u8),
                        'x' => bytes.push(number(rest.by_ref().take(2).collect(), 16)?),
                        _ => return None,
                    }
                }
                _ => bytes.extend(c.to_string().bytes()),
            }
        }
        if quote.is_some() {
            return None;
        }
        words.push(without_specifiers(&String::from_utf8(bytes).ok()?)?);
    }
}

fn without_specifiers(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        plain.push(c);
        if c == '%' && rest.next()? != '%' {
            return None;
        }
    }
    Some(plain)
}

/// The arguments that systemd would hand over.
fn argv(text: &str) -> Vec<String> {
    let [line] = settings(text, "ExecStart")[..] else { panic!("not one ExecStart: {text}") };
    let mut words = words(line).unwrap_or_else(|| panic!("not well-formed: {line}"));
    // With the colon `$` has no meaning; any other prefix would.
    words[0] = words[0].strip_prefix(':').expect("the colon").to_owned();
    assert!(words[0].starts_with('/'), "{line}");
    words
}

fn environment(text: &str) -> BTreeMap<String, String> {
    let assignments = settings(text, "Environment").into_iter().flat_map(|line| words(line).expect("well-formed"));
    assignments.map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).expect("NAME=value")).collect()
}

#[test]
fn the_unit_of_an_exec_reads_as_expected() {
    let mut exec = exec(&["/usr/lib/clusterctl/demo", "--db", "${database.path}", "--listen=${node.address}:80", "50% of $HOME"]);
    exec.environment = BTreeMap::from([("GREETING".to_owned(), "good day".to_owned())]);
    exec.user = Some("www-data".to_owned());
    exec.group = Some("adm".to_owned());
    exec.working_directory = Some("/var/lib/my app".to_owned());
    exec.limits = BTreeMap::from([("MemoryMax".to_owned(), "512M".to_owned()), ("CPUQuota".to_owned(), "50%".to_owned())]);
    let text = exec_unit("api", &exec, &values()).unwrap();
    let expected = r#"# Written by clusterctl for App api: changes made here are lost.
[Unit]
Description=clusterctl App api
StartLimitIntervalSec=60s
StartLimitBurst=5

[Service]
Type=exec
ExecStart=:/usr/lib/clusterctl/demo --db /data/app.db --listen=10.0.0.1:80 "50%% of $HOME"
ExecReload=/bin/kill -HUP $MAINPID
Environment="GREETING=good day"
Environment="CLUSTERCTL_APP=api"
Environment="CLUSTERCTL_NODE=n1"
Environment="CLUSTERCTL_ROLE_FILE=/run/clusterctl/api/role.json"
Environment="CLUSTERCTL_PARTITIONS_FILE=/run/clusterctl/api/partitions.json"
Environment="CLUSTERCTL_SOCKET=/run/clusterctl/local.sock"
User=www-data
Group=adm
WorkingDirectory=/var/lib/my app
Restart=on-failure
RestartSec=1s
TimeoutStopSec=10s
CPUQuota=50%
MemoryMax=512M
"#;
    assert_eq!(text, expected);
    assert_eq!(owner(&text), Some("api"));
}

#[test]
fn systemd_itself_finds_nothing_to_complain_about() {
    let mut exec =
        exec(&["/bin/echo", "", ";", "a b", "%h $HOME ${HOME} $$ %%", "'single' \"double\" back\\slash\\", "é\t\n\u{1}\r", "@-:+!"]);
    exec.environment = BTreeMap::from([("A_1".to_owned(), "x\ty\nz %n $A \\ \" '".to_owned())]);
    exec.user = Some("root".to_owned());
    exec.group = Some("root".to_owned());
    exec.working_directory = Some("/a b/100%/it's\\x".to_owned());
    let limit = |name: &&str| {
        let value = match *name {
            "CPUQuota" => "150%",
            "CPUWeight" | "IOWeight" => "100",
            "LimitNOFILE" => "1024:4096",
            "MemoryHigh" => "50%",
            "MemorySwapMax" => "infinity",
            "Nice" => "-5",
            "LimitNPROC" | "TasksMax" => "100",
            _ => "512M",
        };
        ((*name).to_owned(), value.to_owned())
    };
    exec.limits = LIMIT_NAMES.iter().map(limit).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clusterctl-api.service");
    let complaints = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output =
            Command::new("systemd-analyze").arg("verify").arg(&path).output().expect("the program systemd-analyze (package systemd)");
        // It says what it ignores and succeeds nevertheless.
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let text = exec_unit("api", &exec, &values()).unwrap();
    assert_eq!(complaints(&text), "", "{text}");
    let broken = text.replace("Restart=on-failure", "Restart=perhaps");
    assert!(complaints(&broken).contains("perhaps"), "the check does not see mistakes");
}

#[test]
fn what_cannot_be_written_is_refused() {
    let refused = |change: &dyn Fn(&mut ExecSpec)| {
        let mut spec = exec(&["/bin/true"]);
        change(&mut spec);
        exec_unit("api", &spec, &values()).unwrap_err().to_string()
    };
    let environment = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let cases: Vec<(String, &str)> = vec![
        (refused(&|e| e.command.clear()), "the command is empty"),
        (refused(&|e| e.command[0] = "true".into()), "needs an absolute path"),
        (refused(&|e| e.command[0] = "/bin/".into()), "is a folder"),
        (refused(&|e| e.command[0] = "/bin/../x".into()), "'..'"),
        (refused(&|e| e.command[0] = "/bin/a\"b".into()), "quotes"),
        (refused(&|e| e.command.push("a\0b".into())), "command[1]: has a NUL"),
        (refused(&|e| e.command.push("x".repeat(200_000))), "command[1]: is too long"),
        (refused(&|e| e.command.push("${node.address}".repeat(20_000))), "too long"),
        (refused(&|e| e.environment = environment("1A", "x")), "environment 1A"),
        (refused(&|e| e.environment = environment("", "x")), "a name has only"),
        (refused(&|e| e.environment = environment("A\nUser", "x")), "a name has only"),
        (refused(&|e| e.environment = environment("A", "\u{7}")), "control characters"),
        (refused(&|e| e.user = Some("root\nExecStart=/bin/sh".into())), "user"),
        (refused(&|e| e.group = Some("-x".into())), "group"),
        (refused(&|e| e.working_directory = Some("tmp".into())), "workingDirectory"),
        (refused(&|e| e.working_directory = Some("/tmp\nUser=root".into())), "workingDirectory"),
        (refused(&|e| e.working_directory = Some("/tmp\\".into())), "workingDirectory"),
        (refused(&|e| e.limits = environment("ExecStart", "/bin/sh")), "limits ExecStart"),
        (refused(&|e| e.limits = environment("MemoryMax", "1\nUser=root")), "limits MemoryMax"),
        (refused(&|e| e.limits = environment("MemoryMax", "")), "limits MemoryMax"),
    ];
    for (number, (message, part)) in cases.iter().enumerate() {
        assert!(message.contains(part), "case {number}: {message:?} has no {part:?}");
    }
    assert!(matches!(exec_unit("Not A Name", &exec(&["/bin/true"]), &values()), Err(TextError::App(_))));
    let nothing = Values { node_address: None, database_path: None, ..values() };
    assert_eq!(exec_unit("api", &exec(&["/bin/echo", "${database.path}"]), &nothing), Err(TextError::NoValue("${database.path}")));
}

#[test]
fn values_are_filled_in_once_and_other_placeholders_stay() {
    let text = exec_unit("api", &exec(&["/bin/echo", "$${database.path} $$${node.address}"]), &values()).unwrap();
    assert_eq!(argv(&text), ["/bin/echo", "${database.path} $${node.address}"], "escaped, as the validation reads it");
    let odd = Values { database_path: Some("/data/${node.address}"), ..values() };
    let text = exec_unit("api", &exec(&["/bin/echo", "${database.path}${database.path}", "${HOME} ${ $ {}"]), &odd).unwrap();
    assert_eq!(argv(&text), ["/bin/echo", "/data/${node.address}/data/${node.address}", "${HOME} ${ $ {}"]);
}

#[test]
fn our_environment_wins_over_the_apps() {
    let mut spec = exec(&["/bin/true"]);
    spec.environment = BTreeMap::from([("CLUSTERCTL_NODE".to_owned(), "n9".to_owned())]);
    assert_eq!(environment(&exec_unit("api", &spec, &values()).unwrap())["CLUSTERCTL_NODE"], "n1");
}

#[test]
fn the_mark_names_its_app_and_nothing_else_passes_for_it() {
    assert_eq!(owner(&owned("api", "[Service]")), Some("api"));
    assert!(owned("api", "[Service]").ends_with("[Service]\n"));
    assert_eq!(owned("api", "[Service]\n"), owned("api", "[Service]"));
    for foreign in ["", "[Unit]\n", "# Written by clusterctl", "# Written by clusterctl for App A B: changes made here are lost.\n"] {
        assert_eq!(owner(foreign), None, "{foreign:?}");
    }
    let second = format!("\n{}", owned("api", ""));
    assert_eq!(owner(&second), None, "only the first line counts");
}

fn argument() -> impl Strategy<Value = String> {
    let nasty = prop::sample::select(vec![
        "$", "$$", "${", "}", "%", "%%", "%h", "\"", "'", "\\", "\\x41", ";", " ", "\t", "\n", "\r", "#", "é", "\u{85}", "\u{2028}", "@",
        "-", ":", "+", "!", "|", "=", "a", "Z", "0", "\u{1}", "\u{7f}", "🦀",
    ]);
    prop_oneof![prop::collection::vec(nasty, 0..8).prop_map(|parts| parts.concat()), "[^\0]{0,20}"]
        // The placeholders are tested by themselves.
        .prop_filter("no placeholder and no escape", |text| {
            !text.contains("${node.address}") && !text.contains("${database.path}") && !text.contains("$${")
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_argument_arrives_byte_for_byte(
        program in "(/[a-zA-Z0-9$% ;@:é._-]{0,6}[a-zA-Z0-9$%;:é_-]){1,3}",
        arguments in prop::collection::vec(argument(), 0..6),
    ) {
        let command: Vec<String> = std::iter::once(program).chain(arguments).collect();
        let spec = ExecSpec { command: command.clone(), ..exec(&[]) };
        let text = exec_unit("api", &spec, &values()).unwrap();
        prop_assert_eq!(argv(&text), command);
        // Nothing broke out of its line.
        prop_assert_eq!(text.lines().count(), 18, "{}", text);
        prop_assert!(text.lines().all(|line| !line.ends_with('\\')));
    }

    #[test]
    fn every_variable_arrives_byte_for_byte(value in argument()) {
        let spec = ExecSpec { environment: BTreeMap::from([("A".to_owned(), value.clone())]), ..exec(&["/bin/true"]) };
        let takes = !value.chars().any(|c| c.is_ascii_control() && c != '\t' && c != '\n');
        match exec_unit("api", &spec, &values()) {
            Ok(text) => {
                prop_assert!(takes);
                prop_assert_eq!(&environment(&text)["A"], &value);
            }
            Err(error) => prop_assert!(!takes, "{}", error),
        }
    }
}
