//! `edit`, with scripts for editors.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fake::{Fake, Run, command, run};
use crate::world::app;

/// An editor that is a shell script: `$1` is the file, `$N` counts the calls from 1 on. Every file it was given is kept.
struct Editor {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Editor {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("editor");
        let kept = folder.path().join("seen");
        let text = format!("#!/bin/sh\nset -e\necho x >>{0}.count\nN=$(wc -l <{0}.count)\ncp \"$1\" {0}.$N\n{script}\n", kept.display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { folder, program }
    }

    fn edit(&self, fake: &Fake, arguments: &[&str]) -> Run {
        let mut command = command(&["edit", "--server", &fake.url()]);
        run(command.args(arguments).env_remove("VISUAL").env("EDITOR", &self.program).env("TMPDIR", self.folder.path()))
    }

    /// What it was given at the Nth call.
    fn saw(&self, n: usize) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("seen.{n}"))).unwrap_or_default()
    }

    /// Manifests that are left.
    fn left(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension() == Some(Path::new("a.yaml").extension().unwrap())).collect()
    }
}

fn web() -> Fake {
    Fake::new().on("GET /v1/apps/web", 200, &app("web", "Spread", Value::Null))
}

fn sent(fake: &Fake) -> Value {
    let seen = fake.seen();
    let apply = seen.iter().find(|seen| seen.request == "POST /v1/apply").unwrap();
    serde_json::from_str(&apply.body).unwrap()
}

#[test]
fn what_was_saved_is_applied_on_the_revision_that_was_read() {
    let fake = web().on("POST /v1/apply", 200, &json!({"results": [{"name": "web", "outcome": "configured"}]}));
    let editor = Editor::new("sed -i s,/usr/lib/clusterctl/demo,/bin/other, \"$1\"");
    editor.edit(&fake, &["app", "web"]).prints("app/web configured\n");
    assert!(editor.saw(1).starts_with("# | app/web.") && !editor.saw(1).contains("status"), "{}", editor.saw(1));
    let request = sent(&fake);
    assert_eq!(request["apps"][0]["spec"]["exec"]["command"], json!(["/bin/other"]));
    assert_eq!(request["apps"][0]["metadata"]["resourceVersion"], 7);
    assert_eq!(editor.left(), Vec::<PathBuf>::new(), "nothing is left where all went well");
}

#[test]
fn nothing_changed_or_nothing_left_cancels() {
    for script in ["true", ": >\"$1\"", "echo '# | a word' >>\"$1\""] {
        let fake = web();
        let editor = Editor::new(script);
        let run = editor.edit(&fake, &["app/web"]);
        assert_eq!((run.code, run.err.as_str()), (0, "Edit cancelled, nothing changed.\n"), "{script}");
        assert!(!fake.requests().contains(&"POST /v1/apply".to_owned()) && editor.left().is_empty(), "{script}");
    }
}

#[test]
fn what_is_not_valid_is_opened_again_with_its_place() {
    let fake = web().on("POST /v1/apply", 200, &json!({"results": [{"name": "web", "outcome": "configured"}]}));
    let editor = Editor::new(
        "if [ $N = 1 ]; then sed -i s/Spread/Spreadd/ \"$1\"; else sed -i 's/Spreadd/Replicas/' \"$1\"; echo '  replicas: 2' >>\"$1\"; fi",
    );
    editor.edit(&fake, &["app", "web"]).prints("app/web configured\n");
    let again = editor.saw(2);
    assert!(again.contains("# | ") && again.contains("Spreadd") && again.contains("below these lines, line "), "{again}");
    assert_eq!(sent(&fake)["apps"][0]["spec"]["replicas"], 2);

    // Saved again as it was: enough of it, and the text stays.
    let stubborn = Editor::new("sed -i 's/Spread$/Spreadd/' \"$1\"");
    let run = stubborn.edit(&web(), &["app", "web"]);
    assert!(run.code == 2 && run.err.contains("nothing was written") && run.err.contains("what was edited is in"), "{run:?}");
    assert!(std::fs::read_to_string(&stubborn.left()[0]).unwrap().contains("Spreadd"));

    let renaming = Editor::new("sed -i 's/name: web/name: other/' \"$1\"");
    let run = renaming.edit(&web(), &["app", "web"]);
    assert!(run.code == 2 && run.err.contains("the name is web and stays so"), "{run:?}");
}

#[test]
fn a_refusal_keeps_what_was_written() {
    let fake = web().refuse("POST /v1/apply", 409, "conflict", "App web has revision 8, not 7 that this write stands on");
    let editor = Editor::new("sed -i s,/usr/lib/clusterctl/demo,/bin/other, \"$1\"");
    let run = editor.edit(&fake, &["app", "web"]);
    assert!(run.code == 1 && run.err.contains("revision 8, not 7") && run.err.contains("what was edited is in"), "{run:?}");
    assert!(std::fs::read_to_string(&editor.left()[0]).unwrap().contains("/bin/other"));
}

#[test]
fn an_editor_that_fails_changes_nothing() {
    let editor = Editor::new("exit 3");
    let run = editor.edit(&web(), &["app", "web"]);
    assert!(run.code == 2 && run.err.contains("nothing was written"), "{run:?}");
    let fake = web();
    let none = run_with("/nowhere/editor -x", &fake);
    assert!(none.code == 2 && none.err.contains("cannot run the editor /nowhere/editor"), "{none:?}");
    for arguments in [&["edit", "app"][..], &["edit", "app", "a", "b"], &["edit", "node", "n1"]] {
        assert_eq!(fake.run(arguments).code, 2, "{arguments:?}");
    }
}

fn run_with(editor: &str, fake: &Fake) -> Run {
    run(command(&["edit", "app", "web", "--server", &fake.url()]).env("VISUAL", editor))
}
