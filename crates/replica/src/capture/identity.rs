//! Which file the application's database is: noted in the log's directory, so that another one under its name is never taken for a change.
//!
//! An application whose file was deleted makes an empty one at its next start. Without this note the empty one would be compared with what the
//! log knows, found to differ, and sent to all replicas as the newest transaction.
//!
//! # What tells files apart
//! - Inode and time of birth, where the file system keeps one. Not the device: its number is another after a restart of the machine.
//! - The header's change counter, which never goes back in one database: an older copy written over the file has the same inode.
//! - A database of many pages of which nothing is left, found when pages are compared ([`emptied`]).
//! - What was found by content stays noted until an operator says that the file as it is now counts ([`super::Capture::adopt`]); a file that
//!   was moved away and back, the same one, goes on.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use xxhash_rust::xxh3::xxh3_64;

use super::CaptureError;
use crate::page::PageNo;
use crate::storage::Storage;
use crate::transaction::DbId;

/// Name of the note.
const FILE: &str = "application";
const MAGIC: [u8; 8] = *b"CFILE1\0\0";
const LEN: usize = 8 + 16 + 8 + 8 + 4 + 1;
/// Fewest pages of a database that [`emptied`] judges: of a small one a few writes change every page.
const EMPTIED_PAGES: PageNo = 16;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    /// Nanoseconds since 1970, 0 where the file system does not say.
    born: u64,
    /// The highest change counter seen.
    pub counter: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is the one.
    Well = 0,
    /// Its content was found to be of another database, or it was gone where files have no time of birth; nobody has accepted that.
    Suspect = 1,
    /// Whatever is there counts, once it is compared with what was.
    Accepted = 2,
}

impl Identity {
    /// Whether an operator accepted what is there, and nothing was followed since.
    pub fn accepted(&self) -> bool {
        self.state == State::Accepted
    }

    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0);
        Ok(Self { inode: metadata.ino(), born, counter: 0, state: State::Well })
    }

    fn same_file(&self, other: &Self) -> bool {
        self.inode == other.inode && (self.born == other.born || self.born == 0 || other.born == 0)
    }
}

/// Reads the note. `None`: there is none that can be used, so the file is taken as it is.
fn load(storage: &impl Storage, db: DbId) -> Option<Identity> {
    let bytes = storage.read(FILE, 1024).ok().flatten()?;
    let (content, seal) = bytes.split_last_chunk::<8>()?;
    let content: &[u8; LEN] = content.try_into().ok()?;
    let long = |at: usize| content.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes);
    if xxh3_64(content) != u64::from_le_bytes(*seal) || content[..8] != MAGIC || content[8..24] != db.0 {
        return None;
    }
    let counter = u32::from_le_bytes([content[40], content[41], content[42], content[43]]);
    let state = [State::Well, State::Suspect, State::Accepted].into_iter().find(|state| *state as u8 == content[44])?;
    Some(Identity { inode: long(24), born: long(32), counter, state })
}

fn store(storage: &mut impl Storage, db: DbId, identity: &Identity) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(LEN + 8);
    bytes.extend(MAGIC);
    bytes.extend(db.0);
    bytes.extend(identity.inode.to_le_bytes());
    bytes.extend(identity.born.to_le_bytes());
    bytes.extend(identity.counter.to_le_bytes());
    bytes.push(identity.state as u8);
    let seal = xxh3_64(&bytes);
    bytes.extend(seal.to_le_bytes());
    storage.replace(FILE, &bytes)
}

