//! `wait`.

use serde_json::{Value, json};

use crate::fake::{Fake, clusterctl};
use crate::world::{app, list, node, status};

fn db(ready: &str) -> Value {
    app("db", "Singleton", status("1/1", &[], &[("Ready", ready, "Starting", "n1 starts")]))
}

#[test]
fn what_does_not_exist_yet_is_waited_for() {
    let fake = Fake::new().refuse("GET /v1/apps/db", 404, "not-found", "there is no App db").on("GET /v1/apps/db", 200, &db("False")).on(
        "GET /v1/apps/db",
        200,
        &db("True"),
    );
    fake.run(&["wait", "--for=condition=Ready", "app/db"]).prints("app/db condition met\n");
    assert_eq!(fake.requests().len(), 3);
}

#[test]
fn a_time_out_is_code_four_and_says_what_was_seen() {
    let mut older = db("True");
    older["metadata"]["generation"] = json!(2);
    let fake = Fake::new().on("GET /v1/apps/db", 200, &older).on("GET /v1/nodes/n2", 200, &node("n2", "Ready"));
    let run = fake.run(&["wait", "--for=condition=Ready", "app/db", "node/n2", "app/nothing", "--timeout", "0s"]);
    assert_eq!((run.code, run.out.as_str()), (4, "node/n2 condition met\n"));
    assert_eq!(
        run.err,
        "error: app/db is not as wanted after 0 s: the status is about generation 1, 2 is stored\n\
         error: app/nothing is not as wanted after 0 s: it does not exist yet\n"
    );
    assert_eq!(clusterctl("http://127.0.0.1:1", &["wait", "--for=delete", "app/db", "--timeout", "0s"]).code, 3);
}

#[test]
fn gone_is_what_is_not_found_twice_and_all_of_none_is_waited_for() {
    let fake = Fake::new().on("GET /v1/apps/db", 200, &db("True")).refuse("GET /v1/apps/db", 404, "not-found", "no");
    fake.run(&["wait", "--for=delete", "app/db"]).prints("app/db deleted\n");
    assert_eq!(fake.requests().len(), 3, "one look may have met a cache that lags");
    let fake = Fake::new().on("GET /v1/apps", 200, &list(&[])).on("GET /v1/apps", 200, &list(&[db("True")]));
    fake.run(&["wait", "--for=condition=Ready", "--all"]).prints("app/db condition met\n");
    fake.run(&["wait", "--for=jsonpath={.status.ready}=1/1", "apps", "-l", "!legacy"]).prints("app/db condition met\n");
    let run = fake.run(&["wait", "--for=condition=Ready", "-l", "a=b", "--timeout=0s"]);
    assert_eq!((run.code, run.err.as_str()), (4, "error: nothing to wait for was there in 0 s\n"));
}
