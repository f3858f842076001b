//! Recovery: what the log holds and no table does goes back into memtables.
//!
//! Invariants: the result is the state after a prefix of the acknowledged order that contains
//! everything synced (I4); a record is replayed only if its keyspace's tables do not hold it;
//! nothing is written but what stands in the log already (records that had to be taken from their copies
//! are put in their place), so that a crash during recovery changes nothing; what was read and may not be
//! on stable storage yet is synced. What may be removed then, and in which order, is for `strays` to say.

use crate::engine::{Engine, Mode};
use crate::keyspace::KeyspaceState;
use crate::log::LogTail;
use crate::options::RecoveryPolicy;
use crate::salvage::Loss;
use crate::segments::Complete;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::write_batch::{BatchView, KeyspaceId};
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_wal::{SegmentEnd, SegmentReader};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a log held.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) batches: u64,
    /// Records were lost that had never been synced, or the policy gave them up.
    pub(crate) torn: bool,
    /// Records were read that no sync is known to have covered.
    pub(crate) unproven: bool,
    pub(crate) last_sequence: SequenceNumber,
    /// The last write that the log or a table is known to hold: the manifest may know of later ones that
    /// were never durable.
    pub(crate) last_held: SequenceNumber,
    /// The segments that the manifest names.
    pub(crate) segments: BTreeMap<FileNumber, Complete>,
    /// Where the log of this life is to be linked to.
    pub(crate) tail: Option<LogTail>,
    /// What was damaged and given up or passed over.
    pub(crate) losses: Vec<Loss>,
}

/// A keyspace as the replay needs it.
struct Target {
    state: Arc<KeyspaceState>,
    flushed_sequence: SequenceNumber,
}

/// How one segment was read.
enum Ended {
    /// Complete: segment `next` goes on. Any between were given up by an earlier recovery.
    Sealed { next: FileNumber },
    /// Here the log ends, or everything after is given up.
    Last,
    /// With nothing in it: here the log ends, or goes on in another segment that was made instead.
    Empty,
    /// Damaged to its end, and salvage goes on with the next one.
    Broken,
}

/// Reads every segment that the manifest names into the memtables.
pub(crate) fn replay(engine: &Engine) -> Result<Replayed> {
    let mut replayed = Replayed {
        last_sequence: engine.versions.last_sequence(),
        ..Replayed::default()
    };
    let mut targets = BTreeMap::new();
    for meta in engine.versions.keyspaces() {
        let state = engine.keyspaces.read().by_id.get(&meta.id).cloned();
        if let Some(state) = state {
            let flushed_sequence = meta.flushed_sequence;
            replayed.last_sequence = replayed.last_sequence.max(flushed_sequence);
            replayed.last_held = replayed.last_held.max(flushed_sequence);
            targets.insert(
                meta.id,
                Target {
                    state,
                    flushed_sequence,
                },
            );
        }
    }
    let mut numbers: Vec<_> = engine.versions.state().segments.iter().copied().collect();
    numbers.sort_unstable();
    let mut expected = Some(0);
    let mut previous_sequence = 0;
    for (index, &number) in numbers.iter().enumerate() {
        replayed.segments.insert(number, Complete::default());
        match expected {
            None if check_unsynced(engine, number, &mut replayed)? => {}
            Some(next) if number < next => {}
            _ => {
                let previous = &mut previous_sequence;
                let ended = replay_segment(engine, number, &targets, previous, &mut replayed)?;
                let follower = numbers.get(index + 1);
                expected = match ended {
                    Ended::Sealed { next } => Some(next),
                    Ended::Empty if was_passed_over(engine, number, follower) => expected,
                    Ended::Last | Ended::Empty => None,
                    Ended::Broken => Some(0),
                };
                // Not the last sequence that the manifest knows of: later segments hold records that
                // come before it, and would be taken for flushed with this memtable.
                seal_full(engine, &targets, previous_sequence);
            }
        }
    }
    Ok(replayed)
}

/// Whether the empty segment `number` never was the current one: made ahead, and then too short for the
/// next group, which went to `follower`. Where all segments before them are gone, no end record says
/// that. The header of a segment names the one that was current when it was made, so that the follower
/// of a segment in use names that or a later one.
fn was_passed_over(engine: &Engine, number: FileNumber, follower: Option<&FileNumber>) -> bool {
    let Some(&follower) = follower else {
        return false;
    };
    let path = wal_path(&engine.directory, follower);
    // One that cannot be read is looked at, and reported, in its turn.
    SegmentReader::open(&*engine.fs, &path, follower)
        .is_ok_and(|reader| reader.header().previous < number)
}

/// Seals memtables that are full, so that their flush can begin as soon as the database is open.
fn seal_full(engine: &Engine, targets: &BTreeMap<KeyspaceId, Target>, sequence: SequenceNumber) {
    for target in targets.values() {
        let limit = target.state.write_buffer_bytes(&engine.settings);
        if target.state.load().active.memtable.bytes() >= limit {
            engine.seal_at(&target.state, sequence);
        }
    }
}

