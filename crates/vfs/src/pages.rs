//! The bytes of one file in memory: sparse, in chunks, shared until written.
//!
//! Invariants: growth never copies what is there; a clone shares its chunks with the original and
//! copies one only when either side writes to it; no chunk holds bytes beyond the length, so that a
//! cut file that grows again reads as zeros. Called by [`mem`](crate::mem) and
//! [`crash`](crate::crash).

use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a whole chunk. A chunk may be shorter; what it lacks reads as zeros.
const CHUNK_BYTES: usize = 64 << 10;
/// The longest file, bytes: bounds the table of chunks, whatever offset is written to.
const MAX_FILE_BYTES: u64 = 1 << 40;

/// The contents of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    len: u64,
    chunks: Vec<Option<Arc<Vec<u8>>>>,
}

impl Pages {
    /// Bytes in the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The end of a range that a file may have.
    ///
    /// # Errors
    /// `FileTooLarge` beyond 1 TiB.
    pub(crate) fn checked_end(offset: u64, bytes: u64) -> io::Result<u64> {
        match offset.checked_add(bytes) {
            Some(end) if end <= MAX_FILE_BYTES => Ok(end),
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file is too short.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match offset.checked_add(buffer.len() as u64) {
            _ if buffer.is_empty() => return Ok(()),
            Some(end) if end <= self.len => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let mut rest = buffer;
        for (index, range) in pieces(offset, rest.len()) {
            let (piece, tail) = rest.split_at_mut(range.len());
            let chunk = self.chunks.get(index).and_then(Option::as_deref);
            let stored = chunk.map_or(&[][..], |chunk| &chunk[range.start.min(chunk.len())..]);
            let copied = stored.len().min(piece.len());
            piece[..copied].copy_from_slice(&stored[..copied]);
            piece[copied..].fill(0);
            rest = tail;
        }
        Ok(())
    }

    /// Writes `data` at `offset`; the file grows as needed.
    ///
    /// # Errors
    /// `FileTooLarge` beyond 1 TiB; nothing is written then.
    pub(crate) fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = Self::checked_end(offset, data.len() as u64)?;
        let mut rest = data;
        for (index, range) in pieces(offset, data.len()) {
            let (piece, tail) = rest.split_at(range.len());
            if self.chunks.len() <= index {
                self.chunks.resize(index + 1, None);
            }
            let chunk = Arc::make_mut(self.chunks[index].get_or_insert_default());
            if chunk.len() < range.start {
                chunk.resize(range.start, 0);
            }
            let overlap = chunk.len().min(range.end) - range.start;
            chunk[range.start..range.start + overlap].copy_from_slice(&piece[..overlap]);
            chunk.extend_from_slice(&piece[overlap..]);
            rest = tail;
        }
        // As POSIX has it, a write of nothing does not extend the file.
        if !data.is_empty() {
            self.len = self.len.max(end);
        }
        Ok(())
    }

    /// Cuts the file or extends it with zeros.
    ///
    /// # Errors
    /// `FileTooLarge` beyond 1 TiB.
    pub(crate) fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        Self::checked_end(0, bytes)?;
        if bytes < self.len {
            // Both fit: the length is at most 2^40 on a system that could hold the chunks so far.
            let whole = (bytes / CHUNK_BYTES as u64) as usize;
            let part = (bytes % CHUNK_BYTES as u64) as usize;
            self.chunks
                .truncate(if part > 0 { whole + 1 } else { whole });
            if let (true, Some(Some(chunk))) = (part > 0, self.chunks.get_mut(whole))
                && chunk.len() > part
            {
                Arc::make_mut(chunk).truncate(part);
            }
        }
        self.len = bytes;
        Ok(())
    }
}

/// The chunks that a range touches, and which part of each.
fn pieces(offset: u64, bytes: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let chunk_bytes = CHUNK_BYTES as u64;
    let (mut at, end) = (offset, offset + bytes as u64);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (index, start) = (at / chunk_bytes, (at % chunk_bytes) as usize);
        let stop = ((end - index * chunk_bytes) as usize).min(CHUNK_BYTES);
        at = index * chunk_bytes + stop as u64;
        Some((index as usize, start..stop))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pages: &Pages) -> Vec<u8> {
        let mut bytes = vec![7; pages.len() as usize];
        pages.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn offsets_beyond_any_file_are_refused_without_allocating() {
        let mut pages = Pages::default();
        for offset in [1 << 40, u64::MAX - 1, u64::MAX] {
            assert_eq!(
                pages.write_at(offset, b"xx").unwrap_err().kind(),
                io::ErrorKind::FileTooLarge
            );
            let error = pages.read_exact_at(&mut [0; 2], offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(pages.set_len((1 << 40) + 1).is_err());
        assert!(pages.chunks.is_empty());
    }

    #[test]
    fn a_clone_is_independent() {
        let mut pages = Pages::default();
        pages.write_at(0, b"before").unwrap();
        let copy = pages.clone();
        pages.write_at(0, b"after!").unwrap();
        pages.set_len(3).unwrap();
        assert_eq!(all(&copy), b"before");
        assert_eq!(all(&pages), b"aft");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let near_a_boundary = prop_oneof![0..64u64, 65_500..65_600u64, 131_000..131_100u64];
        let data = prop_oneof![
            prop::collection::vec(1u8.., 0..100),
            (1u8..).prop_map(|byte| vec![byte; 70_000]),
        ];
        prop_oneof![
            3 => (near_a_boundary.clone(), data).prop_map(|(at, data)| Step::Write(at, data)),
            1 => near_a_boundary.prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector_of_bytes(steps in prop::collection::vec(step(), 1..20)) {
            let (mut pages, mut model) = (Pages::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        pages.write_at(at, &data).unwrap();
                        let at = at as usize;
                        if !data.is_empty() {
                            model.resize(model.len().max(at + data.len()), 0);
                            model[at..at + data.len()].copy_from_slice(&data);
                        }
                    }
                    Step::SetLen(len) => {
                        pages.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                }
                prop_assert!(all(&pages) == model);
            }
        }
    }
}
