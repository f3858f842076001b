//! Writing merge operands.
//!
//! Invariant: an operand never lies over a living value with an expiry. The commit leader, who knows
//! what every write is ordered after, replaces such an operand by the merged value, with that expiry
//! (see [`OperandChain`](esker_base::operand_chain::OperandChain) for why). In keyspaces with indexes it
//! does so always, because the entries follow from the value. Other keyspaces, and groups without
//! operands, pay nothing for it.

use crate::batch::WriteBatch;
use crate::commit::{self, Member};
use crate::engine::Engine;
use crate::keyspace::{Keyspace, KeyspaceState};
use crate::merged;
use crate::options::WriteOptions;
use crate::read;
use crate::value::Value;
use esker_base::key_bounds::end_is_above;
use esker_base::operand_chain::OperandChain;
use esker_base::write_batch::{BatchEncoder, KeyspaceId, Record, split_expiry};
use esker_base::{Result, SequenceNumber, ValueKind};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Keyspace {
    /// Changes the value of `key` by `operand`, in the way of the keyspace's merge operator, without
    /// reading it. A value that expires keeps its expiry.
    ///
    /// # Errors
    /// `Unsupported` where the keyspace has no merge operator; otherwise as [`Keyspace::put`].
    ///
    /// ```
    /// use esker::merge_operators::Counter;
    /// # fn main() -> esker::Result<()> {
    /// let options = esker::Options::new().merge_operator("default", Counter);
    /// let db = options.open_in_memory()?;
    /// db.merge("visits", Counter::encode(1))?;
    /// db.merge("visits", Counter::encode(41))?;
    /// assert_eq!(Counter::decode(&db.get("visits")?.unwrap())?, 42);
    /// # Ok(()) }
    /// ```
    pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.merge_opt(key, operand, &WriteOptions::new())
    }

    /// As [`Keyspace::merge`], with options of its own.
    ///
    /// # Errors
    /// As [`Keyspace::merge`].
    pub fn merge_opt(
        &self,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<()> {
        self.engine().note_operator(self.state())?;
        let durability = self.durability(options);
        let (key, operand) = (key.as_ref(), operand.as_ref());
        self.write_one(ValueKind::MergeOperand, key, operand, durability)
    }
}

impl WriteBatch {
    /// Sets `key` to `value` until a point in time, milliseconds since 1970.
    pub(crate) fn put_until(
        &mut self,
        keyspace: &Keyspace,
        key: &[u8],
        value: &[u8],
        expiry_millis: u64,
    ) {
        let id = self.name(keyspace);
        self.encoder.push_expiring(id, key, value, expiry_millis);
    }

    /// Changes the value of `key` in the default keyspace by `operand`: see [`Keyspace::merge`].
    pub fn merge(&mut self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) {
        self.push(0, ValueKind::MergeOperand, key.as_ref(), operand.as_ref());
    }

    /// As [`WriteBatch::merge`], in `keyspace`.
    pub fn merge_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) {
        let id = self.name(keyspace);
        self.push(id, ValueKind::MergeOperand, key.as_ref(), operand.as_ref());
    }
}

impl Keyspace {
    /// The value of `key` at `sequence`, and when it expires.
    pub(crate) fn value_and_expiry(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
    ) -> Result<(Option<Value>, Option<u64>)> {
        let view = self.state().load_at(Some(sequence));
        let clock = self.engine().clock();
        let Some(found) = read::find(&view, key, sequence)? else {
            return Ok((None, None));
        };
        if found.is_operand() {
            let merged = merged::get(&view, key, sequence, self.state().operator())?;
            return Ok((merged, None));
        }
        // It may expire between the two looks: then it is gone.
        let expiry_millis = found.expiry(clock)?.flatten();
        let value = found.value(clock)?;
        Ok((value, expiry_millis))
    }
}

/// What is known of a key at its place in a group that is about to be committed.
#[derive(Clone, Debug)]
enum Pending {
    /// A living value, and when it expires. An operand becomes the merged value.
    Living {
        value: Vec<u8>,
        expiry_millis: Option<u64>,
    },
    /// No value, where operands must become values all the same.
    Absent,
    /// Anything that an operand may lie on.
    Opaque,
}

/// A record's place in its batch, and what is stored under its key instead of the operand.
pub(crate) type Replacement = (usize, ValueKind, Vec<u8>);

/// The keys that one member merges into.
struct MemberOperands<'a> {
    engine: &'a Engine,
    now_millis: u64,
    keys: BTreeMap<(KeyspaceId, Vec<u8>), Pending>,
}

