//! The one writer of truth (I2): the current versions of all keyspaces and the log of what changes
//! them.
//!
//! Invariants: readers take an immutable state by one reference and never wait for a writer (I8).
//! An edit reaches stable storage before it changes memory (I1). After a failure memory is as it
//! was; whether the edit is on disk is unknown until a later one has begun a new MANIFEST, and until
//! then [`VersionSet::live_files`] keeps everything that either outcome needs. Called by db alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use esker_base::filename::{FileNumber, LARGEST_NUMBER, current_path};
use esker_base::sync::Mutex;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_vfs::fs::FileSystem;

use crate::creation;
use crate::current_file;
use crate::live_index::LiveIndex;
use crate::manifest_log::{ManifestLog, Position};
use crate::manifest_state::{DEFAULT_KEYSPACE_NAME, KeyspaceMeta, ManifestState};
use crate::recovery::{self, ManifestReading};
use crate::version::Version;
use crate::version_edit::{KeyspaceEdit, RunPlacement, VersionEdit};

/// The number of the MANIFEST that a new database begins with.
const FIRST_MANIFEST: FileNumber = 1;
/// How much a record may grow when numbers drawn for a rotation enter it.
const ROTATION_SLACK_BYTES: usize = 64;

/// How the MANIFEST is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestOptions {
    /// The length of a MANIFEST, bytes: it is allocated at once, read whole at every opening, and
    /// replaced by a new one with a fresh snapshot when it is full. Raised to what two snapshots
    /// take.
    pub rotate_bytes: u64,
}

impl Default for ManifestOptions {
    fn default() -> Self {
        Self {
            rotate_bytes: 256 << 10,
        }
    }
}

/// The current versions, and the only way to change them.
#[derive(Debug)]
pub struct VersionSet {
    state: ArcSwap<ManifestState>,
    next_file_number: AtomicU64,
    last_sequence: AtomicU64,
    latest_millis: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: LiveIndex,
    /// `None` where the database was opened for reading only.
    log: Option<ManifestLog>,
    read_only_number: FileNumber,
    /// Files of edits that failed and may be on disk nevertheless.
    uncertain: BTreeSet<FileNumber>,
}

impl VersionSet {
    /// Makes a new database in `directory`, which exists: a MANIFEST that begins with `initial`
    /// (and keyspace 0, if that does not make it), and `CURRENT`. New runs are not for `initial`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] where there is a database or `initial` cannot be applied;
    /// whatever the file system says.
    pub fn create(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        options: ManifestOptions,
        mut initial: VersionEdit,
    ) -> Result<Self> {
        if Self::exists(&*fs, directory)? {
            let error = Error::invalid_argument("there is a database already");
            return Err(error.with_file(&current_path(directory)));
        }
        if !initial.keyspaces.iter().any(|keyspace| keyspace.id == 0) {
            let create = Some((DEFAULT_KEYSPACE_NAME.to_owned(), Vec::new()));
            initial.keyspaces.insert(
                0,
                KeyspaceEdit {
                    create,
                    ..KeyspaceEdit::default()
                },
            );
        }
        let mut log = ManifestLog::new(fs, directory, options.rotate_bytes, Position::Next, None);
        let mut state = ManifestState {
            next_file_number: FIRST_MANIFEST + 1,
            ..ManifestState::default()
        };
        let mut index = LiveIndex::default();
        state.apply(&initial, &index)?;
        index.note(&initial);
        log.rotate(FIRST_MANIFEST, &state, 0)?;
        Ok(Self::new(state, index, Some(log), FIRST_MANIFEST))
    }

    /// Makes MANIFEST `number` of the state that `edits` make one after the other out of nothing, and
    /// lets `CURRENT` name it, whatever is in the directory: for repair. No other file is touched; none
    /// of this number may be there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] where an edit cannot be applied; whatever the file system says.
    /// `CURRENT` is then what it was, or names the new MANIFEST, which is whole.
    pub fn rebuild(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        options: ManifestOptions,
        number: FileNumber,
        edits: &[VersionEdit],
    ) -> Result<Self> {
        let mut log = ManifestLog::new(fs, directory, options.rotate_bytes, Position::Next, None);
        let mut state = ManifestState {
            next_file_number: number.saturating_add(1),
            ..ManifestState::default()
        };
        let mut index = LiveIndex::default();
        for edit in edits {
            state.apply(edit, &index)?;
            index.note(edit);
        }
        log.rotate(number, &state, 0)?;
        Ok(Self::new(state, index, Some(log), number))
    }

    /// Reads MANIFEST `number` as far as it can be read, whatever `CURRENT` names.
    ///
    /// # Errors
    /// Whatever the file system says, and [`ErrorKind::Unsupported`]; damage is a part of the answer.
    pub fn read_manifest(
        fs: &dyn FileSystem,
        directory: &Path,
        number: FileNumber,
    ) -> Result<ManifestReading> {
        recovery::read(fs, directory, number)
    }

