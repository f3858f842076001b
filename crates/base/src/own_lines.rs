//! Memory that one thread writes all the time, kept away from what others read all the time.
//!
//! A cache line that one processor writes has to be fetched anew by every other that reads anything
//! in it, and fetched back for the next write.
//!
//! Invariant: an [`OwnLines`] shares no cache line with anything beside it. Used by the memtable and by db.

use std::ops::{Deref, DerefMut};

/// A value that shares no cache line with its neighbours, nor the one that processors fetch along with
/// it: two lines, as they come in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OwnLines<T>(pub T);

impl<T> Deref for OwnLines<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for OwnLines<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_a_pair_of_lines_apart() {
        let pair = (OwnLines(1u8), OwnLines(2u8));
        let addresses = [&pair.0, &pair.1].map(|own| std::ptr::from_ref(&**own) as usize);
        assert!(addresses[0].abs_diff(addresses[1]) >= 128);
        assert!(addresses.iter().all(|address| address % 128 == 0));
    }
}
