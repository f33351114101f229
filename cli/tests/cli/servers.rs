//! Several controllers, some of them dead; tokens and configuration.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};
use serde_json::json;

use crate::fake::{Fake, clusterctl, command, run};
use crate::world::{database, list};

fn alive() -> Fake {
    Fake::new().on("GET /v1/apps", 200, &list(&[database()]))
}

/// A port on which nobody listens.
fn refused() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}")
}

/// An address that takes no connection and does not refuse one either, as that of a machine without power.
struct Silent {
    url: String,
    _listener: std::os::fd::OwnedFd,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    fn new() -> Self {
        let listener = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        socket::bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let port = socket::getsockname::<SockaddrIn>(listener.as_raw_fd()).unwrap().port();
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        // Once its queue is full, the kernel drops what else comes.
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
            waiting.push(stream);
            assert!(waiting.len() < 16, "the queue does not fill");
        }
        Self { url: format!("http://{address}"), _listener: listener, _waiting: waiting }
    }
}

#[test]
fn a_dead_first_controller_is_passed_over_after_its_time() {
    let (fake, silent) = (alive(), Silent::new());
    let start = Instant::now();
    clusterctl(&format!("{},{}", silent.url, fake.url()), &["get", "apps", "-o", "name"]).prints("app/database\n");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700), "it was not asked first: {took:?}");
    // Its patience with the first is 700 ms; the rest is for a machine that is busy.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn one_that_refuses_hangs_up_or_cannot_answer_now_is_passed_over() {
    let fake = alive();
    let hangs_up = Fake::new().on_text("GET /v1/apps", 0, "");
    let cannot = Fake::new().refuse("GET /v1/apps", 503, "unavailable", "the caches are not complete yet");
    for dead in [refused(), hangs_up.url(), cannot.url(), "http://name.invalid:7070".to_owned()] {
        clusterctl(&format!("{dead},{}", fake.url()), &["get", "apps", "-o", "name"]).prints("app/database\n");
    }
}

#[test]
fn one_that_refuses_the_request_is_final() {
    let no = Fake::new().refuse("GET /v1/apps", 400, "bad-request", "no\u{1b}[2J");
    let fake = alive();
    clusterctl(&format!("{},{}", no.url(), fake.url()), &["get", "apps"]).fails(1, "error: no\u{fffd}[2J (400 bad-request)\n");
    assert_eq!(fake.requests(), Vec::<String>::new());
}

#[test]
fn all_are_tried_twice_and_each_is_named_with_its_reason() {
    let (refused, hangs_up) = (refused(), Fake::new().on_text("GET /v1/apps", 0, ""));
    let cannot = Fake::new().refuse("GET /v1/apps", 503, "unavailable", "the caches are not complete yet");
    clusterctl(&format!("{refused},{},{}", hangs_up.url(), cannot.url()), &["get", "apps"]).fails(
        3,
        &format!(
            "\
error: no controller answered
  {refused}: connection refused
  {}: the connection was closed without an answer
  {}: the caches are not complete yet (503 unavailable)
hint: controllers are there and cannot answer now, mostly because they do not reach NATS; their log says why
",
            hangs_up.url(),
            cannot.url()
        ),
    );
    assert_eq!((hangs_up.requests().len(), cannot.requests().len()), (2, 2));
    let nobody = clusterctl(&refused, &["get", "apps"]);
    assert_eq!(nobody.code, 3);
    assert!(nobody.err.contains("hint: is a controller running there?"), "{}", nobody.err);
}

#[test]
fn one_that_starts_meanwhile_answers_in_the_second_round() {
    let starting = Fake::new().refuse("GET /v1/apps", 503, "unavailable", "starting").on("GET /v1/apps", 200, &list(&[database()]));
    starting.run(&["get", "apps", "-o", "name"]).prints("app/database\n");
}

#[test]
fn one_that_never_answers_ends_with_the_time_for_the_request() {
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", frozen.local_addr().unwrap());
    let start = Instant::now();
    let run = clusterctl(&url, &["get", "apps", "--request-timeout", "300ms"]);
    assert_eq!(run.code, 3);
    assert!(run.err.contains(&format!("{url}: no answer in time")), "{}", run.err);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn the_one_that_answered_is_asked_first_from_then_on() {
    let names = ["a", "b", "c"];
    let (mut dead, mut alive) = (Fake::new(), Fake::new());
    for name in names {
        dead = dead.refuse(&format!("DELETE /v1/apps/{name}"), 503, "unavailable", "no store");
        alive = alive.on(&format!("DELETE /v1/apps/{name}"), 200, &json!({"gone": true}));
    }
    let run = clusterctl(&format!("{},{}", dead.url(), alive.url()), &["delete", "app", "a", "b", "c", "--wait=false"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!((dead.requests().len(), alive.requests().len()), (1, 3));
}

#[test]
fn tokens_are_sent_and_a_missing_one_is_explained() {
    let fake = alive();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let config = folder.path().join("cli.yaml");
    // The configuration as the lab writes it.
    std::fs::write(&config, format!("servers: [\"{}\"]\ntokenFile: {}\n", fake.url(), token.display())).unwrap();
    run(command(&["get", "apps", "-o", "name"]).env("CLUSTERCTL_CONFIG", &config)).prints("app/database\n");
    run(command(&["get", "apps", "-o", "name"]).env("CLUSTERCTL_CONFIG", &config).env("CLUSTERCTL_TOKEN", "other"))
        .prints("app/database\n");
    let sent: Vec<_> = fake.seen().into_iter().map(|seen| seen.authorization.unwrap()).collect();
    assert_eq!(sent, ["Bearer s3cret", "Bearer other"]);

    let closed = Fake::new().refuse("GET /v1/apps", 401, "unauthorized", "send the token of this cluster");
    closed.run(&["get", "apps"]).fails(
        1,
        "error: send the token of this cluster (401 unauthorized)\n\
         hint: give a token with --token-file, CLUSTERCTL_TOKEN_FILE or tokenFile: in the configuration file\n",
    );
}

#[test]
fn a_wrong_configuration_ends_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cli.yaml");
    std::fs::write(&config, "server: [http://a]\n").unwrap();
    let wrong = run(command(&["get", "apps"]).env("CLUSTERCTL_CONFIG", &config));
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""));
    assert!(wrong.err.contains("cli.yaml:1:1") && wrong.err.contains("the file may have: servers"), "{}", wrong.err);
    let ftp = clusterctl("ftp://a", &["get", "apps"]);
    assert_eq!(ftp.code, 2);
    assert!(ftp.err.contains("neither http nor https"), "{}", ftp.err);
}

#[test]
fn the_proxy_of_the_environment_is_for_the_way_out_and_not_asked() {
    let fake = alive();
    let proxy = Fake::new();
    run(command(&["get", "apps", "-o", "name", "--server", &fake.url()]).env("http_proxy", proxy.url()).env("HTTP_PROXY", proxy.url()))
        .prints("app/database\n");
    assert_eq!(proxy.requests(), Vec::<String>::new());
}
