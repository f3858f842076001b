//! `get`, `put` and `delete`: verbs on one key.
//!
//! Invariant: a change is on stable storage when the verb returns.

use std::io::{self, Read as _};
use std::path::Path;

use crate::args::{Delete, Get, Put};
use crate::failure::{Failure, Result};
use crate::streams::Output;
use crate::{keys, open};

/// Prints the value of a key.
pub(crate) fn get(directory: &Path, verb: &Get) -> Result<()> {
    let key = keys::bytes_of(&verb.key)?;
    let db = open::for_reading(directory)?;
    let Some(value) = db.get(&key)? else {
        return Err(Failure::Refused(format!(
            "there is no key {}",
            keys::shown(&key)
        )));
    };
    let mut output = Output::standard();
    output.write(&value)?;
    if !verb.raw {
        output.write(b"\n")?;
    }
    output.finish()?;
    Ok(db.close()?)
}

/// Sets a key to a value.
pub(crate) fn put(directory: &Path, verb: &Put) -> Result<()> {
    let key = keys::bytes_of(&verb.key)?;
    let db = open::or_create(directory)?;
    let value = match &verb.value {
        Some(value) => value.as_encoded_bytes().to_vec(),
        None => value_from_stdin(db.options().max_value_bytes())?,
    };
    db.put(&key, &value)?;
    Ok(db.close()?)
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

/// Removes a key.
pub(crate) fn delete(directory: &Path, verb: &Delete) -> Result<()> {
    let key = keys::bytes_of(&verb.key)?;
    let db = open::for_writing(directory)?;
    db.delete(&key)?;
    Ok(db.close()?)
}
