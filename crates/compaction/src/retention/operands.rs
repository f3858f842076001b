//! Merge operands in a merge: which become values, which become fewer, which stay.
//!
//! Invariants: a chain of operands ends where its stripe ends, so that no snapshot loses what it
//! sees. It becomes a value where what lies under it is known: a record of the same stripe, a range
//! tombstone of the stripe, or nothing, because nothing older lies below the output. Otherwise the
//! operator may make one operand of several. Where there is no operator, or it refuses or panics,
//! operands and what they lie on stay as they are: a reader will be told.

use std::collections::VecDeque;

use esker_base::iterator::InternalIterator;
use esker_base::merge_operator::MergeOperator;
use esker_base::operand_chain::OperandChain;
use esker_base::{Result, Trailer, ValueKind};

use super::{Retention, ValueFilter};

/// Bytes of operands that are held at a time (I9). What is longer is merged piece by piece.
const CHAIN_BYTES: usize = 32 << 20;

/// The operands of the key that the merge stands on.
#[derive(Debug, Default)]
pub(super) struct Operands {
    chain: OperandChain,
    trailers: Vec<Trailer>,
    /// Operands that stay as they are and are still to be handed on, newest first.
    unmerged: VecDeque<(Trailer, Vec<u8>)>,
    /// The source stands on a record that was looked at but not consumed.
    pub(super) read_ahead: bool,
}

/// What lies under a chain of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    /// The record that the source stands on.
    Record(ValueKind),
    Nothing,
    Unknown,
    /// More operands, of which the chain has no room for another.
    More,
}

impl<I: InternalIterator, F: ValueFilter> Retention<'_, I, F> {
    /// Takes the operand that the source stands on, the newest record of `stripe`, and those under
    /// it. Sets what becomes of them; whether anything survives.
    pub(super) fn merge_operands(&mut self, stripe: usize) -> Result<bool> {
        let newest = self.trailer;
        let under = self.collect_operands(stripe)?;
        if let Under::Record(kind) = under {
            let stored = self.source.value();
            if !kind.is_pointer() {
                self.operands.chain.set_base(kind, stored);
            } else if self.rules.operator.is_some() {
                // A value that was given up is none, as one that was deleted.
                let found = self.rules.values.restored(&self.key, kind, stored)?;
                let (kind, value) = found.unwrap_or((ValueKind::Tombstone, Vec::new()));
                self.operands.chain.set_base(kind, &value);
            }
        }
        let count = self.operands.trailers.len() as u64;
        let (chain, key) = (&self.operands.chain, self.key.as_slice());
        let operator = self.rules.operator.as_deref();
        if matches!(under, Under::Record(_) | Under::Nothing) {
            if let Some(value) = operator.and_then(|operator| fold(chain, operator, key)) {
                self.stats.operands_merged += count;
                self.trailer = Trailer::new(newest.sequence(), ValueKind::Value);
                self.replaced = Some(value);
                return self.value_stays(stripe);
            }
        } else if count > 1
            && let Some(operand) = operator.and_then(|operator| chain.combined(operator, key))
        {
            self.stats.operands_merged += count - 1;
            self.replaced = Some(operand);
            if under == Under::More {
                self.hidden_stripe = None;
            }
            return Ok(true);
        }
        // What lies under them in the stripe stays too.
        self.hidden_stripe = None;
        let Operands {
            chain,
            trailers,
            unmerged,
            ..
        } = &mut self.operands;
        unmerged.extend(trailers.drain(..).zip(chain.drain_newest_first()));
        self.take_unmerged();
        Ok(true)
    }

    /// Fills the chain from the source, which ends on the first record that is not in it.
    fn collect_operands(&mut self, stripe: usize) -> Result<Under> {
        self.operands.chain.clear();
        self.operands.trailers.clear();
        self.operands.read_ahead = true;
        loop {
            let trailer = self.source.trailer();
            self.operands.trailers.push(trailer);
            self.operands.chain.push_older(self.source.value());
            self.source.next()?;
            if !self.source.valid() || self.source.user_key() != self.key.as_slice() {
                let certain = stripe == 0 && !self.older.overlap_key(&self.key);
                return Ok(if certain {
                    Under::Nothing
                } else {
                    Under::Unknown
                });
            }
            let below = self.source.trailer();
            if self.rules.stripe(below.sequence()) != stripe {
                return Ok(Under::Unknown);
            }
            if !self.tombstones.all.is_empty() && self.is_covered(below.sequence(), stripe) {
                return Ok(Under::Nothing);
            }
            match below.kind() {
                Some(ValueKind::MergeOperand) => {
                    if self.operands.chain.bytes() >= CHAIN_BYTES {
                        return Ok(Under::More);
                    }
                    self.stats.records_in += 1;
                }
                Some(
                    kind @ (ValueKind::Value
                    | ValueKind::ValueWithExpiry
                    | ValueKind::ValuePointer
                    | ValueKind::ValuePointerWithExpiry
                    | ValueKind::Tombstone),
                ) => return Ok(Under::Record(kind)),
                _ => return Ok(Under::Unknown),
            }
        }
    }

    /// Hands on the next operand that stays as it is; whether there was one.
    pub(super) fn next_unmerged_operand(&mut self) -> bool {
        let found = self.take_unmerged();
        if found {
            self.emitted_of_key += 1;
            self.stats.records_out += 1;
        }
        found
    }

    fn take_unmerged(&mut self) -> bool {
        let Some((trailer, operand)) = self.operands.unmerged.pop_front() else {
            return false;
        };
        self.trailer = trailer;
        self.replaced = Some(operand);
        true
    }
}

fn fold(chain: &OperandChain, operator: &dyn MergeOperator, key: &[u8]) -> Option<Vec<u8>> {
    let folded = chain.fold(operator, key);
    folded
        .inspect_err(|error| tracing::warn!(%error, "operands stay unmerged"))
        .ok()
}
