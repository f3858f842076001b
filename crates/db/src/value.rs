//! The bytes that reads return: short ones inline, long ones as a share of the block they lie in.
//!
//! Invariant: a [`Value`] never changes and outlives the database it came from. Reading one costs
//! no allocation unless it is long and lies in a memtable.

use esker_sstable::{BlockCache, PinnedValue};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// Bytes that are copied instead of shared: two cache lines with the length and the tag.
const INLINE_BYTES: usize = 118;

/// So many bytes, about a line, are copied at once of what is not longer.
const SHORT_BYTES: usize = 64;

/// Bytes read from a database: a key or a value. Derefs to `[u8]`.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// db.put("k", "v")?;
/// let value = db.get("k")?.unwrap();
/// assert_eq!(&*value, b"v");
/// assert_eq!(value.to_vec(), vec![b'v']);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Value {
    repr: Repr,
}

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE_BYTES]),
    Block(PinnedValue),
    Heap(Arc<[u8]>),
}

impl Value {
    /// A copy of `bytes`.
    #[inline]
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        Self {
            repr: Self::inline(bytes).unwrap_or_else(|| Repr::Heap(Arc::from(bytes))),
        }
    }

    /// Puts into `place` a copy, which takes no allocation, of the first `len` of `bytes`; says whether so many fit.
    /// What lies behind them may be copied along, since that takes no loop and no call.
    #[inline]
    pub(crate) fn copy_inline(place: &mut Option<Self>, bytes: &[u8], len: usize) -> bool {
        if len > INLINE_BYTES {
            return false;
        }
        let repr = Repr::Inline(len as u8, [0; INLINE_BYTES]);
        let Repr::Inline(_, buffer) = &mut place.insert(Self { repr }).repr else {
            return false;
        };
        match (
            bytes.first_chunk::<INLINE_BYTES>(),
            buffer.first_chunk_mut(),
        ) {
            (Some(from), Some(to)) if len > SHORT_BYTES => *to = *from,
            _ => match (bytes.first_chunk::<SHORT_BYTES>(), buffer.first_chunk_mut()) {
                (Some(from), Some(to)) if len <= SHORT_BYTES => *to = *from,
                _ => buffer[..len].copy_from_slice(&bytes[..len]),
            },
        }
        true
    }

    /// A share of a block, from byte `skip` of the stored value on.
    #[inline]
    pub(crate) fn from_block(value: &PinnedValue, skip: usize) -> Self {
        let repr = Self::inline(&value[skip..]).unwrap_or_else(|| Repr::Block(value.slice(skip)));
        Self { repr }
    }

    /// Makes it what the caller may keep: a copy of its own where blocks that are lent leave little of a shared
    /// bound for scans. A value keeps all of its block in memory. Where it lies: to move it costs two lines.
    #[inline]
    pub(crate) fn hand_out(&mut self, blocks: &BlockCache) {
        if let Repr::Block(bytes) = &self.repr
            && blocks.is_shared()
            && !blocks.has_room_ahead()
        {
            *self = Self::copy_of(bytes);
        }
    }

    #[inline]
    fn inline(bytes: &[u8]) -> Option<Repr> {
        let mut buffer = [0; INLINE_BYTES];
        buffer.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Repr::Inline(bytes.len() as u8, buffer))
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.repr {
            Repr::Inline(len, buffer) => &buffer[..usize::from(*len)],
            Repr::Block(value) => value,
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Value {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Self {
        value.to_vec()
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_of(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_values_read_the_same() {
        for len in [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 5000] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let value = Value::copy_of(&bytes);
            assert_eq!(&*value, bytes);
            assert_eq!(value.clone(), value);
        }
        let block: Vec<u8> = (0..200).collect();
        for len in 0..=INLINE_BYTES + 1 {
            for behind in [0, 1, SHORT_BYTES, INLINE_BYTES] {
                let stored = &block[..(len + behind).min(block.len())];
                let mut value = None;
                let fits = Value::copy_inline(&mut value, stored, len);
                assert_eq!(fits, len <= INLINE_BYTES);
                assert_eq!(value.as_deref(), fits.then_some(&block[..len]));
            }
        }
        assert!(std::mem::size_of::<Value>() <= 128);
    }
}
