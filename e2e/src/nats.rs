//! What the lab needs to know about its NATS servers, and the little HTTP that tells it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::error::{Context, LabError, Result};
use crate::names::{NATS_MONITOR_PORT, NodeId};

/// The answer to an HTTP request.
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// One connection attempt, and one read, may take this long.
const HTTP_STEP: Duration = Duration::from_secs(2);

/// Bodies beyond this are cut off; the largest the lab reads is a monitoring page of some kilobytes.
const HTTP_MAX: u64 = 4 << 20;

/// One GET over a connection of its own. HTTP/1.0, so that the end of the answer is the end of the stream.
pub(crate) fn http_get(addr: SocketAddr, path: &str) -> Result<HttpReply> {
    let action = || format!("get http://{addr}{path}");
    let mut stream = TcpStream::connect_timeout(&addr, HTTP_STEP).context(action)?;
    stream.set_read_timeout(Some(HTTP_STEP)).context(action)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\nConnection: close\r\n\r\n").context(action)?;
    let mut text = Vec::new();
    stream.take(HTTP_MAX).read_to_end(&mut text).context(action)?;
    parse_reply(&String::from_utf8_lossy(&text)).ok_or_else(|| LabError::Invalid(format!("http://{addr}{path} did not answer with HTTP")))
}

fn parse_reply(text: &str) -> Option<HttpReply> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(HttpReply { status, body: body.to_owned() })
}

/// What a server says about JetStream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meta {
    /// Not ready, with what was seen.
    Waiting(String),
    /// Ready. A server by itself leads itself.
    Led(NodeId),
}

/// Asks one server, from within the lab's network.
pub(crate) fn ask(server: NodeId, of: usize) -> Meta {
    let addr = SocketAddr::from((server.addr(), NATS_MONITOR_PORT));
    let asked = http_get(addr, "/healthz").and_then(|health| Ok((health, http_get(addr, "/jsz")?)));
    match asked {
        Ok((health, jsz)) if health.status == 200 => meta(&jsz.body, server, of),
        Ok((health, _)) => Meta::Waiting(format!("{server} says {}", health.body.trim())),
        Err(error) => Meta::Waiting(error.chain()),
    }
}

fn meta(jsz: &str, server: NodeId, of: usize) -> Meta {
    let Ok(page) = serde_json::from_str::<Value>(jsz) else {
        return Meta::Waiting(format!("{server} answers without JSON"));
    };
    if of == 1 {
        return Meta::Led(server);
    }
    let cluster = &page["meta_cluster"];
    match cluster["leader"].as_str().map(str::parse) {
        Some(Ok(leader)) if cluster["cluster_size"].as_u64() == Some(of as u64) => Meta::Led(leader),
        _ => Meta::Waiting(format!("{server} knows {} servers, leader {}", cluster["cluster_size"], cluster["leader"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meta_leader_counts_only_with_all_servers() {
        let page = |size: u8, leader: &str| format!(r#"{{"meta_cluster":{{"name":"lab","leader":"{leader}","cluster_size":{size}}}}}"#);
        let server = NodeId::from(2);
        assert_eq!(meta(&page(3, "n1"), server, 3), Meta::Led(NodeId::from(1)));
        for waiting in [page(2, "n1"), page(3, ""), "{}".to_owned(), "nonsense".to_owned()] {
            assert!(matches!(meta(&waiting, server, 3), Meta::Waiting(_)), "{waiting}");
        }
        assert_eq!(meta("{}", server, 1), Meta::Led(server));
    }

    #[test]
    fn replies_are_split_into_status_and_body() {
        let reply = parse_reply("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nbody\r\n\r\nmore").unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (503, "body\r\n\r\nmore"));
        assert!(parse_reply("SSH-2.0\r\n\r\n").is_none());
    }
}
