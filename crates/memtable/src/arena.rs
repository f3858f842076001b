//! Where records live: bump allocation in chunks that never move and are freed all at once.
//!
//! Invariant: bytes handed out stay where they are until the arena is dropped, so that whoever
//! holds the arena may point into it; a stored record is immutable. Chunks grow from small to
//! large, and a request that would waste a chunk gets one of its own. A dropped arena gives its
//! chunks to its [`ArenaPool`], because the first touch of fresh memory costs several times what
//! writing the record does.
//!
//! Callers: the two memtables, for records, and the B+tree for its nodes.

use esker_base::Trailer;
use esker_prefetch::{LINE_BYTES, prefetch_address};
use parking_lot::Mutex;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Bytes of the largest ordinary chunk: one huge page.
const MAX_CHUNK_BYTES: usize = 2 << 20;
/// Requests above this share of a chunk get a chunk of their own.
const OVERSIZED_BYTES: usize = MAX_CHUNK_BYTES / 8;
/// Every chunk begins at this boundary, a cache line.
const CHUNK_ALIGN: usize = 64;
/// Every ordinary chunk's size is this or a power of two above, up to [`MAX_CHUNK_BYTES`].
const MIN_CHUNK_BYTES: usize = 4 << 10;
const CHUNK_CLASSES: usize =
    (MAX_CHUNK_BYTES.trailing_zeros() - MIN_CHUNK_BYTES.trailing_zeros()) as usize + 1;

