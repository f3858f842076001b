//! The single-writer inhabitant: a B+tree that readers search without a lock.
//!
//! Invariant: one thread inserts at a time (a lock sees to it); readers follow child pointers and
//! the leaves' `next` pointers. A reader may arrive one or more leaves too far to the left, because
//! a node on its way has just split; it never arrives too far to the right, and walking right finds
//! everything. So no reader starts over from the root.
//!
//! Shape: Bayer and McCreight's B+tree with the right-hand links of Lehman and Yao ("Efficient
//! locking for concurrent operations on B-trees", 1981); the nodes' protocol is in [`slots`].
//!
//! Callers: `memtable` for inserts and lookups, `entry_iter` for batches (in `batches`).

mod batches;
mod key_filter;
mod node;
mod slots;

use crate::arena::{Arena, ArenaPool, Record, RecordRef};
use crate::probe::{Probe, common_prefix_bytes};
use esker_base::Trailer;
use esker_base::checksum::key_hash;
use esker_base::own_lines::OwnLines;
use key_filter::{Filling, KeyFilter};
use node::{Child, Inner, Leaf};
use parking_lot::Mutex;
pub(crate) use slots::SLOTS;
use slots::{Lookup, Slots};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

/// Bytes of the first chunk of records. Small, since thousands of keyspaces may have a memtable with
/// little in it; every further chunk is twice the last.
const FIRST_RECORD_CHUNK_BYTES: usize = 4 << 10;
/// Bytes of the first chunk of nodes, likewise.
const FIRST_NODE_CHUNK_BYTES: usize = 4 << 10;
/// More levels than records that fit into memory can fill: nodes are at least half full, but for
/// those at the right edge.
const MAX_LEVELS: usize = if cfg!(miri) { 12 } else { 8 };

/// A memtable for one writer at a time.
pub(crate) struct BTree {
    /// Null until the first insert.
    root: AtomicPtr<Inner>,
    /// The last leaf, or one that was it a moment ago.
    rightmost: AtomicPtr<Leaf>,
    filter: KeyFilter,
    /// Apart from what readers look at, since every insert writes it.
    inserting: OwnLines<Mutex<Filling>>,
    nodes: Arena,
    records: Arena,
}

