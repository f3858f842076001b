//! Synced writes of whole pages that go past the operating system's page cache (`O_DIRECT`).
//!
//! Invariants: what is written is what the ordinary way would write, as durable when the call returns, and
//! seen by every later read and store of the file: the kernel writes back what the cache has of these
//! pages first, and drops it. Where a system or a file system has no such writes the answer is "no",
//! nothing is lost by having asked, and nobody asks that handle again. Called by [`os`](crate::os) alone, for the
//! log's synced groups.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

/// What offsets, lengths and addresses are multiples of: as much as any device asks for.
const PAGE_BYTES: usize = 4096;

/// One file's way past the page cache.
#[derive(Debug, Default)]
pub(crate) struct DirectWriter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Untried,
    Refused,
    Open(Direct),
}

#[derive(Debug)]
struct Direct {
    file: File,
    /// What is being written, from the first address in it on that is a multiple of a page.
    buffer: Vec<u8>,
}

impl DirectWriter {
    /// Writes `pages` at `offset` of `file` and waits until they are durable. `false` where that cannot be
    /// done in this way: what the file holds there is unknown then, and the caller writes it in another.
    ///
    /// # Errors
    /// Whatever the operating system says; a part may have been written.
    pub(crate) fn write_synced(&self, file: &File, offset: u64, pages: &[u8]) -> io::Result<bool> {
        let is_whole = |bytes: u64| bytes.is_multiple_of(PAGE_BYTES as u64);
        if !is_whole(offset) || !is_whole(pages.len() as u64) {
            return Ok(false);
        }
        let mut state = self.state.lock();
        if matches!(*state, State::Untried) {
            *state = open(file).map_or(State::Refused, State::Open);
        }
        let State::Open(direct) = &mut *state else {
            return Ok(false);
        };
        let outcome = direct.write_synced(offset, pages);
        if let Ok(false) = outcome {
            *state = State::Refused;
        }
        outcome
    }
}

/// Opens the same file once more, by its descriptor: it may have been renamed.
fn open(file: &File) -> Option<Direct> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    Some(Direct {
        file,
        buffer: Vec::new(),
    })
}

impl Direct {
    fn write_synced(&mut self, offset: u64, pages: &[u8]) -> io::Result<bool> {
        let room = pages.len() + PAGE_BYTES;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let start = self.buffer.as_ptr().align_offset(PAGE_BYTES);
        let Some(aligned) = self.buffer.get_mut(start..start + pages.len()) else {
            return Ok(false);
        };
        aligned.copy_from_slice(pages);
        let mut written = 0;
        while written < pages.len() {
            let rest = [IoSlice::new(&aligned[written..])];
            let at = offset + written as u64;
            match pwritev2(&self.file, &rest, at, ReadWriteFlags::DSYNC) {
                Ok(0) => return Ok(false),
                // The rest of a page cannot be written from its middle.
                Ok(bytes) if !bytes.is_multiple_of(PAGE_BYTES) => return Ok(false),
                Ok(bytes) => written += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_written_is_read_by_other_handles() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("segment");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.write_all_at(&[1; 4 * PAGE_BYTES], 0)?;
        let direct = DirectWriter::default();
        let is_direct = direct.write_synced(&file, PAGE_BYTES as u64, &[2; 2 * PAGE_BYTES])?;
        let flags = OFlags::WRONLY | OFlags::DIRECT;
        let is_possible = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).is_ok();
        // Where such a file can be opened, the write itself may still be refused.
        assert!(is_possible || !is_direct);
        if !is_direct {
            // The file system of temporary files has no such writes.
            assert!(matches!(*direct.state.lock(), State::Refused));
            return Ok(());
        }
        // What the cache held of a page, changed or not, is not what is read behind it.
        file.write_all_at(&[3; 10], 100)?;
        assert!(direct.write_synced(&file, 0, &[4; PAGE_BYTES])?);
        file.write_all_at(&[5; 10], 2 * PAGE_BYTES as u64 - 5)?;
        let bytes = std::fs::read(&path)?;
        let mut expected = [
            [4; PAGE_BYTES],
            [2; PAGE_BYTES],
            [2; PAGE_BYTES],
            [1; PAGE_BYTES],
        ]
        .concat();
        expected[2 * PAGE_BYTES - 5..2 * PAGE_BYTES + 5].fill(5);
        assert!(bytes == expected);
        Ok(())
    }

    #[test]
    fn parts_of_pages_are_left_to_others() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        let direct = DirectWriter::default();
        assert!(!direct.write_synced(&file, 1, &[0; PAGE_BYTES])?);
        assert!(!direct.write_synced(&file, 0, &[0; PAGE_BYTES + 1])?);
        assert_eq!(file.metadata()?.len(), 0);
        assert!(matches!(*direct.state.lock(), State::Untried));
        Ok(())
    }
}
