//! Leaves and inner nodes: sorted slots, and what hangs on them.
//!
//! Invariant: a node never moves and is never freed before the tree; nodes only split, to the
//! right. A leaf's records are all smaller than those of the leaf that `next` names, and child `i`
//! of an inner node leads to records from slot `i - 1` (included) to slot `i` (excluded).
//!
//! Callers: `b_tree`.

use super::slots::{SLOTS, Slots};
use crate::arena::{Arena, RecordRef};
use crate::probe::Probe;
use std::mem::needs_drop;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Nodes begin at a cache line.
pub(super) const NODE_ALIGN: usize = 64;

/// A node at the bottom: records in order.
#[repr(C, align(64))]
pub(super) struct Leaf {
    pub(super) slots: Slots,
    /// The leaf to the right; null at the right edge. Changes together with the slots.
    next: AtomicPtr<Leaf>,
    /// A leaf from which `next` leads to this one; null at the left edge.
    previous: AtomicPtr<Leaf>,
}

/// A node above the bottom: its records separate its children.
#[repr(C, align(64))]
pub(super) struct Inner {
    pub(super) slots: Slots,
    /// 1 directly above the leaves. Never changes.
    level: u32,
    /// [`Inner`]s, or [`Leaf`]s at level 1.
    children: [AtomicPtr<u8>; SLOTS + 1],
}

/// A leaf, remembered beyond the borrow of its tree.
#[derive(Clone, Copy)]
pub(super) struct LeafRef(NonNull<Leaf>);

// SAFETY: leaves are shared between threads anyway; following the reference is the obligation of
// `LeafRef::leaf`.
unsafe impl Send for LeafRef {}

impl LeafRef {
    /// # Safety
    /// The tree that the leaf belongs to lives for all of `'a`.
    pub(super) unsafe fn leaf<'a>(self) -> &'a Leaf {
        // SAFETY: nodes live as long as their tree, and no `&mut` to one ever exists.
        unsafe { self.0.as_ref() }
    }
}

