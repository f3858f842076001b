//! Which indexes a keyspace has: those that are declared, brought together with what is stored.
//!
//! Invariants: looked at and changed with the writer lock held, so that no write falls between two
//! sets. A stored index is believed only if its version and uniqueness are those declared and nobody
//! wrote without it; any other is begun anew under a keyspace name that was never used before. A
//! stored index that is not declared is marked stale in the batch of the first write that leaves it
//! behind.

use crate::commit::{Member, Writer};
use crate::db::Db;
use crate::engine::{Engine, Mode};
use crate::index::definition::{CATALOG_NAME, ENTRIES_PREFIX, IndexDefinition, is_reserved_name};
use crate::index::index_record::{IndexRecord, IndexState};
use crate::index::stored_record;
use crate::keyspace::{Keyspace, KeyspaceState};
use crate::keyspace_options::KeyspaceOptions;
use crate::options::Durability;
use crate::range_spec::KeyRange;
use crate::tuple;
use esker_base::write_batch::BatchEncoder;
use esker_base::{Error, ErrorKind, Result, SequenceNumber, ValueKind};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far an index that is built is.
#[derive(Clone, Debug, Default)]
pub(crate) struct BuildState {
    pub(crate) done_to: Vec<u8>,
    pub(crate) done_records: u64,
    pub(crate) failure: Option<Error>,
}

const NOT_READY: u64 = u64::MAX;

/// A declared index of an open database.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) definition: Arc<IndexDefinition>,
    /// The hidden keyspace with its entries.
    pub(crate) entries: Arc<KeyspaceState>,
    pub(crate) build: Mutex<BuildState>,
    ready_since: AtomicU64,
}

impl Index {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_since.load(Ordering::Acquire) != NOT_READY
    }

    /// From this sequence on it agrees with the records.
    pub(crate) fn set_ready(&self, since: SequenceNumber) {
        self.ready_since.store(since, Ordering::Release);
    }

    pub(crate) fn record(&self, state: IndexState) -> IndexRecord {
        IndexRecord {
            version: self.definition.version(),
            is_unique: self.definition.is_unique(),
            entries: self.entries.name.clone(),
            state,
        }
    }

    /// Fails where a reader at `sequence` (or at what is newest) must not rely on it.
    pub(crate) fn check_ready(&self, sequence: Option<SequenceNumber>) -> Result<()> {
        let since = self.ready_since.load(Ordering::Acquire);
        if since <= sequence.unwrap_or(NOT_READY - 1) {
            return Ok(());
        }
        let name = self.definition.name();
        if since != NOT_READY {
            let sentence = format!("the snapshot is older than index {name:?}; take a new one");
            return Err(Error::new(ErrorKind::NotReady, sentence));
        }
        let failure = self.build.lock().failure.clone();
        let sentence = match &failure {
            None => format!("index {name:?} is being built; Db::build_indexes waits for it"),
            Some(_) => format!(
                "index {name:?} could not be built; mend what the source says and call Db::build_indexes"
            ),
        };
        let error = Error::new(ErrorKind::NotReady, sentence);
        Err(match failure {
            Some(failure) => error.with_source(failure),
            None => error,
        })
    }
}

/// The indexes of one keyspace.
#[derive(Debug, Default)]
pub(crate) struct IndexSet {
    pub(crate) declared: Vec<Arc<Index>>,
    /// Stored, believed so far, and not declared: what a write leaves behind.
    pub(crate) undeclared: Vec<(String, IndexRecord)>,
    /// Whether all of these are known to be marked.
    pub(crate) all_marked: AtomicBool,
}

/// A keyspace's place for its index set.
#[derive(Debug, Default)]
pub(crate) struct KeyspaceIndexes {
    any: AtomicBool,
    set: Mutex<Arc<IndexSet>>,
}

impl KeyspaceIndexes {
    /// Whether a write has anything to do for indexes.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) -> Arc<IndexSet> {
        Arc::clone(&self.set.lock())
    }

    fn replace(&self, set: IndexSet) {
        let any = !set.declared.is_empty() || !set.undeclared.is_empty();
        *self.set.lock() = Arc::new(set);
        self.any.store(any, Ordering::Release);
    }
}

