//! Counts what goes into a table: the one place that knows how a [`TableMeta`] follows from records.
//!
//! Invariant (I7): the writer fills the manifest's description with it, and verification counts
//! again with the same code and compares. Used by `table_writer` and `verify`.

use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::{TableMeta, ValueRef};
use esker_base::value_pointer::ValuePointer;
use esker_base::write_batch::split_expiry;
use esker_base::{SequenceNumber, Trailer, ValueKind};

use esker_base::key_bounds::KeyBounds;

/// Running totals over the records of a table, in their order.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    meta: TableMeta,
    smallest_key: Vec<u8>,
    sequences: Option<(SequenceNumber, SequenceNumber)>,
    expiries: Option<(u64, u64)>,
    /// Distinct user keys.
    pub(crate) distinct_keys: u64,
}

impl Tally {
    /// Counts a record. `is_new_key` says whether the record before had another user key.
    #[inline]
    pub(crate) fn record(&mut self, key: &[u8], trailer: Trailer, value: &[u8], is_new_key: bool) {
        if self.meta.entries == 0 {
            self.smallest_key = key.to_vec();
        }
        self.meta.entries += 1;
        self.distinct_keys += u64::from(is_new_key);
        self.meta.raw_key_bytes += key.len() as u64;
        self.meta.raw_value_bytes += value.len() as u64;
        self.sequence(trailer.sequence());
        if let Some(kind) = trailer.kind().filter(|kind| kind.is_pointer()) {
            self.pointer(kind, value);
        }
        match trailer.kind() {
            Some(ValueKind::Tombstone | ValueKind::SingleDelete) => self.meta.tombstones += 1,
            Some(kind) if kind.expires() => {
                if let Some((expiry, _)) = split_expiry(value) {
                    self.meta.expiring_entries += 1;
                    let (earliest, latest) = self.expiries.unwrap_or((expiry, expiry));
                    self.expiries = Some((earliest.min(expiry), latest.max(expiry)));
                }
            }
            _ => {}
        }
    }

    /// Counts what a pointer needs. One that is damaged is for those to report who follow it.
    #[cold]
    fn pointer(&mut self, kind: ValueKind, stored: &[u8]) {
        let Ok((_, pointer)) = ValuePointer::of_stored(kind, stored) else {
            return;
        };
        let refs = &mut self.meta.value_refs;
        let at = match refs.binary_search_by_key(&pointer.number, |one| one.number) {
            Ok(at) => at,
            Err(at) => {
                let number = pointer.number;
                refs.insert(
                    at,
                    ValueRef {
                        number,
                        ..ValueRef::default()
                    },
                );
                at
            }
        };
        refs[at].records += 1;
        refs[at].bytes = refs[at].bytes.saturating_add(pointer.value_bytes);
    }

    #[inline]
    fn sequence(&mut self, sequence: SequenceNumber) {
        let (smallest, largest) = self.sequences.unwrap_or((sequence, sequence));
        self.sequences = Some((smallest.min(sequence), largest.max(sequence)));
    }

    /// Point records so far.
    pub(crate) fn entries(&self) -> u64 {
        self.meta.entries
    }

    /// The description, all but the number, creation time, size and checksum of the file.
    /// `largest_key` is the user key of the last record.
    pub(crate) fn finish(
        mut self,
        largest_key: &[u8],
        tombstones: &FragmentedTombstones,
    ) -> TableMeta {
        for sequence in tombstones
            .oldest_sequence()
            .into_iter()
            .chain(tombstones.newest_sequence())
        {
            self.sequence(sequence);
        }
        let points = (self.meta.entries > 0)
            .then(|| KeyBounds::inclusive(std::mem::take(&mut self.smallest_key), largest_key));
        let mut meta = self.meta;
        meta.bounds = match (points, tombstones.bounds()) {
            (Some(mut points), Some(deleted)) => {
                points.extend(&deleted);
                points
            }
            (points, deleted) => points.or(deleted).unwrap_or_default(),
        };
        (meta.smallest_sequence, meta.largest_sequence) = self.sequences.unwrap_or_default();
        (meta.earliest_expiry_millis, meta.latest_expiry_millis) =
            self.expiries.unwrap_or_default();
        meta.range_tombstones = tombstones.tombstone_count();
        meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::range_tombstone::RangeTombstone;

    #[test]
    fn bounds_sequences_and_expiries_cover_records_and_range_tombstones() {
        let mut tally = Tally::default();
        let expiring = |millis: u64| [&millis.to_le_bytes()[..], b"v"].concat();
        tally.record(b"d", Trailer::new(7, ValueKind::Tombstone), b"", true);
        tally.record(b"d", Trailer::new(5, ValueKind::Value), b"old", false);
        tally.record(
            b"e",
            Trailer::new(6, ValueKind::ValueWithExpiry),
            &expiring(50),
            true,
        );
        tally.record(
            b"f",
            Trailer::new(6, ValueKind::ValueWithExpiry),
            &expiring(40),
            true,
        );
        assert_eq!((tally.entries(), tally.distinct_keys), (4, 3));
        let tombstones = FragmentedTombstones::build([
            RangeTombstone {
                start: b"c".to_vec(),
                end: b"d".to_vec(),
                sequence: 3,
            },
            RangeTombstone {
                start: b"e".to_vec(),
                end: b"g".to_vec(),
                sequence: 9,
            },
        ]);
        let meta = tally.finish(b"f", &tombstones);
        let expected = TableMeta {
            bounds: KeyBounds::half_open("c", "g"),
            smallest_sequence: 3,
            largest_sequence: 9,
            entries: 4,
            tombstones: 1,
            range_tombstones: 2,
            raw_key_bytes: 4,
            raw_value_bytes: 3 + 9 + 9,
            expiring_entries: 2,
            earliest_expiry_millis: 40,
            latest_expiry_millis: 50,
            ..TableMeta::default()
        };
        assert_eq!(meta, expected);
    }
}
