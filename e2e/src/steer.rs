//! Who leads: scenarios that crash the busiest node first make one node the busiest.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Context, LabError, Result};
use crate::lab::Lab;
use crate::names::{NATS_PORT, NodeId};
use crate::wait::wait_until;

/// One request to a server, connection included, may take this long.
const REQUEST_LIMIT: Duration = Duration::from_secs(3);
/// An election of NATS takes 4 to 9 s; one that is asked for takes less.
const LEADER_LIMIT: Duration = Duration::from_secs(30);
/// Replies beyond this are cut off.
const REPLY_MAX: usize = 4 << 20;

/// A NATS account of the lab.
#[derive(Debug, Clone, Copy)]
enum Account {
    /// Where the product lives.
    Lab,
    /// The servers' own.
    System,
}

impl Lab {
    /// Makes the NATS server of `node` lead the meta group and every stream, and the controller of `node` lead the controllers.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] with who leads instead.
    pub fn lead_everything(&self, node: impl Into<NodeId>) -> Result<()> {
        let node = node.into();
        self.lead_controllers(node)?;
        wait_until(&format!("{node} to lead NATS"), LEADER_LIMIT, || {
            let others: Vec<String> =
                self.stream_leaders(node)?.into_iter().filter(|(_, leader)| *leader != node.to_string()).map(|(s, _)| s).collect();
            for stream in &others {
                let body = json!({ "placement": { "preferred": node.to_string() } });
                self.request(node, Account::Lab, &format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), &body)?;
            }
            let meta = self.nats_leader()?;
            if meta != Some(node) {
                let body = json!({ "placement": { "preferred": node.to_string() } });
                self.request(node, Account::System, "$JS.API.META.LEADER.STEPDOWN", &body)?;
            }
            if others.is_empty() && meta == Some(node) {
                Ok(())
            } else {
                Err(LabError::Invalid(format!("{} leads the meta group, {} streams are led elsewhere", show(meta), others.len())))
            }
        })
    }

    /// Makes the controller of `node` lead: the others are stopped until it does.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] with who leads instead.
    pub fn lead_controllers(&self, node: impl Into<NodeId>) -> Result<()> {
        let node = node.into();
        if self.controller_leader()?.as_deref() == Some(&node.to_string()) {
            return Ok(());
        }
        let others: Vec<NodeId> = self.servers().iter().copied().filter(|s| *s != node).collect();
        for other in &others {
            self.exec(*other, ["systemctl", "stop", "cluster-controller"])?.ok()?;
        }
        let leads = wait_until(&format!("the controller of {node} to lead"), LEADER_LIMIT, || {
            let leader = self.controller_leader()?;
            if leader.as_deref() == Some(&node.to_string()) { Ok(()) } else { Err(LabError::Invalid(format!("{leader:?} leads"))) }
        });
        for other in &others {
            self.exec(*other, ["systemctl", "start", "cluster-controller"])?.ok()?;
        }
        leads
    }

    /// Name of the leading controller, as any of them says; none while none is heard.
    ///
    /// # Errors
    /// [`LabError`] when no controller answers.
    pub fn controller_leader(&self) -> Result<Option<String>> {
        let text = self.client(["clusterctl", "version", "-o", "json"])?.ok()?;
        let version: Value = serde_json::from_str(&text).map_err(|e| LabError::Invalid(format!("clusterctl version: {e}: {text}")))?;
        Ok(version["server"]["leader"].as_str().map(ToOwned::to_owned))
    }

    /// The streams with their leaders, as the server of `node` says.
    fn stream_leaders(&self, node: NodeId) -> Result<Vec<(String, String)>> {
        let listed = self.request(node, Account::Lab, "$JS.API.STREAM.LIST", &json!({}))?;
        let streams = listed["streams"].as_array().cloned().unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Ok(streams.iter().map(|s| (text(&s["config"]["name"]), text(&s["cluster"]["leader"]))).collect())
    }

    /// What grows when anything is written to JetStream: all streams' last sequences and all consumers' positions, in sum.
    ///
    /// # Errors
    /// [`LabError::Io`] when no server answers.
    pub fn jetstream_writes(&self) -> Result<u64> {
        let server = *self.servers().first().ok_or_else(|| LabError::Invalid("this lab has no NATS server".to_owned()))?;
        let number = |v: &Value| v.as_u64().unwrap_or(0);
        let listed = self.request(server, Account::Lab, "$JS.API.STREAM.LIST", &json!({}))?;
        let mut sum = 0;
        for stream in listed["streams"].as_array().into_iter().flatten() {
            sum += number(&stream["state"]["last_seq"]);
            let name = stream["config"]["name"].as_str().unwrap_or_default();
            let listed = self.request(server, Account::Lab, &format!("$JS.API.CONSUMER.LIST.{name}"), &json!({}))?;
            for consumer in listed["consumers"].as_array().into_iter().flatten() {
                sum += number(&consumer["ack_floor"]["stream_seq"]) + number(&consumer["delivered"]["stream_seq"]);
            }
        }
        Ok(sum)
    }

    /// Counts messages and their bytes on a subject for a while: what all nodes publish, seen by one subscriber.
    ///
    /// # Errors
    /// [`LabError::Io`] when the server does not answer.
    pub fn count_messages(&self, subject: &str, time: Duration) -> Result<(u32, u32)> {
        let server = *self.servers().first().ok_or_else(|| LabError::Invalid("this lab has no NATS server".to_owned()))?;
        let addr = SocketAddr::from((server.addr(), NATS_PORT));
        let counted = self.as_client(|| count(addr, subject, time))?;
        counted.context(|| format!("count messages of {subject} at {addr}"))
    }

    /// One request in NATS' text protocol, from the lab's client.
    fn request(&self, node: NodeId, account: Account, subject: &str, body: &Value) -> Result<Value> {
        let addr = SocketAddr::from((node.addr(), NATS_PORT));
        let asked = self.as_client(|| ask(addr, account, subject, &body.to_string()))?;
        asked.context(|| format!("ask {addr} for {subject}"))
    }
}