    /// The number of the MANIFEST that `CURRENT` names; `None` where there is no `CURRENT`.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`] where it names none; whatever the file system says.
    pub fn current_manifest(fs: &dyn FileSystem, directory: &Path) -> Result<Option<FileNumber>> {
        current_file::read(fs, directory)
    }

    /// Opens the database in `directory`. Writes nothing after a clean end; otherwise it may begin
    /// a new MANIFEST.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no `CURRENT`; [`ErrorKind::Corruption`] naming file
    /// and offset; whatever the file system says.
    pub fn recover(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        options: ManifestOptions,
    ) -> Result<Self> {
        let recovered = recovery::recover(&*fs, directory)?;
        let (number, header, offset) = (recovered.number, recovered.header, recovered.end_offset);
        let position = match recovered.is_clean {
            true => Position::Found {
                number,
                header,
                offset,
            },
            false => Position::Next,
        };
        let log = ManifestLog::new(fs, directory, options.rotate_bytes, position, Some(number));
        let set = Self::new(recovered.state, recovered.index, Some(log), number);
        // A snapshot says which numbers were given out before its own file: that one may be the next.
        // A manifest that CURRENT names must never be begun again in its place.
        set.reserve_file_number(number);
        if !recovered.is_durable {
            // What was read may be in memory only, and an earlier sync of it may have failed (I3):
            // before anybody acts on it, it is written again, whole, to another file.
            let state = set.state();
            let next = set.new_file_number();
            let mut inner = set.inner.lock();
            if let Some(log) = &mut inner.log {
                log.rotate(next, &state, ROTATION_SLACK_BYTES)?;
            }
        }
        Ok(set)
    }

    /// Opens the database in `directory` for reading: writes nothing, ever.
    ///
    /// # Errors
    /// As [`VersionSet::recover`].
    pub fn recover_read_only(fs: Arc<dyn FileSystem>, directory: &Path) -> Result<Self> {
        let recovered = recovery::recover(&*fs, directory)?;
        Ok(Self::new(
            recovered.state,
            recovered.index,
            None,
            recovered.number,
        ))
    }

    /// Runs `body` while no edit is made: what it reads of the manifest's files holds still.
    pub fn between_edits<R>(&self, body: impl FnOnce() -> R) -> R {
        let _no_edit = self.inner.lock();
        body()
    }

    /// Whether there is a database in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`] where `CURRENT` is missing beside files that hold data: making a
    /// new database there would lose them. Whatever the file system says.
    pub fn exists(fs: &dyn FileSystem, directory: &Path) -> Result<bool> {
        if current_file::read(fs, directory)?.is_some() {
            return Ok(true);
        }
        creation::check_nothing_is_lost(fs, directory)?;
        Ok(false)
    }

    fn new(
        state: ManifestState,
        index: LiveIndex,
        log: Option<ManifestLog>,
        read_only_number: FileNumber,
    ) -> Self {
        let inner = Inner {
            index,
            log,
            read_only_number,
            uncertain: BTreeSet::new(),
        };
        Self {
            next_file_number: AtomicU64::new(state.next_file_number),
            last_sequence: AtomicU64::new(state.last_sequence),
            latest_millis: AtomicU64::new(state.latest_millis),
            state: ArcSwap::from_pointee(state),
            inner: Mutex::new(inner),
        }
    }

