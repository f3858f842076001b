//! A keyspace: one ordered map of the database, with its own memtables and tables. Everything that
//! reads or writes works on it; a [`Db`](crate::Db) is its default keyspace and what concerns all.
//!
//! Invariant: a handle is cheap, `'static` and `Send + Sync`; it keeps the database open.

use crate::batch::WriteBatch;
use crate::commit::{self, Member};
use crate::cursor::Cursor;
use crate::engine::{Engine, EngineHandle};
use crate::ingest;
use crate::interleaved::Loaded;
use crate::options::{Durability, WriteOptions};
use crate::range_spec::KeyRange;
use crate::read::{self, Search, Together};
use crate::scan::Entries;
use crate::super_version::SuperVersion;
use crate::value::Value;
use esker_base::clock::{Clock, Moment};
use esker_base::write_batch::{BatchEncoder, KeyspaceId};
use esker_base::{Error, ErrorKind, Result, SequenceNumber, ValueKind};
use esker_prefetch::prefetch_read;
use std::cell::RefCell;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

mod state;

pub(crate) use state::KeyspaceState;

thread_local! {
    /// Where a thread encodes its single writes, so that a put allocates nothing.
    static SCRATCH: RefCell<BatchEncoder> = RefCell::new(BatchEncoder::new());
}

/// Scratch memory beyond this is given back after a large write.
const SCRATCH_BYTES: usize = 1 << 16;

/// A handle to one keyspace of an open database.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// let users = db.keyspace("users")?;
/// users.put("1", "Ada")?;
/// assert_eq!(users.get("1")?.as_deref(), Some(&b"Ada"[..]));
/// assert!(db.get("1")?.is_none());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Keyspace {
    handle: Arc<EngineHandle>,
    state: Arc<KeyspaceState>,
}

impl Keyspace {
    pub(crate) fn new(handle: Arc<EngineHandle>, state: Arc<KeyspaceState>) -> Self {
        Self { handle, state }
    }

