//! What changed lately, for watches: per kind a bounded log of keys, and where in the buckets the cache stands.
//!
//! An object that users see is put together from several parts, each with a watch and revisions of its own: an App from the bucket of Apps
//! and its status. So a **point** is one revision per part, and means: everything up to these revisions is in. Every controller reads the
//! same buckets, hence any of them understands the point of another; [`Point::text`] is the `resourceVersion` of lists and watches, and
//! opaque to users. It begins with a piece of the store's incarnation, for revisions of another store mean nothing here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use cluster_schemas::watch::WatchKind;

/// Most parts of a kind.
const PARTS: usize = 3;
/// Changes that are kept per kind: a watch that falls behind by more ends with a reason, and a revision from before cannot be resumed.
/// At the 50 writes a second of the load test, with a status for each, about 20 s; a log of nodes or of a quiet cluster reaches back for days.
pub const CHANGES_KEPT: usize = 2048;
/// Intervals of revisions without knowledge that are remembered per kind; then all before the oldest cannot be resumed any more.
const GAPS_KEPT: usize = 16;
/// So much of the store's incarnation stands in a point.
const STORE_CHARS: usize = 8;

/// What can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Apps with their statuses.
    Apps,
    /// Nodes: registration, status, whether they are set apart and heard.
    Nodes,
    /// Assignments.
    Assignments,
}

impl Kind {
    /// How many parts an object has.
    const fn parts(self) -> usize {
        match self {
            Self::Apps => 2,
            Self::Nodes => 3,
            Self::Assignments => 1,
        }
    }
}

/// A part of what is seen of an object: one watch of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The Apps themselves.
    Apps,
    /// Their statuses.
    AppStatuses,
    /// Registrations of nodes.
    Nodes,
    /// What nodes observe.
    NodeStatuses,
    /// Which nodes are set apart.
    Cordons,
    /// Assignments.
    Assignments,
}

impl Part {
    /// The kind, and which of its parts; part 0 decides whether an object exists.
    #[must_use]
    pub const fn place(self) -> (Kind, usize) {
        match self {
            Self::Apps => (Kind::Apps, 0),
            Self::AppStatuses => (Kind::Apps, 1),
            Self::Nodes => (Kind::Nodes, 0),
            Self::NodeStatuses => (Kind::Nodes, 1),
            Self::Cordons => (Kind::Nodes, 2),
            Self::Assignments => (Kind::Assignments, 0),
        }
    }
}

/// Where a cache or a reader stands: the newest revision of each part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point([u64; PARTS]);

/// Why a text is no point of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointError {
    /// It is none at all.
    Malformed,
    /// It is of another store than the present one.
    OtherStore,
}

impl Point {
    /// The point as users get it.
    #[must_use]
    pub fn text(&self, kind: Kind, incarnation: Option<&str>) -> String {
        let mut text = store_piece(incarnation);
        for revision in &self.0[..kind.parts()] {
            text.push('.');
            text.push_str(&revision.to_string());
        }
        text
    }

    /// Reads what [`Point::text`] wrote. A bare number is a revision of the first part, such as the `metadata.resourceVersion` of an App.
    ///
    /// # Errors
    /// As they say.
    pub fn read(text: &str, kind: Kind, incarnation: Option<&str>) -> Result<Self, PointError> {
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u64>().map_err(|_| PointError::Malformed),
            false => Err(PointError::Malformed),
        };
        let mut point = Self::default();
        let Some((store, revisions)) = text.split_once('.') else {
            point.0[0] = number(text)?;
            return Ok(point);
        };
        let mut parts = revisions.split('.');
        for revision in &mut point.0[..kind.parts()] {
            *revision = number(parts.next().ok_or(PointError::Malformed)?)?;
        }
        if parts.next().is_some() || store.is_empty() || store.len() > STORE_CHARS || !store.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(PointError::Malformed);
        }
        if store == store_piece(incarnation) { Ok(point) } else { Err(PointError::OtherStore) }
    }

    /// Whether everything up to `other` is in.
    #[must_use]
    pub fn reaches(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, theirs)| mine >= theirs)
    }
}

fn store_piece(incarnation: Option<&str>) -> String {
    let piece: String = incarnation.unwrap_or("").chars().filter(char::is_ascii_alphanumeric).take(STORE_CHARS).collect();
    if piece.is_empty() { "0".to_owned() } else { piece }
}

