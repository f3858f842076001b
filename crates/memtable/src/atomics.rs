//! The atomics of the B+tree's nodes: the standard ones, or loom's, which try every interleaving.
//!
//! Callers: `b_tree::slots`. The model check runs with
//! `RUSTFLAGS="--cfg loom" cargo test -p esker-memtable --lib --release loom`.

#[cfg(loom)]
pub(crate) use loom::{hint::spin_loop, sync::atomic::fence, thread::yield_now};
#[cfg(loom)]
pub(crate) use modelled::{AtomicPtr, AtomicU32, AtomicU64, WRITER};
#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence},
    thread::yield_now,
};

/// loom's atomics, with the writer's own loads left out of the model.
///
/// loom reorders a store only with the *last* access before it. The writer mostly loads what it
/// is about to overwrite, and its load would hide the readers' loads from loom; as nobody else
/// stores, what it loads is no question of order.
#[cfg(loom)]
mod modelled {
    use loom::sync::atomic;
    use std::cell::Cell;
    use std::sync::atomic::Ordering;

    loom::thread_local! {
        /// Whether this is the thread that alone stores.
        pub(crate) static WRITER: Cell<bool> = Cell::new(false);
    }

    macro_rules! modelled {
        ($name:ident $(<$parameter:ident>)?, $value:ty) => {
            pub(crate) struct $name $(<$parameter>)? (atomic::$name $(<$parameter>)?);

            impl $(<$parameter>)? $name $(<$parameter>)? {
                pub(crate) fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    if WRITER.with(Cell::get) {
                        // SAFETY: loom panics where another thread may store at the same time.
                        unsafe { self.0.unsync_load() }
                    } else {
                        self.0.load(order)
                    }
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.0.store(value, order);
                }
            }
        };
    }

    modelled!(AtomicU32, u32);
    modelled!(AtomicU64, u64);
    modelled!(AtomicPtr<T>, *mut T);
}
