//! A keyspace: one ordered map of the database, with its own memtables and tables. Everything that
//! reads or writes works on it; a [`Db`](crate::Db) is its default keyspace and what concerns all.
//!
//! Invariant: a handle is cheap, `'static` and `Send + Sync`; it keeps the database open. The
//! readable state is one super-version, replaced only by what changes the one before.

use crate::batch::WriteBatch;
use crate::commit::{self, Member};
use crate::cursor::Cursor;
use crate::engine::{Engine, EngineHandle};
use crate::hooks::{KeyspaceHooks, RegisteredHooks};
use crate::index::catalog::KeyspaceIndexes;
use crate::ingest;
use crate::interleaved::Loaded;
use crate::keyspace_options::{KeyspaceOptions, KeyspaceSettings};
use crate::merged::Operator;
use crate::operator_slot::OperatorSlot;
use crate::option_word::millis_of;
use crate::options::{Durability, WriteOptions};
use crate::range_spec::KeyRange;
use crate::read::{self, Search};
use crate::read_toll::ReadToll;
use crate::replaceable::Replaceable;
use crate::scan::Entries;
use crate::settings::LiveSettings;
use crate::super_version::SuperVersion;
use crate::value::Value;
use arc_swap::ArcSwap;
use esker_base::clock::{Clock, Moment};
use esker_base::sync::Mutex;
use esker_base::write_batch::{BatchEncoder, KeyspaceId};
use esker_base::{Error, ErrorKind, Result, SequenceNumber, ValueKind};
use std::cell::RefCell;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What the engine holds of one keyspace.
#[derive(Debug)]
pub(crate) struct KeyspaceState {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    /// What its owner has registered for it.
    hooks: KeyspaceHooks,
    operator: Arc<OperatorSlot>,
    /// Whether the operator's name is durable.
    operator_is_noted: AtomicBool,
    super_version: Replaceable<SuperVersion>,
    /// States that restores replaced, each with the sequence from which on it is not read any more;
    /// oldest first. Kept as long as snapshots need them.
    replaced: Mutex<Vec<(SequenceNumber, Arc<SuperVersion>)>>,
    /// Held from looking at the current version to installing the one that an edit makes of it.
    pub(crate) edit: Mutex<()>,
    dropped: AtomicBool,
    /// What it was given; the database's options count where that says nothing.
    options: ArcSwap<KeyspaceOptions>,
    /// For the hot paths: milliseconds, or one of the two words below.
    default_ttl: AtomicU64,
    /// For the hot paths: bytes, or 0 for the database's.
    write_buffer_bytes: AtomicUsize,
    /// Whether its writers are to be asked whether they are too fast.
    pub(crate) is_behind: AtomicBool,
    /// What reads have lost since the super-version was last replaced.
    pub(crate) read_toll: ReadToll,
    pub(crate) indexes: KeyspaceIndexes,
}

/// No time to live, whatever the database says.
const NEVER_EXPIRES: u64 = u64::MAX;
/// The database's default time to live.
const AS_THE_DATABASE: u64 = u64::MAX - 1;

impl KeyspaceState {
    pub(crate) fn new(
        id: KeyspaceId,
        name: String,
        options: KeyspaceOptions,
        mut first: SuperVersion,
        hooks: &RegisteredHooks,
    ) -> Arc<Self> {
        let hooks = hooks.of(&name);
        let operator = OperatorSlot::new(&name, hooks.operator.clone(), &options);
        first.operator = Arc::clone(&operator);
        let state = Self {
            id,
            hooks,
            operator,
            operator_is_noted: AtomicBool::new(false),
            name,
            super_version: Replaceable::new(first),
            replaced: Mutex::default(),
            edit: Mutex::new(()),
            dropped: AtomicBool::new(false),
            options: ArcSwap::default(),
            default_ttl: AtomicU64::new(AS_THE_DATABASE),
            write_buffer_bytes: AtomicUsize::new(0),
            is_behind: AtomicBool::new(false),
            read_toll: ReadToll::default(),
            indexes: KeyspaceIndexes::default(),
        };
        state.set_own_options(options);
        Arc::new(state)
    }

    /// What it was given.
    pub(crate) fn own_options(&self) -> Arc<KeyspaceOptions> {
        self.options.load_full()
    }

    /// Called with the edit lock held, or before anybody knows the keyspace.
    pub(crate) fn set_own_options(&self, options: KeyspaceOptions) {
        let ttl = match options.own_default_ttl() {
            None => AS_THE_DATABASE,
            Some(None) => NEVER_EXPIRES,
            Some(Some(ttl)) => millis_of(ttl).min(AS_THE_DATABASE - 1),
        };
        self.default_ttl.store(ttl, Ordering::Relaxed);
        let bytes = options.own_write_buffer_bytes().unwrap_or(0);
        self.write_buffer_bytes.store(bytes, Ordering::Relaxed);
        let noted = matches!(&*self.operator, OperatorSlot::Given(operator)
            if options.own_merge_operator() == Some(operator.name()));
        self.operator_is_noted.store(noted, Ordering::Release);
        self.options.store(Arc::new(options));
    }