    /// Logs `edit` durably and then makes it the truth.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an edit that cannot be applied, and
    /// [`ErrorKind::ReadOnly`]: nothing was changed anywhere. Whatever the file system says
    /// otherwise: nothing was changed in memory, but the edit may be on disk, so that no file it
    /// adds may be removed before [`VersionSet::live_files`] leaves it out. The next call begins a
    /// new MANIFEST, and so cures the failure if the file system lets it.
    pub fn log_and_apply(&self, mut edit: VersionEdit) -> Result<()> {
        let inner = &mut *self.inner.lock();
        let Some(log) = &mut inner.log else {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the database is open for reading only",
            ));
        };
        self.draw_run_ids(&mut edit);
        let current = self.state.load();
        let mut next = ManifestState::clone(&current);
        next.apply(&edit, &inner.index)?;
        let mut record = self.encode(&mut edit, &mut next)?;
        let has_room = log.has_room(record.len())?;
        if !has_room || log.is_nearly_full() {
            let payload_bytes = record.len() + ROTATION_SLACK_BYTES;
            match log.rotate(self.new_file_number(), &current, payload_bytes) {
                Ok(()) => {
                    inner.uncertain.clear();
                    record = self.encode(&mut edit, &mut next)?;
                }
                // On a full disk edits go on in what is left of the old file.
                Err(_) if has_room && log.has_room(record.len())? => {}
                Err(error) => return Err(error),
            }
        }
        if let Err(error) = log.append(&record) {
            inner.uncertain.extend(files_of(&edit));
            return Err(error);
        }
        inner.index.note(&edit);
        self.state.store(Arc::new(next));
        Ok(())
    }

    /// Gives every new run of the edit its number.
    fn draw_run_ids(&self, edit: &mut VersionEdit) {
        for keyspace in &mut edit.keyspaces {
            let mut drawn: Vec<(usize, u64)> = Vec::new();
            for added in keyspace
                .added
                .iter_mut()
                .filter(|a| a.run == RunPlacement::New)
            {
                let known = drawn.iter().find(|(level, _)| *level == added.level);
                let id = known.map_or_else(|| self.new_file_number(), |(_, id)| *id);
                if known.is_none() {
                    drawn.push((added.level, id));
                }
                added.run = RunPlacement::Created(id);
            }
        }
    }

    /// Encodes the edit with the counters as they are now.
    fn encode(&self, edit: &mut VersionEdit, next: &mut ManifestState) -> Result<Vec<u8>> {
        let number = edit.next_file_number.unwrap_or(0);
        let number = self
            .next_file_number
            .fetch_max(number, Ordering::Relaxed)
            .max(number);
        let sequence = next.last_sequence;
        let sequence = self
            .last_sequence
            .fetch_max(sequence, Ordering::Relaxed)
            .max(sequence);
        let millis = self.latest_millis.load(Ordering::Relaxed);
        if millis > next.latest_millis {
            edit.latest_millis = Some(millis);
            next.latest_millis = millis;
        }
        edit.next_file_number = Some(number);
        edit.last_sequence = Some(sequence);
        next.next_file_number = next.next_file_number.max(number);
        next.last_sequence = sequence;
        edit.encode()
    }

    /// Everything that the manifest says now.
    #[must_use]
    pub fn state(&self) -> Arc<ManifestState> {
        self.state.load_full()
    }

    /// The current version of a keyspace.
    #[must_use]
    pub fn current(&self, keyspace: KeyspaceId) -> Option<Arc<Version>> {
        self.state.load().version(keyspace).map(Arc::clone)
    }

    /// What is known of all keyspaces, by number.
    #[must_use]
    pub fn keyspaces(&self) -> Vec<KeyspaceMeta> {
        self.state
            .load()
            .keyspaces
            .iter()
            .map(|keyspace| keyspace.meta.clone())
            .collect()
    }

    /// A number for a keyspace to be created. It is taken once an edit with it has been applied.
    #[must_use]
    pub fn next_keyspace_id(&self) -> KeyspaceId {
        self.state
            .load()
            .largest_keyspace
            .map_or(0, |largest| largest.saturating_add(1))
    }

    /// A number for a new file (or run). It is not given out again while the database is open, nor
    /// later if an edit is logged after this call.
    #[must_use]
    pub fn new_file_number(&self) -> FileNumber {
        self.next_file_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that a file of this number exists, whatever it is: the number is not given out again. (None above
    /// [`LARGEST_NUMBER`] ever is.)
    pub fn reserve_file_number(&self, number: FileNumber) {
        if number <= LARGEST_NUMBER {
            self.next_file_number
                .fetch_max(number + 1, Ordering::Relaxed);
        }
    }

    /// Sets the sequence number to be logged with the next edit; a smaller one changes nothing.
    pub fn set_last_sequence(&self, sequence: SequenceNumber) {
        self.last_sequence.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Notes what wall time it is, to be logged with the next edit; an earlier one changes nothing.
    pub fn note_time(&self, millis: u64) {
        self.latest_millis.fetch_max(millis, Ordering::Relaxed);
    }

    /// The largest sequence number that was set or that any table has.
    #[must_use]
    pub fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence.load(Ordering::Relaxed)
    }

    /// The numbers of all files that must stay: tables and log segments that the manifest names,
    /// the MANIFEST itself, and whatever an edit of uncertain fate may need. Versions that readers
    /// still hold may need more.
    #[must_use]
    pub fn live_files(&self) -> BTreeSet<FileNumber> {
        let inner = self.inner.lock();
        let mut files: BTreeSet<FileNumber> = inner.index.tables().collect();
        files.extend(&self.state.load().segments);
        files.extend(&inner.uncertain);
        match &inner.log {
            Some(log) => files.extend(log.live()),
            None => files.extend([inner.read_only_number]),
        }
        files
    }

    /// The number of the live MANIFEST.
    #[must_use]
    pub fn manifest_number(&self) -> FileNumber {
        let inner = self.inner.lock();
        let live = inner
            .log
            .as_ref()
            .and_then(|log| log.live().first().copied());
        live.unwrap_or(inner.read_only_number)
    }

    /// Bytes of the live MANIFEST in use.
    #[must_use]
    pub fn manifest_bytes(&self) -> u64 {
        self.inner.lock().log.as_ref().map_or(0, ManifestLog::bytes)
    }
}

/// The files that must exist if `edit` took effect.
fn files_of(edit: &VersionEdit) -> impl Iterator<Item = FileNumber> {
    let tables = edit.keyspaces.iter().flat_map(|keyspace| &keyspace.added);
    let tables = tables.map(|added| added.meta.number);
    tables.chain(edit.added_segments.iter().copied())
}
