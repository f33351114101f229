//! What shells are offered.

use std::process::Command;

use serde_json::Value;

use crate::fake::{Fake, command, run};
use crate::world::{app, list, node};

/// What the last of `words` may become, as bash asks for it.
fn offers(servers: &str, words: &[&str]) -> Vec<String> {
    let mut command = command(&["--", "clusterctl"]);
    let index = words.len().to_string();
    command.args(words).env("CLUSTERCTL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "false").env("CLUSTERCTL_SERVERS", servers);
    let answer = run(&mut command);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    answer.out.lines().map(ToOwned::to_owned).collect()
}

fn cluster() -> Fake {
    let apps = list(&[app("database", "Singleton", Value::Null), app("web", "Spread", Value::Null)]);
    let nodes = list(&[node("n1", "Ready"), node("n2", "Ready")]);
    (0..20).fold(Fake::new(), |fake, _| fake.on("GET /v1/apps?limit=1000", 200, &apps).on("GET /v1/nodes?limit=1000", 200, &nodes))
}

#[test]
fn names_of_objects_are_offered_by_kind() {
    let fake = cluster();
    let url = fake.url();
    for (words, offered) in [
        (&["get", "app", ""][..], &["database", "web"][..]),
        (&["get", "app", "database", "w"], &["web"]),
        (&["get", "node/"], &["node/n1", "node/n2"]),
        (&["delete", "app/d"], &["app/database"]),
        (&["get", "ev"], &["events"]),
        (&["describe", "ev"], &[]),
        (&["switchover", ""], &["database", "web"]),
        (&["undo", "d"], &["database"]),
        (&["db", "status", ""], &["database", "web"]),
        (&["node", "drain", ""], &["n1", "n2"]),
        (&["edit", "app", "w"], &["web"]),
    ] {
        // Flags are offered too where nothing is typed.
        let names: Vec<String> = offers(&url, words).into_iter().filter(|offer| !offer.starts_with('-')).collect();
        assert_eq!(names, offered, "{words:?}");
    }
    let kinds = offers(&url, &["get", ""]);
    assert!(["apps", "nodes", "revisions"].iter().all(|kind| kinds.iter().any(|offer| offer == kind)), "{kinds:?}");
    assert!(offers(&url, &["und"]).contains(&"undo".to_owned()));
}

#[test]
fn the_servers_of_the_line_are_asked_and_where_nobody_answers_nothing_is_offered() {
    let fake = cluster();
    let named = offers("http://127.0.0.1:1", &["--server", &fake.url(), "get", "node", "n"]);
    assert_eq!(named, ["n1", "n2"]);
    assert!(offers("http://127.0.0.1:1", &["get", "node", "n"]).is_empty());
    let stranger = Fake::new().refuse("GET /v1/nodes?limit=1000", 401, "unauthorized", "no token");
    assert!(offers(&stranger.url(), &["get", "node", "n"]).is_empty());
}

/// The script that a user sources, in a real shell.
#[test]
fn bash_takes_the_script() {
    let fake = cluster();
    let program = env!("CARGO_BIN_EXE_clusterctl");
    let folder = std::path::Path::new(program).parent().unwrap();
    let script = "source <(clusterctl completion bash)
        COMP_WORDS=(clusterctl get app d); COMP_CWORD=3; COMP_LINE='clusterctl get app d'; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
        function=$(complete -p clusterctl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function clusterctl d app; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash").args(["-c", script]).env("PATH", path).env("CLUSTERCTL_SERVERS", fake.url()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "database", "{}", String::from_utf8_lossy(&output.stderr));
    for shell in ["zsh", "fish"] {
        assert!(run(&mut command(&["completion", shell])).out.contains("CLUSTERCTL_COMPLETE"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("man1");
    assert_eq!(run(&mut command(&["man", path.to_str().unwrap()])).code, 0);
    let page = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
    for name in ["clusterctl.1", "clusterctl-get.1", "clusterctl-db-status.1", "clusterctl-undo.1"] {
        assert!(page(name).contains(".SH NAME"), "{name}");
    }
    assert!(page("clusterctl-apply.1").contains("prune"));
}
