//! Verbs on single records: `get`, `set`, `delete`, `exists`, `ttl`, `set-ttl`, `persist`, `clear`.
//!
//! Invariant: a change is on stable storage when the verb returns, unless a transaction holds it back.
//! What removes more than one key says how many first.

use std::io::{self, Read as _};
use std::ops::Bound;
use std::time::Duration;

use esker::{Keyspace, Value};

use super::{Context, Session};
use crate::display::{self, counted, size};
use crate::failure::{Failure, Result};
use crate::key_range::KeyRange;
use crate::reply::{Reply, bytes_as_json};
use crate::streams::Output;
use crate::verb_arguments::{Delete, Get, KeyArgument, Set, SetTtl};
use crate::{duration, keys, words};

/// A longer value is cut where a person looks at it, bytes.
const SHOWN_VALUE_BYTES: usize = 4 << 10;

impl Session {
    /// The value of `key` as the session sees it.
    fn find(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Value>> {
        Ok(match &mut self.transaction {
            Some(open) => open.transaction.get_in(keyspace, key)?,
            None => keyspace.get(key)?,
        })
    }

    pub(super) fn get(&mut self, verb: &Get, context: &Context<'_>) -> Result<Reply> {
        let key = keys::bytes_of(&verb.key)?;
        let keyspace = self.keyspace(context)?;
        let value = self.find(&keyspace, &key)?.ok_or_else(|| missing(&key))?;
        let style = context.style;
        if style.json {
            return Ok(Reply::default()
                .field("key", bytes_as_json(&key))
                .field("value", bytes_as_json(&value)));
        }
        if style.terminal && style.session && !verb.raw {
            return Ok(Reply::text(for_people(&value)));
        }
        let mut output = Output::standard();
        output.write(&value)?;
        if !verb.raw {
            output.write(b"\n")?;
        }
        output.finish()?;
        Ok(Reply::printed())
    }

    pub(super) fn set(&mut self, verb: &Set, context: &Context<'_>) -> Result<Reply> {
        let key = keys::bytes_of(&verb.key)?;
        let ttl = verb.ttl.as_deref().map(parse_ttl).transpose()?;
        if verb.stdin && context.style.session {
            let sentence = "--stdin is for single commands: the shell reads commands from there";
            return Err(Failure::Usage(sentence.into()));
        }
        let keyspace = self.keyspace_for_writing(context)?;
        let value = match &verb.value {
            Some(value) => value.as_encoded_bytes().to_vec(),
            None => value_from_stdin(self.db()?.options().max_value_bytes())?,
        };
        match (&mut self.transaction, ttl) {
            (Some(open), None) => open.transaction.put_in(&keyspace, &key, &value)?,
            (Some(open), Some(ttl)) => {
                let transaction = &mut open.transaction;
                transaction.put_with_ttl_in(&keyspace, &key, &value, ttl)?;
            }
            (None, None) => keyspace.put(&key, &value)?,
            (None, Some(ttl)) => keyspace.put_with_ttl(&key, &value, ttl)?,
        }
        self.wrote();
        Ok(Reply::done("ok").field("key", bytes_as_json(&key)))
    }

    pub(super) fn delete(&mut self, verb: &Delete, context: &mut Context<'_>) -> Result<Reply> {
        let keyspace = self.keyspace(context)?;
        if let Some(key) = &verb.key {
            let key = keys::parse_key(key, verb.range.hex)?;
            match &mut self.transaction {
                Some(open) => open.transaction.delete_in(&keyspace, &key)?,
                None => keyspace.delete(&key)?,
            }
            self.wrote();
            return Ok(Reply::done("ok").field("key", bytes_as_json(&key)));
        }
        let range = KeyRange::of(&verb.range)?;
        let extent = self.extent_if_asked(&keyspace, &range, context)?;
        if let Some(extent) = extent {
            if extent.keys == 0 {
                return Ok(Reply::done("there was no key to delete").field("keys", 0));
            }
            let (lost, what) = (extent.shown(), range.shown());
            let place = self.place(&keyspace)?;
            context.confirm(&format!("This deletes {lost}: {what}, in {place}."))?;
        }
        match &mut self.transaction {
            Some(open) => {
                let transaction = &mut open.transaction;
                transaction.delete_range_in::<&[u8]>(&keyspace, range.bounds())?;
            }
            None => keyspace.delete_range::<&[u8]>(range.bounds())?,
        }
        self.wrote();
        Ok(removed(extent, "deleted"))
    }

    pub(super) fn exists(&mut self, verb: &KeyArgument, context: &Context<'_>) -> Result<Reply> {
        let key = keys::bytes_of(verb)?;
        let keyspace = self.keyspace(context)?;
        let exists = self.find(&keyspace, &key)?.is_some();
        if !exists && !context.style.session {
            return Err(missing(&key));
        }
        Ok(Reply::text(if exists { "yes\n" } else { "no\n" })
            .field("key", bytes_as_json(&key))
            .field("exists", exists))
    }

    pub(super) fn ttl(&mut self, verb: &KeyArgument, context: &Context<'_>) -> Result<Reply> {
        let key = keys::bytes_of(verb)?;
        let keyspace = self.keyspace(context)?;
        let ttl = match &mut self.transaction {
            Some(open) => open.transaction.ttl_in(&keyspace, &key)?,
            None => keyspace.ttl(&key)?,
        };
        if ttl.is_none() && self.find(&keyspace, &key)?.is_none() {
            return Err(missing(&key));
        }
        let text = ttl.map_or("never expires".to_owned(), duration::shown);
        let millis = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        Ok(Reply::text(text + "\n")
            .field("key", bytes_as_json(&key))
            .field("ttl_millis", millis))
    }

    pub(super) fn set_ttl(&mut self, verb: &SetTtl, context: &Context<'_>) -> Result<Reply> {
        let key = keys::bytes_of(&verb.key)?;
        let ttl = parse_ttl(&verb.ttl)?;
        let keyspace = self.keyspace(context)?;
        let was_there = match &mut self.transaction {
            Some(open) => open.transaction.set_ttl_in(&keyspace, &key, ttl)?,
            None => keyspace.set_ttl(&key, ttl)?,
        };
        if !was_there {
            return Err(missing(&key));
        }
        self.wrote();
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Ok(Reply::done(format!("expires in {}", duration::shown(ttl)))
            .field("key", bytes_as_json(&key))
            .field("ttl_millis", millis))
    }

    pub(super) fn persist(&mut self, verb: &KeyArgument, context: &Context<'_>) -> Result<Reply> {
        let key = keys::bytes_of(verb)?;
        let keyspace = self.keyspace(context)?;
        let had_ttl = match &mut self.transaction {
            Some(open) => open.transaction.persist_in(&keyspace, &key)?,
            None => keyspace.persist(&key)?,
        };
        if !had_ttl && self.find(&keyspace, &key)?.is_none() {
            return Err(missing(&key));
        }
        if had_ttl {
            self.wrote();
        }
        let note = if had_ttl {
            "stays"
        } else {
            "had no time to live"
        };
        Ok(Reply::done(note)
            .field("key", bytes_as_json(&key))
            .field("had_ttl", had_ttl))
    }

    pub(super) fn clear(&mut self, context: &mut Context<'_>) -> Result<Reply> {
        self.outside_transaction("clear")?;
        let keyspace = self.keyspace(context)?;
        let extent = self.extent_if_asked(&keyspace, &KeyRange::default(), context)?;
        if let Some(extent) = extent.filter(|extent| extent.keys > 0) {
            let lost = extent.shown();
            let place = self.place(&keyspace)?;
            let backups = self.backups_to_go_back_to()?;
            let loss = format!("This removes {lost}: everything in {place}.{backups}");
            context.confirm(&loss)?;
        }
        keyspace.clear()?;
        Ok(removed(extent, "removed"))
    }

    /// For questions: which keyspace of which database.
    pub(super) fn place(&mut self, keyspace: &Keyspace) -> Result<String> {
        let name = keyspace.name();
        Ok(format!(
            "keyspace {name:?} of {}",
            self.connected()?.place()
        ))
    }
}

/// What a range of keys holds, as far as it was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) keys: u64,
    pub(super) key_bytes: u64,
    pub(super) value_bytes: u64,
}

