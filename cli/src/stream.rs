//! Reads a watch: events of what changes, at whichever controller answers.
//!
//! A watch outlives controllers: where one ends, stalls or dies, it is resumed after the last revision at the next. Only where what happened
//! meanwhile is not known any more it begins anew, and says so ([`Watched::Anew`]).

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use cluster_schemas::watch::{WatchEvent, WatchKind};
use serde::de::DeserializeOwned;

use crate::client::{Client, ClientError, encode};

/// A stream is asked for anew after this long: so a controller that died without a word is noticed, whatever the network says of it.
const SEGMENT: Duration = Duration::from_secs(30);
/// For so long controllers may all be away in the middle of a watch.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// Pause before a stream that brought nothing is asked for again.
const PAUSE: Duration = Duration::from_millis(300);
/// Longest event, in bytes.
const EVENT_BYTES_MAX: u64 = 16 << 20;

/// What a watch delivers.
#[derive(Debug)]
pub(crate) enum Watched<T> {
    /// Something changed, or a bookmark.
    Event(WatchEvent<T>),
    /// What happened since is not known: forget all objects, those that are there come again, up to the next bookmark.
    Anew,
}

/// A watch.
pub(crate) struct Watch<'c, T> {
    client: &'c Client,
    path: String,
    /// After which revision to go on; none: from the beginning.
    since: Option<String>,
    end: Option<Instant>,
    stream: Option<Lines>,
    /// Whether the present stream brought anything.
    fruitful: bool,
    away_since: Option<Instant>,
    waiting: VecDeque<Watched<T>>,
}

type Lines = BufReader<Box<dyn Read>>;

impl Client {
    /// Watches what `path` lists, such as `/v1/apps` or `/v1/apps/database` or `/v1/nodes?labelSelector=...`, from `since` or, with the
    /// objects that are there as `ADDED` and a bookmark after them, from the beginning; until `end`.
    pub(crate) fn watch<T: DeserializeOwned>(&self, path: &str, since: Option<&str>, end: Option<Instant>) -> Watch<'_, T> {
        let since = since.map(ToOwned::to_owned);
        let (path, waiting) = (path.to_owned(), VecDeque::new());
        Watch { client: self, path, since, end, stream: None, fruitful: true, away_since: None, waiting }
    }
}

