//! Iterators over entries: what `iter`, `range` and `prefix` return.
//!
//! Invariant: both ends look at the same super-version and sequence, and together yield every entry
//! once. The cursor of an end is made when the end is first used.

use crate::cursor::{Cursor, View};
use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::snapshot::Snapshot;
use crate::value::Value;
use esker_base::Result;
use std::cmp::Ordering;
use std::fmt;

/// Entries in key order, from either end. After an error it ends.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.put("b", "2")?;
/// for entry in db.range("a".."c").rev() {
///     let (key, value) = entry?;
///     println!("{key:?} = {value:?}");
/// }
/// # Ok(()) }
/// ```
pub struct Entries {
    view: View,
    range: KeyRange,
    front: Option<Cursor>,
    back: Option<Cursor>,
    done: bool,
}

impl Entries {
    pub(crate) fn new(keyspace: &Keyspace, range: KeyRange, snapshot: Option<Snapshot>) -> Self {
        Self::over(View::new(keyspace, snapshot), range)
    }

    pub(crate) fn over(view: View, range: KeyRange) -> Self {
        let done = range.is_empty();
        Self {
            view,
            range,
            front: None,
            back: None,
            done,
        }
    }

    fn step(&mut self, from_front: bool) -> Result<Option<(Value, Value)>> {
        let (this, other) = if from_front {
            (&mut self.front, &self.back)
        } else {
            (&mut self.back, &self.front)
        };
        let cursor = match this {
            Some(cursor) => {
                if from_front {
                    cursor.next()?
                } else {
                    cursor.prev()?
                }
                cursor
            }
            None => {
                let cursor = this.insert(Cursor::over(self.view.clone(), self.range.clone()));
                if from_front {
                    cursor.seek_to_first()?
                } else {
                    cursor.seek_to_last()?
                }
                cursor
            }
        };
        let other = other
            .as_ref()
            .filter(|other| cursor.valid() && other.valid());
        let met = other.is_some_and(|other| match cursor.key().cmp(other.key()) {
            Ordering::Less => !from_front,
            Ordering::Equal => true,
            Ordering::Greater => from_front,
        });
        if !cursor.valid() || met {
            return Ok(None);
        }
        Ok(Some((
            Value::copy_of(cursor.key()),
            Value::copy_of(cursor.value()),
        )))
    }

    fn advance(&mut self, from_front: bool) -> Option<Result<(Value, Value)>> {
        if self.done {
            return None;
        }
        let entry = self.step(from_front).transpose();
        self.done = !matches!(entry, Some(Ok(_)));
        entry
    }
}

impl Iterator for Entries {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(true)
    }

    fn count(mut self) -> usize {
        // Without copying a key or a value; an error counts as the one item it would have been.
        if self.front.is_some() || self.back.is_some() || self.done {
            let mut count = 0;
            while self.next().is_some() {
                count += 1;
            }
            return count;
        }
        let mut cursor = Cursor::over(self.view, self.range).keys_only();
        let mut count = 0;
        let mut moved = cursor.seek_to_first();
        while moved.is_ok() && cursor.valid() {
            count += 1;
            moved = cursor.next();
        }
        count + usize::from(moved.is_err())
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.advance(false)
    }
}

impl std::iter::FusedIterator for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries")
            .field("range", &self.range)
            .field("done", &self.done)
            .finish()
    }
}
