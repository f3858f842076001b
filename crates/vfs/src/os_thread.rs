//! What is asked of the operating system about the calling thread.
//!
//! Invariant: only advice. Where the system does not know it or refuses, the thread runs as it did.
//! Called by the executor, for the threads that work in the background. `unsafe`, since rustix has no such call.
#![allow(unsafe_code)]

/// How much less of a processor a thread that merges wants: beside a usual one about a tenth.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
/// How long it goes on, nanoseconds, before it lets another one run that waits: the least there is.
#[cfg(target_os = "linux")]
const SLICE_NANOS: u64 = 100_000;

/// Lets other threads go first where there are more of them than processors, from now on: the way back
/// may be forbidden.
pub fn lower_priority() {
    // On Linux it is the thread's own, elsewhere the whole process would have it.
    #[cfg(target_os = "linux")]
    if !schedule(libc::SCHED_BATCH, NICENESS, SLICE_NANOS) {
        let _ = rustix::process::nice(NICENESS);
    }
}

/// Lets another thread that waits for the processor of this one have it, if there is any. The system itself looks
/// only every few milliseconds whether a thread has had its share.
pub fn give_way() {
    std::thread::yield_now();
}

/// Whether the calling thread, when it is woken, waits until a processor is free or its turn comes, or takes the one
/// of a thread that has run longer, which may be the one that woke it.
pub fn wait_when_woken(waits: bool) {
    #[cfg(target_os = "linux")]
    {
        let policy = if waits {
            libc::SCHED_BATCH
        } else {
            libc::SCHED_OTHER
        };
        schedule(policy, 0, 0);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = waits;
}

/// How long the calling thread has waited for a processor while it could have run, nanoseconds since it began; `None` where
/// the system does not say.
pub fn processor_wait_nanos() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        // What ran, what waited, and how often: `sched_info` in the kernel's documentation of schedstats.
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_ascii_whitespace().nth(1)?.parse().ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// What `sched_setattr` takes, in its first version.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Schedules the calling thread by this policy, `nicer` than it was, with slices of so many nanoseconds (0: the usual
/// ones; kernels before 6.12 know no others). Whether the system does.
#[cfg(target_os = "linux")]
fn schedule(policy: i32, nicer: i32, slice_nanos: u64) -> bool {
    // SAFETY: the call takes no pointer; 0 is the calling thread.
    let inherited = unsafe { libc::sched_getscheduler(0) };
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&inherited) {
        // The program has its threads scheduled in a way of its own.
        return false;
    }
    let niceness = rustix::process::getpriority_process(None).unwrap_or(0);
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: policy as u32,
        flags: 0,
        nice: (niceness + nicer).min(19),
        priority: 0,
        runtime: slice_nanos,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the call reads `size` bytes of the attributes, which live for it, and no others; 0 is the calling
    // thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn policy() -> i32 {
        // SAFETY: the call takes no pointer; 0 is the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn only_the_calling_thread_waits_for_its_turn() {
        let before = policy();
        let theirs = std::thread::spawn(|| {
            wait_when_woken(true);
            let waiting = policy();
            wait_when_woken(false);
            (waiting, policy())
        });
        assert_eq!(theirs.join().ok(), Some((libc::SCHED_BATCH, before)));
        assert_eq!(policy(), before);
    }

    #[test]
    fn threads_that_are_more_than_the_processors_wait_for_one() {
        let Some(before) = processor_wait_nanos() else {
            println!("not looked at: the system does not say");
            return;
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..=processors {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        if processor_wait_nanos() > Some(1_000_000) {
                            is_over.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(processor_wait_nanos() >= Some(before));
    }

    #[test]
    fn only_the_calling_thread_gives_way() {
        let niceness = || rustix::process::getpriority_process(None).unwrap_or(i32::MAX);
        let before = niceness();
        let lowered = std::thread::spawn(move || {
            lower_priority();
            niceness()
        });
        assert_eq!(lowered.join().ok(), Some((before + NICENESS).min(19)));
        assert_eq!(niceness(), before);
    }
}
