//! The memory that a thread reads and decompresses blocks in before they go where they stay.
//!
//! A block that is looked up is read, checked, decompressed and copied into memory of its own. All but the last
//! happens here, in memory that the block before was in as well: it need not be allocated, and the processor
//! has it near. Where another block has left its memory to this one it is decompressed there at once.
//!
//! Invariant (I9): a thread keeps at most twice [`KEPT_BYTES`]. Used by `table`.

use std::cell::Cell;

/// A buffer that has grown beyond this is given back.
const KEPT_BYTES: usize = 32 << 10;

thread_local! {
    static BUFFERS: Cell<(Vec<u8>, Vec<u8>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// Runs `load` with two buffers that hold anything.
pub(crate) fn with<T>(load: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>) -> T) -> T {
    // Taken, not borrowed: a file system may read tables of its own while it reads for this one. None are left
    // where the thread has ended but for what it drops, which may read as well.
    let (mut stored, mut scratch) = BUFFERS.try_with(Cell::take).unwrap_or_default();
    let loaded = load(&mut stored, &mut scratch);
    let kept = |buffer: Vec<u8>| match buffer.capacity() <= KEPT_BYTES {
        true => buffer,
        false => Vec::new(),
    };
    let _ = BUFFERS.try_with(|buffers| buffers.set((kept(stored), kept(scratch))));
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_unless_they_are_large_and_nested_loads_have_their_own() {
        with(|stored, scratch| {
            stored.resize(KEPT_BYTES, 1);
            scratch.resize(KEPT_BYTES + 1, 1);
            with(|stored, scratch| assert!(stored.is_empty() && scratch.is_empty()));
        });
        with(|stored, scratch| {
            assert_eq!((stored.len(), scratch.capacity()), (KEPT_BYTES, 0));
        });
    }
}
