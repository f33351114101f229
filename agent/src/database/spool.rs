//! A snapshot on its way, in a file without a name: it goes with its descriptor, whatever happens.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Records one after the other, each behind its length.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    /// Where each record begins, and the end.
    places: Vec<u64>,
}

impl Spool {
    /// An empty one in `folder`.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let path = folder.join("snapshot");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, places: vec![0] })
    }

    /// Puts a record at its end.
    pub(super) fn push(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(record)?;
        self.places.push(self.places.last().unwrap_or(&0) + 4 + u64::from(length));
        Ok(())
    }

    /// Records in it.
    pub(super) fn len(&self) -> usize {
        self.places.len() - 1
    }

    /// The record with this number.
    pub(super) fn get(&self, number: usize) -> io::Result<Vec<u8>> {
        let (Some(from), Some(to)) = (self.places.get(number), self.places.get(number + 1)) else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        };
        let mut record = vec![0; usize::try_from(to - from - 4).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut record, from + 4)?;
        Ok(record)
    }

    /// Bytes in it.
    pub(super) fn bytes(&self) -> u64 {
        self.places.last().copied().unwrap_or(0)
    }

    /// All of it from the beginning: records, each behind its length in four bytes.
    pub(super) fn file(&self) -> io::Result<File> {
        use std::io::Seek as _;
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }

    /// All records, read one by one; it ends early where the disk fails, which whoever takes a snapshot notices.
    pub(super) fn records(&mut self) -> io::Result<impl Iterator<Item = Vec<u8>>> {
        use std::io::Seek as _;
        self.file.rewind()?;
        let mut reader = BufReader::new(self.file.try_clone()?);
        Ok(std::iter::from_fn(move || {
            let mut length = [0; 4];
            reader.read_exact(&mut length).ok()?;
            let mut record = vec![0; u32::from_le_bytes(length) as usize];
            reader.read_exact(&mut record).ok()?;
            Some(record)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order_and_one_by_one_and_no_file_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut spool = Spool::new(folder.path()).expect("a spool");
        let records: Vec<Vec<u8>> = (0..5_u8).map(|n| vec![n; usize::from(n) * 1000]).collect();
        for record in &records {
            spool.push(record).expect("a write");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a list").count(), 0);
        assert_eq!((spool.len(), spool.get(3).expect("a record")), (5, records[3].clone()));
        assert!(spool.get(5).is_err());
        assert_eq!(spool.records().expect("a reader").collect::<Vec<_>>(), records);
    }
}