/// A block of raw memory.
struct Memory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `Memory` owns its allocation as a `Box<[MaybeUninit<u8>]>` would; it has no thread
// affinity.
unsafe impl Send for Memory {}
// SAFETY: shared access to `Memory` only reads its address and size.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(bytes: usize) -> Layout {
        let align = if bytes == MAX_CHUNK_BYTES {
            MAX_CHUNK_BYTES
        } else {
            CHUNK_ALIGN
        };
        match Layout::from_size_align(bytes, align) {
            Ok(layout) => layout,
            Err(_) => handle_alloc_error(Layout::new::<u8>()),
        }
    }

    /// A chunk of full size gets the pages that it asks for.
    fn allocate(bytes: usize, pages: Pages) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: no chunk has zero bytes: classes begin at MIN_CHUNK_BYTES and an oversized
        // request is larger than OVERSIZED_BYTES.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        if bytes == MAX_CHUNK_BYTES {
            advise(start, pages);
        }
        Self { start, bytes }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc` with this very layout and is freed once, here.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) }
    }
}

/// What pages a chunk of full size is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// One huge page: its first touch takes a quarter of what those of five hundred small pages take, and
    /// lookups spare the page walk. But all of it is waited for at once.
    Huge,
    /// Small ones, each of which is waited for when it is needed.
    Small,
}

/// Asks for the [`MAX_CHUNK_BYTES`] at `start` to be made of such pages, whatever was asked for when the
/// allocator had lent them before.
fn advise(start: NonNull<u8>, pages: Pages) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let advice = match pages {
            Pages::Huge => rustix::mm::Advice::LinuxHugepage,
            Pages::Small => rustix::mm::Advice::LinuxNoHugepage,
        };
        // SAFETY: the range is ours alone; the advice changes none of its contents. A kernel that
        // does not know it refuses, which is no reason to fail.
        let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), MAX_CHUNK_BYTES, advice) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (start, pages);
}

/// Chunks between two owners, at most so many bytes of them; none while nobody writes.
///
/// One pool serves all memtables of a database: what a flushed memtable leaves is what the next
/// one writes into.
pub struct ArenaPool {
    free: Mutex<[Vec<Memory>; CHUNK_CLASSES]>,
    held_bytes: AtomicUsize,
    /// Bytes of the chunks that arenas have now.
    lent_bytes: AtomicUsize,
    limit_bytes: usize,
    /// Whether the last full-sized chunk was taken since somebody was last told.
    is_short: AtomicBool,
    /// Whether the last huge page that was made ready took long.
    makes_slowly: AtomicBool,
    /// Whether nothing is kept for now. Changes and is acted on while `free` is locked.
    rests: AtomicBool,
}

impl ArenaPool {
    /// A pool that keeps at most `limit_bytes` of free chunks.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(Default::default()),
            held_bytes: AtomicUsize::new(0),
            lent_bytes: AtomicUsize::new(0),
            limit_bytes,
            is_short: AtomicBool::new(false),
            makes_slowly: AtomicBool::new(false),
            rests: AtomicBool::new(false),
        })
    }

    /// Bytes of free chunks that the pool holds now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the chunks that the memtables of this pool have now, whoever still holds them.
    #[must_use]
    pub fn lent_bytes(&self) -> usize {
        self.lent_bytes.load(Ordering::Relaxed)
    }

    /// Gives back what is kept, and keeps nothing until [`ArenaPool::wake`]: nobody writes.
    pub fn rest(&self) {
        let kept = {
            let mut free = self.free.lock();
            self.rests.store(true, Ordering::Relaxed);
            self.held_bytes.store(0, Ordering::Relaxed);
            std::mem::take(&mut *free)
        };
        // Outside of the lock, since it takes a while.
        drop(kept);
    }

    /// Keeps chunks again: memtables are filled.
    pub fn wake(&self) {
        if self.rests.load(Ordering::Relaxed) {
            let _changes_alone = self.free.lock();
            self.rests.store(false, Ordering::Relaxed);
        }
    }

    fn class(bytes: usize) -> Option<usize> {
        let in_range = (MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&bytes);
        (in_range && bytes.is_power_of_two())
            .then(|| (bytes.trailing_zeros() - MIN_CHUNK_BYTES.trailing_zeros()) as usize)
    }

    fn take(&self, bytes: usize) -> Option<Memory> {
        let class = Self::class(bytes)?;
        let mut free = self.free.lock();
        let memory = free[class].pop();
        if bytes == MAX_CHUNK_BYTES && free[class].is_empty() {
            self.is_short.store(true, Ordering::Relaxed);
        }
        let memory = memory?;
        self.held_bytes.fetch_sub(memory.bytes, Ordering::Relaxed);
        Some(memory)
    }

    /// Keeps `memory` if it has an ordinary size and there is room; otherwise it is freed.
    fn give(&self, memory: Memory) {
        let Some(class) = Self::class(memory.bytes) else {
            return;
        };
        let mut free = self.free.lock();
        let fits = self.held_bytes.load(Ordering::Relaxed) + memory.bytes <= self.limit_bytes;
        if fits && !self.rests.load(Ordering::Relaxed) {
            self.held_bytes.fetch_add(memory.bytes, Ordering::Relaxed);
            free[class].push(memory);
        }
    }
}

impl fmt::Debug for ArenaPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArenaPool")
            .field("held_bytes", &self.held_bytes())
            .field("limit_bytes", &self.limit_bytes)
            .finish()
    }
}

/// A piece of memory that allocations are cut from.
struct Chunk {
    memory: Memory,
    /// May run past the end: an allocation that does not fit any more has been tried.
    used: AtomicUsize,
}

/// A chunk that `Box::into_raw` gave away. (A `Box` in the list would claim to be the only way to
/// its chunk each time the list moves it.)
struct ChunkBox(NonNull<Chunk>);

// SAFETY: a `ChunkBox` owns its chunk as a `Box<Chunk>` would, and `Chunk` is `Send`.
unsafe impl Send for ChunkBox {}

/// Bump allocation for any number of threads.
pub(crate) struct Arena {
    /// The chunk allocations come from now; null before the first.
    current: AtomicPtr<Chunk>,
    /// All chunks, so that they can be freed. They are boxed, because `current` points at one while
    /// the list grows.
    chunks: Mutex<Vec<ChunkBox>>,
    /// Bytes handed out from all chunks but the current one.
    retired_bytes: AtomicUsize,
    reserved_bytes: AtomicUsize,
    first_chunk_bytes: usize,
    pool: Option<Arc<ArenaPool>>,
}

impl Arena {
    /// An arena that allocates nothing yet; its first chunk will have `first_chunk_bytes`, a power
    /// of two, and every further one twice the last, up to 2 MiB.
    pub(crate) fn new(first_chunk_bytes: usize, pool: Option<Arc<ArenaPool>>) -> Self {
        debug_assert!(ArenaPool::class(first_chunk_bytes).is_some());
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            chunks: Mutex::new(Vec::new()),
            retired_bytes: AtomicUsize::new(0),
            reserved_bytes: AtomicUsize::new(0),
            first_chunk_bytes,
            pool,
        }
    }

    /// `bytes` of uninitialised memory at a multiple of `align` (a power of two, at most 64). The
    /// caller alone may write it, and nobody frees it before the arena is dropped.
    ///
    /// All requests of one arena use the same `align`.
    #[inline]
    pub(crate) fn allocate(&self, bytes: usize, align: usize) -> NonNull<u8> {
        debug_assert!(align.is_power_of_two() && align <= CHUNK_ALIGN);
        let bytes = bytes.next_multiple_of(align);
        let current = self.current.load(Ordering::Acquire);
        if bytes <= OVERSIZED_BYTES {
            // SAFETY: `current` is null or one of `chunks`, none of which is freed before the arena
            // is dropped.
            if let Some(chunk) = unsafe { current.as_ref() }
                && let Some(start) = self.cut(chunk, bytes)
            {
                return start;
            }
        }
        self.allocate_slowly(bytes, current)
    }

    /// Cuts `bytes` from `chunk`, if it has them.
    #[inline]
    fn cut(&self, chunk: &Chunk, bytes: usize) -> Option<NonNull<u8>> {
        let at = chunk.used.fetch_add(bytes, Ordering::Relaxed);
        if at + bytes <= chunk.memory.bytes {
            // SAFETY: `at + bytes` lies within the allocation.
            return Some(unsafe { chunk.memory.start.add(at) });
        }
        if at <= chunk.memory.bytes {
            // Exactly one request is the first that does not fit: nothing is cut after it.
            self.retired_bytes.fetch_add(at, Ordering::Relaxed);
        }
        None
    }

    #[cold]
    fn allocate_slowly(&self, bytes: usize, seen: *mut Chunk) -> NonNull<u8> {
        let mut chunks = self.chunks.lock();
        if bytes > OVERSIZED_BYTES {
            self.retired_bytes.fetch_add(bytes, Ordering::Relaxed);
            let chunk = self.add_chunk(&mut chunks, bytes, bytes);
            // SAFETY: the chunk is one of `chunks`, as in `allocate`.
            return unsafe { chunk.as_ref() }.memory.start;
        }
        let mut current = self.current.load(Ordering::Acquire);
        loop {
            // SAFETY: as in `allocate`.
            let chunk = unsafe { current.as_ref() };
            if current != seen
                && let Some(start) = chunk.and_then(|chunk| self.cut(chunk, bytes))
            {
                return start;
            }
            let next_bytes = chunk
                .map_or(self.first_chunk_bytes, |chunk| chunk.memory.bytes * 2)
                .max(bytes.next_power_of_two())
                .min(MAX_CHUNK_BYTES);
            current = self.add_chunk(&mut chunks, next_bytes, 0).as_ptr();
            self.current.store(current, Ordering::Release);
        }
    }

    fn add_chunk(&self, chunks: &mut Vec<ChunkBox>, bytes: usize, used: usize) -> NonNull<Chunk> {
        let pooled = self.pool.as_ref().and_then(|pool| pool.take(bytes));
        let pages = self.pool.as_ref().map_or(Pages::Huge, |pool| pool.pages());
        let memory = pooled.unwrap_or_else(|| Memory::allocate(bytes, pages));
        if let Some(pool) = &self.pool {
            pool.lent_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.reserved_bytes.fetch_add(bytes, Ordering::Relaxed);
        let boxed = Box::new(Chunk {
            memory,
            used: AtomicUsize::new(used),
        });
        let chunk = NonNull::from(Box::leak(boxed));
        chunks.push(ChunkBox(chunk));
        chunk
    }

    /// Bytes handed out, padding included.
    pub(crate) fn bytes(&self) -> usize {
        let retired = self.retired_bytes.load(Ordering::Relaxed);
        // SAFETY: as in `allocate`.
        let current = unsafe { self.current.load(Ordering::Acquire).as_ref() };
        let in_use = current.map_or(0, |chunk| {
            let used = chunk.used.load(Ordering::Relaxed);
            // Past its end the chunk is counted as retired already.
            if used <= chunk.memory.bytes { used } else { 0 }
        });
        retired + in_use
    }

    /// Bytes of all chunks.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes.load(Ordering::Relaxed)
    }

    /// Stores a record.
    #[inline]
    pub(crate) fn store(&self, key: &[u8], trailer: Trailer, value: &[u8]) -> RecordRef {
        debug_assert!(u32::try_from(key.len()).is_ok() && u32::try_from(value.len()).is_ok());
        let start = self.allocate(RECORD_HEADER_BYTES + key.len() + value.len(), RECORD_ALIGN);
        let header = RecordHeader {
            trailer: trailer.raw(),
            key_bytes: key.len() as u32,
            value_bytes: value.len() as u32,
        };
        // SAFETY: the allocation is ours alone, holds header, key and value, and is aligned for
        // the header.
        unsafe {
            start.cast::<RecordHeader>().write(header);
            let key_start = start.add(RECORD_HEADER_BYTES);
            key_start.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            let value_start = key_start.add(key.len());
            value_start.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
        }
        RecordRef(start)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for ChunkBox(chunk) in self.chunks.get_mut().drain(..) {
            // SAFETY: the pointer came from `Box::leak` and leaves the list for good here; nobody
            // can reach it through an arena that is being dropped.
            let chunk = unsafe { Box::from_raw(chunk.as_ptr()) };
            if let Some(pool) = &self.pool {
                pool.lent_bytes
                    .fetch_sub(chunk.memory.bytes, Ordering::Relaxed);
                pool.give(chunk.memory);
            }
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("bytes", &self.bytes())
            .field("reserved_bytes", &self.reserved_bytes())
            .finish()
    }
}

/// What stands before a record's key and value in the arena.
#[repr(C)]
#[derive(Clone, Copy)]
struct RecordHeader {
    trailer: u64,
    key_bytes: u32,
    value_bytes: u32,
}

/// Bytes of the header that precedes a record's key.
pub(crate) const RECORD_HEADER_BYTES: usize = size_of::<RecordHeader>();
const RECORD_ALIGN: usize = align_of::<RecordHeader>();

/// The address of a stored record: header, key, value, one after the other, so that finding a
/// record costs one cache miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct RecordRef(NonNull<u8>);

// SAFETY: a stored record is immutable, so that its address may travel to and be read from any
// thread; keeping the arena alive is the obligation of `RecordRef::view`.
unsafe impl Send for RecordRef {}
// SAFETY: as for `Send`.
unsafe impl Sync for RecordRef {}

/// A stored record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) trailer: Trailer,
    pub(crate) value: &'a [u8],
}

impl RecordRef {
    /// The record.
    ///
    /// # Safety
    /// The arena that stored the record lives for all of `'a`, and the reference reached this
    /// thread through a release-acquire pair (or never left it).
    #[inline]
    pub(crate) unsafe fn view<'a>(self) -> Record<'a> {
        // SAFETY: `store` wrote a header, then the key, then the value, all of which stay
        // unchanged while the arena lives, which the caller guarantees.
        unsafe {
            let header = self.0.cast::<RecordHeader>().read();
            let key_start = self.0.add(RECORD_HEADER_BYTES);
            let key_bytes = header.key_bytes as usize;
            let value_start = key_start.add(key_bytes);
            Record {
                key: std::slice::from_raw_parts(key_start.as_ptr(), key_bytes),
                trailer: Trailer::from_raw(header.trailer),
                value: std::slice::from_raw_parts(
                    value_start.as_ptr(),
                    header.value_bytes as usize,
                ),
            }
        }
    }

    /// The address itself, for a slot that readers load atomically.
    #[inline]
    pub(crate) fn address(self) -> NonNull<u8> {
        self.0
    }

    /// The record at `address`.
    ///
    /// # Safety
    /// `address` came from [`RecordRef::address`].
    #[inline]
    pub(crate) unsafe fn from_address(address: NonNull<u8>) -> Self {
        Self(address)
    }

    /// Begins to load the record's first cache lines.
    #[inline]
    pub(crate) fn prefetch(self) {
        prefetch_address(self.0.as_ptr());
        prefetch_address(self.0.as_ptr().wrapping_add(LINE_BYTES));
    }
}

mod ahead;
#[cfg(test)]
mod tests;