/// What an inner node leads to.
#[derive(Clone, Copy)]
pub(super) enum Child<'a> {
    Inner(&'a Inner),
    Leaf(&'a Leaf),
}

impl Leaf {
    /// An empty leaf in `arena`.
    pub(super) fn new_in(arena: &Arena) -> &Self {
        place(
            arena,
            Self {
                slots: Slots::new(),
                next: AtomicPtr::new(ptr::null_mut()),
                previous: AtomicPtr::new(ptr::null_mut()),
            },
        )
    }

    #[inline]
    pub(super) fn next(&self) -> Option<&Self> {
        // SAFETY: null or a leaf of the same arena, stored with release by `link_behind`. A
        // reference to one node of an arena lives no longer than the arena.
        unsafe { self.next.load(Acquire).as_ref() }
    }

    #[inline]
    pub(super) fn previous(&self) -> Option<&Self> {
        // SAFETY: as in `next`.
        unsafe { self.previous.load(Acquire).as_ref() }
    }

    pub(super) fn address(&self) -> *mut Self {
        ptr::from_ref(self).cast_mut()
    }

    pub(super) fn remember(&self) -> LeafRef {
        LeafRef(NonNull::from(self))
    }

    /// Makes `right`, a new leaf of the same arena, the one behind this, which keeps its first
    /// `kept` records. Writer only.
    ///
    /// Readers find either the old state or the new one. The neighbour's way back comes last, so
    /// that `previous` always names a leaf from which `next` leads here.
    pub(super) fn link_behind(&self, right: &Self, kept: usize) {
        let next = self.next.load(Relaxed);
        right.next.store(next, Release);
        right.previous.store(self.address(), Release);
        self.slots.change(|| {
            self.slots.truncate(kept);
            self.next.store(right.address(), Release);
        });
        if let Some(next) = right.next() {
            next.previous.store(right.address(), Release);
        }
    }
}

impl Inner {
    /// A node in `arena` with one child and no separators.
    ///
    /// `child` is of the same arena and one level below.
    pub(super) fn new_in<'a>(arena: &'a Arena, child: Child<'a>) -> &'a Self {
        let level = match child {
            Child::Leaf(_) => 1,
            Child::Inner(inner) => inner.level + 1,
        };
        let mut children = [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS + 1];
        children[0] = AtomicPtr::new(child.address());
        place(
            arena,
            Self {
                slots: Slots::new(),
                level,
                children,
            },
        )
    }

    pub(super) fn address(&self) -> *mut Self {
        ptr::from_ref(self).cast_mut()
    }

    /// Where the child that leads to `probe` stands, or one to its left if the node splits right
    /// now.
    #[inline]
    pub(super) fn child_index(&self, probe: &Probe<'_>) -> usize {
        self.slots.position(probe, self.slots.count())
    }

    #[inline]
    pub(super) fn child(&self, index: usize) -> Child<'_> {
        self.child_at(self.children[index].load(Acquire))
    }

    /// The child that leads to `probe`, or one to its left.
    #[inline]
    pub(super) fn find_child(&self, probe: &Probe<'_>) -> Child<'_> {
        let child = || self.children[self.child_index(probe)].load(Acquire);
        self.child_at(self.slots.read(child))
    }

    #[inline]
    fn child_at(&self, address: *mut u8) -> Child<'_> {
        // SAFETY: `address` is that of child `0..=count` as of one moment, thus not null; a child
        // of level 1 is a leaf, any other an inner node (`new_in`, `insert_child`), of the same
        // arena, as in `Leaf::next`.
        unsafe {
            if self.level == 1 {
                Child::Leaf(&*address.cast())
            } else {
                Child::Inner(&*address.cast())
            }
        }
    }

    /// Puts `child` behind child `index`, and `separator` between the two. Writer only; there
    /// must be a free slot.
    ///
    /// # Safety
    /// The record outlives the node; the child is of the same arena and one level below.
    pub(super) unsafe fn insert_child(&self, index: usize, separator: RecordRef, child: Child<'_>) {
        // SAFETY: the caller's promise; the writer itself stored the record.
        let record = unsafe { separator.view() };
        let probe = Probe::new(record.key, record.trailer);
        let count = self.slots.count();
        let moved = || {
            for from in (index + 1..=count).rev() {
                self.children[from + 1].store(self.children[from].load(Relaxed), Release);
            }
            self.children[index + 1].store(child.address(), Release);
        };
        // SAFETY: the caller's promise.
        unsafe { self.slots.insert(index, separator, &probe, moved) }
    }

    /// A new node of the same level, which no reader knows yet, with the separators behind slot
    /// `middle` and the children around them.
    pub(super) fn split_off<'a>(&'a self, arena: &'a Arena, middle: usize) -> &'a Self {
        let right = Self::new_in(arena, self.child(middle + 1));
        // SAFETY: the records are slots of `self`, which outlive all nodes of the arena.
        unsafe { right.slots.take_over(&self.slots, middle + 1) }
        for (to, from) in (middle + 1..=self.slots.count()).enumerate() {
            right.children[to].store(self.children[from].load(Relaxed), Release);
        }
        right
    }
}

impl Child<'_> {
    fn address(self) -> *mut u8 {
        match self {
            Self::Inner(inner) => inner.address().cast(),
            Self::Leaf(leaf) => leaf.address().cast(),
        }
    }
}

/// Moves `node` into `arena`.
fn place<T>(arena: &Arena, node: T) -> &T {
    const { assert!(align_of::<T>() <= NODE_ALIGN && (cfg!(loom) || !needs_drop::<T>())) };
    let address: NonNull<T> = arena.allocate(size_of::<T>(), NODE_ALIGN).cast();
    // SAFETY: the allocation is ours alone, large enough, aligned, and lives as long as the arena;
    // nothing ever hands out a `&mut` to it.
    unsafe {
        address.write(node);
        address.as_ref()
    }
}
