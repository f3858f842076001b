//! What the engine holds of one keyspace: its super-version and those that restores replaced, its options,
//! and what its hot paths ask for.
//!
//! Invariant: the readable state is one super-version, replaced only by what changes the one before, with
//! the edit lock held. Handles ([`Keyspace`](super::Keyspace)) share it.

use crate::cursor::{CursorBody, IdleCursors};
use crate::hooks::{KeyspaceHooks, RegisteredHooks};
use crate::index::catalog::KeyspaceIndexes;
use crate::interleaved::Loaded;
use crate::keyspace_options::{KeyspaceOptions, KeyspaceSettings};
use crate::merged::Operator;
use crate::operator_slot::OperatorSlot;
use crate::option_word::millis_of;
use crate::read_toll::ReadToll;
use crate::replaceable::Replaceable;
use crate::settings::LiveSettings;
use crate::super_version::SuperVersion;
use arc_swap::ArcSwap;
use esker_base::SequenceNumber;
use esker_base::sync::Mutex;
use esker_base::write_batch::KeyspaceId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

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
    is_behind: AtomicBool,
    /// The same while readers wait for processors.
    is_behind_for_readers: AtomicBool,
    /// What reads have lost since the super-version was last replaced.
    pub(crate) read_toll: ReadToll,
    pub(crate) indexes: KeyspaceIndexes,
    idle_cursors: Arc<IdleCursors>,
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
        idle_cursors: &Arc<IdleCursors>,
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
            is_behind_for_readers: AtomicBool::new(false),
            read_toll: ReadToll::default(),
            indexes: KeyspaceIndexes::default(),
            idle_cursors: Arc::clone(idle_cursors),
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
        let old = self.super_version.replace(|current| {
            // Listed before it is replaced, so that whoever finds the new state finds the old one too.
            self.replaced.lock().push((since, Arc::clone(current)));
            next
        });
        self.let_go_of(&old);
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
        self.let_go_of(&old);
        self.read_toll.begin_anew();
        old
    }

    /// No cursor is made over `old` from here on, and none that was dropped keeps it.
    fn let_go_of(&self, old: &SuperVersion) {
        old.note_replaced();
        self.idle_cursors.forget_replaced();
    }

    /// What the last cursor of this thread has left, if that was one over the state for a reader at `sequence`, or
    /// for one that reads what is newest.
    #[inline]
    pub(crate) fn take_idle_cursor(
        &self,
        sequence: Option<SequenceNumber>,
    ) -> Option<Box<CursorBody>> {
        self.idle_cursors.take(self.id, sequence)
    }

    /// Keeps what is left of a cursor for the next one of this thread, unless its state was replaced.
    #[inline]
    pub(crate) fn keep_idle_cursor(&self, cursor: Box<CursorBody>) {
        self.idle_cursors
            .keep(self.id, cursor, || self.is_dropped());
    }

    /// Whether its writers are to be asked whether they are too fast, where readers wait for processors or do not.
    #[inline]
    pub(crate) fn is_behind(&self, readers_wait: bool) -> bool {
        self.is_behind.load(Ordering::Relaxed)
            || (readers_wait && self.is_behind_for_readers.load(Ordering::Relaxed))
    }

    pub(crate) fn note_behind(&self, is_behind: bool, is_behind_for_readers: bool) {
        self.is_behind.store(is_behind, Ordering::Relaxed);
        self.is_behind_for_readers
            .store(is_behind_for_readers, Ordering::Relaxed);
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }
}
