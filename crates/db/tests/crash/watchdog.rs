//! Ends the test binary where nothing goes on any more, and says what hung.
//!
//! Invariant: every case reports before it begins; one that takes longer than the limit is a hang,
//! since it works in memory on a clock that only moves by hand.

use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

static CASES: Mutex<Vec<(std::thread::ThreadId, Instant, String)>> = Mutex::new(Vec::new());
static START: Once = Once::new();

/// The calling thread begins this case.
pub(crate) fn alive(case: impl FnOnce() -> String) {
    START.call_once(|| _ = std::thread::spawn(watch));
    let thread = std::thread::current().id();
    let mut cases = CASES.lock().unwrap_or_else(PoisonError::into_inner);
    cases.retain(|(it, ..)| *it != thread);
    cases.push((thread, Instant::now(), case()));
}

/// The calling thread has no case.
pub(crate) fn done() {
    let thread = std::thread::current().id();
    let mut cases = CASES.lock().unwrap_or_else(PoisonError::into_inner);
    cases.retain(|(it, ..)| *it != thread);
}

fn watch() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let cases = CASES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, case)) = cases.iter().find(|(_, since, _)| since.elapsed() > LIMIT) {
            eprintln!("hangs: {case}");
            std::process::exit(101);
        }
    }
}
