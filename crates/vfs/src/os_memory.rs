//! What is asked of the system's allocator.
//!
//! Invariant: only advice. Where the program has another allocator, or the system's knows no such call, nothing
//! happens. Called by the database, in the background. `unsafe`, since it is a call of the C library.
#![allow(unsafe_code)]

/// Gives memory that was freed back to the system, and says whether there was any. The GNU C library keeps what lies
/// below anything that is still in use, however much that is. Takes milliseconds for tens of MiB; who allocates
/// meanwhile may wait.
pub fn give_free_memory_back() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: the call takes a number and locks what it looks at.
    return unsafe { libc::malloc_trim(0) } == 1;
    #[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
    false
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_bytes() -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = text.split(' ').nth(1).and_then(|it| it.parse::<u64>().ok());
        pages.unwrap_or(0) * 4096
    }

    #[test]
    fn the_system_has_back_what_lies_between_what_is_in_use() {
        let blocks: Vec<Vec<u8>> = (0..32_000u32).map(|at| vec![at as u8; 4000]).collect();
        let of_all = blocks.into_iter().enumerate();
        let (kept, freed): (Vec<_>, Vec<_>) = of_all.partition(|(at, _)| at % 16 == 0);
        drop(freed);
        let before = resident_bytes();
        if !give_free_memory_back() {
            println!("not looked at: the memory is another allocator's");
            return;
        }
        let after = resident_bytes();
        assert!(after + (64 << 20) < before, "{before} and {after}");
        let is_whole = |(at, block): &(usize, Vec<u8>)| block.iter().all(|it| *it == *at as u8);
        assert!(kept.iter().all(is_whole));
    }
}
