use cluster_agent::drivers::unit_text::{Values, exec_unit};
use cluster_schemas::app::ExecSpec;

use super::*;

fn here() -> Here<'static> {
    Here { address: "127.77.0.2".parse().expect("an address"), programs: Path::new("/nowhere") }
}

/// What the agent writes comes back as it was meant, byte for byte.
#[test]
fn the_agents_own_text_is_read_back() {
    let odd = ["a b", "\"quoted\" 'single'", "back\\slash", "100%", "%n", "$HOME ${X}", "tab\tline\nend", "é\u{7f}", "", ":x", "[::]:80"];
    let mut command = vec!["/bin/odd".to_owned()];
    command.extend(odd.iter().map(ToString::to_string));
    let exec: ExecSpec = serde_json::from_value(serde_json::json!({
        "command": command,
        "environment": { "A": "x \"y\" % \\ z", "LISTEN": "0.0.0.0:80" },
        "limits": { "LimitNOFILE": "1024:4K", "MemoryMax": "64M", "LimitCORE": "infinity" },
        "workingDirectory": "/tmp/a b",
    }))
    .expect("an exec");
    let values = Values { node: "n2", node_address: Some("127.77.0.2"), database_path: None, app_runtime_dir: "/run/x" };
    let service = parse(&exec_unit("odd", &exec, &values).expect("a text"), here()).expect("a service");
    let mut wanted = odd.map(ToOwned::to_owned);
    "127.77.0.2:80".clone_into(wanted.last_mut().expect("the last"));
    assert_eq!(service.command.get(1..).expect("arguments"), wanted);
    assert_eq!(service.environment["A"], "x \"y\" % \\ z");
    assert_eq!(service.environment["LISTEN"], "127.77.0.2:80");
    assert_eq!(service.environment["CLUSTERCTL_ROLE_FILE"], "/run/x/role.json");
    assert_eq!(service.folder.as_deref(), Some(Path::new("/tmp/a b")));
    assert_eq!(service.limits, [("CORE".to_owned(), None, None), ("NOFILE".to_owned(), Some(1024), Some(4096))]);
    assert_eq!(service.not_kept, ["MemoryMax=64M"]);
    assert_eq!((service.restart, service.restart_after), (Restart::OnFailure, Duration::from_secs(1)));
    assert_eq!((service.stop_timeout, service.start_limit), (Duration::from_secs(10), (5, Duration::from_secs(60))));
    assert_eq!(service.reload, Some(Reload::Signal(Signal::SIGHUP)));
}

#[test]
fn what_needs_systemd_is_refused_by_name() {
    let with = |line: &str| parse(&format!("[Service]\nExecStart=/bin/a\n{line}\n"), here());
    assert!(with("").is_ok());
    for line in [
        "Type=notify",
        "ExecStartPre=/bin/b",
        "EnvironmentFile=/etc/x",
        "Restart=sometimes",
        "RestartSec=soon",
        "Environment=\"A=%H\"",
        "Environment=\"A",
        "LimitNOFILE=lots",
        "nonsense",
    ] {
        let refused = with(line).expect_err(line);
        assert!(
            refused.contains(line.split(['=', '"']).next().unwrap_or_default()) || refused.contains('%') || refused.contains(' '),
            "{refused}"
        );
    }
    assert!(parse("[Service]\nRestart=no\n", here()).is_err_and(|why| why.contains("ExecStart")));
    assert!(parse("[Service]\nExecStart=a\n", here()).is_err_and(|why| why.contains("absolute path")));
}

#[test]
fn only_a_whole_address_of_all_is_the_nodes() {
    let address = here().address;
    let on = |text: &str| on_node_address(text, address);
    assert_eq!(on("0.0.0.0"), "127.77.0.2");
    assert_eq!(on("http://0.0.0.0:80/,0.0.0.0:81"), "http://127.77.0.2:80/,127.77.0.2:81");
    assert_eq!(on("10.0.0.0"), "10.0.0.0");
    assert_eq!(on("0.0.0.0.1 0.0.0.05"), "0.0.0.0.1 0.0.0.05");
}

#[test]
fn spans_and_restarts_are_systemds() {
    assert_eq!(span("1min 30s"), Ok(Duration::from_secs(90)));
    assert_eq!(span("5"), Ok(Duration::from_secs(5)));
    assert!(span("").is_err() && span("s").is_err() && span("1 parsec").is_err());
    let follows = |restart: Restart| [restart.follows(true, false), restart.follows(false, false), restart.follows(false, true)];
    assert_eq!(follows(Restart::OnFailure), [false, true, true]);
    assert_eq!(follows(Restart::OnAbnormal), [false, false, true]);
    assert_eq!(follows(Restart::OnSuccess), [true, false, false]);
}
