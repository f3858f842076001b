//! Reading what operands make: from the newest operand of a key down to the record beneath, through
//! all sources.
//!
//! Invariants: as for other reads (I8). The outcome depends on the records alone (see
//! [`OperandChain`]), so that it is the same before and after a compaction writes it down, and it
//! never expires. Called by point reads, cursors and the commit leader.

use crate::live_values::LiveValues;
use crate::operator_slot::OperatorSlot;
use crate::read::unreadable;
use crate::super_version::{SortedRun, SuperVersion};
use crate::value::Value;
use esker_base::checksum::key_hash;
use esker_base::iterator::InternalIterator;
use esker_base::operand_chain::OperandChain;
use esker_base::{Result, SequenceNumber, Trailer, ValueKind};
use esker_sstable::{FillCache, LevelIter};
use std::sync::Arc;

/// What makes values of a keyspace's operands, if somebody has said.
pub(crate) type Operator<'a> = &'a OperatorSlot;

/// The value of `key` at `visible`, whose newest record there is an operand.
#[cold]
pub(crate) fn get(
    view: &SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
    operator: Operator<'_>,
) -> Result<Option<Value>> {
    let chain = collect(view, key, visible)?;
    let value = fold(&chain, operator, key)?;
    Ok(Some(Value::copy_of(&value)))
}

/// The value that a chain makes.
pub(crate) fn fold(chain: &OperandChain, operator: Operator<'_>, key: &[u8]) -> Result<Vec<u8>> {
    chain.fold(operator.get()?, key)
}

/// Adds the record below those that `chain` holds already; `false` once it ends there.
pub(crate) fn add_older(
    chain: &mut OperandChain,
    values: &LiveValues,
    key: &[u8],
    trailer: Trailer,
    stored: &[u8],
) -> Result<bool> {
    match trailer.kind() {
        Some(ValueKind::MergeOperand) => {
            chain.push_older(stored);
            Ok(true)
        }
        Some(
            kind @ (ValueKind::Value
            | ValueKind::ValueWithExpiry
            | ValueKind::Tombstone
            | ValueKind::SingleDelete),
        ) => {
            chain.set_base(kind, stored);
            Ok(false)
        }
        Some(kind) if kind.is_pointer() => {
            let (trailer, stored) = values.record(key, trailer, stored)?;
            chain.set_base(trailer.kind().unwrap_or(ValueKind::Tombstone), &stored);
            Ok(false)
        }
        kind => Err(unreadable(kind)),
    }
}

/// Whether the memtables hold at least so many operands of `key` above anything else.
pub(crate) fn has_operands_in_memory(
    view: &SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
    mut at_least: usize,
) -> Result<bool> {
    for memtable in view.memtables() {
        let mut records = memtable.iter();
        records.seek(key, Trailer::seek(visible))?;
        while records.valid() && records.user_key() == key {
            if records.trailer().kind() != Some(ValueKind::MergeOperand) {
                return Ok(false);
            }
            at_least -= 1;
            if at_least == 0 {
                return Ok(true);
            }
            records.next()?;
        }
    }
    Ok(false)
}

/// The operands of `key` and what lies under them.
pub(crate) fn collect(
    view: &SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
) -> Result<OperandChain> {
    let mut chain = OperandChain::default();
    let mut covering = 0;
    for memtable in view.memtables() {
        covering = covering.max(memtable.covering_sequence(key, visible).unwrap_or(0));
        if !collect_from(memtable.iter(), view, key, visible, covering, &mut chain)? {
            return Ok(chain);
        }
    }
    let hash = key_hash(key);
    for run in view.runs.iter() {
        if covering > run.largest_sequence {
            break;
        }
        if !collect_from_run(run, view, key, hash, visible, &mut covering, &mut chain)? {
            break;
        }
    }
    Ok(chain)
}

#[allow(clippy::too_many_arguments)] // All of a search, handed on from run to run.
fn collect_from_run(
    run: &SortedRun,
    view: &SuperVersion,
    key: &[u8],
    hash: u64,
    visible: SequenceNumber,
    covering: &mut SequenceNumber,
    chain: &mut OperandChain,
) -> Result<bool> {
    let Some(handle) = run.find(key) else {
        return Ok(true);
    };
    let table = handle.table()?;
    let here = table.range_tombstones().covering_sequence(key, visible);
    *covering = (*covering).max(here.unwrap_or(0));
    // The filter spares most tables the search.
    if table.get(key, hash, visible)?.is_none() {
        return Ok(true);
    }
    let records = LevelIter::new(Arc::from([Arc::clone(handle)]), FillCache::Briefly);
    collect_from(records, view, key, visible, *covering, chain)
}

/// Adds the records of one source; `false` where the chain ends in it.
fn collect_from(
    mut source: impl InternalIterator,
    view: &SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
    covering: SequenceNumber,
    chain: &mut OperandChain,
) -> Result<bool> {
    source.seek(key, Trailer::seek(visible))?;
    while source.valid() && source.user_key() == key {
        let trailer = source.trailer();
        if trailer.sequence() < covering
            || !add_older(chain, &view.values, key, trailer, source.value())?
        {
            return Ok(false);
        }
        source.next()?;
    }
    Ok(true)
}

/// What counts of a key whose records are met oldest first, beside the value that its owner buffers.
#[derive(Debug, Default)]
pub(crate) struct OldestFirst {
    /// Whether the key has a value as far as it was met.
    stands: bool,
    /// Whether the buffered value is one that operands apply to.
    is_base: bool,
    operands: Option<OperandChain>,
}

impl OldestFirst {
    /// A record that hides what is older, or is hidden itself together with it.
    #[inline]
    pub(crate) fn hidden(&mut self) {
        *self = Self::default();
    }

    /// A value, which has just been buffered.
    #[inline]
    pub(crate) fn value(&mut self, expires: bool) {
        self.stands = true;
        self.is_base = !expires;
        self.operands = None;
    }

    /// An operand.
    #[cold]
    pub(crate) fn operand(&mut self, buffered: &[u8], operand: &[u8]) {
        self.stands = true;
        let chain = self.operands.get_or_insert_with(|| {
            let mut chain = OperandChain::default();
            if self.is_base {
                chain.set_base(ValueKind::Value, buffered);
            }
            chain
        });
        chain.push_newer(operand);
    }

    /// Whether the key has a value once all of its records were met: what operands make of the
    /// buffered one replaces it.
    #[inline]
    pub(crate) fn settle(
        self,
        buffered: &mut Vec<u8>,
        operator: Operator<'_>,
        key: &[u8],
    ) -> Result<bool> {
        if let Some(chain) = self.operands {
            *buffered = fold(&chain, operator, key)?;
        }
        Ok(self.stands)
    }
}
