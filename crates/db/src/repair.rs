//! Repair: a new manifest for a database whose manifest or `CURRENT` is gone or damaged, or whose
//! tables are.
//!
//! Invariants: nothing that was there is changed or removed before the new manifest is durable (I1),
//! nor after: what the new manifest does not name is put aside into the directory `lost`. A repaired
//! database never shows a deleted or an older value in place of a newer one that a table held: tables
//! that others replaced stay out ([`live_tables`]), all that overlap are merged by their sequence
//! numbers, and below a table that is lost nothing older than it counts ([`rewrite`]). What is left
//! out is said. Tables of a flush that was cut short stay out where the log has what they hold
//! ([`unfinished_flushes`]). What the log holds from before a bulk load that nothing named goes into tables with it
//! ([`unnamed_loads`]), so that no memtable holds what is older than a table. The log is named by the
//! new manifest as far as it is a chain to its end; what to do about damage in it is the choice of
//! whoever opens the database.

mod evidence;
mod live_tables;
mod log_chain;
mod rewrite;
mod unfinished_flushes;
mod unnamed_loads;

use crate::database_directory::{self, database_id};
use crate::index::definition::is_reserved_name;
use crate::open;
use crate::options::Options;
use crate::salvage::{Loss, put_aside};
use crate::super_version::WriteBuffer;
use esker_base::filename::{
    FileKind, FileNumber, LARGEST_NUMBER, current_path, manifest_path, table_path, wal_path,
};
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_manifest::{AddedTable, KeyspaceEdit, ManifestOptions, VersionEdit, VersionSet};
use esker_vfs::FileSystem;
use evidence::Evidence;
use rewrite::{Doubt, Rewriter};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a repair did, and what it could not bring back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    pub(crate) manifest_was_whole: bool,
    pub(crate) keyspaces: Vec<String>,
    pub(crate) tables_kept: u64,
    pub(crate) tables_rewritten: u64,
    pub(crate) log_segments: u64,
    pub(crate) records_left_out: u64,
    pub(crate) losses: Vec<Loss>,
    pub(crate) put_aside: Vec<PathBuf>,
}

impl RepairReport {
    /// Whether a whole manifest was found, so that the tables are exactly those of the database and
    /// `losses` is all that is missing. Otherwise what is gone without a trace cannot be told.
    #[must_use]
    pub fn manifest_was_whole(&self) -> bool {
        self.manifest_was_whole
    }

    /// The names of the keyspaces, those that had to be made up (`recovered-7`) included.
    #[must_use]
    pub fn keyspaces(&self) -> &[String] {
        &self.keyspaces
    }

    /// Tables that went on as they are.
    #[must_use]
    pub fn tables_kept(&self) -> u64 {
        self.tables_kept
    }

    /// Tables that were written anew out of others.
    #[must_use]
    pub fn tables_rewritten(&self) -> u64 {
        self.tables_rewritten
    }

    /// Log segments that the next open will read.
    #[must_use]
    pub fn log_segments(&self) -> u64 {
        self.log_segments
    }

    /// Records that were left out although they are whole, because a lost table may have held newer
    /// ones of their keys.
    #[must_use]
    pub fn records_left_out(&self) -> u64 {
        self.records_left_out
    }

    /// What is damaged or missing.
    #[must_use]
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// The files that were moved into the directory `lost`, by the names they had before.
    #[must_use]
    pub fn put_aside(&self) -> &[PathBuf] {
        &self.put_aside
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made_of = if self.manifest_was_whole {
            "a whole manifest"
        } else {
            "the tables that are left"
        };
        writeln!(f, "made a new manifest out of {made_of}")?;
        writeln!(f, "keyspaces: {}", self.keyspaces.join(", "))?;
        let (kept, rewritten) = (self.tables_kept, self.tables_rewritten);
        writeln!(f, "tables: {kept} kept, {rewritten} written anew")?;
        writeln!(f, "log segments: {}", self.log_segments)?;
        for loss in &self.losses {
            writeln!(f, "lost: {loss}")?;
        }
        if self.records_left_out > 0 {
            let count = self.records_left_out;
            writeln!(
                f,
                "left out: {count} records that what is lost may have replaced"
            )?;
        }
        for path in &self.put_aside {
            writeln!(f, "put aside: {}", path.display())?;
        }
        Ok(())
    }
}

/// What is in the directory.
pub(crate) struct Files {
    pub(crate) tables: BTreeSet<FileNumber>,
    pub(crate) segments: BTreeSet<FileNumber>,
    pub(crate) manifests: BTreeSet<FileNumber>,
    /// Of files that were never finished: no new one can have these.
    unfinished: BTreeSet<FileNumber>,
    has_current: bool,
}

