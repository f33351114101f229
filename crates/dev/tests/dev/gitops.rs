//! docs/gitops.md, done: the page's own script, run from a checkout, for each state of a repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::world::{Dev, clusterctl, repository};

struct Checkout<'d> {
    folder: PathBuf,
    script: PathBuf,
    dev: &'d Dev,
}

impl<'d> Checkout<'d> {
    fn new(home: &Path, dev: &'d Dev) -> Self {
        let page = fs::read_to_string(repository().join("docs/gitops.md")).expect("the page");
        let (_, rest) = page.split_once("```bash\n").expect("a script in the page");
        let (text, _) = rest.split_once("```").expect("its end");
        let script = home.join("pipeline");
        fs::write(&script, text).expect("a written script");
        let checkout = Self { folder: home.join("checkout"), script, dev };
        fs::create_dir_all(checkout.folder.join("apps")).expect("a folder");
        checkout.git(&["init", "--quiet", "--initial-branch", "main"]);
        checkout
    }

    fn git(&self, arguments: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
        let output = Command::new("git").args(identity).args(arguments).current_dir(&self.folder).output().expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn app(&self, name: &str, replicas: u32) {
        let text = format!(
            "apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: {name} }}\nspec:\n  mode: Replicas\n  replicas: {replicas}\n  exec: {{ command: [/bin/sleep, \"3600\"] }}\n"
        );
        fs::write(self.folder.join(format!("apps/{name}.yaml")), text).expect("a written manifest");
    }

    fn commit(&self, why: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", why]);
    }

    /// The pipeline for the state that is checked out: exit code, stdout, stderr.
    fn run(&self) -> (i32, String, String) {
        let path = format!("{}:{}", clusterctl().parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command
            .arg(&self.script)
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("CLUSTERCTL_SERVERS", &self.dev.servers)
            .stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().expect("bash runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (status.code().expect("an exit code"), text(&stdout), text(&stderr))
    }

    #[track_caller]
    fn well(&self) -> String {
        let (code, out, err) = self.run();
        assert_eq!(code, 0, "{out}\n{err}");
        out
    }

    fn names(&self) -> String {
        self.dev.ok(&["get", "apps", "-o", "name"])
    }

    fn replicas(&self, app: &str) -> Option<u64> {
        self.dev.app(app)["spec"]["replicas"].as_u64()
    }
}

#[test]
fn a_pipeline_follows_its_repository() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "3"]);
    dev.apply_shell("stranger", "Spread", "exec sleep 3600");
    let checkout = Checkout::new(home.path(), &dev);

    // A push.
    for app in ["a", "b", "c", "d", "e"] {
        checkout.app(app, 1);
    }
    checkout.commit("five");
    let out = checkout.well();
    assert!(out.contains("app/a created\n") && out.contains("a starts clusterctl-a.service"), "{out}");
    assert!(dev.is_ready("e").is_some(), "--wait waited for all of them");
    let again = checkout.well();
    assert!(again.contains("app/a unchanged\n") && !again.contains("created"), "no noise: {again}");

    // A merge, which changes one App on as many nodes as the plan says.
    checkout.git(&["checkout", "--quiet", "-b", "more"]);
    checkout.app("a", 3);
    checkout.commit("more of a");
    checkout.git(&["checkout", "--quiet", "main"]);
    checkout.git(&["merge", "--quiet", "--no-ff", "--message", "merge", "more"]);
    let out = checkout.well();
    assert!(out.contains("  spec.replicas: 1 -> 3\n") && out.matches("a starts clusterctl-a.service").count() == 2, "{out}");
    assert!(out.contains("0 created, 1 changed, 0 deleted, 4 unchanged\n") && out.contains("app/a configured\n"), "{out}");
    assert_eq!(checkout.replicas("a"), Some(3));
    let sets = dev.ok(&["get", "sets"]);
    assert!(sets.contains("shop") && sets.contains("a,b,c,d,e"), "{sets}");

    // A plan that is kept, and a world that goes on: it is refused, and writes nothing.
    let kept = home.path().join("plan.json").to_string_lossy().into_owned();
    let apps = checkout.folder.join("apps").to_string_lossy().into_owned();
    checkout.app("b", 2);
    let output = dev.run(&["diff", "-f", &apps, "--set", "shop", "--prune", "--save", &kept]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    checkout.app("b", 3);
    dev.ok(&["apply", "-f", &format!("{apps}/b.yaml")]);
    let output = dev.run(&["apply", "--plan", &kept]);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && err.contains("changed since: b"), "{err}");
    assert_eq!(checkout.replicas("b"), Some(3));
    let settled = || {
        // What runs changes for a moment after an apply, and with it the plan.
        dev.run(&["diff", "-f", &apps, "--set", "shop", "--save", &kept]);
        dev.run(&["apply", "--plan", &kept]).status.success().then_some(())
    };
    checkout.app("b", 2);
    dev.until("a plan that holds", settled);
    assert_eq!(checkout.replicas("b"), Some(2));
    checkout.git(&["checkout", "--quiet", "--", "apps"]);

    // A revert.
    checkout.git(&["revert", "--no-edit", "--mainline", "1", "HEAD"]);
    let out = checkout.well();
    assert!(out.contains("  spec.replicas: 3 -> 1\n"), "{out}");
    assert_eq!(checkout.replicas("a"), Some(1));