impl<T: DeserializeOwned> Watch<'_, T> {
    /// The next event; none when the time is over.
    ///
    /// # Errors
    /// A controller refuses the watch, or none answers.
    pub(crate) fn next(&mut self) -> Result<Option<Watched<T>>, ClientError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            let left = self.end.map_or(SEGMENT, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            match self.stream.as_mut().map(read_event) {
                Some(Some(data)) => self.take(&data),
                // It ended, broke off, or was open for long enough.
                Some(None) => self.stream = None,
                None => self.open(left)?,
            }
        }
    }

    fn open(&mut self, left: Duration) -> Result<(), ClientError> {
        if !self.fruitful {
            std::thread::sleep(PAUSE.min(left));
        }
        let separator = if self.path.contains('?') { '&' } else { '?' };
        let since = self.since.as_ref().map(|since| format!("&resourceVersion={}", encode(since))).unwrap_or_default();
        let path = format!("{}{separator}watch=true{since}", self.path);
        match self.client.open(&path, SEGMENT.min(left), Instant::now() + left) {
            Ok(body) => {
                self.stream = Some(BufReader::new(Box::new(body.into_reader())));
                (self.fruitful, self.away_since) = (false, None);
                Ok(())
            }
            Err(error) if error.problem().is_some_and(|problem| problem.kind == "gone") && self.since.is_some() => {
                self.begin_anew();
                Ok(())
            }
            // In the middle of a watch all controllers may be away for a moment.
            Err(error @ ClientError::Unreachable { .. }) => match (self.since.is_some(), *self.away_since.get_or_insert_with(Instant::now))
            {
                (true, since) if since.elapsed() < AWAY_MAX => {
                    self.fruitful = false;
                    Ok(())
                }
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn begin_anew(&mut self) {
        (self.since, self.stream) = (None, None);
        self.waiting.push_back(Watched::Anew);
    }

    fn take(&mut self, data: &str) {
        let Ok(event) = serde_json::from_str::<WatchEvent<T>>(data) else {
            // Half of it came, or it is of a later version; what is asked for anew is whole.
            self.stream = None;
            return;
        };
        if event.kind == WatchKind::Error {
            match event.problem {
                Some(problem) if problem.kind == "gone" => self.begin_anew(),
                _ => self.stream = None,
            }
            return;
        }
        self.fruitful = true;
        if !event.resource_version.is_empty() {
            self.since = Some(event.resource_version.clone());
        }
        self.waiting.push_back(Watched::Event(event));
    }
}

/// The data of the next event; none at the end of the stream.
fn read_event(stream: &mut Lines) -> Option<String> {
    let mut data = String::new();
    loop {
        let mut line = String::new();
        match stream.by_ref().take(EVENT_BYTES_MAX).read_line(&mut line) {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        // An event whose end did not come is none.
        let line = line.strip_suffix('\n')?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            if !data.is_empty() {
                return Some(data);
            }
        } else if let Some(part) = line.strip_prefix("data:") {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(part.strip_prefix(' ').unwrap_or(part));
            if data.len() as u64 > EVENT_BYTES_MAX {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &'static str) -> Vec<String> {
        let mut stream: Lines = BufReader::new(Box::new(text.as_bytes()));
        std::iter::from_fn(|| read_event(&mut stream)).collect()
    }

    /// Answers one request after the other, and tells what was asked.
    fn controller(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut lines = BufReader::new(stream.try_clone().expect("a connection")).lines();
                asked.push(lines.next().expect("a request").expect("a request"));
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                std::io::Write::write_all(&mut stream, answer.as_bytes()).expect("a client");
            }
            asked
        });
        (url, thread)
    }

    fn stream_of(events: &[&str]) -> String {
        let events: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}")
    }

    /// Broken off, stopped, and too late: the watch goes on, and says where it could not.
    #[test]
    fn a_watch_goes_on_after_the_last_revision_or_begins_anew() {
        let gone = r#"{"type":"gone","title":"Gone","status":410,"detail":""}"#;
        let (url, thread) = controller(vec![
            stream_of(&[r#"{"type":"ADDED","name":"a","object":1}"#, r#"{"type":"BOOKMARK","resourceVersion":"s.1"}"#, r#"{"type":"MOD"#]),
            stream_of(&[
                r#"{"type":"MODIFIED","name":"a","resourceVersion":"s.2","object":2}"#,
                r#"{"type":"ERROR","problem":{"type":"unavailable","title":"","status":503,"detail":""}}"#,
            ]),
            format!("HTTP/1.1 410 Gone\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{gone}", gone.len()),
            stream_of(&[r#"{"type":"ADDED","name":"b","object":3}"#]),
        ]);
        let settings = crate::config::Settings { servers: vec![url], token: None, tls: None, request_timeout: Duration::from_secs(30) };
        let client = Client::new(settings);
        let mut watch = client.watch::<u64>("/v1/apps?labelSelector=a", None, None);
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(match watch.next().expect("a controller").expect("no end") {
                Watched::Event(event) => format!("{} {} {:?}", event.kind.as_str(), event.name, event.object),
                Watched::Anew => "anew".to_owned(),
            });
        }
        assert_eq!(seen, ["ADDED a Some(1)", "BOOKMARK  None", "MODIFIED a Some(2)", "anew", "ADDED b Some(3)"]);
        let since = |revision: &str| format!("GET /v1/apps?labelSelector=a&watch=true{revision} HTTP/1.1");
        let asked = thread.join().expect("a good script");
        assert_eq!(asked, [since(""), since("&resourceVersion=s.1"), since("&resourceVersion=s.2"), since("")]);
    }

    #[test]
    fn events_are_read_as_the_standard_has_them() {
        assert_eq!(events("event: ADDED\nid: x.1\ndata: {\"a\":1}\n\n: heartbeat\n\ndata:b\r\n\r\n"), ["{\"a\":1}", "b"]);
        assert_eq!(events("data: a\ndata: b\n\n"), ["a\nb"]);
        assert!(events("data: half of it").is_empty() && events("data: whole\n").is_empty());
    }
}