impl Files {
    fn list(fs: &dyn FileSystem, directory: &Path) -> Result<Self> {
        let entries = fs
            .read_dir(directory)
            .map_err(|error| Error::io("list the directory", directory, error))?;
        let mut files = Self {
            tables: BTreeSet::new(),
            segments: BTreeSet::new(),
            manifests: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            has_current: false,
        };
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            match FileKind::parse(&entry.name) {
                Some(FileKind::Table(number)) => _ = files.tables.insert(number),
                Some(FileKind::WalSegment(number)) => _ = files.segments.insert(number),
                Some(FileKind::Manifest(number)) => _ = files.manifests.insert(number),
                Some(FileKind::Temporary(Some(number))) => _ = files.unfinished.insert(number),
                Some(FileKind::Current) => files.has_current = true,
                _ => {}
            }
        }
        Ok(files)
    }

    fn is_empty(&self) -> bool {
        let all = [&self.tables, &self.segments, &self.manifests];
        !self.has_current && all.iter().all(|numbers| numbers.is_empty())
    }

    fn largest(&self) -> FileNumber {
        let (tables, segments) = (&self.tables, &self.segments);
        let all = [tables, segments, &self.manifests, &self.unfinished];
        all.iter()
            .filter_map(|numbers| numbers.range(..=LARGEST_NUMBER).next_back())
            .max()
            .copied()
            .unwrap_or(0)
    }
}

/// A keyspace on its way into the new manifest.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) options: Vec<u8>,
    pub(crate) flushed_sequence: SequenceNumber,
    pub(crate) tables: Vec<Arc<TableMeta>>,
    /// Tables of values that those point to.
    pub(crate) values: Vec<Arc<TableMeta>>,
    /// Tables of values that are lost, though those point to them.
    pub(crate) lost_values: Vec<FileNumber>,
    /// Of the lost ones, those that the manifest names.
    pub(crate) damaged_values: Vec<FileNumber>,
    /// What is lost and may have held newer records.
    pub(crate) doubts: Vec<Doubt>,
    /// Tables of flushes that may not have come to their end.
    pub(crate) unfinished: BTreeSet<FileNumber>,
    /// Tables of bulk loads that nothing is known to have named, and up to where all is older.
    pub(crate) unnamed_loads: BTreeMap<FileNumber, SequenceNumber>,
    /// What the log alone holds and is older than those, to go into tables with them.
    pub(crate) below_loads: Option<Arc<WriteBuffer>>,
}

/// What the new manifest is to say.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Edits that make the state that a whole manifest says, if there is one.
    pub(crate) snapshot: Option<Vec<VersionEdit>>,
    pub(crate) keyspaces: BTreeMap<u32, Part>,
    pub(crate) segments: Vec<FileNumber>,
    pub(crate) largest_number: FileNumber,
    pub(crate) last_sequence: SequenceNumber,
    /// The latest wall time that the manifest had seen.
    pub(crate) latest_millis: u64,
    pub(crate) database_id: Option<[u8; 16]>,
    pub(crate) options: Vec<u8>,
}

pub(crate) fn repair(options: Options, directory: &Path) -> Result<RepairReport> {
    let settings = options.settle()?;
    let fs: Arc<dyn FileSystem> = open::file_system(&options);
    database_directory::check_is_directory(&*fs, directory)?;
    let directory = fs
        .canonicalize(directory)
        .map_err(|error| Error::io("resolve the directory", directory, error))?;
    let files = Files::list(&*fs, &directory)?;
    if files.is_empty() {
        return Err(database_directory::not_a_database(&directory));
    }
    let _lock = database_directory::lock(&*fs, &directory)?;
    let mut report = RepairReport::default();
    let evidence = evidence::find(&*fs, &directory, &files, &mut report)?;
    let evidence_losses = report.losses.len();
    report.manifest_was_whole = matches!(evidence, Evidence::Whole(_));
    let mut contents = match evidence {
        Evidence::Whole(state) => evidence::whole(&*fs, &directory, &state, &files, &mut report)?,
        Evidence::Partial(partial) => {
            let mut contents =
                live_tables::contents(&*fs, &directory, &files, &partial, &mut report)?;
            log_chain::add(&*fs, &directory, &files, &mut contents, &mut report)?;
            unfinished_flushes::leave_out(&*fs, &directory, &mut contents)?;
            unnamed_loads::place(&*fs, &directory, &mut contents)?;
            contents
        }
    };
    contents.largest_number = contents.largest_number.max(files.largest());
    let rewriter = Rewriter::new(
        &options,
        &settings,
        &fs,
        &directory,
        contents.largest_number,
    );
    // Less of the records or of an index than there was: they need not agree any more.
    let is_less = !report.manifest_was_whole || report.losses.len() > evidence_losses;
    let edits = edits(&rewriter, &contents, is_less, &mut report)?;
    let number = rewriter.new_number();
    let id = contents.database_id;
    let mut first = VersionEdit {
        next_file_number: Some(number + 1),
        last_sequence: Some(contents.last_sequence),
        latest_millis: Some(contents.latest_millis).filter(|&millis| millis > 0),
        database_id: id.or_else(|| Some(database_id(&*options.clock, &directory))),
        ..VersionEdit::default()
    };
    if contents.snapshot.is_none() {
        first.options = Some(contents.options.clone());
        first.added_segments.clone_from(&contents.segments);
    }
    let manifest = ManifestOptions {
        rotate_bytes: settings.manifest_bytes(),
    };
    let mut all = contents.snapshot.take().unwrap_or_default();
    all.push(first);
    all.extend(edits);
    let versions = VersionSet::rebuild(Arc::clone(&fs), &directory, manifest, number, &all)?;
    let names = versions.keyspaces().into_iter().map(|k| k.name);
    report.keyspaces = names.filter(|name| !is_reserved_name(name)).collect();
    report.log_segments = versions.state().segments.len() as u64;
    put_rest_aside(&*fs, &directory, &files, &versions, &mut report)?;
    for loss in &report.losses {
        loss.warn();
    }
    Ok(report)
}