/// What is known of an index: [`Keyspace::indexes`].
#[derive(Clone, Debug)]
pub struct IndexInfo {
    definition: Arc<IndexDefinition>,
    status: IndexStatus,
}

impl IndexInfo {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.definition.name()
    }

    /// What was declared.
    #[must_use]
    pub fn definition(&self) -> &IndexDefinition {
        &self.definition
    }

    /// Whether it can be asked.
    #[must_use]
    pub fn status(&self) -> &IndexStatus {
        &self.status
    }
}

/// Whether an index can be asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum IndexStatus {
    /// It agrees with the records.
    Ready,
    /// It is being filled in the background; writes are in it already.
    Building {
        /// Records that it was filled with since the database was opened.
        done_records: u64,
    },
    /// It could not be filled: two records with one key of a unique index, for instance.
    Failed(Error),
}

impl Keyspace {
    /// The indexes that are declared on this keyspace.
    #[must_use]
    pub fn indexes(&self) -> Vec<IndexInfo> {
        let describe = |index: &Arc<Index>| {
            let build = index.build.lock();
            let status = match &build.failure {
                _ if index.is_ready() => IndexStatus::Ready,
                Some(error) => IndexStatus::Failed(error.clone()),
                None => IndexStatus::Building {
                    done_records: build.done_records,
                },
            };
            let definition = Arc::clone(&index.definition);
            IndexInfo { definition, status }
        };
        self.state()
            .indexes
            .set()
            .declared
            .iter()
            .map(describe)
            .collect()
    }

    /// The index of this name.
    pub(crate) fn index(&self, name: &str) -> Result<Arc<Index>> {
        let set = self.state().indexes.set();
        let mut declared = set.declared.iter();
        let found = declared.find(|index| index.definition.name() == name);
        found.cloned().ok_or_else(|| {
            let sentence = format!(
                "no index {name:?} is declared on keyspace {:?}",
                self.name()
            );
            Error::new(ErrorKind::NotFound, sentence)
        })
    }
}

impl Engine {
    pub(crate) fn keyspace_named(&self, name: &str) -> Option<Arc<KeyspaceState>> {
        self.keyspaces.read().by_name.get(name).cloned()
    }

    /// What the catalog says of the indexes of all keyspaces, or of one.
    fn stored_indexes(&self, of: Option<&str>) -> Result<BTreeMap<(String, String), IndexRecord>> {
        let mut stored = BTreeMap::new();
        let Some(catalog) = self.keyspace_named(CATALOG_NAME) else {
            return Ok(stored);
        };
        let range = match of {
            Some(owner) => KeyRange::prefix(&tuple::encode(&(owner,))),
            None => KeyRange::all(),
        };
        let (view, visible) = (catalog.load_full(), self.visible_sequence());
        stored_record::for_each_key(&view, &range, |key| {
            if let Some(record) = stored_record::find(&view, key, visible)? {
                stored.insert(tuple::decode(key)?, IndexRecord::decode(&record.value)?);
            }
            Ok(true)
        })?;
        Ok(stored)
    }

    /// Stores what is to be known of an index of `owner`, durably.
    fn store_index(
        self: &Arc<Self>,
        writer: &mut Writer,
        owner: &str,
        index: &str,
        record: Option<&IndexRecord>,
    ) -> Result<()> {
        let catalog = self.catalog()?;
        let mut encoder = BatchEncoder::new();
        push_record(&mut encoder, &catalog, owner, index, record);
        let member = Member::new(
            &mut encoder,
            std::slice::from_ref(&catalog),
            Durability::Sync,
            None,
        );
        self.commit_now(writer, member)
    }

    /// The keyspace that says which indexes there are, created with the first of them.
    pub(crate) fn catalog(self: &Arc<Self>) -> Result<Arc<KeyspaceState>> {
        match self.keyspace_named(CATALOG_NAME) {
            Some(catalog) => Ok(catalog),
            None => self.create_keyspace(CATALOG_NAME, &hidden_options()),
        }
    }

