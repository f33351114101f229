//! `config`, and what the other commands make of contexts.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::fake::{Fake, Run, command, run};
use crate::world::{database, list};

/// A user with a home of their own.
struct User {
    home: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.home.path().join(".config/clusterctl/config.yaml")
    }

    fn types(&self, arguments: &[&str]) -> Run {
        let mut command = command(arguments);
        for variable in ["CLUSTERCTL_CONFIG", "CLUSTERCTL_SERVERS", "CLUSTERCTL_CONTEXT", "CLUSTERCTL_TOKEN", "CLUSTERCTL_TOKEN_FILE"] {
            command.env_remove(variable);
        }
        run(command.env("HOME", self.home.path()).current_dir(self.home.path()))
    }
}

#[test]
fn contexts_are_made_used_and_forgotten() {
    let user = User::new();
    let (one, two) = (Fake::new().on("GET /v1/apps", 200, &list(&[database()])), Fake::new().on("GET /v1/apps", 200, &list(&[])));
    std::fs::write(user.home.path().join("token"), "secret-of-one\n").unwrap();
    assert_eq!(user.types(&["config", "get-contexts"]).err, "No contexts found.\n");
    user.types(&["config", "set-context", "one", "--server", &one.url(), "--token-file", "token"]).prints("context one created\n");
    user.types(&["config", "set-context", "two", "--server", &two.url()]).prints("context two created\n");
    assert_eq!(std::fs::metadata(user.file()).unwrap().permissions().mode() & 0o777, 0o600);
    user.types(&["config", "current-context"]).fails(2, "error: no context is the current one\nhint: clusterctl config use-context NAME\n");

    user.types(&["config", "use-context", "one"]).prints("context one is used from now on\n");
    user.types(&["config", "current-context"]).prints("one\n");
    user.types(&["get", "apps", "-o", "name"]).prints("app/database\n");
    assert_eq!(
        one.seen().last().unwrap().authorization.as_deref(),
        Some("Bearer secret-of-one"),
        "the path means the same from everywhere"
    );
    user.types(&["get", "apps", "-o", "name", "--context", "two"]).prints("");
    assert_eq!(two.seen().len(), 1);
    assert_eq!(two.seen()[0].authorization, None, "the token of one is not told to another");
    let table = user.types(&["config", "get-contexts", "--no-headers"]);
    let rows: Vec<Vec<&str>> = table.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [vec!["*", "one", &one.url()], vec!["two", &two.url()]]);

    // What is not given stays.
    user.types(&["config", "set-context", "one", "--server", "http://127.0.0.1:1"]).prints("context one changed\n");
    let view = user.types(&["config", "view"]).out;
    assert!(view.contains("http://127.0.0.1:1") && view.contains("tokenFile") && view.contains("currentContext: one"), "{view}");

    let gone = user.types(&["config", "delete-context", "one"]);
    assert_eq!((gone.out.as_str(), gone.err.as_str()), ("context one is deleted\n", "warning: it was the current one, none is now\n"));
    user.types(&["config", "use-context", "twoo"]).fails(2, "error: there is no context \"twoo\"\nhint: did you mean two?\n");
    user.types(&["get", "apps", "--context", "one"])
        .fails(2, "error: there is no context \"one\" in the configuration\nhint: clusterctl config get-contexts lists them\n");
}

#[test]
fn what_was_configured_before_contexts_goes_on_and_is_kept() {
    let user = User::new();
    let fake = Fake::new().on("GET /v1/apps", 200, &list(&[database()]));
    std::fs::create_dir_all(user.file().parent().unwrap()).unwrap();
    std::fs::write(user.file(), format!("servers: ['{}']\ntoken: a-secret\n", fake.url())).unwrap();
    user.types(&["config", "set-context", "other", "--server", "http://127.0.0.1:1"]).prints("context other created\n");
    user.types(&["get", "apps", "-o", "name"]).prints("app/database\n");
    assert_eq!(fake.seen().last().unwrap().authorization.as_deref(), Some("Bearer a-secret"));
    let view = user.types(&["config", "view"]).out;
    assert!(!view.contains("a-secret") && view.contains("REDACTED"), "{view}");
    assert!(std::fs::read_to_string(user.file()).unwrap().contains("a-secret"), "it is hidden, not lost");
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let user = User::new();
    user.types(&["config", "set-context", "good", "--server", "http://a"]).prints("context good created\n");
    let before = std::fs::read_to_string(user.file()).unwrap();
    for (arguments, why) in [
        (&["set-context", "No Name", "--server", "http://a"][..], "cannot be a name"),
        (&["set-context", "x", "--server", "ftp://a"], "neither http nor https"),
        (&["set-context", "x", "--cert-file", "a"], "--key-file"),
        (&["delete-context", "x"], "there is no context"),
    ] {
        let run = user.types(&[&["config"], arguments].concat());
        assert!(run.code == 2 && run.err.contains(why), "{arguments:?}: {run:?}");
    }
    assert_eq!(std::fs::read_to_string(user.file()).unwrap(), before);
    std::fs::write(user.file(), "contexts: { a: { server: [x] } }\n").unwrap();
    let wrong = user.types(&["config", "view"]);
    assert!(wrong.code == 2 && wrong.err.contains("config.yaml:1:"), "{wrong:?}");
}