    #[inline]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.handle.engine
    }

    pub(crate) fn handle(&self) -> &Arc<EngineHandle> {
        &self.handle
    }

    pub(crate) fn state(&self) -> &Arc<KeyspaceState> {
        &self.state
    }

    /// The state for a reader at `sequence`, or for one that reads what is newest.
    pub(crate) fn super_version(&self, sequence: Option<SequenceNumber>) -> Arc<SuperVersion> {
        arc_swap::Guard::into_inner(self.state.load_at(sequence))
    }

    /// The database that it is of.
    pub(crate) fn database(&self) -> crate::Db {
        let default = Arc::clone(&self.engine().default_keyspace);
        crate::Db::new(Self::new(Arc::clone(&self.handle), default))
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    pub(crate) fn id(&self) -> KeyspaceId {
        self.state.id
    }

    /// The name it was created under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The value of `key`, or `None`.
    ///
    /// # Errors
    /// `Corruption` and `Io` from the tables; `Closed` after the database was closed.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.get_at(key.as_ref(), None)
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of several keys, in their order, all seen at one moment.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        self.multi_get_at(keys, None)
    }

    /// How long `key` has to live; `None` where there is no value or it does not expire.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        self.ttl_at(key.as_ref(), None)
    }

    /// What a read at `sequence`, or of what is newest, looks at, and the sequence that it sees.
    #[inline]
    fn moment(&self, sequence: Option<SequenceNumber>) -> (Loaded<SuperVersion>, SequenceNumber) {
        // Every write changes it, so that it is far away; taking the view would wait for it.
        prefetch_read(&*self.engine().visible);
        let load = || self.state.load_at(sequence);
        match sequence {
            Some(sequence) => (load(), sequence),
            None => self.engine().visible.after(load),
        }
    }

    #[inline]
    pub(crate) fn get_at(
        &self,
        key: &[u8],
        sequence: Option<SequenceNumber>,
    ) -> Result<Option<Value>> {
        let engine = self.engine();
        engine.check_open()?;
        let (view, visible) = self.moment(sequence);
        let search = Search::begin(&view, key, visible);
        self.note_get(&view, key, search.hash());
        let mut found = read::get(&search, engine.clock(), self.state.operator());
        if let Ok(Some(value)) = &mut found {
            value.hand_out(&engine.blocks);
        }
        found
    }

    pub(crate) fn multi_get_at<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        sequence: Option<SequenceNumber>,
    ) -> Result<Vec<Option<Value>>> {
        let engine = self.engine();
        engine.check_open()?;
        let (view, visible) = self.moment(sequence);
        // One moment for all of them, of the clock too.
        let now = Moment::now(engine.clock());
        let keys: Vec<K> = keys.into_iter().collect();
        let note = |key: &[u8], hash| self.note_get(&view, key, hash);
        let mut together = Together::new(&view, visible);
        let mut values = together.get(&keys, &now, self.state.operator(), note)?;
        for value in values.iter_mut().flatten() {
            value.hand_out(&engine.blocks);
        }
        Ok(values)
    }

    pub(crate) fn ttl_at(
        &self,
        key: &[u8],
        sequence: Option<SequenceNumber>,
    ) -> Result<Option<Duration>> {
        let engine = self.engine();
        engine.check_open()?;
        let (view, visible) = self.moment(sequence);
        let now = Moment::now(engine.clock());
        let expiry = read::find_expiry(&view, key, visible, &now)?.flatten();
        let left = |expiry: u64| Duration::from_millis(expiry.saturating_sub(now.now_millis()));
        Ok(expiry.map(left))
    }

    /// All entries in key order.
    #[must_use]
    pub fn iter(&self) -> Entries {
        Entries::new(self, KeyRange::all(), None)
    }

    /// The entries of a range of keys, in order.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        Entries::new(self, KeyRange::new(&range), None)
    }

    /// The entries whose keys begin with `prefix`, in order.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        Entries::new(self, KeyRange::prefix(prefix.as_ref()), None)
    }

    /// A zero-copy cursor over all entries, as they are now.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self, KeyRange::all(), None)
    }

    /// Number of entries, counted.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn count(&self) -> Result<u64> {
        self.cursor().count_rest()
    }

    /// Sets `key` to `value`, with the database's default durability.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty or oversized key or value; `Io`, `NoSpace` or `Background` where
    /// the write could not be made durable: it may or may not survive then; `ReadOnly` and `Closed`
    /// as the names say. Likewise for all writes below.
    #[inline]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let settings = &self.engine().settings;
        if self.state.default_ttl_millis(settings).is_some() {
            return self.put_expiring(key.as_ref(), value.as_ref(), &WriteOptions::new());
        }
        let durability = settings.default_durability();
        self.write_one(ValueKind::Value, key.as_ref(), value.as_ref(), durability)
    }

    /// As [`Keyspace::put`], with options of its own.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn put_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<()> {
        let default_ttl = || self.state.default_ttl_millis(&self.engine().settings);
        if options.ttl.unwrap_or_else(default_ttl).is_some() {
            return self.put_expiring(key.as_ref(), value.as_ref(), options);
        }
        let durability = self.durability(options);
        self.write_one(ValueKind::Value, key.as_ref(), value.as_ref(), durability)
    }

    /// A put that gets the time to live of the options or of the keyspace.
    #[cold]
    fn put_expiring(&self, key: &[u8], value: &[u8], options: &WriteOptions) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.push(self.state.id, ValueKind::Value, key, value);
        batch.ttl = options.ttl;
        self.write_here(batch, options)
    }

    /// Sets `key` to `value` for as long as `ttl`; to every reader it is gone from the instant that
    /// it expires.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        self.put_with_ttl_opt(key, value, ttl, &WriteOptions::new())
    }

    /// Removes `key`; that it has no value is no error.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    #[inline]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        let durability = self.engine().settings.default_durability();
        self.write_one(ValueKind::Tombstone, key.as_ref(), &[], durability)
    }

    /// As [`Keyspace::put_with_ttl`], with options of its own.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn put_with_ttl_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
        options: &WriteOptions,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.push_expiring(self.state.id, key.as_ref(), value.as_ref(), ttl);
        self.write_here(batch, options)
    }

    /// As [`Keyspace::delete`], with options of its own.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn delete_opt(&self, key: impl AsRef<[u8]>, options: &WriteOptions) -> Result<()> {
        self.write_one(
            ValueKind::Tombstone,
            key.as_ref(),
            &[],
            self.durability(options),
        )
    }

    /// Removes every key of `range` in O(1); in a keyspace with indexes, in O(keys), of which there
    /// may be as many as change 64 MiB of index entries (`LimitExceeded` beyond).
    ///
    /// # Errors
    /// As [`Keyspace::put`]; `InvalidArgument` for a range that ends before it starts.
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.delete_range_opt(range, &WriteOptions::new())
    }

    /// As [`Keyspace::delete_range`], with options of its own.
    ///
    /// # Errors
    /// As [`Keyspace::delete_range`].
    pub fn delete_range_opt<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
        options: &WriteOptions,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.push_range(self.state.id, &KeyRange::new(&range));
        self.write_here(batch, options)
    }

    /// Removes every key in O(1). Snapshots keep what they see.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn clear(&self) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.push_range(self.state.id, &KeyRange::all());
        self.write_here(batch, &WriteOptions::new())
    }

    /// Loads sorted entries straight into tables, without log and memtable: several times faster than
    /// writing them, durable and visible together when it returns. Where a key has a value already,
    /// the loaded one is the newer.
    ///
    /// # Errors
    /// `InvalidArgument` where keys do not strictly ascend or break a bound, and nothing is loaded
    /// then; otherwise as [`Keyspace::put`]. A keyspace with indexes is loaded by way of one batch:
    /// `LimitExceeded` where that would be more than 64 MiB.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// assert_eq!(db.ingest((0..1000u32).map(|i| (i.to_be_bytes(), "value")))?, 1000);
    /// # Ok(()) }
    /// ```
    pub fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<u64> {
        ingest::ingest(self, entries)
    }

    pub(crate) fn durability(&self, options: &WriteOptions) -> Durability {
        options
            .durability
            .unwrap_or_else(|| self.engine().settings.default_durability())
    }

    fn write_here(&self, mut batch: WriteBatch, options: &WriteOptions) -> Result<()> {
        batch.keyspaces.push(self.clone());
        commit::write_batch(self.engine(), batch, self.durability(options), None)
    }

    #[inline]
    pub(crate) fn write_one(
        &self,
        kind: ValueKind,
        key: &[u8],
        value: &[u8],
        durability: Durability,
    ) -> Result<()> {
        let engine = self.engine();
        commit::check_entry(&engine.settings, key, value)?;
        if self.state.is_dropped() {
            return Err(dropped(&self.state.name));
        }
        let entry = (kind, key, value);
        let written = SCRATCH.try_with(|scratch| {
            let mut encoder = scratch.try_borrow_mut().ok()?;
            let result = self.commit_alone(&mut encoder, entry, durability);
            if encoder.encoded_bytes() > SCRATCH_BYTES {
                *encoder = BatchEncoder::new();
            }
            Some(result)
        });
        // A drop handler of the same thread may write while a write is under way, or when the thread ends and
        // nothing is left of what it had.
        written
            .ok()
            .flatten()
            .unwrap_or_else(|| self.commit_alone(&mut BatchEncoder::new(), entry, durability))
    }

    #[inline]
    fn commit_alone(
        &self,
        encoder: &mut BatchEncoder,
        (kind, key, value): (ValueKind, &[u8], &[u8]),
        durability: Durability,
    ) -> Result<()> {
        encoder.clear();
        encoder.push(self.state.id, kind, key, value);
        let keyspaces = std::slice::from_ref(&self.state);
        let member = Member::new(encoder, keyspaces, durability, None);
        self.engine().commit(member)
    }
}

/// The error of a handle whose keyspace was dropped.
#[cold]
pub(crate) fn dropped(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("the keyspace {name:?} was dropped"),
    )
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace")
            .field("id", &self.state.id)
            .field("name", &self.state.name)
            .finish()
    }
}
