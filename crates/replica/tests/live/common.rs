//! Applications in processes of their own, and one node's active and standby side by side.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use cluster_replica::apply::Replica;
use cluster_replica::capture::{Capture, CaptureError, Options};
use cluster_replica::lineage::{Position, Start};
use cluster_replica::log::{Limits, TransactionLog};
use cluster_replica::page::same_page;
use cluster_replica::storage::Directory;
use cluster_replica::sums::PageSums;
use cluster_replica::transaction::DbId;
use rusqlite::{Connection, OpenFlags};

pub const DB: DbId = DbId([5; 16]);

/// An application in Python, whose SQLite is another one than ours. Each line it is given is Python, with `db` a connection; it answers when done.
pub struct Python {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

const PYTHON: &str = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
def load(count, size=100, table='t'):
    for _ in range(count): db.execute(f'INSERT INTO {table}(b) VALUES (randomblob({size}))')
print(sqlite3.sqlite_version, flush=True)
for line in sys.stdin:
    try:
        exec(line)
        print('ok', flush=True)
    except Exception as error:
        print(f'{type(error).__name__}: {error}'.replace('\n', ' '), flush=True)
db.close()
";

impl Python {
    pub fn start(path: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", PYTHON])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with its sqlite3");
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut python = Self { child, stdin, stdout };
        let version = python.answer();
        assert!(version.starts_with("3."), "{version}");
        python
    }

    /// Python that makes its own connection, or none.
    pub fn bare(dir: &Path) -> Self {
        Self::start(&dir.join("unused.db"))
    }

    /// With a table `t` in WAL mode.
    pub fn with_table(path: &Path) -> Self {
        let mut python = Self::start(path);
        python.run("db.executescript('PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, b BLOB)')");
        python
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn send(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    pub fn wait(&mut self) -> String {
        self.answer()
    }

    pub fn run(&mut self, line: &str) {
        assert_eq!(self.run_for(line), "ok", "{line}");
    }

    pub fn run_for(&mut self, line: &str) -> String {
        self.send(line);
        self.answer()
    }

    /// Ends as an application should.
    pub fn quit(self) {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    /// Ends as one that is killed.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A database that is followed into a log, and a replica fed from that log.
pub struct Pair {
    pub dir: tempfile::TempDir,
    pub log: TransactionLog<Directory>,
    pub capture: Option<Capture>,
}

impl Pair {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        Self { dir, log, capture: None }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("app.db")
    }

    pub fn options(&self) -> Options {
        Options { sync: false, checkpoint_frames: 200, quiet: Duration::from_millis(20), ..Options::new(self.path()) }
    }

    pub fn begin(&mut self) -> Result<(), CaptureError> {
        let base = self.log.head();
        let start = Start { epoch: base.epoch + 1, base, node: "n-1".to_owned() };
        self.capture = Some(Capture::begin(self.options(), DB, &mut self.log, &start, PageSums::default(), 0)?);
        Ok(())
    }

    pub fn capture(&mut self) -> &mut Capture {
        self.capture.as_mut().unwrap()
    }

    pub fn poll(&mut self) -> u64 {
        self.capture.as_mut().unwrap().poll(&mut self.log, 0).unwrap()
    }

    pub fn advance(&mut self) -> bool {
        self.capture.as_mut().unwrap().advance(&mut self.log, Duration::ZERO, 0).unwrap()
    }

    /// Moves the keeper while the application rests, so that its next write begins the write-ahead log anew.
    pub fn move_on(&mut self) {
        assert!(self.capture.as_mut().unwrap().move_on(&mut self.log, Duration::from_millis(20), 0).unwrap());
    }

    /// Follows until the application answers.
    pub fn follow(&mut self, python: &mut Python, line: &str) {
        python.send(line);
        let (done, answer) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| done.send(python.wait()).unwrap());
            let watch = self.capture.as_ref().unwrap().watch();
            loop {
                let over = answer.try_recv();
                self.poll();
                self.advance();
                if let Ok(answer) = over {
                    assert_eq!(answer, "ok", "{line}");
                    break;
                }
                watch.wait(Duration::from_millis(5)).unwrap();
            }
        });
    }

    /// Stops following, as when this process is restarted. The checksums are what it would keep.
    pub fn drop_capture(&mut self) -> PageSums {
        let capture = self.capture.take().unwrap();
        self.log.sync().unwrap();
        capture.sums().clone()
    }

    pub fn resume(&mut self, sums: Option<PageSums>) -> Result<(), CaptureError> {
        self.capture = Some(Capture::resume(self.options(), DB, &mut self.log, sums, 0)?);
        Ok(())
    }

    /// Applies the whole log to a fresh replica and compares it with the database, page by page and as SQLite sees it.
    pub fn assert_replica_equal(&mut self) -> Position {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replica.db");
        let mut replica = Replica::open(&path, DB, &self.log).unwrap();
        while replica.apply(&self.log).unwrap() != self.log.head() {}
        assert_same(&self.path(), &path);
        assert_eq!(replica.read_all().unwrap().total(), self.log.head().checksum);
        replica.position()
    }
}

pub fn open_log(dir: &Path) -> TransactionLog<Directory> {
    TransactionLog::open(Directory::open(&dir.join("log")).unwrap(), DB, Limits::default()).unwrap()
}

/// All pages, through SQLite.
pub fn pages(path: &Path) -> Vec<Vec<u8>> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut pages = db.prepare("SELECT data FROM sqlite_dbpage('main')").unwrap();
    pages.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Equal in every page, and whole.
pub fn assert_same(left: &Path, right: &Path) {
    let (a, b) = (pages(left), pages(right));
    assert_eq!(a.len(), b.len(), "pages");
    let different: Vec<_> = (1..).zip(a.iter().zip(&b)).filter(|(page, (a, b))| !same_page(*page, a, b)).map(|(page, _)| page).collect();
    assert_eq!(different, [] as [u32; 0], "pages that differ");
    assert_whole(right);
}

pub fn assert_whole(path: &Path) {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}
