//! Against real sockets and real processes.

use std::time::Instant;

use cluster_schemas::health::{ExecCheck, HttpCheck, SystemdCheck, TcpCheck};
use tokio::net::TcpListener;

use super::*;

/// Longer than anything here takes on the busiest machine.
const LONG: Duration = Duration::from_secs(20);

/// A server that answers each request with `answer`, and says what it was asked.
async fn server(answer: &'static [u8]) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (asked, requests) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            asked.send(String::from_utf8_lossy(&request[..read]).into_owned()).await.unwrap();
            let _closed_early = stream.write_all(answer).await;
        }
    });
    (at, requests)
}

async fn get(answer: &'static [u8]) -> Result<(), String> {
    let (to, _requests) = server(answer).await;
    Probe::Http { to, path: "/healthz?x=1".to_owned(), statuses: 200..=299 }.ask(LONG).await
}

#[tokio::test]
async fn a_get_passes_by_its_status_alone() {
    let (to, mut requests) = server(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let probe = Probe::Http { to, path: "/healthz?x=1".to_owned(), statuses: 200..=299 };
    assert_eq!(probe.ask(LONG).await, Ok(()));
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("GET /healthz?x=1 HTTP/1.1\r\n") && request.contains(&format!("Host: {to}\r\n")), "{request}");
    let why = get(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nnot ready").await.unwrap_err();
    assert!(why.starts_with("GET http://127.0.0.1:") && why.ends_with("/healthz?x=1: answered 503"), "{why}");
    assert!(get(b"HTTP/1.0 200 OK\n\n").await.is_ok(), "an older HTTP");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (other, mut asked) = server(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/\r\n\r\n");
    let why = get(answer.leak().as_bytes()).await.unwrap_err();
    assert!(why.ends_with("answered 302"), "{why}");
    assert!(asked.try_recv().is_err(), "nobody asked there");
}

#[tokio::test]
async fn what_is_no_http_does_not_pass() {
    assert!(get(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await.unwrap_err().contains("not HTTP"));
    assert!(get(b"").await.unwrap_err().contains("closed before an answer"));
    let endless: Vec<u8> = b"HTTP/1.1 200 OK\r\nX: ".iter().copied().chain(std::iter::repeat_n(b'a', 2 * ANSWER_BYTES_MAX)).collect();
    assert!(get(endless.leak()).await.unwrap_err().contains("without an end of its head"));
}

#[tokio::test]
async fn nobody_waits_longer_than_the_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let why = Probe::Http { to, path: "/".to_owned(), statuses: 200..=299 }.ask(Duration::from_millis(50)).await.unwrap_err();
    assert!(why.ends_with("no answer within 50 ms"), "{why}");
    // The kernel accepts for it, and that is all that is asked here.
    assert_eq!(Probe::Tcp { to }.ask(LONG).await, Ok(()));
    drop(listener);
    assert!(Probe::Tcp { to }.ask(LONG).await.unwrap_err().ends_with("cannot connect: connection refused"));
}

fn exec(command: &[&str]) -> Probe {
    let command = command.iter().map(ToString::to_string).collect();
    Probe::Exec { command, environment: vec![("A".to_owned(), "b c".to_owned())], user: None, group: None }
}

#[tokio::test]
async fn a_command_passes_by_its_exit_status() {
    assert_eq!(exec(&["/bin/true"]).ask(LONG).await, Ok(()));
    assert_eq!(exec(&["/usr/bin/test", "$A", "=", "$A"]).ask(LONG).await, Ok(()), "arguments are taken as they are");
    assert_eq!(exec(&["/bin/sh", "-c", "test \"$A\" = 'b c'"]).ask(LONG).await, Ok(()));
    assert_eq!(exec(&["/bin/false"]).ask(LONG).await, Err("/bin/false: exit status 1".to_owned()));
    let why = exec(&["/bin/sh", "-c", "echo first; echo not ready >&2; exit 3"]).ask(LONG).await;
    assert_eq!(why, Err("/bin/sh: exit status 3: not ready".to_owned()));
    assert_eq!(exec(&["/bin/sh", "-c", "kill -KILL $$"]).ask(LONG).await, Err("/bin/sh: ended by signal 9".to_owned()));
    assert_eq!(exec(&["/nowhere"]).ask(LONG).await, Err("/nowhere: cannot be started: no such file or directory".to_owned()));
    let loud = exec(&["/bin/sh", "-c", "yes | head -c 1000000; exit 1"]).ask(LONG).await.unwrap_err();
    assert!(loud.starts_with("/bin/sh: exit status 1") && loud.len() < 300, "{loud}");
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let script = format!("sleep 1000 & echo $! >{0}; echo $$ >>{0}; wait", file.display());
    let begun = Instant::now();
    let asking = exec(&["/bin/sh", "-c", &script]);
    let asked = tokio::spawn(async move { asking.ask(Duration::from_secs(2)).await });
    let pids = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if pids.len() == 2 || asked.is_finished() {
            break pids;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(pids.len(), 2, "it ran");
    let why = asked.await.unwrap().unwrap_err();
    assert!(why.ends_with("no answer within 2000 ms") && begun.elapsed() < LONG, "{why}");
    // Whoever adopted them may not have asked yet how they ended, so zombies count as gone.
    let lives = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while pids.iter().any(lives) {
        assert!(begun.elapsed() < LONG, "{pids:?} still run");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_command_that_leaves_a_process_behind_is_not_waited_for() {
    let begun = Instant::now();
    assert_eq!(exec(&["/bin/sh", "-c", "sleep 1000 & exit 0"]).ask(LONG).await, Ok(()));
    assert!(begun.elapsed() < LONG);
}

#[tokio::test]
async fn a_command_runs_as_the_user_that_was_named() {
    let as_user = |user: &str, command: &[&str]| match exec(command) {
        Probe::Exec { command, environment, .. } => Probe::Exec { command, environment, user: Some(user.to_owned()), group: None },
        other => other,
    };
    let script = "test \"$(id -u) $(id -g) $(id -G)\" = \"65534 65534 65534\"";
    assert_eq!(as_user("nobody", &["/bin/sh", "-c", script]).ask(LONG).await, Ok(()));
    assert_eq!(as_user("65534", &["/bin/sh", "-c", script]).ask(LONG).await, Ok(()));
    assert_eq!(
        as_user("nobody-of-that-name", &["/bin/true"]).ask(LONG).await,
        Err("/bin/true: there is no user nobody-of-that-name on this node".to_owned())
    );
}

fn of(spec: &HealthSpec, address: Option<&str>) -> Probe {
    let values = Values { node: "n1", node_address: address, database_path: None, app_runtime_dir: "/run/clusterctl/a" };
    Probe::of("a", spec, None, &values, "running")
}

#[tokio::test]
async fn specs_become_questions() {
    let http = HttpCheck { port: 80, path: "/".to_owned(), host: CheckHost::Node, status: "200".to_owned() };
    let spec = HealthSpec { http: Some(http), ..HealthSpec::default() };
    let to = "10.0.0.1:80".parse().unwrap();
    assert_eq!(of(&spec, Some("10.0.0.1")), Probe::Http { to, path: "/".to_owned(), statuses: 200..=200 });
    let why = of(&spec, None).ask(LONG).await.unwrap_err();
    assert!(why.contains("${node.address} has no value here"), "{why}");
    let spec = HealthSpec { tcp: Some(TcpCheck { port: 5432, host: CheckHost::Loopback }), ..HealthSpec::default() };
    assert_eq!(of(&spec, None), Probe::Tcp { to: "127.0.0.1:5432".parse().unwrap() });
    let check = ExecCheck { command: vec!["/bin/ping".to_owned(), "${node.address}".to_owned()], user: Some("nobody".to_owned()) };
    let spec = HealthSpec { exec: Some(check), ..HealthSpec::default() };
    let Probe::Exec { command, environment, user, .. } = of(&spec, Some("10.0.0.1")) else { panic!("a command") };
    assert_eq!((command[1].as_str(), user.as_deref()), ("10.0.0.1", Some("nobody")));
    assert!(environment.contains(&("CLUSTERCTL_ROLE_FILE".to_owned(), "/run/clusterctl/a/role.json".to_owned())), "{environment:?}");
}

#[tokio::test]
async fn systemd_is_taken_at_its_word() {
    let spec = |states: &[&str]| HealthSpec {
        systemd: Some(SystemdCheck { sub_states: states.iter().map(ToString::to_string).collect() }),
        ..HealthSpec::default()
    };
    assert_eq!(of(&spec(&["running"]), None).ask(LONG).await, Ok(()));
    let why = of(&spec(&["exited", "listening"]), None).ask(LONG).await.unwrap_err();
    assert_eq!(why, "health check: systemd says that the unit is running, and not exited or listening");
}