impl Extent {
    /// "3 keys with 1.2 KiB".
    pub(super) fn shown(&self) -> String {
        let keys = counted(self.keys, "key", "keys");
        format!("{keys} ({})", size(self.key_bytes + self.value_bytes))
    }

    pub(super) fn counts(&self, reply: Reply) -> Reply {
        reply
            .field("keys", self.keys)
            .field("key_bytes", self.key_bytes)
            .field("value_bytes", self.value_bytes)
    }
}

impl Session {
    /// Counts what the session sees of a range.
    pub(super) fn extent(&mut self, keyspace: &Keyspace, range: &KeyRange) -> Result<Extent> {
        let mut extent = Extent::default();
        for entry in self.entries(keyspace, range.bounds()) {
            let (key, value) = entry?;
            extent.keys += 1;
            extent.key_bytes += key.len() as u64;
            extent.value_bytes += value.len() as u64;
            self.interrupt.check()?;
        }
        Ok(extent)
    }

    /// As [`Session::extent`], where it is needed for a question: counting takes as long as reading,
    /// and removing does not.
    fn extent_if_asked(
        &mut self,
        keyspace: &Keyspace,
        range: &KeyRange,
        context: &Context<'_>,
    ) -> Result<Option<Extent>> {
        let extent = context.asks().then(|| self.extent(keyspace, range));
        extent.transpose()
    }