/// One change.
#[derive(Debug)]
pub struct Entry {
    /// Name of the object.
    pub key: Arc<str>,
    /// `Added`, `Modified` or `Deleted`.
    pub what: WatchKind,
    /// Part and revision; none for what has no revision, such as silence.
    at: Option<(usize, u64)>,
    /// The entry by which the object came to be, if that is kept: its number, part and revision.
    born: Option<(u64, Option<(usize, u64)>)>,
    /// Where the cache stood after it.
    pub point: Point,
    /// The object as JSON, once somebody asked for it. Only the latest entry of an object keeps it, so that all of them together are no
    /// larger than one listing.
    pub rendered: OnceLock<Arc<str>>,
}

/// A place in a log, for one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the next entry.
    next: u64,
    /// Entries before this number that the reader knows already are left out.
    replay: Option<(u64, Point)>,
    /// All before this number was told.
    settled: u64,
}

impl Cursor {
    fn knows(&self, number: u64, at: Option<(usize, u64)>) -> bool {
        number < self.settled
            || self.replay.is_some_and(|(until, point)| number < until && at.is_some_and(|(part, revision)| revision <= point.0[part]))
    }
}

/// Why a reader cannot go on from where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// What happened since is not kept any more.
    Forgotten,
    /// It is ahead of this controller.
    Ahead,
}

/// The changes of one kind.
#[derive(Debug)]
pub struct Log {
    kept: usize,
    entries: VecDeque<Entry>,
    /// Number of the first entry.
    first: u64,
    /// Number of each object's latest entry.
    latest: BTreeMap<Arc<str>, u64>,
    /// Where the cache stands.
    pub point: Point,
    /// A point before this cannot be resumed.
    floor: Point,
    /// Points strictly between cannot be resumed: this controller did not see what happened then, only what came of it.
    gaps: VecDeque<(usize, u64, u64)>,
}

impl Log {
    /// An empty log that keeps so many changes.
    #[must_use]
    pub fn new(kept: usize) -> Self {
        let (entries, gaps) = (VecDeque::new(), VecDeque::new());
        let (point, floor) = (Point([0; PARTS]), Point([0; PARTS]));
        Self { kept, entries, first: 0, latest: BTreeMap::new(), point, floor, gaps }
    }

    /// The cache took over `revision` of a part.
    pub fn advance(&mut self, part: usize, revision: u64) {
        self.point.0[part] = self.point.0[part].max(revision);
    }

    /// An object changed. `at` is the part with its revision.
    pub fn push(&mut self, key: &str, what: WatchKind, at: Option<(usize, u64)>) {
        if let Some((part, revision)) = at {
            self.advance(part, revision);
        }
        self.append(key, what, at);
    }

