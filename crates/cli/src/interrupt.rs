//! Ctrl-C while a command of the shell runs.
//!
//! Invariant: the first one asks the running command to stop where it can without harm; a second one
//! ends the process, as Ctrl-C does outside the shell. Asked by whatever takes long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;

use crate::failure::{Failure, Result};

/// Whether Ctrl-C was pressed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    pressed: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes Ctrl-C over for the rest of the process's life. Where that fails, Ctrl-C ends it.
    pub(crate) fn install(&self) {
        // In this order: the second press finds the flag of the first.
        let ends = signal_hook::flag::register_conditional_shutdown(
            SIGINT,
            130,
            Arc::clone(&self.pressed),
        );
        if ends.is_ok() {
            let _ = signal_hook::flag::register(SIGINT, Arc::clone(&self.pressed));
        }
    }

    /// A new command begins: earlier presses were meant for earlier ones.
    pub(crate) fn forget(&self) {
        self.pressed.store(false, Ordering::Relaxed);
    }

    /// Whether to stop.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// An error if it is time to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_pressed() {
            return Err(Failure::Interrupted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_is_seen_until_it_is_forgotten() {
        let interrupt = Interrupt::default();
        assert!(interrupt.check().is_ok());
        interrupt.install();
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert!(matches!(interrupt.check(), Err(Failure::Interrupted)));
        interrupt.forget();
        assert!(interrupt.check().is_ok());
    }
}