    // A bad commit beside a good change: nothing of it is applied.
    let bad = fs::read_to_string(checkout.folder.join("apps/c.yaml")).expect("a manifest").replace("Replicas", "Replikas");
    fs::write(checkout.folder.join("apps/c.yaml"), bad).expect("a written manifest");
    checkout.app("d", 2);
    checkout.commit("bad");
    let (code, _, err) = checkout.run();
    assert!(code == 2 && err.contains("apps/c.yaml:5:9"), "{code}: {err}");
    assert_eq!(checkout.replicas("d"), Some(1));
    checkout.git(&["revert", "--no-edit", "HEAD"]);

    // A mass deletion is stopped, that of one App is not, and nobody else's App is touched by either.
    checkout.git(&["rm", "--quiet", "apps/b.yaml", "apps/c.yaml", "apps/d.yaml"]);
    checkout.commit("three gone");
    let (code, _, err) = checkout.run();
    assert!(
        code == 1 && err.contains("3 of the 5 Apps of the set \"shop\" would be deleted (b, c, d), and at most 1 may be"),
        "{code}: {err}"
    );
    assert_eq!(checkout.names().lines().count(), 6);
    checkout.git(&["revert", "--no-edit", "HEAD"]);
    checkout.git(&["rm", "--quiet", "apps/c.yaml"]);
    checkout.commit("one gone");
    let out = checkout.well();
    assert!(out.contains("app/c deleted\n"), "{out}");
    assert_eq!(checkout.names(), "app/a\napp/b\napp/d\napp/e\napp/stranger\n");

    // Another set that names an App of this one is refused until it takes it over.
    let other = ["apply", "-f", &format!("{apps}/e.yaml"), "--set", "other"].map(ToOwned::to_owned);
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    let output = dev.run(&other);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && err.contains("App \"e\" belongs to the set \"shop\""), "{err}");
    let taken: Vec<&str> = other.iter().copied().chain(["--take-over"]).collect();
    assert_eq!(dev.ok(&taken), "app/e configured\n");
    assert_eq!(dev.ok(&["get", "sets", "-o", "name"]), "set/other\nset/shop\n");
}

/// Two who read the same revision and write: one is told, and nothing of the other is lost.
#[test]
fn of_two_writers_one_gets_a_conflict() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "1"]);
    dev.apply_shell("app", "Spread", "exec sleep 3600");
    let read = dev.ok(&["get", "app", "app", "-o", "json"]);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut app: serde_json::Value = serde_json::from_str(&read).expect("JSON");
            app["metadata"]["labels"] = serde_json::json!({ "writer": writer.to_string() });
            let path = home.path().join(format!("{writer}.json"));
            fs::write(&path, app.to_string()).expect("a written manifest");
            let mut command = Command::new(clusterctl());
            command.args(["apply", "-f", &path.to_string_lossy()]).env("CLUSTERCTL_SERVERS", &dev.servers);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("clusterctl runs")
        })
        .collect();
    let outputs: Vec<Output> = writers.into_iter().map(|writer| writer.wait_with_output().expect("its end")).collect();
    let won: Vec<usize> = (0..4).filter(|writer| outputs[*writer].status.success()).collect();
    assert_eq!(won.len(), 1, "{outputs:?}");
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && (err.contains("revision") || err.contains("somebody else wrote")), "{err}");
    }
    let label = won[0].to_string();
    dev.until("the label of the one that won", || (dev.app("app")["metadata"]["labels"]["writer"] == label.as_str()).then_some(()));
}

#[test]
fn an_app_is_put_back_as_it_was() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "1"]);
    let runs = |script: &str| {
        let app = dev.app("app");
        let command = &app["spec"]["exec"]["command"];
        assert!(command.to_string().contains(script), "{command} is not {script}");
    };
    dev.apply_shell("app", "Spread", "exec sleep 3601");
    assert_eq!(dev.run(&["undo", "app"]).status.code(), Some(2), "there is nothing before the first write");
    dev.apply_shell("app", "Spread", "exec sleep 3602");
    let dry = dev.ok(&["undo", "app", "--dry-run"]);
    assert!(dry.contains("3601"), "{dry}");
    runs("3602");
    assert_eq!(dev.ok(&["undo", "app"]), "app/app configured\n");
    runs("3601");
    dev.ok(&["undo", "app/app", "--to-revision", "2"]);
    runs("3602");

    dev.ok(&["delete", "app", "app"]);
    assert_eq!(dev.ok(&["undo", "app"]), "app/app created\n");
    runs("3602");
    let changes = || dev.ok(&["get", "revisions", "app", "-o", "jsonpath={.items[*].change}"]);
    dev.until("six revisions", || (changes() == "created changed changed changed deleted created").then_some(()));
    let gone = dev.run(&["undo", "app"]);
    let err = String::from_utf8_lossy(&gone.stderr);
    assert!(gone.status.code() == Some(2) && err.contains("nothing to go back to"), "{err}");
    dev.until("the audit", || dev.ok(&["get", "audit", "app/app", "-o", "wide"]).contains("DELETE /v1/apps/app").then_some(()));
}
