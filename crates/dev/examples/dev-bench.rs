//! Figures of `clusterctl dev`, one JSON line each: `cargo run --release -p cluster-dev --example dev-bench`. The programs of the workspace
//! must be built in the same profile.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const NODES: u8 = 5;
const RUNS: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);
const PORT: u16 = 8088;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A cluster, and when its process was started.
struct Dev {
    child: Child,
    begun: Instant,
    folder: PathBuf,
    programs: PathBuf,
    api: String,
    net: String,
    out: BufReader<ChildStdout>,
}

impl Dev {
    /// Until the banner: the API listens by then, and may not answer yet.
    fn start(programs: &Path, home: &Path) -> Outcome<Self> {
        let folder = home.join("dev");
        let begun = Instant::now();
        let mut command = Command::new(programs.join("clusterctl"));
        command.args(["dev", "--port", "0", "--nodes", &NODES.to_string(), "--dir"]).arg(&folder);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let out = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut dev = Self { child, begun, folder, programs: programs.to_owned(), api: String::new(), net: String::new(), out };
        let first = dev.line("A cluster of ")?;
        dev.net = first.split("n1 ").nth(1).and_then(|rest| rest.split(".1,").next()).ok_or("no address")?.to_owned();
        let servers = dev.line("export CLUSTERCTL_SERVERS=")?;
        dev.api = servers.trim().rsplit('=').next().unwrap_or_default().to_owned();
        Ok(dev)
    }

    fn line(&mut self, part: &str) -> Outcome<String> {
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line)? == 0 {
                return Err(format!("it ended before {part:?}").into());
            }
            if line.contains(part) {
                return Ok(line);
            }
        }
    }

    fn ctl(&self, arguments: &[&str]) -> Outcome<bool> {
        let mut command = Command::new(self.programs.join("clusterctl"));
        command.args(arguments).env("CLUSTERCTL_SERVERS", &self.api).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status()?.success())
    }

    /// The first of the nodes on which the App listens.
    fn active(&self, not: u8) -> Outcome<u8> {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            for node in (1..=NODES).filter(|node| *node != not) {
                let at: SocketAddr = format!("{}.{node}:{PORT}", self.net).parse()?;
                if TcpStream::connect_timeout(&at, Duration::from_millis(100)).is_ok() {
                    return Ok(node);
                }
            }
            std::thread::sleep(LOOK);
        }
        Err("the App is active nowhere".into())
    }

    /// Resident memory of the cluster's own processes, in MiB.
    fn resident(&self) -> Outcome<f64> {
        let mut kib = resident(self.child.id())?;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&arguments).contains(&format!("{}/nats/nats.conf", self.folder.display())) {
                kib += resident(pid)?;
            }
        }
        Ok(kib / 1024.0)
    }

    fn end(mut self) -> Outcome<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

fn resident(pid: u32) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn figure(name: &str, mut values: Vec<f64>, unit: &str, parameters: &str) {
    values.sort_by(f64::total_cmp);
    let (median, worst) = (values.get(values.len() / 2).copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
    for (stat, value) in [("median", median), ("max", worst)] {
        println!(
            "{{\"name\":\"{name}\",\"value\":{value:.2},\"unit\":\"{unit}\",\"stat\":\"{stat}\",\"parameters\":{{\"nodes\":{NODES},\"runs\":{RUNS}{parameters}}}}}"
        );
    }
}

fn main() -> Outcome<()> {
    let own = std::env::current_exe()?;
    let programs = own.parent().and_then(Path::parent).ok_or("no folder of programs")?;
    let (mut ready, mut active, mut resident, mut failover) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let home = std::env::temp_dir().join(format!("dev-bench-{}", std::process::id()));
        std::fs::create_dir_all(&home)?;
        let mut dev = Dev::start(programs, &home)?;
        dev.line("are Ready after")?;
        ready.push(dev.begun.elapsed().as_secs_f64());
        dev.end()?;

        // Applied at once: as soon as the API takes it.
        let dev = Dev::start(programs, &home)?;
        let manifest = home.join("app.json");
        let text = format!(
            "{{\"apiVersion\":\"cluster/v1\",\"kind\":\"App\",\"metadata\":{{\"name\":\"first\"}},\"spec\":{{\"mode\":\"Singleton\",\
             \"exec\":{{\"command\":[\"/usr/lib/clusterctl/demo\",\"--listen\",\"0.0.0.0:{PORT}\"]}}}}}}"
        );
        std::fs::write(&manifest, text)?;
        while !dev.ctl(&["apply", "-f", &manifest.to_string_lossy()])? {
            if dev.begun.elapsed() > LIMIT {
                return Err("the App is not taken".into());
            }
        }
        let first = dev.active(0)?;
        active.push(dev.begun.elapsed().as_secs_f64());
        // Every node is a candidate, and idle.
        std::thread::sleep(Duration::from_secs(5));
        resident.push(dev.resident()?);
        let folder = dev.folder.to_string_lossy().into_owned();
        let killed = Instant::now();
        let killer = dev.programs.join("clusterctl");
        let mut killing =
            Command::new(killer).args(["dev", "kill", &format!("n{first}"), "--dir", &folder]).stdout(Stdio::null()).spawn()?;
        dev.active(first)?;
        failover.push(killed.elapsed().as_secs_f64() * 1000.0);
        killing.wait()?;
        dev.end()?;
        std::fs::remove_dir_all(&home)?;
    }
    figure("dev_ready_s", ready, "s", ",\"from\":\"process start\",\"until\":\"all Ready by the API\"");
    figure("dev_first_active_s", active, "s", ",\"from\":\"process start\",\"until\":\"the App listens\"");
    figure("dev_rss_mib", resident, "MiB", ",\"of\":\"clusterctl-dev and nats-server\"");
    figure("dev_failover_ms", failover, "ms", ",\"lease_ms\":1000,\"from\":\"dev kill\",\"until\":\"the App listens elsewhere\"");
    Ok(())
}
