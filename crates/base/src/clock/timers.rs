//! One thread for all timers of the process: what calls back after a while by the machine's clock.
//!
//! Invariant: the thread starts with the first timer, holds no lock while it calls, and outlives
//! whoever set a timer: callbacks hold weak references. Called by the clocks.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is called when its time has come.
pub type TimerCall = Box<dyn FnOnce() + Send + 'static>;

#[derive(Default)]
struct Timers {
    /// By when they are due, and then by their number.
    waiting: Mutex<BTreeMap<(Instant, u64), TimerCall>>,
    changed: Condvar,
    /// How many were set so far.
    set: AtomicU64,
}

static TIMERS: OnceLock<Option<&'static Timers>> = OnceLock::new();

/// Calls `call` on the timers' thread once `delay` is over, unless that thread cannot be started.
pub(super) fn call_after(delay: Duration, call: TimerCall) {
    let Some(timers) = TIMERS.get_or_init(start) else {
        return;
    };
    let now = Instant::now();
    // A delay of centuries is as good as none at all.
    let Some(due) = now.checked_add(delay) else {
        return;
    };
    let mut waiting = timers.waiting.lock();
    let number = timers.set.fetch_add(1, Ordering::Relaxed);
    waiting.insert((due, number), call);
    timers.changed.notify_one();
}

fn start() -> Option<&'static Timers> {
    let timers: &'static Timers = Box::leak(Box::default());
    let thread = std::thread::Builder::new().name("esker-timers".into());
    // Without a thread nothing is done on an interval; all else goes on.
    thread.spawn(|| run(timers)).ok().map(|_| timers)
}

fn run(timers: &Timers) -> ! {
    let mut waiting = timers.waiting.lock();
    loop {
        let first = waiting.first_key_value().map(|((due, _), _)| *due);
        match first {
            None => timers.changed.wait(&mut waiting),
            Some(due) if due > Instant::now() => {
                timers.changed.wait_until(&mut waiting, due);
            }
            Some(_) => {
                if let Some((_, call)) = waiting.pop_first() {
                    parking_lot::MutexGuard::unlocked(&mut waiting, || {
                        // The panic hook has told of a panic; others' timers go on.
                        let _ = catch_unwind(AssertUnwindSafe(call));
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn timers_call_in_the_order_in_which_they_are_due() {
        let (sender, calls) = mpsc::channel();
        for (millis, name) in [(40, "second"), (1, "first"), (80, "third")] {
            let sender = sender.clone();
            call_after(
                Duration::from_millis(millis),
                Box::new(move || sender.send(name).unwrap()),
            );
        }
        call_after(Duration::ZERO, Box::new(|| panic!("this one alone")));
        drop(sender);
        assert_eq!(
            calls.iter().collect::<Vec<_>>(),
            ["first", "second", "third"]
        );
    }
}
