//! Ctrl-C and termination: the run ends in order, reports what it has, and leaves nothing behind.
//!
//! Invariant: the temporary database is removed even where the engine does not come back: after a
//! while, or at a second signal, this removes it and ends the process.

use crate::directory::clear;
use crate::exit::INTERRUPTED;
use esker::vfs::{FileSystem, OsFileSystem};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a run may take to end in order.
const GRACE: Duration = Duration::from_secs(5);

/// Sets the flag that it returns at the first signal. If the process is still there after a grace
/// period or a second signal, removes `temporary` and exits.
///
/// # Errors
/// Where the handler cannot be installed.
pub fn watch(temporary: Option<PathBuf>) -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let seen = Arc::clone(&flag);
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let (again, second) = mpsc::channel::<()>();
            let mut waiter = Some((second, temporary));
            for _ in signals.forever() {
                seen.store(true, Ordering::Relaxed);
                let _ = again.send(());
                if let Some((second, temporary)) = waiter.take() {
                    // The first signal is in the channel already.
                    let _ = second.try_recv();
                    std::thread::spawn(move || {
                        let _ = second.recv_timeout(GRACE);
                        remove(temporary);
                        std::process::exit(i32::from(INTERRUPTED));
                    });
                }
            }
        })?;
    Ok(flag)
}

fn remove(temporary: Option<PathBuf>) {
    let fs = OsFileSystem::new();
    if let Some(path) = temporary {
        // The process ends: what cannot be removed is left to the system.
        let _ = clear(&fs, &path).and_then(|()| fs.remove_dir(&path));
    }
}
