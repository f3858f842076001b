//! Has the operating system begin to write what its cache holds of a file.
//!
//! Invariant: only advice. Nothing is durable by it, and nothing is waited for but room in the queue of the
//! device; a page that cannot be written makes the file's next sync fail, as it would have done without. Called by
//! [`os`](crate::os) alone. `unsafe`, since rustix has no such call.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Begins to write the pages of `bytes` bytes from `offset` on. Where a file system has no such call, or an offset
/// is beyond what it counts in, the next sync has more to do.
pub(crate) fn begin(file: &File, offset: u64, bytes: u64) {
    let (Ok(offset), Ok(bytes)) = (offset.try_into(), bytes.try_into()) else {
        return;
    };
    // SAFETY: the call takes no pointer and touches no memory of this process; `file` keeps the descriptor open
    // meanwhile, and the kernel checks the range.
    let _ = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE)
    };
}

#[cfg(test)]
mod tests {
    use crate::fs::FileSystem;
    use crate::os::OsFileSystem;
    use std::io;

    #[test]
    fn what_the_device_was_given_early_is_what_was_written() -> io::Result<()> {
        const PIECE: usize = 1 << 16;
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("table");
        let fs = OsFileSystem::new();
        let file = fs.create(&path)?;
        for piece in 0..4u8 {
            let at = u64::from(piece) * PIECE as u64;
            file.write_at(at, &[piece; PIECE])?;
            file.begin_write_back(at, PIECE as u64);
        }
        // Advice about what is not there, or cannot be, is no failure.
        file.begin_write_back(1 << 40, u64::MAX);
        file.begin_write_back(u64::MAX, 1);
        file.write_at(7, b"again")?;
        file.sync_data()?;
        let mut contents = vec![0; 4 * PIECE];
        fs.open_read(&path)?.read_exact_at(&mut contents, 0)?;
        assert_eq!(&contents[7..12], b"again");
        for piece in 0..4u8 {
            let at = usize::from(piece) * PIECE;
            assert!(contents[at + 12..at + PIECE].iter().all(|&it| it == piece));
        }
        Ok(())
    }
}