/// Whether the file at `path` is still the noted one, looked at without opening it. What was found is noted for good.
pub(super) fn check(storage: &mut impl Storage, db: DbId, path: &Path) -> Result<Option<Identity>, CaptureError> {
    let Some(noted) = load(storage, db) else { return Ok(None) };
    let error = match Identity::of(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => CaptureError::Deleted(path.to_owned()),
        Err(why) => return Err(CaptureError::Unreadable { path: path.to_owned(), why }),
        Ok(_) if noted.accepted() => return Ok(Some(noted)),
        Ok(now) if noted.state == State::Suspect || !noted.same_file(&now) => CaptureError::Replaced(path.to_owned()),
        // SQLite never makes a database empty: somebody cut the file.
        Ok(_) if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) => {
            suspect(storage, db)?;
            return Err(CaptureError::Replaced(path.to_owned()));
        }
        Ok(_) => return Ok(Some(noted)),
    };
    gone(storage, db)?;
    Err(error)
}

/// Notes that the noted file has no longer its name. Where its time of birth is known, nothing needs to be: another file is told apart for ever,
/// and the same one, moved back, is welcome. Elsewhere a new file may get its inode.
pub(super) fn gone(storage: &mut impl Storage, db: DbId) -> Result<(), CaptureError> {
    match load(storage, db) {
        Some(noted) if noted.born == 0 => suspect(storage, db),
        _ => Ok(()),
    }
}

/// Notes that something else was found in the database's file, which its name and inode do not show.
pub(super) fn suspect(storage: &mut impl Storage, db: DbId) -> Result<(), CaptureError> {
    match load(storage, db) {
        Some(noted) if noted.state == State::Well => store(storage, db, &Identity { state: State::Suspect, ..noted }).map_err(failed),
        _ => Ok(()),
    }
}

/// Notes the file at `path`, with its change counter.
pub(super) fn note(storage: &mut impl Storage, db: DbId, path: &Path, counter: u32) -> Result<(), CaptureError> {
    let now = Identity::of(path).map_err(|why| CaptureError::Unreadable { path: path.to_owned(), why })?;
    store(storage, db, &Identity { counter, ..now }).map_err(failed)
}

/// Notes the change counter of the noted file.
pub(super) fn count(storage: &mut impl Storage, db: DbId, counter: u32) -> Result<(), CaptureError> {
    match load(storage, db) {
        Some(noted) if noted.state == State::Well => store(storage, db, &Identity { counter, ..noted }).map_err(failed),
        _ => Ok(()),
    }
}

/// What is at the database's path counts from now on, whatever it is.
pub(super) fn adopt(storage: &mut impl Storage, db: DbId) -> io::Result<()> {
    store(storage, db, &Identity { inode: 0, born: 0, counter: 0, state: State::Accepted })
}

/// Whether counter `now` is of an older state than `before`; it wraps.
pub(super) fn went_back(before: u32, now: u32) -> bool {
    now.wrapping_sub(before) > u32::MAX / 2
}

/// Whether a comparison with `before` known pages found another database rather than a change: a quarter of the pages at most, none of
/// which was there before.
pub(super) fn emptied(before: PageNo, now: PageNo, unchanged: u64) -> bool {
    before >= EMPTIED_PAGES && now <= before / 4 && unchanged == 0
}

fn failed(why: io::Error) -> CaptureError {
    crate::log::LogError::Storage(why).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Directory;

    #[test]
    fn a_note_is_read_back_and_damage_or_another_database_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut storage = Directory::open(dir.path()).unwrap();
        let db = DbId([4; 16]);
        let noted = Identity { inode: 7, born: 1 << 40, counter: 9, state: State::Suspect };
        store(&mut storage, db, &noted).unwrap();
        assert_eq!(load(&storage, db), Some(noted));
        assert_eq!(load(&storage, DbId([5; 16])), None);
        let good = std::fs::read(dir.path().join(FILE)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            storage.replace(FILE, &bad).unwrap();
            assert_eq!(load(&storage, db), None, "byte {at}");
        }
    }

    #[test]
    fn a_counter_wraps_and_only_a_database_that_is_gone_is_emptied() {
        assert!(went_back(7, 6) && went_back(0, u32::MAX) && !went_back(7, 7) && !went_back(u32::MAX, 0));
        assert!(emptied(16, 4, 0) && !emptied(16, 5, 0) && !emptied(15, 1, 0) && !emptied(400, 2, 1));
    }
}
