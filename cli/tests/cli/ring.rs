//! `ring show` and `ring locate`.

use serde_json::json;

use crate::fake::Fake;
use crate::world::{cache, database, list};

fn cluster() -> Fake {
    Fake::new()
        .on(
            "GET /v1/rings/cache",
            200,
            &json!({"app": "cache", "partitions": 256, "version": 12, "unowned": "128",
                    "owners": [{"node": "n1", "address": "10.0.0.1", "partitions": "0-127", "confirmed": "0-127"},
                               {"node": "n2", "address": "10.0.0.2", "partitions": "129-255", "confirmed": "129-200"}]}),
        )
        .on(
            "GET /v1/rings/cache/locate?key=user%3A42",
            200,
            &json!({"app": "cache", "key": "user:42", "partition": 170, "version": 12, "node": "n2", "address": "10.0.0.2", "epoch": 4}),
        )
        .on("GET /v1/rings/cache/locate?key=", 200, &json!({"app": "cache", "key": "", "partition": 128, "version": 12}))
        .on("GET /v1/apps", 200, &list(&[cache(), database()]))
        .refuse("GET /v1/rings/database", 400, "bad-request", "App \"database\" has mode Singleton, only a Ring has partitions")
}

#[test]
fn show_prints_owners_version_and_what_is_unowned() {
    let fake = cluster();
    fake.run(&["ring", "show", "cache"]).prints(
        "\
NODE   COUNT   PARTITIONS   CONFIRMED
n1     128     0-127        128/128
n2     127     129-255      72/127

256 partitions, table version 12, 1 unowned: 128
",
    );
    fake.run(&["ring", "show", "cache", "-o", "wide", "--no-headers"]).prints(
        "\
n1   128   0-127     128/128   10.0.0.1   <none>
n2   127   129-255   72/127    10.0.0.2   201-255
",
    );
}

#[test]
fn locate_prints_where_a_key_lives() {
    let fake = cluster();
    fake.run(&["ring", "locate", "cache", "user:42"]).prints(
        "\
KEY       PARTITION   NODE   ADDRESS    EPOCH   VERSION
user:42   170         n2     10.0.0.2   4       12
",
    );
    let run = fake.run(&["ring", "locate", "cache", "user:42", "-o", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&run.out).unwrap()["node"], "n2");
    let run = fake.run(&["ring", "locate", "cache", "", "--no-headers"]);
    assert_eq!((run.code, run.err.as_str()), (0, "partition 128 has no owner at the moment: clusterctl describe app cache\n"));
    assert!(run.out.contains("128         <none>") || run.out.contains("128   <none>   <none>   <none>   12"), "{}", run.out);
}

#[test]
fn what_is_no_ring_is_told() {
    let fake = cluster();
    fake.run(&["ring", "show", "database"])
        .fails(1, "error: App \"database\" has mode Singleton, only a Ring has partitions (400 bad-request)\n");
    fake.run(&["ring", "show", "cahce"]).fails(1, "error: app/cahce does not exist\nhint: did you mean cache?\n");
}

#[test]
fn rings_are_a_line_each_and_one_that_is_missing_hides_no_other() {
    let ring = json!({
        "app": "cache", "partitions": 8, "version": 3, "owners": [{"node": "n1", "partitions": "0-5", "confirmed": "0-4"}], "unowned": "6-7",
    });
    let fake = Fake::new().on("GET /v1/apps", 200, &list(&[cache(), database()])).on("GET /v1/rings/cache", 200, &ring).refuse(
        "GET /v1/rings/cach",
        404,
        "not-found",
        "there is no App cach",
    );
    let table = "NAME    PARTITIONS   CONFIRMED   UNOWNED   MEMBERS   VERSION\ncache   8            5           2         1         3\n";
    fake.run(&["get", "rings"]).prints(table);
    fake.run(&["get", "ring", "cache", "-o", "jsonpath={.items[0].version}"]).prints("3");
    let some = fake.run(&["get", "rings", "cach", "cache", "-o", "name"]);
    assert_eq!((some.code, some.out.as_str()), (1, "ring/cache\n"), "{some:?}");
}