fn replay_segment(
    engine: &Engine,
    number: FileNumber,
    targets: &BTreeMap<KeyspaceId, Target>,
    previous_sequence: &mut SequenceNumber,
    replayed: &mut Replayed,
) -> Result<Ended> {
    let path = wal_path(&engine.directory, number);
    let mut reader = match SegmentReader::open(&*engine.fs, &path, number) {
        Ok(reader) => reader,
        Err(error) => {
            let error = named_but_missing(error);
            match without_header(engine, &path, number, &error, replayed)? {
                Some(reader) => reader,
                None => return give_up(engine, error, replayed),
            }
        }
    };
    let first_record = reader.offset();
    let mut records_end = 0;
    let was_salvaged = loop {
        loop {
            let offset = reader.end_offset();
            let Some(payload) = reader.next()? else { break };
            let placed = |error: Error| error.with_file(&path).with_offset(offset);
            let batch = BatchView::parse(payload).map_err(placed)?;
            if batch.sequence() <= *previous_sequence {
                let sentence = "a log record repeats sequence numbers of an earlier one";
                return Err(placed(Error::corruption(sentence)));
            }
            let last = batch.sequence() + u64::from(batch.count()) - u64::from(batch.count() > 0);
            *previous_sequence = last;
            if apply(&batch, targets, number).map_err(placed)? {
                replayed.batches += 1;
            }
            replayed.last_sequence = replayed.last_sequence.max(last);
            replayed.last_held = replayed.last_held.max(last);
            records_end = reader.end_offset();
        }
        match pass_over(engine, &path, &mut reader, replayed)? {
            Passed::ToRecord => {}
            Passed::ToEnd => break true,
            Passed::Nothing => break false,
        }
    };
    // The end record counts: without it the log ends here, and whoever syncs what comes after does not
    // look at this segment again.
    if matches!(reader.outcome(), Some(SegmentEnd::Sealed { .. })) {
        records_end = reader.end_offset();
    }
    if reader.has_restored() {
        put_back(engine, &reader, &path)?;
        replayed.unproven = true;
    }
    if records_end > reader.synced_bytes() {
        make_durable(engine, &path)?;
        replayed.unproven = true;
    }
    let held = Complete {
        record_bytes: reader.end_offset().saturating_sub(first_record),
        last: *previous_sequence,
    };
    replayed.segments.insert(number, held);
    let tail = LogTail {
        header: *reader.header(),
        end_offset: reader.end_offset(),
    };
    replayed.tail = None;
    match reader.outcome() {
        _ if was_salvaged => Ok(Ended::Broken),
        Some(SegmentEnd::Sealed { next }) => Ok(Ended::Sealed { next: *next }),
        Some(SegmentEnd::Damaged { offset, reason, .. }) => {
            let error = Error::corruption(format!("synced log records are damaged: {reason}"));
            let error = error.with_file(&path).with_offset(*offset);
            replayed.tail = Some(tail);
            give_up(engine, error, replayed)
        }
        outcome => {
            replayed.torn |= matches!(outcome, Some(SegmentEnd::Torn));
            replayed.tail = Some(tail);
            let nothing_was_here = reader.synced_bytes().max(tail.end_offset) <= first_record;
            match outcome {
                Some(SegmentEnd::Clean) if nothing_was_here => Ok(Ended::Empty),
                _ => Ok(Ended::Last),
            }
        }
    }
}

/// How far salvage went on behind damage.
enum Passed {
    /// There is none, or the policy is another.
    Nothing,
    /// To a record that verifies.
    ToRecord,
    /// To the end of the segment.
    ToEnd,
}

/// Salvage: goes on behind damage with the next record that verifies.
fn pass_over(
    engine: &Engine,
    path: &Path,
    reader: &mut SegmentReader,
    replayed: &mut Replayed,
) -> Result<Passed> {
    let Some(SegmentEnd::Damaged { offset, reason, .. }) = reader.outcome() else {
        return Ok(Passed::Nothing);
    };
    if engine.settings.recovery() != RecoveryPolicy::Salvage {
        return Ok(Passed::Nothing);
    }
    let mut loss = Loss {
        offset: Some(*offset),
        ..Loss::new(path, format!("log records are damaged: {reason}"))
    };
    let damaged_at = reader.end_offset();
    let skipped = reader.skip_damage()?;
    // Without a record behind, what is known to have been synced is what is lost.
    let lost = reader.synced_bytes().saturating_sub(damaged_at);
    loss.bytes = skipped.unwrap_or(lost);
    loss.warn();
    replayed.losses.push(loss);
    replayed.torn = true;
    // The log must not be read once more: the next write first brings what it held into tables.
    replayed.unproven = true;
    Ok(match skipped {
        Some(_) => Passed::ToRecord,
        None => Passed::ToEnd,
    })
}

