//! What is asked of the operating system about the calling thread.
//!
//! Invariant: only advice. Where the system does not know it or refuses, the thread runs as it did.
//! Called by the executor, for the threads that merge.

/// How much less of a processor a thread in the background wants: beside a usual one about a tenth.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Lets other threads go first where there are more of them than processors, from now on: the way back
/// may be forbidden.
pub fn lower_priority() {
    // On Linux it is the thread's own, elsewhere the whole process would have it.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

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