    /// Begins an index with no entries: ready if there are no records either.
    pub(crate) fn begin_index(
        self: &Arc<Self>,
        writer: &mut Writer,
        owner: &KeyspaceState,
        definition: &Arc<IndexDefinition>,
    ) -> Result<Arc<Index>> {
        let number = self.versions.next_keyspace_id();
        let mut names = (number..).map(|number| format!("{ENTRIES_PREFIX}{number}"));
        let free = names.find(|name| self.keyspace_named(name).is_none());
        let entries = self.create_keyspace(&free.unwrap_or_default(), &hidden_options())?;
        let view = owner.load();
        let is_empty = view.runs.is_empty() && view.memtables().all(|memtable| memtable.is_empty());
        drop(view);
        let state = if is_empty {
            IndexState::Ready
        } else {
            IndexState::Building {
                done_to: Vec::new(),
            }
        };
        let index = opened(definition, entries, &state, self.visible_sequence());
        let record = index.record(state);
        self.store_index(writer, &owner.name, definition.name(), Some(&record))?;
        Ok(index)
    }

    /// Whether the indexes that are declared on a keyspace are maintained: not so after its creation
    /// where the disk failed before they were stored. One opened for reading has those that it finds.
    pub(crate) fn has_its_indexes(&self, owner: &KeyspaceState) -> bool {
        let declared = self.indexes.of(&owner.name).len();
        declared == 0
            || self.mode == Mode::ReadOnly
            || owner.indexes.set().declared.len() == declared
    }

    /// Brings declared and stored indexes of a keyspace together. The caller holds the writer lock;
    /// `since` is the sequence from which on what is stored is known to be true.
    pub(crate) fn attach_indexes(
        self: &Arc<Self>,
        writer: &mut Writer,
        owner: &Arc<KeyspaceState>,
        since: SequenceNumber,
    ) -> Result<()> {
        let definitions = self.indexes.of(&owner.name);
        let mut stored = self.stored_indexes(Some(&owner.name))?;
        let mut set = IndexSet::default();
        for definition in definitions {
            let key = (owner.name.clone(), definition.name().to_string());
            let known = stored.remove(&key).filter(|record| {
                record.version == definition.version()
                    && record.is_unique == definition.is_unique()
                    && record.state != IndexState::Stale
            });
            let entries = known
                .as_ref()
                .and_then(|known| self.keyspace_named(&known.entries));
            set.declared.push(match (known, entries) {
                (Some(known), Some(entries)) => opened(definition, entries, &known.state, since),
                _ if self.mode == Mode::ReadOnly => continue,
                _ => self.begin_index(writer, owner, definition)?,
            });
        }
        let believed = |record: &IndexRecord| record.state != IndexState::Stale;
        let undeclared = stored.into_iter().filter(|(_, record)| believed(record));
        set.undeclared = undeclared
            .map(|((_, name), record)| (name, record))
            .collect();
        owner.indexes.replace(set);
        Ok(())
    }

    /// Puts another index in the place of the one of its name.
    pub(crate) fn exchange_index(&self, owner: &KeyspaceState, index: &Arc<Index>) {
        let set = owner.indexes.set();
        let exchanged = |known: &Arc<Index>| {
            let same = known.definition.name() == index.definition.name();
            Arc::clone(if same { index } else { known })
        };
        owner.indexes.replace(IndexSet {
            declared: set.declared.iter().map(exchanged).collect(),
            undeclared: set.undeclared.clone(),
            all_marked: AtomicBool::new(set.all_marked.load(Ordering::Relaxed)),
        });
    }

    /// As [`Engine::attach_indexes`], for every keyspace.
    pub(crate) fn attach_all_indexes(
        self: &Arc<Self>,
        writer: &mut Writer,
        since: SequenceNumber,
    ) -> Result<()> {
        if self.indexes.is_empty() && self.keyspace_named(CATALOG_NAME).is_none() {
            return Ok(());
        }
        let owners = self.all_keyspaces();
        let mut owners = owners.iter().filter(|owner| !is_reserved_name(&owner.name));
        owners.try_for_each(|owner| self.attach_indexes(writer, owner, since))
    }
}

