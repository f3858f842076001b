//! What one writable handle has reserved on the device, and whether a window is open on it.
//!
//! Invariant: while a window is open, every byte below it stays reserved: the file is not cut. Both
//! file systems that hand out windows ([`os`](crate::os) and [`mem`](crate::mem)) keep to it here.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

/// The reservation of one handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservation {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes from the start of the file whose space is certain.
    bytes: u64,
    /// Bytes of the open window, 0 for none.
    window_bytes: u64,
}

impl Reservation {
    /// The first `bytes` bytes are reserved from now on.
    pub(crate) fn extend_to(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.max(bytes);
    }

    /// Runs `cut`, which makes the file `bytes` long, unless a window reaches beyond.
    pub(crate) fn cut_to(
        &self,
        bytes: u64,
        cut: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        if bytes < state.window_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a file must not be cut below its open mapped window",
            ));
        }
        cut()?;
        // What lay beyond was given back, and is a hole if the file grows again.
        state.bytes = state.bytes.min(bytes);
        Ok(())
    }

    /// Runs `open` for a window of `bytes` bytes if their space is certain and no other window is
    /// open; `open` may itself say `None`. The window stays counted until the guard is dropped.
    pub(crate) fn open_window<T>(
        &self,
        bytes: u64,
        open: impl FnOnce() -> io::Result<Option<T>>,
    ) -> io::Result<Option<(T, WindowGuard)>> {
        let mut state = self.state.lock();
        if bytes == 0 || bytes > state.bytes || state.window_bytes > 0 {
            return Ok(None);
        }
        let Some(window) = open()? else {
            return Ok(None);
        };
        state.window_bytes = bytes;
        Ok(Some((
            window,
            WindowGuard {
                reservation: self.clone(),
            },
        )))
    }
}

/// Keeps a window counted as open.
#[derive(Debug)]
pub(crate) struct WindowGuard {
    reservation: Reservation,
}

impl Drop for WindowGuard {
    fn drop(&mut self) {
        self.reservation.state.lock().window_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(reservation: &Reservation, bytes: u64) -> Option<WindowGuard> {
        reservation
            .open_window(bytes, || Ok(Some(())))
            .unwrap()
            .map(|(_, guard)| guard)
    }

    #[test]
    fn a_window_needs_reserved_space_and_holds_it() {
        let reservation = Reservation::default();
        assert!(open(&reservation, 1).is_none(), "nothing is reserved");
        reservation.extend_to(100);
        assert!(open(&reservation, 0).is_none());
        assert!(open(&reservation, 101).is_none());
        let guard = open(&reservation, 80).unwrap();
        assert!(open(&reservation, 10).is_none(), "one window at a time");
        assert!(
            reservation
                .cut_to(79, || panic!("cut below the window"))
                .is_err()
        );
        reservation.cut_to(80, || Ok(())).unwrap();
        drop(guard);
        assert!(
            open(&reservation, 81).is_none(),
            "the cut gave that space back"
        );
        assert!(open(&reservation, 80).is_some());
    }
}
