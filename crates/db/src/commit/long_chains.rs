//! Ends long chains of operands in memory: now and then the commit leader writes the merged value in
//! an operand's place, so that no reader of a hot counter walks all that was merged since a flush.
//!
//! Invariants: what is written is what a reader would have made of the chain, at the same place in
//! the order, so that nobody can tell the difference but by the time a read takes. Which operands are
//! looked at follows from their sequence numbers alone, in an order without pattern: about one of
//! [`ONE_OF`], whatever is merged. Nothing needs to be counted for it, and a chain grows far beyond
//! that number with a probability that halves every 22 operands. What the operator refuses stays.
//! Called by `settle`, after operands over values that expire were settled.

use super::Member;
use crate::engine::Engine;
use crate::keyspace::KeyspaceState;
use crate::merge::{Replacement, rewrite};
use crate::merged;
use crate::super_version::SuperVersion;
use esker_base::key_bounds::end_is_above;
use esker_base::operand_chain::OperandChain;
use esker_base::write_batch::{KeyspaceId, Record};
use esker_base::{Result, SequenceNumber, ValueKind};
use std::collections::BTreeMap;

/// The part of all operands that the leader looks beneath.
const ONE_OF: u64 = 32;
/// Operands in memory from which on a chain is long.
const LONG: usize = 32;
/// How many times the bytes of its operands a merged value may take: what is appended to a large value
/// must not have it written again and again.
const MOST_GROWTH: usize = 4;

/// Whether the leader looks beneath the operand with this number.
#[inline]
fn is_looked_at(sequence: SequenceNumber) -> bool {
    // The finalizer of splitmix64.
    let mixed = (sequence ^ (sequence >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).is_multiple_of(ONE_OF)
}

/// The chains of the keys that are looked at; `None` where a chain cannot be followed.
type Chains = BTreeMap<(KeyspaceId, Vec<u8>), Option<OperandChain>>;

impl Engine {
    /// Replaces some of a member's operands by the values that their chains make, where these are
    /// long. `next` is the sequence number of its first record, `earlier` are the members before it.
    pub(super) fn settle_long_chains(
        &self,
        member: &mut Member<'_>,
        earlier: &[Member<'_>],
        next: SequenceNumber,
    ) -> Result<()> {
        if !member.batch.may_hold(ValueKind::MergeOperand) {
            return Ok(());
        }
        let last = next + u64::from(member.batch.count());
        if !(next..last).any(is_looked_at) {
            return Ok(());
        }
        let mut chains = self.long_chains(member, next)?;
        if chains.is_empty() {
            return Ok(());
        }
        for other in earlier.iter().filter(|other| !other.is_refused()) {
            for record in other.batch.records() {
                follow(&mut chains, &record?);
            }
        }
        let mut replacements: Vec<Replacement> = Vec::new();
        for (at, record) in member.batch.records().enumerate() {
            let record = record?;
            follow(&mut chains, &record);
            if record.kind != ValueKind::MergeOperand || !is_looked_at(next + at as u64) {
                continue;
            }
            let place = (record.keyspace, record.key.to_vec());
            let Some(Some(chain)) = chains.get_mut(&place) else {
                continue;
            };
            let state = member.keyspace(record.keyspace)?;
            if let Some(value) = self.settled(state, record.key, chain) {
                chain.clear();
                chain.set_base(ValueKind::Value, &value);
                replacements.push((at, ValueKind::Value, value));
            }
        }
        if !replacements.is_empty() {
            rewrite(member, &replacements)?;
        }
        Ok(())
    }

    /// The long chains beneath the operands that are looked at, as they are before the group.
    fn long_chains(&self, member: &Member<'_>, next: SequenceNumber) -> Result<Chains> {
        let mut chains = Chains::new();
        let visible = self.visible_sequence();
        for (at, record) in member.batch.records().enumerate() {
            let record = record?;
            if record.kind != ValueKind::MergeOperand || !is_looked_at(next + at as u64) {
                continue;
            }
            let view = member.keyspace(record.keyspace)?.load();
            let place = (record.keyspace, record.key.to_vec());
            if !chains.contains_key(&place)
                && let Some(chain) = long_chain(&view, record.key, visible)?
            {
                chains.insert(place, Some(chain));
            }
        }
        Ok(chains)
    }

    /// The value of a chain, where it may be written.
    fn settled(&self, state: &KeyspaceState, key: &[u8], chain: &OperandChain) -> Option<Vec<u8>> {
        if chain.count() < LONG {
            return None;
        }
        let value = merged::fold(chain, state.operator(), key).ok()?;
        let most = MOST_GROWTH * (chain.bytes() + chain.count());
        let fits = value.len() <= most && super::check_entry(&self.settings, key, &value).is_ok();
        fits.then_some(value)
    }
}

fn long_chain(
    view: &SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
) -> Result<Option<OperandChain>> {
    if !merged::has_operands_in_memory(view, key, visible, LONG - 1)? {
        return Ok(None);
    }
    merged::collect(view, key, visible).map(Some)
}

/// Takes a record of the group into account.
fn follow(chains: &mut Chains, record: &Record<'_>) {
    if record.kind == ValueKind::RangeDelete {
        for ((keyspace, key), chain) in chains {
            let above_start = *keyspace == record.keyspace && record.key <= key.as_slice();
            if above_start && end_is_above(record.value, key) {
                *chain = Some(OperandChain::default());
            }
        }
        return;
    }
    let Some(chain) = chains.get_mut(&(record.keyspace, record.key.to_vec())) else {
        return;
    };
    match (record.kind, &mut *chain) {
        (ValueKind::MergeOperand, Some(chain)) => chain.push_newer(record.value),
        (ValueKind::MergeOperand, None) => {}
        // Whether it has expired by then is for the reader to judge.
        (ValueKind::ValueWithExpiry, _) => *chain = None,
        (kind, _) => {
            let mut begun = OperandChain::default();
            begun.set_base(kind, record.value);
            *chain = Some(begun);
        }
    }
}