    fn append(&mut self, key: &str, what: WatchKind, at: Option<(usize, u64)>) {
        let number = self.first + self.entries.len() as u64;
        let key: Arc<str> = key.into();
        let mut born = (what == WatchKind::Added).then_some((number, at));
        if let Some(before) = self.latest.insert(Arc::clone(&key), number) {
            // Positions are below the length, which fits.
            if let Some(entry) = usize::try_from(before.saturating_sub(self.first)).ok().and_then(|at| self.entries.get_mut(at)) {
                entry.rendered = OnceLock::new();
                if what == WatchKind::Modified {
                    born = entry.born;
                }
            }
        }
        self.entries.push_back(Entry { key, what, at, born, point: self.point, rendered: OnceLock::new() });
        while self.entries.len() > self.kept {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        if self.latest.get(&entry.key) == Some(&self.first) {
            self.latest.remove(&entry.key);
        }
        self.first += 1;
        if let Some((part, revision)) = entry.at {
            self.floor.0[part] = self.floor.0[part].max(revision);
        }
    }

    /// A part was listed: for the first time, or anew with these changes.
    pub fn listed(&mut self, part: usize, first: bool, changes: Vec<(String, WatchKind)>, newest: u64) {
        let before = self.point.0[part];
        if first || newest < before {
            // What was before is not known; or it is another bucket, and its revisions begin anew.
            self.floor.0[part] = newest;
            self.point.0[part] = self.point.0[part].min(newest);
            self.gaps.retain(|(gap, ..)| *gap != part);
        } else if newest > before + 1 {
            self.gaps.push_back((part, before, newest));
            if self.gaps.len() > GAPS_KEPT
                && let Some((part, _, end)) = self.gaps.pop_front()
            {
                self.floor.0[part] = self.floor.0[part].max(end);
            }
        }
        // A reader that got only the first of these must not come back with a point that has all of them in.
        for (key, what) in changes {
            self.append(&key, what, Some((part, newest)));
        }
        self.advance(part, newest);
    }

    /// A cursor for a reader that has just read the cache.
    #[must_use]
    pub fn end(&self) -> Cursor {
        let end = self.first + self.entries.len() as u64;
        Cursor { next: end, replay: None, settled: end }
    }

    /// A cursor for a reader that stands at `point`.
    ///
    /// # Errors
    /// It cannot go on from there, or not yet.
    pub fn after(&self, point: &Point) -> Result<Cursor, Behind> {
        if !self.point.reaches(point) {
            return Err(Behind::Ahead);
        }
        let in_gap = self.gaps.iter().any(|(part, from, to)| (*from < point.0[*part]) && (point.0[*part] < *to));
        if in_gap || !point.reaches(&self.floor) {
            return Err(Behind::Forgotten);
        }
        Ok(Cursor { next: self.first, replay: Some((self.first + self.entries.len() as u64, *point)), settled: self.first })
    }

    /// The next change for a reader with what it is to that reader: an object that came to be in what was left out for this entry is new to
    /// it. The cursor moves on. None at the end.
    ///
    /// # Errors
    /// [`Behind::Forgotten`] where the reader was too slow.
    pub fn next(&self, cursor: &mut Cursor) -> Result<Option<(&Entry, WatchKind)>, Behind> {
        let Some(mut at) = cursor.next.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else {
            return Err(Behind::Forgotten);
        };
        while let Some(entry) = self.entries.get(at) {
            let number = self.first + at as u64;
            cursor.next = number + 1;
            at += 1;
            // A later entry of the same object says it all.
            if !cursor.knows(number, entry.at) && self.latest.get(&entry.key) == Some(&number) {
                let new = entry.born.is_some_and(|(born, at)| !cursor.knows(born, at));
                return Ok(Some((entry, if new { WatchKind::Added } else { entry.what })));
            }
        }
        cursor.settled = cursor.next;
        Ok(None)
    }

    /// Whether there is nothing after `cursor`.
    #[must_use]
    pub fn is_at_end(&self, cursor: &Cursor) -> bool {
        cursor.next == self.first + self.entries.len() as u64
    }
}

/// What differs between two listings, as changes of the first part of a kind.
pub fn difference<T: PartialEq>(old: Option<&BTreeMap<String, T>>, new: &BTreeMap<String, T>) -> Vec<(String, WatchKind)> {
    let Some(old) = old else { return new.keys().map(|key| (key.clone(), WatchKind::Added)).collect() };
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), WatchKind::Deleted));
    let come = new.iter().filter_map(|(key, value)| match old.get(key) {
        None => Some((key.clone(), WatchKind::Added)),
        Some(before) => (before != value).then(|| (key.clone(), WatchKind::Modified)),
    });
    gone.chain(come).collect()
}

/// The changes of all kinds.
#[derive(Debug)]
pub struct Changes {
    apps: Log,
    nodes: Log,
    assignments: Log,
}

impl Changes {
    /// Empty logs that keep so many changes each.
    #[must_use]
    pub fn new(kept: usize) -> Self {
        Self { apps: Log::new(kept), nodes: Log::new(kept), assignments: Log::new(kept) }
    }

