//! A cursor over the visible entries of a keyspace: the merge of all its sources, seen at one
//! sequence number.
//!
//! Invariants: a cursor never moves in time (it holds its super-version and its sequence); forwards
//! and backwards visit the same entries; key and value are slices of what the sources hold, or, going
//! backwards over a key that may have several records, of two reused buffers (the newest visible one is
//! the last one met).

use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::snapshot::Snapshot;
use esker_base::Result;
use std::fmt;

mod apart;
mod body;
mod covers;
mod held;
mod idle;
mod settle;
mod sources;
mod view;

pub(crate) use body::Body as CursorBody;
pub(crate) use idle::IdleCursors;
pub(crate) use sources::{Source, sources};
pub(crate) use view::{Overlay, View};

/// A zero-copy cursor over the entries of a keyspace, in key order and both directions.
///
/// Movements from nowhere (before the first seek, or past either end) stay nowhere.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.put("b", "2")?;
/// let mut cursor = db.cursor();
/// cursor.seek_to_first()?;
/// while cursor.valid() {
///     println!("{:?} {:?}", cursor.key(), cursor.value());
///     cursor.next()?;
/// }
/// # Ok(()) }
/// ```
pub struct Cursor {
    /// There until the cursor is dropped: the next one gets it.
    body: Option<Box<CursorBody>>,
}

impl Cursor {
    pub(crate) fn new(keyspace: &Keyspace, range: KeyRange, snapshot: Option<Snapshot>) -> Self {
        let at = snapshot.as_ref().map(Snapshot::sequence);
        let Some(mut body) = keyspace.state().take_idle_cursor(at) else {
            return Self::over(View::new(keyspace, snapshot), range);
        };
        body.wake(keyspace, range, snapshot);
        Self { body: Some(body) }
    }

    pub(crate) fn over(view: View, range: KeyRange) -> Self {
        let body = Some(CursorBody::over(view, range));
        Self { body }
    }

    #[inline]
    fn body(&self) -> &CursorBody {
        match &self.body {
            Some(body) => body,
            None => unreachable!("only a cursor that is dropped gives its body away"),
        }
    }

    #[inline]
    fn body_mut(&mut self) -> &mut CursorBody {
        match &mut self.body {
            Some(body) => body,
            None => unreachable!("only a cursor that is dropped gives its body away"),
        }
    }

    /// Whether the cursor stands on an entry.
    #[must_use]
    #[inline]
    pub fn valid(&self) -> bool {
        self.body().valid()
    }

    /// The key of the entry.
    ///
    /// # Panics
    /// If the cursor is not [`valid`](Cursor::valid).
    #[must_use]
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.body().key()
    }

    /// The value of the entry.
    ///
    /// # Panics
    /// If the cursor is not [`valid`](Cursor::valid).
    #[must_use]
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.body().value()
    }

    /// Moves to the first entry.
    ///
    /// # Errors
    /// `Corruption` and `Io` from the tables, `Closed` after the database was closed, `LimitExceeded` where open
    /// scans have taken all that `memory_budget_bytes` has for them; the cursor then stands nowhere. Likewise
    /// for all movements below.
    #[inline]
    pub fn seek_to_first(&mut self) -> Result<()> {
        self.body_mut().seek_to_first()
    }

    /// Moves to the last entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    pub fn seek_to_last(&mut self) -> Result<()> {
        self.body_mut().seek_to_last()
    }

    /// Moves to the first entry whose key is `key` or larger.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.body_mut().seek(key.as_ref())
    }

    /// Moves to the last entry whose key is `key` or smaller.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.body_mut().seek_for_prev(key.as_ref())
    }

    /// Moves to the next entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    #[allow(clippy::should_implement_trait)] // The name that every cursor of the field has.
    pub fn next(&mut self) -> Result<()> {
        self.body_mut().next()
    }

    /// Moves to the previous entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        self.body_mut().prev()
    }

    /// Promises that nobody asks for values: those that are kept apart
    /// ([`Options::value_separation_threshold_bytes`](crate::Options::value_separation_threshold_bytes))
    /// are not read, and [`Cursor::value`] may be anything.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let mut cursor = db.cursor().keys_only();
    /// cursor.seek_to_first()?;
    /// assert_eq!(cursor.key(), b"a");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.body_mut().keys_only = true;
        self
    }

    /// Counts the entries of the cursor's range without copying one.
    pub(crate) fn count_rest(&mut self) -> Result<u64> {
        self.body_mut().count_rest()
    }
}

impl Drop for Cursor {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut body) = self.body.take()
            && let Some(keyspace) = body.rest()
        {
            keyspace.state().keep_idle_cursor(body);
        }
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        f.debug_struct("Cursor")
            .field("sequence", &body.view.sequence)
            .field("position", &body.position)
            .finish()
    }
}