fn ask(addr: SocketAddr, account: Account, subject: &str, body: &str) -> std::io::Result<Value> {
    let user = match account {
        Account::Lab => "lab",
        Account::System => "sys",
    };
    let mut stream = TcpStream::connect_timeout(&addr, REQUEST_LIMIT)?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    let connect = json!({ "verbose": false, "user": user, "pass": "lab" });
    write!(stream, "CONNECT {connect}\r\nSUB reply 1\r\nPUB {subject} reply {}\r\n{body}\r\n", body.len())?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 {
        if line.starts_with("MSG reply 1 ") {
            let length: usize = line.trim_end().rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let mut text = vec![0; length.min(REPLY_MAX)];
            stream.read_exact(&mut text)?;
            return Ok(serde_json::from_slice(&text)?);
        }
        if line.starts_with("-ERR") {
            return Err(std::io::Error::other(line.trim_end().to_owned()));
        }
        line.clear();
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

fn count(addr: SocketAddr, subject: &str, time: Duration) -> std::io::Result<(u32, u32)> {
    let mut stream = TcpStream::connect_timeout(&addr, REQUEST_LIMIT)?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    let connect = json!({ "verbose": false, "user": "lab", "pass": "lab" });
    write!(stream, "CONNECT {connect}\r\nSUB {subject} 1\r\n")?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let (began, mut line, mut body) = (Instant::now(), String::new(), Vec::new());
    let (mut messages, mut bytes) = (0, 0);
    while began.elapsed() < time {
        line.clear();
        if answers.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.starts_with("PING") {
            stream.write_all(b"PONG\r\n")?;
        } else if line.starts_with("MSG ") {
            let length: u32 = line.trim_end().rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            body.resize(usize::try_from(length).unwrap_or(0).min(REPLY_MAX) + 2, 0);
            answers.read_exact(&mut body)?;
            (messages, bytes) = (messages + 1, bytes + length);
        }
    }
    Ok((messages, bytes))
}

fn show(node: Option<NodeId>) -> String {
    node.map_or_else(|| "nobody".to_owned(), |n| n.to_string())
}