impl Engine {
    /// Replaces the operands of a member that would lie over living values with an expiry, and all
    /// those in keyspaces with indexes, by the values that they make. `earlier` are the members that
    /// are ordered before, settled themselves.
    ///
    /// # Errors
    /// Of the operator; the member must be refused then.
    pub(crate) fn settle_operands(
        &self,
        member: &mut Member<'_>,
        earlier: &[Member<'_>],
    ) -> Result<()> {
        if !member.batch().may_hold(ValueKind::MergeOperand) {
            return Ok(());
        }
        let earlier = || earlier.iter().filter(|member| !member.is_refused());
        let expires = |member: &Member<'_>| member.batch().may_hold(ValueKind::ValueWithExpiry);
        let matters =
            |state: &Arc<KeyspaceState>| state.indexes.any() || state.load().may_hold_expiring();
        if !expires(member) && !earlier().any(expires) && !member.keyspaces().iter().any(matters) {
            return Ok(());
        }
        let mut operands = MemberOperands::new(self, member)?;
        for other in earlier() {
            for record in other.batch().records() {
                operands.take(other, &record?)?;
            }
        }
        let mut replacements = Vec::new();
        for (at, record) in member.batch().records().enumerate() {
            let replaced = operands.take(member, &record?)?;
            replacements.extend(replaced.map(|(kind, stored)| (at, kind, stored)));
        }
        if !replacements.is_empty() {
            rewrite(member, &replacements)?;
        }
        Ok(())
    }

    /// What a key holds before the group.
    fn pending_at(&self, state: &KeyspaceState, key: &[u8], now_millis: u64) -> Result<Pending> {
        let (view, indexed) = (state.load(), state.indexes.any());
        if !indexed && !view.may_hold_expiring() {
            return Ok(Pending::Opaque);
        }
        let visible = self.visible_sequence();
        let Some(found) = read::find(&view, key, visible)? else {
            return Ok(Pending::without_value(indexed));
        };
        if indexed && found.is_operand() {
            let merged = merged::get(&view, key, visible, state.operator())?;
            return Ok(merged.map_or(Pending::Absent, |value| Pending::Living {
                value: value.to_vec(),
                expiry_millis: None,
            }));
        }
        let kind = found.trailer().kind();
        Ok(Pending::of(kind, found.stored(), indexed, now_millis))
    }
}

impl Pending {
    fn without_value(indexed: bool) -> Self {
        if indexed { Self::Absent } else { Self::Opaque }
    }

    /// What a record leaves behind.
    fn of(kind: Option<ValueKind>, stored: &[u8], indexed: bool, now_millis: u64) -> Self {
        match (kind, split_expiry(stored)) {
            (Some(ValueKind::ValueWithExpiry), Some((expiry, value))) if expiry > now_millis => {
                Self::Living {
                    value: value.to_vec(),
                    expiry_millis: Some(expiry),
                }
            }
            (Some(ValueKind::Value), _) if indexed => Self::Living {
                value: stored.to_vec(),
                expiry_millis: None,
            },
            _ => Self::without_value(indexed),
        }
    }
}

impl<'a> MemberOperands<'a> {
    fn new(engine: &'a Engine, member: &Member<'_>) -> Result<Self> {
        let now_millis = engine.clock().now_millis();
        let mut keys = BTreeMap::new();
        for record in member.batch().records() {
            let record = record?;
            let place = (record.keyspace, record.key.to_vec());
            if record.kind == ValueKind::MergeOperand && !keys.contains_key(&place) {
                let state = member.keyspace(record.keyspace)?;
                let pending = engine.pending_at(state, record.key, now_millis)?;
                keys.insert(place, pending);
            }
        }
        Ok(Self {
            engine,
            now_millis,
            keys,
        })
    }

    /// Takes a record into account; what replaces it, if anything.
    fn take(
        &mut self,
        member: &Member<'_>,
        record: &Record<'_>,
    ) -> Result<Option<(ValueKind, Vec<u8>)>> {
        if record.kind == ValueKind::RangeDelete {
            let indexed = member.keyspace(record.keyspace)?.indexes.any();
            let covers = |key: &[u8]| record.key <= key && end_is_above(record.value, key);
            for ((keyspace, key), pending) in &mut self.keys {
                if *keyspace == record.keyspace && covers(key) {
                    *pending = Pending::without_value(indexed);
                }
            }
            return Ok(None);
        }
        let Some(pending) = self.keys.get_mut(&(record.keyspace, record.key.to_vec())) else {
            return Ok(None);
        };
        let state = member.keyspace(record.keyspace)?;
        if record.kind != ValueKind::MergeOperand {
            let (kind, indexed) = (Some(record.kind), state.indexes.any());
            *pending = Pending::of(kind, record.value, indexed, self.now_millis);
            return Ok(None);
        }
        let mut chain = OperandChain::default();
        chain.push_older(record.value);
        let expiry_millis = match pending {
            Pending::Opaque => return Ok(None),
            Pending::Absent => None,
            Pending::Living {
                value,
                expiry_millis,
            } => {
                chain.set_base(ValueKind::Value, value);
                *expiry_millis
            }
        };
        let value = merged::fold(&chain, state.operator(), record.key)?;
        commit::check_entry(&self.engine.settings, record.key, &value)?;
        let (kind, head) = match expiry_millis {
            Some(expiry) => (ValueKind::ValueWithExpiry, expiry.to_le_bytes().to_vec()),
            None => (ValueKind::Value, Vec::new()),
        };
        let stored = [head.as_slice(), &value].concat();
        *pending = Pending::Living {
            value,
            expiry_millis,
        };
        Ok(Some((kind, stored)))
    }
}

/// Encodes the batch of a member again, with what its operands are replaced by.
pub(crate) fn rewrite(member: &mut Member<'_>, replacements: &[Replacement]) -> Result<()> {
    let mut rewritten = BatchEncoder::new();
    let mut replacements = replacements.iter().peekable();
    for (at, record) in member.batch().records().enumerate() {
        let record = record?;
        let (kind, value) = match replacements.next_if(|(place, ..)| *place == at) {
            Some((_, kind, stored)) => (*kind, stored.as_slice()),
            None => (record.kind, record.value),
        };
        rewritten.push(record.keyspace, kind, record.key, value);
    }
    member.replace_batch(rewritten);
    Ok(())
}