/// Edits for each keyspace that the new manifest makes, or whose tables change. Indexes are only as good
/// as their agreement with the records: where that `is_less` than sure they are dropped, and the next open
/// that declares them derives them anew.
fn edits(
    rewriter: &Rewriter,
    contents: &Contents,
    is_less: bool,
    report: &mut RepairReport,
) -> Result<Vec<VersionEdit>> {
    let is_new = contents.snapshot.is_none();
    let mut edits = Vec::new();
    let edit_of = |edit| VersionEdit {
        keyspaces: vec![edit],
        ..VersionEdit::default()
    };
    for (&id, part) in &contents.keyspaces {
        let create = is_new.then(|| (part.name.clone(), part.options.clone()));
        if is_less && is_reserved_name(&part.name) {
            // Made first, so that its number is never given to another, whose records in the log would
            // not be told from these.
            edits.extend(create.map(|named| {
                edit_of(KeyspaceEdit {
                    id,
                    create: Some(named),
                    ..KeyspaceEdit::default()
                })
            }));
            edits.push(edit_of(KeyspaceEdit {
                id,
                drop: true,
                ..KeyspaceEdit::default()
            }));
            continue;
        }
        if !is_new && part.doubts.is_empty() && part.damaged_values.is_empty() {
            report.tables_kept += part.tables.len() as u64;
            continue;
        }
        let settled = rewriter.settle(id, part)?;
        report.records_left_out += settled.left_out;
        if settled.is_rewritten {
            report.tables_rewritten += settled.added.len() as u64;
        } else {
            report.tables_kept += settled.added.len() as u64;
        }
        let mut edit = KeyspaceEdit {
            id,
            create,
            added: settled.added,
            flushed_sequence: Some(part.flushed_sequence),
            lost_values: part.lost_values.clone(),
            ..KeyspaceEdit::default()
        };
        let values = part.values.iter().cloned();
        edit.added.extend(values.map(AddedTable::of_values));
        if !is_new {
            let lost = part.doubts.iter().map(|doubt| doubt.number);
            let there = part.tables.iter().chain(&part.values);
            edit.removed = there.map(|meta| meta.number).collect();
            edit.removed.extend(&part.damaged_values);
            edit.removed.extend(lost);
        }
        edits.push(edit_of(edit));
    }
    Ok(edits)
}

/// Puts aside every file that the new manifest does not name.
fn put_rest_aside(
    fs: &dyn FileSystem,
    directory: &Path,
    files: &Files,
    versions: &VersionSet,
    report: &mut RepairReport,
) -> Result<()> {
    let mut live = versions.live_files();
    live.extend(crate::recovery_point::numbers(&versions.state()));
    let mut rest: Vec<PathBuf> = Vec::new();
    let unnamed = |numbers: &BTreeSet<FileNumber>| -> Vec<FileNumber> {
        numbers
            .iter()
            .copied()
            .filter(|n| !live.contains(n))
            .collect()
    };
    rest.extend(
        unnamed(&files.tables)
            .into_iter()
            .map(|n| table_path(directory, n)),
    );
    rest.extend(
        unnamed(&files.segments)
            .into_iter()
            .map(|n| wal_path(directory, n)),
    );
    let manifests = files.manifests.iter().copied();
    let older = manifests.filter(|&number| number != versions.manifest_number());
    rest.extend(older.map(|number| manifest_path(directory, number)));
    for path in rest {
        put_aside(fs, directory, &path)?;
        report.put_aside.push(path);
    }
    Ok(())
}

/// What an error says of the file of a table, unless the device cannot read it now.
pub(crate) fn loss_of(path: &Path, error: Error) -> Result<Loss> {
    match error.kind() {
        ErrorKind::Corruption => Ok(Loss::of(path, &error)),
        _ => Err(error),
    }
}

/// The loss of `CURRENT`, which names what `reason` says.
pub(crate) fn current_loss(directory: &Path, reason: &str) -> Loss {
    Loss::new(&current_path(directory), reason)
}