/// Nothing in hidden keyspaces expires but what expires with its record.
fn hidden_options() -> KeyspaceOptions {
    KeyspaceOptions::new().default_ttl(None)
}

fn opened(
    definition: &Arc<IndexDefinition>,
    entries: Arc<KeyspaceState>,
    state: &IndexState,
    since: SequenceNumber,
) -> Arc<Index> {
    let mut build = BuildState::default();
    let ready_since = match state {
        IndexState::Ready => since,
        IndexState::Building { done_to } => {
            build.done_to.clone_from(done_to);
            NOT_READY
        }
        IndexState::Stale => NOT_READY,
    };
    Arc::new(Index {
        definition: Arc::clone(definition),
        entries,
        build: Mutex::new(build),
        ready_since: AtomicU64::new(ready_since),
    })
}

/// Appends the catalog's record of an index, or its removal.
pub(crate) fn push_record(
    encoder: &mut BatchEncoder,
    catalog: &KeyspaceState,
    owner: &str,
    index: &str,
    record: Option<&IndexRecord>,
) {
    let key = tuple::encode(&(owner, index));
    match record {
        Some(record) => encoder.push(catalog.id, ValueKind::Value, &key, &record.encode()),
        None => encoder.push(catalog.id, ValueKind::Tombstone, &key, &[]),
    }
}

impl Db {
    /// Attaches all indexes after the database was opened, and begins to fill those that are not.
    pub(crate) fn open_indexes(&self) -> Result<()> {
        let engine = self.engine();
        if engine.indexes.is_empty() && engine.keyspace_named(CATALOG_NAME).is_none() {
            return Ok(());
        }
        engine.attach_all_indexes(&mut engine.commit_queue.lock(), 0)?;
        if engine.mode == Mode::ReadOnly {
            return Ok(());
        }
        self.drop_unnamed_entries()?;
        engine.schedule_index_builds();
        Ok(())
    }

    /// Drops everything that is stored of indexes: records were lost, so that they need not agree with
    /// what is left. Those that are declared are then filled anew.
    pub(crate) fn forget_all_indexes(&self) -> Result<()> {
        let keyspaces = self.engine().all_keyspaces();
        let mut hidden = keyspaces
            .iter()
            .filter(|state| is_reserved_name(&state.name));
        hidden.try_for_each(|state| self.drop_state(&state.name))
    }

    /// Drops keyspaces with entries that no stored index names: of indexes that were begun anew, or
    /// whose keyspace was dropped.
    pub(crate) fn drop_unnamed_entries(&self) -> Result<()> {
        let engine = self.engine();
        let stored = engine.stored_indexes(None)?;
        let is_there = |owner: &str| engine.keyspace_named(owner).is_some();
        let named = stored.iter().filter(|((owner, _), _)| is_there(owner));
        let named: HashSet<_> = named.map(|(_, record)| &record.entries).collect();
        let keyspaces = engine.all_keyspaces();
        let unnamed = keyspaces
            .iter()
            .filter(|state| state.name.starts_with(ENTRIES_PREFIX) && !named.contains(&state.name));
        for state in unnamed {
            self.drop_state(&state.name)?;
        }
        Ok(())
    }

    /// Forgets the indexes of a keyspace that is about to be dropped, before it is: a keyspace of the
    /// same name must not find them.
    pub(crate) fn forget_indexes(&self, owner: &KeyspaceState) -> Result<()> {
        let engine = self.engine();
        if !owner.indexes.any() {
            return Ok(());
        }
        let mut writer = engine.commit_queue.lock();
        owner.indexes.replace(IndexSet::default());
        for (_, index) in engine.stored_indexes(Some(&owner.name))?.into_keys() {
            engine.store_index(&mut writer, &owner.name, &index, None)?;
        }
        Ok(())
    }
}
