//! What a table's index is written from: a separator for each block, in one index block or, for very large tables, in
//! several below a top one.
//!
//! Invariant: blocks are added in their order, each with a separator that is at or after all of its records and
//! before those of the next; what is written is what [`index`](crate::index) describes and reads. Used by
//! `table_writer`.

use esker_base::coding::put_varint;
use esker_base::{Result, Trailer};

use crate::block_builder::shared_prefix_bytes;
use crate::format::BlockHandle;

/// A shortest key that is at or after `last` and before `next`, where `last` is before `next`.
pub(crate) fn shortest_separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let shared = shared_prefix_bytes(last, next);
    if shared == last.len() {
        return last.to_vec();
    }
    // `next` has a byte here, and it is larger than that of `last`.
    if next.len() > shared + 1 {
        return next[..=shared].to_vec();
    }
    if next
        .get(shared)
        .is_some_and(|&byte| last[shared] + 1 < byte)
    {
        let mut separator = last[..=shared].to_vec();
        separator[shared] += 1;
        return separator;
    }
    // Below `next` already because of this byte: what follows may be rounded up.
    match last[shared + 1..].iter().position(|&byte| byte != 0xff) {
        Some(offset) => {
            let at = shared + 1 + offset;
            let mut separator = last[..=at].to_vec();
            separator[at] += 1;
            separator
        }
        None => last.to_vec(),
    }
}

#[derive(Clone, Copy, Debug)]
struct PendingEntry {
    separator_end: usize,
    /// The trailer of the block's last record, where the next block goes on with its key.
    continues: Option<Trailer>,
    block_bytes: u64,
}

/// Collects the entries of an index.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    separators: Vec<u8>,
    entries: Vec<PendingEntry>,
}

impl IndexBuilder {
    /// Adds the next block.
    pub(crate) fn add(&mut self, separator: &[u8], continues: Option<Trailer>, block_bytes: u64) {
        self.separators.extend_from_slice(separator);
        let separator_end = self.separators.len();
        self.entries.push(PendingEntry {
            separator_end,
            continues,
            block_bytes,
        });
    }

    /// Number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// At most about how many bytes the index will take.
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.separators.len() + 5 * self.entries.len() + 16
    }

    fn separator(&self, index: usize) -> &[u8] {
        let start = match index.checked_sub(1) {
            Some(previous) => self.entries[previous].separator_end,
            None => 0,
        };
        &self.separators[start..self.entries[index].separator_end]
    }

    /// The contents of an index block for the blocks `range`, of which the first lies at `offset`.
    fn encode(&self, range: std::ops::Range<usize>, offset: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let common_bytes = match range.len() {
            0 => 0,
            _ => shared_prefix_bytes(self.separator(range.start), self.separator(range.end - 1)),
        };
        out.extend_from_slice(&(range.len() as u32).to_le_bytes());
        out.extend_from_slice(&(common_bytes as u32).to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        if !range.is_empty() {
            out.extend_from_slice(&self.separator(range.start)[..common_bytes]);
        }
        for index in range {
            let entry = self.entries[index];
            let suffix = &self.separator(index)[common_bytes..];
            let continues = u64::from(entry.continues.is_some());
            put_varint(&mut out, (suffix.len() as u64) << 1 | continues);
            out.extend_from_slice(suffix);
            if let Some(trailer) = entry.continues {
                out.extend_from_slice(&trailer.raw().to_le_bytes());
            }
            put_varint(&mut out, entry.block_bytes);
        }
        out
    }

    /// Encodes the index. `write` stores a block's contents and tells where. Gives the handle of
    /// the flat index or of the top, and the number of levels.
    pub(crate) fn write(
        &self,
        partition_bytes: usize,
        mut write: impl FnMut(&[u8]) -> Result<BlockHandle>,
    ) -> Result<(BlockHandle, u32)> {
        if self.estimated_bytes() <= partition_bytes || self.entries.len() < 2 {
            return Ok((write(&self.encode(0..self.entries.len(), 0))?, 1));
        }
        let mut top = Self::default();
        let mut top_offset = 0;
        let (mut start, mut start_offset) = (0, 0);
        let (mut bytes, mut block_offset) = (0, 0);
        for (index, entry) in self.entries.iter().enumerate() {
            bytes += self.separator(index).len() + 5;
            block_offset += entry.block_bytes;
            let is_last = index + 1 == self.entries.len();
            if bytes < partition_bytes && !is_last {
                continue;
            }
            let handle = write(&self.encode(start..index + 1, start_offset))?;
            if start == 0 {
                top_offset = handle.offset;
            }
            top.add(self.separator(index), entry.continues, handle.bytes);
            (start, start_offset, bytes) = (index + 1, block_offset, 0);
        }
        Ok((write(&top.encode(0..top.len(), top_offset))?, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn separators_are_short() {
        let cases: [(&[u8], &[u8], &[u8]); 8] = [
            (b"abc", b"abd", b"abc"),
            (b"abc", b"abx", b"abd"),
            (b"abcdef", b"abdef", b"abd"),
            (b"abc", b"abcd", b"abc"),
            (b"ab\xff\xffz", b"ac", b"ab\xff\xff{"),
            (b"ab\xff\xff", b"ac", b"ab\xff\xff"),
            (b"user0001", b"user0002", b"user0001"),
            (b"a", b"zz", b"z"),
        ];
        for (last, next, expected) in cases {
            assert_eq!(
                shortest_separator(last, next),
                expected,
                "{last:?} {next:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_separator_separates(a: Vec<u8>, b: Vec<u8>) {
            prop_assume!(a != b);
            let (last, next) = if a < b { (a, b) } else { (b, a) };
            let separator = shortest_separator(&last, &next);
            prop_assert!(last <= separator && separator < next);
            prop_assert!(separator.len() <= last.len().max(next.len()));
        }
    }
}
