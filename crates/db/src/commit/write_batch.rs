//! What is checked of a batch before it is committed: that its keyspaces are of this database, and that
//! keys, values and the batch itself are within their bounds.
//!
//! Invariant: what reaches the commit leader from here can be logged and inserted as it is. Called by
//! everything that writes.

use super::member::Member;
use crate::batch::WriteBatch;
use crate::engine::Engine;
use crate::keyspace::dropped;
use crate::options::Durability;
use crate::settings::LiveSettings;
use crate::settings::budget::Shares;
use crate::ttl;
use crate::validation::Validation;
use esker_base::{Error, ErrorKind, Result, ValueKind};
use std::sync::Arc;

/// Checks the bounds of one entry.
#[inline]
pub(crate) fn check_entry(settings: &LiveSettings, key: &[u8], value: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > settings.max_key_bytes() {
        return Err(refused_key(settings, key.len()));
    }
    if value.len() > settings.max_value_bytes() {
        return Err(refused_value(settings, value.len()));
    }
    Ok(())
}

/// Whether the budget, where there is one, has room for a batch.
fn check_budget(settings: &LiveSettings, batch: &WriteBatch) -> Result<()> {
    let budget = settings.memory_budget_bytes();
    if budget == 0 || batch.size_bytes() <= Shares::of(budget).batch {
        return Ok(());
    }
    let (bytes, most) = (batch.size_bytes(), Shares::of(budget).batch);
    let sentence = format!(
        "a batch of {bytes} bytes is larger than memory_budget_bytes allows, {most}: write it in parts, or \
         raise the budget"
    );
    Err(Error::new(ErrorKind::LimitExceeded, sentence))
}

#[cold]
fn refused_key(settings: &LiveSettings, bytes: usize) -> Error {
    let most = settings.max_key_bytes();
    Error::invalid_argument(format!(
        "a key must have 1 to {most} bytes; this one has {bytes}"
    ))
}

#[cold]
fn refused_value(settings: &LiveSettings, bytes: usize) -> Error {
    let most = settings.max_value_bytes();
    Error::invalid_argument(format!(
        "a value must have at most {most} bytes, not {bytes}"
    ))
}

/// Checks a batch against the database it is written to and commits it.
pub(crate) fn write_batch(
    engine: &Arc<Engine>,
    mut batch: WriteBatch,
    durability: Durability,
    validation: Option<&Arc<Validation>>,
) -> Result<()> {
    batch.check()?;
    batch.check_size()?;
    check_budget(&engine.settings, &batch)?;
    let mut keyspaces = vec![Arc::clone(&engine.default_keyspace)];
    for keyspace in &batch.keyspaces {
        if !Arc::ptr_eq(keyspace.engine(), engine) {
            let sentence = "the batch names a keyspace of another database";
            return Err(Error::invalid_argument(sentence));
        }
        if keyspace.state().is_dropped() {
            return Err(dropped(keyspace.name()));
        }
        if keyspace.id() != 0 {
            keyspaces.push(Arc::clone(keyspace.state()));
        }
    }
    let mut durability = durability;
    let mut first = None;
    for record in batch.encoder.records() {
        let record = record?;
        if *first.get_or_insert(record.keyspace) != record.keyspace {
            // What keeps it whole is the log: its keyspaces are flushed one after the other.
            durability = durability.max(Durability::Buffered);
        }
        match record.kind {
            ValueKind::RangeDelete => check_range(&engine.settings, record.key, record.value)?,
            ValueKind::ValueWithExpiry => {
                check_entry(&engine.settings, record.key, &record.value[8..])?;
            }
            ValueKind::MergeOperand => {
                check_entry(&engine.settings, record.key, record.value)?;
                let state = keyspaces.iter().find(|state| state.id == record.keyspace);
                if let Some(state) = state {
                    engine.note_operator(state)?;
                }
            }
            _ => check_entry(&engine.settings, record.key, record.value)?,
        }
    }
    ttl::settle(engine, &mut batch, &keyspaces)?;
    let mut commit = || {
        let encoder = &mut batch.encoder;
        engine.commit(Member::new(encoder, &keyspaces, durability, validation))
    };
    match validation {
        Some(validation) => validation.run(engine, commit),
        None => commit(),
    }
}

/// Bounds of a range delete are keys or their immediate successors.
fn check_range(settings: &LiveSettings, start: &[u8], end: &[u8]) -> Result<()> {
    let longest = start.len().max(end.len());
    if longest > settings.max_key_bytes() + 1 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("a bound of a range has {longest} bytes, more than any key"),
        ));
    }
    Ok(())
}
