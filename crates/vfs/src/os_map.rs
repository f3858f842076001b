//! The window of shared memory on a file: most of the `unsafe` code of this crate.
//!
//! Invariant: a [`Window`] covers bytes that its caller has made certain to exist: space allocated
//! on the device, below the end of the file, on a file system that rewrites such blocks in place.
//! Only then can a store into it not be answered with SIGBUS, and [`os`](crate::os), the one
//! caller, makes no window otherwise.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// A writable, shared mapping of the first `bytes` bytes of a file.
#[derive(Debug)]
pub(crate) struct Window {
    start: NonNull<u8>,
    bytes: usize,
    /// Below, the pages were let go.
    let_go: usize,
}

/// What is let go ends at a multiple of this, which the pages of every kernel divide.
const LET_GO_UNIT: usize = 64 << 10;

// SAFETY: a `Window` is the only owner of its mapping, which is ordinary process memory and bound to
// no thread; so it may move to another thread.
unsafe impl Send for Window {}
// SAFETY: a shared reference gives no access to the memory at all (`copy_at` takes `&mut self`), so
// sharing it between threads shares two numbers.
unsafe impl Sync for Window {}

impl Window {
    /// Maps the first `bytes` bytes of `file`, which must be open for reading and writing.
    ///
    /// # Errors
    /// `InvalidInput` for no bytes; else what the operating system says.
    pub(crate) fn new(file: &File, bytes: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the address is left to the kernel, so that the mapping overlaps no memory in use;
        // the kernel checks the length and the descriptor, which `file` keeps open for the call. No
        // Rust reference to the memory is ever made, so other mappings of the file may change it.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::other("the kernel mapped a file at address zero"))?;
        let window = Self {
            start,
            bytes,
            let_go: 0,
        };
        window.refuse_read_ahead();
        Ok(window)
    }

    /// Has a first store into a page make that page ready and no others. Otherwise it waits until the kernel
    /// has cleared as many of its neighbours as the device is set to read ahead, which may be 8 MiB and
    /// take milliseconds.
    fn refuse_read_ahead(&self) {
        // SAFETY: the range is the live mapping of `self`, and the advice changes none of its contents. A
        // kernel that refuses it reads ahead, which is no reason to fail.
        let _ = unsafe { madvise(self.start.as_ptr().cast(), self.bytes, Advice::Random) };
    }

    /// Takes the pages below `offset` out of the mapping, not out of the file: they no longer count as
    /// memory of the process, and need not be taken out when the mapping goes.
    pub(crate) fn let_go(&mut self, offset: u64) {
        let end = usize::try_from(offset)
            .unwrap_or(self.bytes)
            .min(self.bytes);
        let end = end / LET_GO_UNIT * LET_GO_UNIT;
        let Some(bytes) = end.checked_sub(self.let_go).filter(|&bytes| bytes > 0) else {
            return;
        };
        // SAFETY: `let_go + bytes <= self.bytes`, so the range lies inside the live mapping of `self`, and begins
        // at a page, as the mapping does. In a shared mapping of a file the advice loses nothing: a later
        // access finds the file's page again. A kernel that refuses it keeps the pages, which is no reason to fail.
        let _ = unsafe {
            let from = self.start.as_ptr().add(self.let_go);
            madvise(from.cast(), bytes, Advice::LinuxDontNeed)
        };
        self.let_go = end;
    }

    /// Copies `data` to `offset`; false, and nothing written, where it would not fit.
    pub(crate) fn copy_at(&mut self, offset: u64, data: &[u8]) -> bool {
        let Ok(offset) = usize::try_from(offset) else {
            return false;
        };
        match offset.checked_add(data.len()) {
            Some(end) if end <= self.bytes => {}
            _ => return false,
        }
        // SAFETY: `offset + data.len() <= self.bytes` was just checked, so the target lies inside
        // the live mapping that `self` owns alone. `data` cannot overlap it: no reference into the
        // mapping is ever given out. `u8` needs no alignment.
        unsafe {
            let target = self.start.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(data.as_ptr(), target, data.len());
        }
        true
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: `start` and `bytes` are those of the mapping made in `new`, which nobody else
        // unmaps, and no pointer into it outlives `self`. A failure would leave it mapped: harmless.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_is_in_the_file_and_no_longer_in_memory() -> io::Result<()> {
        const BYTES: usize = 1 << 20;
        let file = tempfile::tempfile()?;
        file.set_len(BYTES as u64)?;
        let mut window = Window::new(&file, BYTES)?;
        assert!(window.copy_at(0, &vec![7; BYTES]));
        let resident = |window: &Window| -> io::Result<u64> {
            let start = format!("{:08x}-", window.start.as_ptr() as usize);
            let maps = std::fs::read_to_string("/proc/self/smaps")?;
            let ours = maps.lines().skip_while(|line| !line.starts_with(&start));
            let line = ours.into_iter().find(|line| line.starts_with("Rss:"));
            let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            kib.ok_or_else(|| io::Error::other("no such line"))
        };
        assert_eq!(resident(&window)?, 1024);
        window.let_go(600_000);
        window.let_go(100);
        assert_eq!(resident(&window)?, 1024 - 576);
        window.let_go(u64::MAX);
        assert_eq!(resident(&window)?, 0);
        assert!(window.copy_at(5, &[8]));
        let mut found = vec![0; BYTES];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, 0)?;
        let mut expected = vec![7; BYTES];
        expected[5] = 8;
        assert!(found == expected);
        Ok(())
    }

    /// The story: the first store into a page waited until the kernel had cleared 8 MiB around it.
    #[test]
    fn a_window_is_not_read_ahead() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        file.set_len(64 << 10)?;
        let mut window = Window::new(&file, 64 << 10)?;
        assert!(window.copy_at(0, b"stored"));
        // The kernel writes eight digits at least; valgrind gives addresses that have fewer.
        let start = format!("{:08x}-", window.start.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps")?;
        let ours = maps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = ours.into_iter().find(|line| line.starts_with("VmFlags:"));
        let flags = flags.unwrap_or_default();
        assert!(flags.split_whitespace().any(|flag| flag == "rr"), "{flags}");
        Ok(())
    }
}
