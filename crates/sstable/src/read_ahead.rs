//! Reads a table's blocks in large pieces for whoever walks over them in order.
//!
//! Invariant: memory is one piece, and a block that is larger than a piece is a piece of its own.
//! Used by `table_iter` (a compaction always, a user's scan once it has missed the cache twice in a
//! row) and by `verify`.

use esker_base::Result;

use crate::block_io::BlockFile;
use crate::format::BlockHandle;

/// The first piece of a scan that turned out to be one.
const SMALLEST_PIECE: u64 = 16 << 10;
/// Pieces do not grow beyond this: enough for the device to be busy, little for memory.
const LARGEST_PIECE: u64 = 256 << 10;

/// A piece of a file, and how large the next one is to be.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    buffer: Vec<u8>,
    start: u64,
    piece_bytes: u64,
    eager: bool,
    last: BlockHandle,
}

impl ReadAhead {
    /// `eager` reads large pieces at once; otherwise they begin when blocks are asked for in a row.
    pub(crate) fn new(eager: bool) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            piece_bytes: 0,
            eager,
            last: BlockHandle::default(),
        }
    }

    /// The stored bytes of the block at `handle`. Reads nothing at or after `limit`.
    ///
    /// # Errors
    /// I/O; Corruption.
    pub(crate) fn stored(
        &mut self,
        file: BlockFile<'_>,
        handle: BlockHandle,
        limit: u64,
    ) -> Result<&[u8]> {
        let end = handle.offset + handle.bytes;
        let buffered_end = self.start + self.buffer.len() as u64;
        if handle.offset < self.start || end > buffered_end {
            self.read_piece(file, handle, limit.max(end))?;
        }
        self.last = handle;
        let at = (handle.offset - self.start) as usize;
        Ok(&self.buffer[at..at + handle.bytes as usize])
    }

    /// Gives back what a block took here that is larger than a piece may be: a scan stands in many tables at once, and
    /// must not hold the largest block of each twice. Whoever reads each block once, ahead, keeps it.
    pub(crate) fn let_go_of_large(&mut self) {
        if !self.eager && self.buffer.capacity() as u64 > LARGEST_PIECE {
            self.let_go();
        }
    }

    /// Gives back the piece.
    pub(crate) fn let_go(&mut self) {
        self.buffer = Vec::new();
    }

    /// The memory of the piece.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    fn read_piece(&mut self, file: BlockFile<'_>, handle: BlockHandle, limit: u64) -> Result<()> {
        let end = handle.offset + handle.bytes;
        let goes_back = end == self.last.offset;
        let goes_on = handle.offset == self.last.offset + self.last.bytes;
        self.piece_bytes = match (self.eager, goes_back || goes_on) {
            (true, _) => LARGEST_PIECE,
            (false, true) => (self.piece_bytes * 2).clamp(SMALLEST_PIECE, LARGEST_PIECE),
            (false, false) => 0,
        };
        let bytes = handle.bytes.max(self.piece_bytes);
        let (start, end) = if goes_back {
            (end.saturating_sub(bytes), end)
        } else {
            (handle.offset, (handle.offset + bytes).min(limit))
        };
        // On failure nothing is buffered.
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize((end - start) as usize, 0);
        file.read_exact(&mut buffer, start)?;
        (self.buffer, self.start) = (buffer, start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_vfs::{FileSystem, MemFileSystem};
    use std::path::Path;

    #[test]
    fn blocks_in_any_order_are_what_the_file_holds() {
        let fs = MemFileSystem::new();
        let path = Path::new("/t");
        let contents: Vec<u8> = (0..600_000u32)
            .flat_map(|i| (i as u16).to_le_bytes())
            .collect();
        fs.create(path).unwrap().write_at(0, &contents).unwrap();
        let file = fs.open_read(path).unwrap();
        let file = BlockFile {
            file: &*file,
            path,
            number: 1,
        };
        let blocks: Vec<_> = (0..200u64)
            .map(|i| BlockHandle {
                offset: i * 6000,
                bytes: 6000,
            })
            .collect();
        let limit = contents.len() as u64;
        let wild = (0..200).map(|i| i * 77 % 200);
        let order = (0..200).chain((0..200).rev()).chain(wild);
        for eager in [true, false] {
            let mut ahead = ReadAhead::new(eager);
            for index in order.clone() {
                let at = index * 6000;
                let stored = ahead.stored(file, blocks[index], limit).unwrap();
                assert_eq!(stored, &contents[at..at + 6000]);
                assert!(ahead.buffer.len() as u64 <= LARGEST_PIECE);
            }
        }
        // What is larger than a piece does not stay, and is read again where it is wanted.
        let large = BlockHandle {
            offset: 5,
            bytes: 500_000,
        };
        for (eager, kept) in [(true, 500_000), (false, 0)] {
            let mut ahead = ReadAhead::new(eager);
            for _ in 0..2 {
                let stored = ahead.stored(file, large, limit).unwrap();
                assert!(stored == &contents[5..500_005]);
                ahead.let_go_of_large();
                assert_eq!(ahead.buffer.len(), kept);
            }
        }
        // A piece that was let go is read again.
        let mut ahead = ReadAhead::new(false);
        for &handle in &blocks {
            let at = handle.offset as usize;
            let stored = ahead.stored(file, handle, limit).unwrap();
            assert_eq!(stored, &contents[at..at + 6000]);
            ahead.let_go();
            assert_eq!(ahead.memory_bytes(), 0);
        }
        let beyond = BlockHandle {
            offset: limit - 1,
            bytes: 2,
        };
        assert!(ReadAhead::new(true).stored(file, beyond, limit).is_err());
    }
}
