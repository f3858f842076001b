//! Locks, and waiting that a simulation can take over (I12).
//!
//! Invariant: on a thread that no simulation runs, these are parking_lot's locks, and cost what those
//! cost. On one that was [`enter`]ed, nothing here ever blocks the thread: whoever finds a lock taken
//! gives its turn to another thread of the simulation and looks again, so that one thread at a time
//! runs and a seed decides which. Held across file operations or waits by manifest, sstable and db,
//! which therefore take their locks from here; locks that are held for a few instructions only need
//! not be.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// Who decides which thread of a simulation runs.
pub trait Turns: Send + Sync + 'static {
    /// The calling thread could be interrupted here.
    fn point(&self);
    /// The calling thread cannot go on before another one has done something.
    fn wait(&self);
}

thread_local! {
    static TURNS: RefCell<Option<Arc<dyn Turns>>> = const { RefCell::new(None) };
}

/// Threads that a simulation runs. While there are none, which is always outside of tests, nothing
/// below looks at its thread.
static SIMULATED_THREADS: AtomicUsize = AtomicUsize::new(0);

/// While it lives, the thread that made it waits by its turns.
#[derive(Debug)]
pub struct Entered(());

/// Lets `turns` decide when the calling thread runs, until the guard is dropped.
#[must_use]
pub fn enter(turns: Arc<dyn Turns>) -> Entered {
    TURNS.with(|slot| *slot.borrow_mut() = Some(turns));
    SIMULATED_THREADS.fetch_add(1, Ordering::Relaxed);
    Entered(())
}

impl Drop for Entered {
    fn drop(&mut self) {
        SIMULATED_THREADS.fetch_sub(1, Ordering::Relaxed);
        TURNS.with(|slot| *slot.borrow_mut() = None);
    }
}

#[cold]
fn turns() -> Option<Arc<dyn Turns>> {
    TURNS.try_with(|slot| slot.borrow().clone()).ok().flatten()
}

#[inline]
fn simulated() -> Option<Arc<dyn Turns>> {
    if SIMULATED_THREADS.load(Ordering::Relaxed) == 0 {
        return None;
    }
    turns()
}

/// A place at which a simulation may let another thread run; nothing elsewhere.
#[inline]
pub fn point() {
    if let Some(turns) = simulated() {
        turns.point();
    }
}

/// [`std::thread::park`], or in a simulation a turn for somebody else. May return without reason.
pub fn park() {
    match simulated() {
        Some(turns) => turns.wait(),
        None => std::thread::park(),
    }
}

/// `park`, by which the thread waits with a limit, or in a simulation a turn for somebody else. May
/// return without reason.
pub fn park_by(park: impl FnOnce()) {
    match simulated() {
        Some(turns) => turns.wait(),
        None => park(),
    }
}

/// How many threads to share work among: one for each processor, and one alone in a simulation, whose
/// threads are its own.
#[must_use]
pub fn parallelism() -> usize {
    match simulated() {
        Some(_) => 1,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// A turn for somebody else if a simulation runs the calling thread; whether one does.
#[cold]
fn waited() -> bool {
    simulated().map(|turns| turns.wait()).is_some()
}

/// A mutual exclusion lock.
#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// The value, without the lock.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        point();
        match self.0.try_lock() {
            Some(guard) => guard,
            None => self.lock_taken(),
        }
    }

    #[cold]
    fn lock_taken(&self) -> MutexGuard<'_, T> {
        while waited() {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
        }
        self.0.lock()
    }

    /// The lock, if nobody holds it.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        point();
        self.0.try_lock()
    }

    /// The value, by the only reference to its lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

/// A condition to wait for, beside a [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

impl Condvar {
    /// Gives up the lock, waits and takes the lock again. May return without reason.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        match simulated() {
            Some(turns) => wait_unlocked(&*turns, guard),
            None => self.0.wait(guard),
        }
    }

    /// As [`Condvar::wait`], but no longer than `timeout`, which a simulation does not wait for.
    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) {
        match simulated() {
            Some(turns) => wait_unlocked(&*turns, guard),
            None => _ = self.0.wait_for(guard, timeout),
        }
    }

    /// Wakes everybody who waits.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Waits until others have had their turns and nobody holds the lock of `guard`, which is then taken