    /// The log of a kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> &Log {
        match kind {
            Kind::Apps => &self.apps,
            Kind::Nodes => &self.nodes,
            Kind::Assignments => &self.assignments,
        }
    }

    /// The same, to write in.
    pub const fn of_mut(&mut self, kind: Kind) -> &mut Log {
        match kind {
            Kind::Apps => &mut self.apps,
            Kind::Nodes => &mut self.nodes,
            Kind::Assignments => &mut self.assignments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WatchKind::{Added, Deleted, Modified};

    fn rest(log: &Log, cursor: &mut Cursor) -> Vec<(String, WatchKind)> {
        let mut all = Vec::new();
        while let Some((entry, what)) = log.next(cursor).expect("not too slow") {
            all.push((entry.key.to_string(), what));
        }
        all
    }

    fn apps() -> Log {
        let mut log = Log::new(4);
        log.listed(0, true, vec![("a".to_owned(), Added)], 10);
        log.listed(1, true, Vec::new(), 0);
        log
    }

    #[test]
    fn a_point_is_read_as_it_was_written_and_only_in_its_store() {
        let point = Point([7, 9, 0]);
        let text = point.text(Kind::Apps, Some("12345678-aaaa"));
        assert_eq!(text, "12345678.7.9");
        assert_eq!(Point::read(&text, Kind::Apps, Some("12345678-bbbb")), Ok(point));
        assert_eq!(Point::read(&text, Kind::Apps, Some("other")), Err(PointError::OtherStore));
        assert_eq!(Point::read("12", Kind::Apps, Some("other")), Ok(Point([12, 0, 0])));
        for bad in ["", "x", "a.1", "a.1.2.3", "a.1.x", ".1.2", "a.1.+2", "a.1.99999999999999999999", "%.1.2"] {
            assert_eq!(Point::read(bad, Kind::Apps, Some("a")), Err(PointError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_reader_is_told_what_it_missed_of_every_part_and_nothing_else() {
        let mut log = apps();
        let listed = log.point;
        log.push("b", Added, Some((0, 11)));
        let then = log.point;
        log.push("a", Modified, Some((1, 5)));
        let rest_after = |point: &Point| rest(&log, &mut log.after(point).expect("it is kept"));
        assert_eq!(rest_after(&listed), [("b".to_owned(), Added), ("a".to_owned(), Modified)]);
        assert_eq!(rest_after(&then), [("a".to_owned(), Modified)]);
        assert_eq!(rest_after(&log.point), []);
        // Another controller may have seen the two in the other order.
        assert_eq!(rest_after(&Point([10, 5, 0])), [("b".to_owned(), Added)]);
    }

    #[test]
    fn only_the_latest_of_an_object_is_told() {
        let mut log = apps();
        let mut cursor = log.end();
        log.push("b", Added, Some((0, 11)));
        log.push("a", Modified, Some((0, 12)));
        log.push("b", Modified, Some((0, 13)));
        assert_eq!(rest(&log, &mut cursor), [("a".to_owned(), Modified), ("b".to_owned(), Added)]);
        log.push("b", Modified, Some((0, 14)));
        assert_eq!(rest(&log, &mut cursor), [("b".to_owned(), Modified)], "it was told that it is new");
        assert!(log.is_at_end(&cursor));
    }

    #[test]
    fn who_is_too_slow_or_too_late_is_told() {
        let mut log = apps();
        let (mut cursor, point) = (log.end(), log.point);
        for revision in 11..=14 {
            log.push("b", Modified, Some((0, revision)));
        }
        assert!(log.next(&mut cursor.clone()).is_ok() && log.after(&point).is_ok(), "four are kept");
        log.push("b", Modified, Some((0, 15)));
        assert!(matches!(log.next(&mut cursor), Err(Behind::Forgotten)));
        assert_eq!(log.after(&point), Err(Behind::Forgotten));
        assert_eq!(log.after(&Point([16, 0, 0])), Err(Behind::Ahead));
        assert_eq!(log.after(&Point([9, 0, 0])), Err(Behind::Forgotten), "from before the first listing");
    }

    #[test]
    fn after_a_new_listing_readers_of_before_and_after_go_on_and_those_between_do_not() {
        let mut log = apps();
        let mut cursor = log.end();
        log.listed(0, false, vec![("a".to_owned(), Deleted)], 15);
        assert_eq!(rest(&log, &mut cursor), [("a".to_owned(), Deleted)]);
        assert!(log.after(&Point([10, 0, 0])).is_ok() && log.after(&Point([15, 0, 0])).is_ok());
        // Who was at 12 may have seen an object that came and went between 10 and 15.
        assert_eq!(log.after(&Point([12, 0, 0])), Err(Behind::Forgotten));
    }

    #[test]
    fn a_bucket_made_anew_begins_anew() {
        let mut log = apps();
        let mut cursor = log.end();
        log.listed(0, false, vec![("a".to_owned(), Deleted)], 3);
        assert_eq!(rest(&log, &mut cursor), [("a".to_owned(), Deleted)]);
        assert_eq!(log.after(&Point([10, 0, 0])), Err(Behind::Ahead));
        assert!(log.after(&Point([3, 0, 0])).is_ok());
    }

    #[test]
    fn nothing_is_kept_without_bound() {
        let mut log = Log::new(4);
        for revision in 0..100 {
            log.push(&format!("n{revision}"), Added, Some((0, revision)));
            log.listed(1, false, Vec::new(), revision * 3);
        }
        assert_eq!((log.entries.len(), log.latest.len(), log.gaps.len()), (4, 4, GAPS_KEPT));
    }
}
