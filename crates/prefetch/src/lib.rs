//! Asking memory for what is needed next, without waiting for it.
//!
//! A load whose result nobody uses brings a cache line as well, but a locked instruction and a full
//! queue of loads wait for it. A prefetch is done as soon as it is issued.
//!
//! Invariant: nothing here changes what a program computes, whatever address it is given. Called by
//! `memtable`, `sstable` and `db`, which look several keys or sources ahead.
#![deny(unsafe_code)]

/// Bytes that memory hands out at once.
pub const LINE_BYTES: usize = 64;

/// Begins to load the cache line at `address`, which may be any; does nothing where there is no such
/// instruction.
#[inline]
#[allow(unsafe_code)]
pub fn prefetch_address<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint. It changes no register and no memory that a program can see, and
    // faults on no address: one that cannot be read is passed over.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above; the instruction reads one register and writes none.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(nostack, readonly, preserves_flags)
        );
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}

/// Begins to load the first line of `at`.
#[inline]
pub fn prefetch_read<T: ?Sized>(at: &T) {
    prefetch_address(std::ptr::from_ref(at).cast::<u8>());
}

/// Begins to load `lines` lines from the first of `bytes` on. The length of `bytes` is not looked at,
/// since it may have to be loaded itself: lines behind the end are loaded for nothing.
#[inline]
pub fn prefetch_lines(bytes: &[u8], lines: usize) {
    for line in 0..lines {
        prefetch_address(bytes.as_ptr().wrapping_add(line * LINE_BYTES));
    }
}

/// Begins to load `lines` lines from byte `at` of `bytes` on, if there is such a byte.
#[inline]
pub fn prefetch_from(bytes: &[u8], at: usize, lines: usize) {
    if at < bytes.len() {
        for line in 0..lines {
            prefetch_address(bytes.as_ptr().wrapping_add(at + line * LINE_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_faults() {
        for address in [0, 1, 4096, usize::MAX / 2, 1 << 47, 1 << 63, usize::MAX] {
            prefetch_address(std::ptr::without_provenance::<u8>(address));
        }
        prefetch_read("");
        prefetch_read::<[u64]>(&[]);
        prefetch_lines(&[], 100_000);
        prefetch_from(&[], usize::MAX, 2);
        prefetch_from(&[0; 8], 7, 100_000);
    }

    #[test]
    fn what_is_asked_for_does_not_change() {
        let bytes: Vec<u8> = (0..200).collect();
        prefetch_lines(&bytes, 4);
        prefetch_read(&bytes[199]);
        assert!(bytes.iter().copied().eq(0..200));
    }
}
