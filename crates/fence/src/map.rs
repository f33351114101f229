//! Maps the table's file. The only code here that is not safe by the compiler's word.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use memmap2::MmapRaw;

use crate::layout::Layout;

/// Why the table cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the fence table {path}")]
pub struct MapError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A mapped table. Every field of [`Layout`] is an atomic, so it may be shared with the other process.
#[derive(Debug)]
pub struct Mapped(MmapRaw);

impl Mapped {
    /// Maps the file, made (all zero: everything fenced) if it is not there.
    ///
    /// # Errors
    /// [`MapError`] with what failed.
    pub fn open(path: &Path) -> Result<Self, MapError> {
        let fail = |action| move |source| MapError { action, path: path.to_owned(), source };
        let size = std::mem::size_of::<Layout>();
        let file: File =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(fail("open"))?;
        let have = file.metadata().map_err(fail("look at"))?.len();
        let want = u64::try_from(size).unwrap_or(u64::MAX);
        if have < want {
            file.set_len(want).map_err(fail("size"))?;
        }
        let map = MmapRaw::map_raw(&file).map_err(fail("map"))?;
        if map.len() < size {
            return Err(fail("map")(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        Ok(Self(map))
    }

    /// The table.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        // Page alignment is stricter than the layout's.
        let pointer = self.0.as_ptr().cast::<Layout>();
        #[expect(
            unsafe_code,
            reason = "the mapping is as large as the layout, aligned to a page, lives as long as self, and has only atomics"
        )]
        // SAFETY: `open` checked the length; any bit pattern is a valid atomic; the file never shrinks, since nobody truncates it.
        unsafe {
            &*pointer
        }
    }
}