/// The inner nodes from the root to a leaf, and which child was taken in each.
struct Path<'a> {
    steps: [Option<(&'a Inner, usize)>; MAX_LEVELS],
    len: usize,
}

impl BTree {
    pub(crate) fn new(pool: Option<Arc<ArenaPool>>) -> Self {
        Self {
            root: AtomicPtr::new(ptr::null_mut()),
            rightmost: AtomicPtr::new(ptr::null_mut()),
            filter: KeyFilter::new(),
            inserting: OwnLines::default(),
            nodes: Arena::new(FIRST_NODE_CHUNK_BYTES, pool.clone()),
            records: Arena::new(FIRST_RECORD_CHUNK_BYTES, pool),
        }
    }

    fn root(&self) -> Option<&Inner> {
        // SAFETY: null or a node of `self.nodes`, stored with release.
        unsafe { self.root.load(Acquire).as_ref() }
    }

    fn rightmost(&self) -> Option<&Leaf> {
        // SAFETY: null or a node of `self.nodes`, stored with release.
        unsafe { self.rightmost.load(Acquire).as_ref() }
    }

    /// The newest record of the probe's key at or after the probe.
    #[inline]
    pub(crate) fn get(&self, probe: &Probe<'_>) -> Option<Record<'_>> {
        let mut leaf = self.find_leaf(probe)?;
        loop {
            let slots = &leaf.slots;
            let found = slots.read(|| match slots.find(probe) {
                Lookup::Beyond => Err(leaf.next()),
                found => Ok(found),
            });
            match found {
                Ok(Lookup::Candidate(record)) => {
                    record.prefetch();
                    // SAFETY: a record of `self.records`, loaded with acquire.
                    let record = unsafe { record.view() };
                    return (record.key == probe.key).then_some(record);
                }
                Ok(Lookup::Absent | Lookup::Beyond) => return None,
                Err(next) => leaf = next?,
            }
        }
    }

    /// Begins to load the leaf that `probe` belongs into.
    #[inline]
    pub(crate) fn prefetch(&self, probe: &Probe<'_>) {
        // What comes behind all others goes where the last one went.
        if self
            .rightmost()
            .is_some_and(|leaf| !leaf.slots.is_before(probe))
        {
            self.find_leaf(probe);
        }
    }

    /// The leaf that `probe` belongs into, or one to its left.
    #[inline]
    fn find_leaf(&self, probe: &Probe<'_>) -> Option<&Leaf> {
        let mut inner = self.root()?;
        loop {
            match inner.find_child(probe) {
                Child::Inner(child) => {
                    Slots::prefetch_words(&raw const child.slots);
                    inner = child;
                }
                Child::Leaf(leaf) => {
                    Slots::prefetch(&raw const leaf.slots);
                    return Some(leaf);
                }
            }
        }
    }

    pub(crate) fn insert(&self, key: &[u8], trailer: Trailer, value: &[u8]) {
        let hash = key_hash(key);
        let mut filling = self.inserting.lock();
        self.filter.prefetch_to_add(hash, &filling);
        self.insert_into_nodes(key, trailer, value);
        self.filter.add(hash, &mut filling, &self.nodes);
    }

    /// Whether a record of a key with this hash may be here: what was inserted passes.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// Begins to load what [`BTree::may_contain`] looks at.
    #[inline]
    pub(crate) fn prefetch_filter(&self, hash: u64) {
        self.filter.prefetch(hash);
    }

    fn insert_into_nodes(&self, key: &[u8], trailer: Trailer, value: &[u8]) {
        let probe = Probe::new(key, trailer);
        let record = self.records.store(key, trailer, value);
        if let Some(leaf) = self.rightmost()
            && leaf.slots.is_before(&probe)
            && leaf.slots.count() < SLOTS
        {
            // SAFETY: records live as long as nodes: `self` owns both arenas.
            unsafe { leaf.slots.insert(leaf.slots.count(), record, &probe, || ()) };
            return;
        }
        let (leaf, path) = self.find_leaf_to_insert(&probe);
        let position = leaf.slots.position(&probe, leaf.slots.count());
        if leaf.slots.count() < SLOTS {
            // SAFETY: as above.
            unsafe { leaf.slots.insert(position, record, &probe, || ()) };
        } else {
            self.split(leaf, &path, position, record, &probe);
        }
    }

    /// The leaf that `probe` belongs into and the way there. Writer only.
    fn find_leaf_to_insert(&self, probe: &Probe<'_>) -> (&Leaf, Path<'_>) {
        let mut inner = match self.root() {
            Some(root) => root,
            None => self.plant(),
        };
        let mut path = Path {
            steps: [None; MAX_LEVELS],
            len: 0,
        };
        loop {
            let index = inner.child_index(probe);
            path.steps[path.len] = Some((inner, index));
            path.len += 1;
            match inner.child(index) {
                Child::Inner(child) => inner = child,
                Child::Leaf(leaf) => {
                    Slots::prefetch(&raw const leaf.slots);
                    return (leaf, path);
                }
            }
        }
    }

    /// The first two nodes.
    fn plant(&self) -> &Inner {
        let leaf = Leaf::new_in(&self.nodes);
        let root = Inner::new_in(&self.nodes, Child::Leaf(leaf));
        self.rightmost.store(leaf.address(), Release);
        self.root.store(root.address(), Release);
        root
    }

    /// Splits a full leaf and inserts `record`, which belongs into its slot `position`.
    fn split(
        &self,
        left: &Leaf,
        path: &Path<'_>,
        position: usize,
        record: RecordRef,
        probe: &Probe<'_>,
    ) {
        let (low, high) = path.fences(path.len);
        let at_right_edge = left.next().is_none();
        let right = Leaf::new_in(&self.nodes);
        // At the right edge of ascending inserts the left leaf stays full.
        let middle = if at_right_edge && position == SLOTS {
            SLOTS
        } else {
            SLOTS / 2
        };
        // SAFETY: records live as long as nodes, here and below: `self` owns both arenas.
        unsafe { right.slots.take_over(&left.slots, middle) };
        let goes_left = position <= middle && middle < SLOTS;
        if !goes_left {
            // SAFETY: as above.
            unsafe { right.slots.insert(position - middle, record, probe, || ()) };
        }
        let separator = right.slots.filled_ref(0);
        left.link_behind(right, middle);
        if at_right_edge {
            self.rightmost.store(right.address(), Release);
        }
        if goes_left {
            // SAFETY: as above.
            unsafe { left.slots.insert(position, record, probe, || ()) };
        }
        skip_shared(&left.slots, low, Some(separator));
        skip_shared(&right.slots, Some(separator), high);
        self.insert_separator(path, path.len, separator, Child::Leaf(right));
    }

    /// Makes `right`, which is new and begins with `separator`, known to the node above it: the
    /// last of the first `depth` steps of `path`, or a new root.
    fn insert_separator(
        &self,
        path: &Path<'_>,
        depth: usize,
        separator: RecordRef,
        right: Child<'_>,
    ) {
        let Some((inner, index)) = depth.checked_sub(1).and_then(|last| path.steps[last]) else {
            let old_root = self
                .root()
                .unwrap_or_else(|| unreachable!("a node of the tree splits"));
            let root = Inner::new_in(&self.nodes, Child::Inner(old_root));
            // SAFETY: records live as long as nodes; `right` is beside the old root.
            unsafe { root.insert_child(0, separator, right) };
            self.root.store(root.address(), Release);
            return;
        };
        let (low, high) = path.fences(depth - 1);
        if inner.slots.count() < SLOTS {
            // SAFETY: records live as long as nodes; `right` is beside child `index`.
            unsafe { inner.insert_child(index, separator, right) };
        } else if index == SLOTS && high.is_none() {
            // Ascending inserts: the left node stays full.
            let sibling = Inner::new_in(&self.nodes, right);
            self.insert_separator(path, depth - 1, separator, Child::Inner(sibling));
        } else {
            let middle = SLOTS / 2;
            let promoted = inner.slots.filled_ref(middle);
            let sibling = inner.split_off(&self.nodes, middle);
            if let Some(index) = index.checked_sub(middle + 1) {
                // SAFETY: as above; no reader knows the sibling yet.
                unsafe { sibling.insert_child(index, separator, right) };
            }
            skip_shared(&sibling.slots, Some(promoted), high);
            // Readers are sent to the sibling before they could miss it in the left half.
            self.insert_separator(path, depth - 1, promoted, Child::Inner(sibling));
            inner.slots.change(|| inner.slots.truncate(middle));
            if index <= middle {
                // SAFETY: as above.
                unsafe { inner.insert_child(index, separator, right) };
            }
            skip_shared(&inner.slots, low, Some(promoted));
        }
    }

    /// Bytes of records and nodes.
    pub(crate) fn bytes(&self) -> usize {
        self.records.bytes() + self.nodes.bytes()
    }

    pub(crate) fn reserved_bytes(&self) -> usize {
        self.records.reserved_bytes() + self.nodes.reserved_bytes()
    }
}

impl Path<'_> {
    /// The separators around what the first `depth` steps lead to; `None` at the edges of the tree.
    fn fences(&self, depth: usize) -> (Option<RecordRef>, Option<RecordRef>) {
        let steps = || self.steps[..depth].iter().rev().flatten();
        let low = steps().find(|(_, index)| *index > 0);
        let high = steps().find(|(inner, index)| *index < inner.slots.count());
        (
            low.and_then(|(inner, index)| inner.slots.record(index - 1)),
            high.and_then(|(inner, index)| inner.slots.record(*index)),
        )
    }
}

/// Lets `slots` skip what all keys between `low` and `high` have in common: of a node at the edge,
/// what its own have.
fn skip_shared(slots: &Slots, low: Option<RecordRef>, high: Option<RecordRef>) {
    let Some(last) = slots.count().checked_sub(1) else {
        return;
    };
    // SAFETY: fences are separators, that is, records of the same tree as the node.
    let fence = |fence: RecordRef| unsafe { fence.view() };
    let low = low.map(fence).or_else(|| slots.view(0));
    let high = high.map(fence).or_else(|| slots.view(last));
    if let (Some(low), Some(high)) = (low, high) {
        slots.skip_more(common_prefix_bytes(low.key, high.key));
    }
}

impl std::fmt::Debug for BTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BTree")
            .field("nodes", &self.nodes)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}
