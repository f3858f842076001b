//! Writes a file from front to back through one bounded buffer, and knows its checksum.
//!
//! Invariant: at most [`BUFFER_BYTES`] and one block wait in memory; after a failed write nothing
//! more is written (I3). Used by `table_writer`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_base::checksum::StreamingChecksum;
use esker_base::{Error, ErrorKind, Result};
use esker_vfs::fs::{FileSystem, WritableFile};

/// The buffer is written when it holds this much.
const BUFFER_BYTES: usize = 256 << 10;
/// The device begins with a table while the rest is made, in pieces of this size. All at once at the end the
/// maker would wait for it, and syncs of the log behind it.
const WRITE_BACK_BYTES: u64 = 1 << 20;

/// A file that grows at its end.
pub(crate) struct FileSink {
    file: Arc<dyn WritableFile>,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes of the file before the buffer.
    written: u64,
    /// Bytes of these that the device was given to begin with.
    begun: u64,
    checksum: StreamingChecksum,
    failed: bool,
}

impl std::fmt::Debug for FileSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSink")
            .field("path", &self.path)
            .field("offset", &self.offset())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl FileSink {
    /// Creates the file.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn create(fs: &dyn FileSystem, path: &Path) -> Result<Self> {
        let file = fs
            .create(path)
            .map_err(|source| Error::io("create a table", path, source))?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            buffer: Vec::with_capacity(BUFFER_BYTES + (8 << 10)),
            written: 0,
            begun: 0,
            checksum: StreamingChecksum::new(0),
            failed: false,
        })
    }

    /// The length of the file so far, the buffer included.
    pub(crate) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The path, for errors.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets `append` add to the end of the file's bytes.
    ///
    /// # Errors
    /// I/O, now or at an earlier call.
    pub(crate) fn append<R>(&mut self, append: impl FnOnce(&mut Vec<u8>) -> R) -> Result<R> {
        let start = self.buffer.len();
        let result = append(&mut self.buffer);
        self.checksum.update(&self.buffer[start..]);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(result)
    }

    /// xxh3 of everything appended so far.
    pub(crate) fn checksum(&self) -> u64 {
        self.checksum.value()
    }

    fn flush(&mut self) -> Result<()> {
        if self.failed {
            let message = "an earlier write to this table failed";
            return Err(Error::new(ErrorKind::Io, message).with_file(&self.path));
        }
        if let Err(source) = self.file.write_at(self.written, &self.buffer) {
            self.failed = true;
            return Err(Error::io("write a table", &self.path, source));
        }
        self.written += self.buffer.len() as u64;
        // Whole pieces: what is written to a page that is on its way waits for it.
        let pieces = self.written - self.written % WRITE_BACK_BYTES;
        if pieces > self.begun {
            self.file.begin_write_back(self.begun, pieces - self.begun);
            self.begun = pieces;
        }
        // A single huge block is no reason to keep its memory.
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        Ok(())
    }

    /// Writes what is left and makes the contents durable.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.file
            .sync_data()
            .map_err(|source| Error::io("sync a table", &self.path, source))
    }
}
