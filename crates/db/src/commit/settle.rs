//! What a group has to be settled before it is logged: transactions are judged, operands become
//! values where they must, and index changes are derived.
//!
//! Invariant: each member is seen after all members before it that were not refused, and after none
//! that was. Called by the commit leader, with the writer lock held.

use super::{Member, Writer};
use crate::engine::Engine;
use crate::index::pending::Layer;
use crate::recent_writes::RecentWrite;
use esker_base::{Result, SequenceNumber};
use std::sync::Arc;

impl Engine {
    /// Goes through a group in its order. Each member is judged, and what it makes of operands and
    /// changes in indexes is derived, after all members before it that were not refused: what one
    /// that is refused would have written counts for nobody. The thread of a transaction has counted
    /// itself before its batch came here, so that no leader misses it.
    #[cold]
    pub(super) fn settle_group(
        self: &Arc<Self>,
        writer: &mut Writer,
        members: &mut [Member<'_>],
        is_full: bool,
    ) -> Result<()> {
        if members.iter().any(Member::is_indexed) {
            self.make_room_for_entries(writer, members, is_full)?;
        }
        let mut before = Layer::default();
        let mut next = writer.next_sequence;
        for index in 0..members.len() {
            let (earlier, rest) = members.split_at_mut(index);
            let member = &mut rest[0];
            judge(writer, member, earlier, next);
            if !member.is_refused()
                && let Err(error) = self.settle_operands(member, earlier)
            {
                member.refuse(&error);
            }
            if !member.is_refused()
                && let Err(error) = self.settle_long_chains(member, earlier, next)
            {
                member.refuse(&error);
            }
            self.maintain_indexes(&mut before, member);
            if !member.is_refused() {
                let (count, records) = (member.batch.count(), member.batch.records());
                writer.recent.record(next, count, records);
                next += u64::from(count);
            }
        }
        Ok(())
    }
}

/// Refuses a transaction whose reads are no longer true, or that has to search again.
fn judge(writer: &Writer, member: &mut Member<'_>, earlier: &[Member<'_>], next: SequenceNumber) {
    let Some(validation) = member.validation.filter(|_| !member.is_refused()) else {
        return;
    };
    let earlier = earlier.iter().filter(|other| other.outcome.is_ok());
    let pending = earlier.flat_map(|other| other.batch.records().flatten());
    let pending = pending.map(|record| RecentWrite::of(&record));
    member.outcome = validation.judge(&writer.recent, next - 1, pending);
}