    /// Whether an operand may be written: its operator's name is durable.
    #[inline]
    pub(crate) fn operator_is_noted(&self) -> bool {
        self.operator_is_noted.load(Ordering::Acquire)
    }

    /// The options in force.
    pub(crate) fn settings(&self, database: &LiveSettings) -> KeyspaceSettings {
        self.options.load().settled(database)
    }

    /// How long what is put here lives that names no time, milliseconds.
    #[inline]
    pub(crate) fn default_ttl_millis(&self, database: &LiveSettings) -> Option<u64> {
        match self.default_ttl.load(Ordering::Relaxed) {
            AS_THE_DATABASE => database.default_ttl().map(millis_of),
            NEVER_EXPIRES => None,
            millis => Some(millis),
        }
    }

    /// The size at which its memtable is sealed, bytes.
    #[inline]
    pub(crate) fn write_buffer_bytes(&self, database: &LiveSettings) -> usize {
        match self.write_buffer_bytes.load(Ordering::Relaxed) {
            0 => database.write_buffer_bytes(),
            // Within the budget, where there is one, the database's own size is the largest.
            own if database.memory_budget_bytes() > 0 => own.min(database.write_buffer_bytes()),
            own => own,
        }
    }

    /// What makes values of merge operands.
    #[inline]
    pub(crate) fn operator(&self) -> Operator<'_> {
        &self.operator
    }

    pub(crate) fn hooks(&self) -> &KeyspaceHooks {
        &self.hooks
    }

    /// The state to read, for as long as the guard is held.
    #[inline]
    pub(crate) fn load(&self) -> Loaded<SuperVersion> {
        self.super_version.load()
    }

    /// The state for a reader at `sequence`, or for one that reads what is newest.
    #[inline]
    pub(crate) fn load_at(&self, sequence: Option<SequenceNumber>) -> Loaded<SuperVersion> {
        let view = self.load();
        match sequence {
            Some(sequence) if sequence < view.since => self
                .replaced_at(sequence)
                .map_or(view, arc_swap::Guard::from_inner),
            _ => view,
        }
    }

    #[cold]
    fn replaced_at(&self, sequence: SequenceNumber) -> Option<Arc<SuperVersion>> {
        let replaced = self.replaced.lock();
        let known = replaced.iter().find(|(until, _)| sequence < *until);
        known.map(|(_, view)| Arc::clone(view))
    }

    /// Replaces the state by one that has nothing to do with it. Readers at sequences before `since`
    /// keep the old one.
    pub(crate) fn replace(&self, mut next: SuperVersion, since: SequenceNumber) {
        next.since = since;
        next.operator = Arc::clone(&self.operator);
        self.super_version.replace(|current| {
            // Listed before it is replaced, so that whoever finds the new state finds the old one too.
            self.replaced.lock().push((since, Arc::clone(current)));
            next
        });
        self.read_toll.begin_anew();
    }

    /// Forgets replaced states that nobody reads at `oldest` or later. Says whether any is left.
    pub(crate) fn forget_replaced(&self, oldest: SequenceNumber) -> bool {
        let mut replaced = self.replaced.lock();
        let needed = replaced.partition_point(|(until, _)| *until <= oldest);
        let forgotten: Vec<_> = replaced.drain(..needed).collect();
        let any_left = !replaced.is_empty();
        drop(replaced);
        drop(forgotten);
        any_left
    }

    /// The state to read, to keep.
    #[inline]
    pub(crate) fn load_full(&self) -> Arc<SuperVersion> {
        self.super_version.load_full()
    }

    /// Replaces the state by what `change` makes of the current one. The old one is returned so that
    /// whoever called decides where its memtables are freed.
    pub(crate) fn install(
        &self,
        change: impl FnOnce(&SuperVersion) -> SuperVersion,
    ) -> Arc<SuperVersion> {
        let old = self.super_version.replace(|current| {
            let mut next = change(current);
            next.since = current.since;
            next.operator = Arc::clone(&self.operator);
            next
        });
        self.read_toll.begin_anew();
        old
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }
}

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
        read::get(&search, engine.clock(), self.state.operator())
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
        let keys = keys.into_iter();
        let operator = self.state.operator();
        keys.map(|key| {
            let search = Search::begin(&view, key.as_ref(), visible);
            self.note_get(&view, key.as_ref(), search.hash());
            read::get(&search, &now, operator)
        })
        .collect()
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
        SCRATCH.with(|scratch| {
            // A drop handler of the same thread may write while a write is under way.
            let Ok(mut encoder) = scratch.try_borrow_mut() else {
                let mut encoder = BatchEncoder::new();
                encoder.push(self.state.id, kind, key, value);
                let keyspaces = std::slice::from_ref(&self.state);
                return engine.commit(Member::new(&mut encoder, keyspaces, durability, None));
            };
            encoder.clear();
            encoder.push(self.state.id, kind, key, value);
            let keyspaces = std::slice::from_ref(&self.state);
            let result = engine.commit(Member::new(&mut encoder, keyspaces, durability, None));
            if encoder.encoded_bytes() > SCRATCH_BYTES {
                *encoder = BatchEncoder::new();
            }
            result
        })
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