    /// The records of a range as the session sees them.
    pub(super) fn entries(
        &mut self,
        keyspace: &Keyspace,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> esker::Entries {
        match &mut self.transaction {
            Some(open) => open.transaction.range_in::<&[u8]>(keyspace, bounds),
            None => keyspace.range::<&[u8]>(bounds),
        }
    }
}

/// What a range that is gone held, as far as it was counted.
fn removed(extent: Option<Extent>, how: &str) -> Reply {
    match extent {
        Some(extent) => extent.counts(Reply::done(format!("{} {how}", extent.shown()))),
        None => Reply::done(how),
    }
}

/// There is no such key.
pub(super) fn missing(key: &[u8]) -> Failure {
    Failure::Missing(format!("there is no key {}", keys::shown(key)))
}

fn parse_ttl(text: &str) -> Result<Duration> {
    duration::parse(text).map_err(Failure::Usage)
}

/// A value as somebody at a terminal sees it: text as it is, anything else escaped, and not all of
/// what is long.
fn for_people(value: &[u8]) -> String {
    let shown = &value[..value.len().min(SHOWN_VALUE_BYTES)];
    let is_text = |text: &str| {
        text.chars()
            .all(|c| !c.is_control() || matches!(c, '\n' | '\t'))
    };
    let mut text = match std::str::from_utf8(shown) {
        Ok(text) if is_text(text) => text.to_owned(),
        // The cut may have gone through a character.
        Err(error) if error.error_len().is_none() && shown.len() < value.len() => {
            String::from_utf8_lossy(&shown[..error.valid_up_to()]).into_owned()
        }
        _ => words::printable(shown),
    };
    if !is_text(&text) {
        text = words::printable(shown);
    }
    if shown.len() < value.len() {
        let whole = display::size(value.len() as u64);
        text += &format!("…\n({whole} in all; get --raw prints every byte)");
    }
    text + "\n"
}

/// All of standard input, as long as it may be a value.
fn value_from_stdin(limit: usize) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let read = io::stdin()
        .lock()
        .take(limit as u64 + 1)
        .read_to_end(&mut value);
    read.map_err(|error| Failure::Engine(format!("could not read standard input: {error}")))?;
    if value.len() > limit {
        return Err(Failure::Usage(format!(
            "the value has more than {limit} bytes, the limit"
        )));
    }
    Ok(value)
}