/// again at once: no other thread of the simulation runs meanwhile.
fn wait_unlocked<T: ?Sized>(turns: &dyn Turns, guard: &mut MutexGuard<'_, T>) {
    let lock = MutexGuard::mutex(guard);
    MutexGuard::unlocked(guard, || {
        turns.wait();
        while lock.is_locked() {
            turns.wait();
        }
    });
}

/// A lock that many readers or one writer hold.
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        match self.0.try_read() {
            Some(guard) => guard,
            None => self.read_taken(),
        }
    }

    #[cold]
    fn read_taken(&self) -> RwLockReadGuard<'_, T> {
        while waited() {
            if let Some(guard) = self.0.try_read() {
                return guard;
            }
        }
        self.0.read()
    }

    /// Waits until nobody else holds the lock.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        match self.0.try_write() {
            Some(guard) => guard,
            None => self.write_taken(),
        }
    }

    #[cold]
    fn write_taken(&self) -> RwLockWriteGuard<'_, T> {
        while waited() {
            if let Some(guard) = self.0.try_write() {
                return guard;
            }
        }
        self.0.write()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Counts the turns that it is asked for; a wait lets somebody else do something.
    struct Counted<F> {
        points: AtomicUsize,
        waits: AtomicUsize,
        others: F,
    }

    impl<F: Fn() + Send + Sync + 'static> Turns for Counted<F> {
        fn point(&self) {
            self.points.fetch_add(1, Ordering::Relaxed);
        }

        fn wait(&self) {
            self.waits.fetch_add(1, Ordering::Relaxed);
            (self.others)();
        }
    }

    fn counted<F: Fn() + Send + Sync>(others: F) -> Arc<Counted<F>> {
        Arc::new(Counted {
            points: AtomicUsize::new(0),
            waits: AtomicUsize::new(0),
            others,
        })
    }

    #[test]
    fn a_simulated_thread_waits_for_a_lock_by_giving_its_turn_away() {
        let lock = Mutex::new(1);
        let (held, is_held) = mpsc::channel();
        let (release, is_asked) = mpsc::channel();
        let (released, is_released) = mpsc::channel();
        std::thread::scope(|scope| {
            let holder = &lock;
            scope.spawn(move || {
                let mut guard = holder.lock();
                held.send(()).unwrap();
                is_asked.recv().unwrap();
                *guard = 2;
                drop(guard);
                released.send(()).unwrap();
            });
            is_held.recv().unwrap();
            let is_released = parking_lot::Mutex::new(is_released);
            let turns = counted(move || {
                release.send(()).unwrap();
                is_released.lock().recv().unwrap();
            });
            let entered = enter(turns.clone());
            assert_eq!(*lock.lock(), 2);
            drop(entered);
            assert_eq!(*lock.lock(), 2);
            let counts = [&turns.points, &turns.waits].map(|n| n.load(Ordering::Relaxed));
            assert_eq!(counts, [1, 1]);
        });
    }

    #[test]
    fn a_simulated_thread_waits_for_a_condition_without_its_lock() {
        let shared = Arc::new((Mutex::new(false), Condvar::default()));
        let others = Arc::clone(&shared);
        let turns = counted(move || {
            if let Some(mut free) = others.0.try_lock() {
                *free = true;
            }
        });
        let _entered = enter(turns.clone());
        let mut guard = shared.0.lock();
        while !*guard {
            shared.1.wait(&mut guard);
        }
        park();
        assert_eq!(turns.waits.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn elsewhere_they_are_locks() {
        let lock = RwLock::new(1);
        let (first, second) = (lock.read(), lock.read());
        assert_eq!(*first + *second, 2);
        drop((first, second));
        *lock.write() += 1;
        assert_eq!(*lock.read(), 2);
        let mut mutex = Mutex::new(5);
        *mutex.get_mut() += 1;
        assert!(mutex.try_lock().is_some());
        assert_eq!(mutex.into_inner(), 6);
    }
}