/// Salvage: the records of a segment whose header page is damaged.
fn without_header(
    engine: &Engine,
    path: &Path,
    number: FileNumber,
    error: &Error,
    replayed: &mut Replayed,
) -> Result<Option<SegmentReader>> {
    let salvages = engine.settings.recovery() == RecoveryPolicy::Salvage;
    if !salvages || error.kind() != ErrorKind::Corruption || engine.fs.metadata(path).is_err() {
        return Ok(None);
    }
    let loss = Loss::of(path, error);
    loss.warn();
    replayed.losses.push(loss);
    SegmentReader::open_without_header(&*engine.fs, path, number).map(Some)
}

/// Only the process may have ended: what was read is then in memory alone. It is made durable before
/// anything later is, in tables or in the log. An earlier sync of it may have failed, after which a
/// later one says nothing (I3): so the next write first brings what was read into tables.
fn make_durable(engine: &Engine, path: &Path) -> Result<()> {
    if engine.mode != Mode::Disk {
        return Ok(());
    }
    let synced = engine.fs.open_write(path).and_then(|file| file.sync_data());
    synced.map_err(|error| Error::io("sync the log segment", path, error))
}

/// What was read from the copies that its sync has left, since it does not stand in its place, is put
/// there before anything else is written: a power loss came in the middle of that sync, or the place was
/// damaged since.
fn put_back(engine: &Engine, reader: &SegmentReader, path: &Path) -> Result<()> {
    tracing::warn!(file = %path.display(), "log records were taken from the copies beside them");
    if engine.mode != Mode::Disk {
        return Ok(());
    }
    reader.put_back(&*engine.fs)
}

/// A segment that the manifest names must be there.
fn named_but_missing(error: Error) -> Error {
    let source = std::error::Error::source(&error);
    let is_missing = source
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::NotFound);
    if is_missing {
        let sentence = "the manifest names a log segment that is not there";
        let named = Error::corruption(sentence);
        return match error.file() {
            Some(file) => named.with_file(file),
            None => named,
        };
    }
    error
}

/// Damage: an error, unless the policy is to go on with what came before it, or after it.
fn give_up(engine: &Engine, error: Error, replayed: &mut Replayed) -> Result<Ended> {
    // A device that cannot read now is not damage: nothing may be given up for it.
    let is_damage = error.kind() == ErrorKind::Corruption;
    let policy = engine.settings.recovery();
    if !is_damage || policy == RecoveryPolicy::Strict {
        return Err(error);
    }
    let loss = Loss::of(error.file().unwrap_or(&engine.directory), &error);
    loss.warn();
    replayed.losses.push(loss);
    replayed.torn = true;
    if policy == RecoveryPolicy::Salvage {
        replayed.unproven = true;
        return Ok(Ended::Broken);
    }
    Ok(Ended::Last)
}

/// A segment behind the end of the log may hold only what was never synced: a sync there would have
/// synced everything before it first. Says whether it is to be passed over.
fn check_unsynced(engine: &Engine, number: FileNumber, replayed: &mut Replayed) -> Result<bool> {
    let policy = engine.settings.recovery();
    if policy == RecoveryPolicy::DiscardAfterDamage {
        return Ok(true);
    }
    let path = wal_path(&engine.directory, number);
    let opened = SegmentReader::open(&*engine.fs, &path, number).map_err(named_but_missing);
    let mut reader = match opened {
        Err(error)
            if policy == RecoveryPolicy::Salvage && error.kind() == ErrorKind::Corruption =>
        {
            return Ok(false);
        }
        opened => opened?,
    };
    let first_record = reader.offset();
    while reader.next()?.is_some() {
        replayed.torn = true;
    }
    let damaged = matches!(reader.outcome(), Some(SegmentEnd::Damaged { .. }));
    if !damaged && reader.synced_bytes() <= first_record {
        return Ok(true);
    }
    let sentence = "log records were synced here, but earlier segments end before them";
    let error = Error::corruption(sentence)
        .with_file(&path)
        .with_offset(first_record);
    if policy == RecoveryPolicy::Strict {
        return Err(error);
    }
    give_up(engine, error, replayed).map(|_| false)
}

/// Inserts what tables do not hold yet. Says whether there was anything.
fn apply(
    batch: &BatchView<'_>,
    targets: &BTreeMap<KeyspaceId, Target>,
    segment: FileNumber,
) -> Result<bool> {
    let mut applied = false;
    for (sequence, record) in (batch.sequence()..).zip(batch.records()) {
        let record = record?;
        // Records of a dropped keyspace have nowhere to go.
        if let Some(target) = targets.get(&record.keyspace)
            && sequence > target.flushed_sequence
        {
            let view = target.state.load();
            view.active.pin_segment(segment);
            view.active.insert(sequence, &record);
            applied = true;
        }
    }
    Ok(applied)
}
