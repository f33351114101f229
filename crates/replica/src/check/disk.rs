//! A disk that forgets what was not synced.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::rng::Rng;
use crate::storage::Storage;
use crate::wal::ReadAt as _;

#[derive(Clone, Debug, Default)]
struct File {
    /// What programs see.
    now: Vec<u8>,
    /// What a crash leaves for sure; `None` when it may take the file itself.
    durable: Option<Vec<u8>>,
}

/// A handle on a node's disk: several share one.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Rc<RefCell<BTreeMap<String, File>>>,
}

impl Disk {
    /// Power is lost: of what was not synced, some beginning is left, its end perhaps torn.
    pub(super) fn crash(&self, rng: &mut Rng) {
        let mut files = self.files.borrow_mut();
        files.retain(|_, file| {
            let kept = match &file.durable {
                None if rng.chance(50) => return false,
                None => Vec::new(),
                // Cut, and the cut not synced: either.
                Some(durable) if !file.now.starts_with(durable) => {
                    if rng.chance(50) {
                        durable.clone()
                    } else {
                        file.now.clone()
                    }
                }
                Some(durable) => durable.clone(),
            };
            let mut left = kept.clone();
            if file.now.starts_with(&kept) && file.now.len() > kept.len() {
                let more = rng.below(file.now.len() - kept.len() + 1);
                left.extend_from_slice(&file.now[kept.len()..kept.len() + more]);
                // Blocks reach the disk in any order: one before the end may be missing.
                if more > 0 && rng.chance(30) {
                    let at = kept.len() + rng.below(more);
                    let end = (at + 64).min(left.len());
                    left[at..end].fill(0);
                }
            }
            *file = File { now: left.clone(), durable: Some(left) };
            true
        });
    }

    /// The disk is lost.
    pub(super) fn wipe(&self) {
        self.files.borrow_mut().clear();
    }
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.borrow().keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.files.borrow().get(name).map(|file| file.now.len() as u64))
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.files.borrow().get(name).ok_or_else(absent)?.now.read_at(offset, into)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.borrow_mut().entry(name.to_owned()).or_default().now.extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.files.borrow_mut().get_mut(name).ok_or_else(absent)?.now.truncate(len);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        let file = files.get_mut(name).ok_or_else(absent)?;
        file.durable = Some(file.now.clone());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.borrow_mut().remove(name);
        Ok(())
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.borrow_mut().insert(name.to_owned(), File { now: bytes.to_vec(), durable: Some(bytes.to_vec()) });
        Ok(())
    }
}
