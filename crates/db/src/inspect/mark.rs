//! A mark in the log, in words. What it means is in docs/format/archive.md.

use super::{dump_keyspace_edit, say};
use crate::log_mark::Mark;
use esker_base::Result;
use std::io::Write;

/// Prints the mark that stands at `offset`.
pub(super) fn dump_mark(payload: &[u8], offset: u64, out: &mut dyn Write) -> Result<()> {
    // No `..`: a field that is added to marks must be added here.
    let Mark {
        millis,
        next,
        unlogged_from,
        reasons,
        keyspaces,
        all_up_to,
        dropped,
    } = Mark::decode(payload)?;
    say(
        out,
        format_args!("at {offset}: mark, from sequence {next} on, {millis} ms after 1970 or later"),
    )?;
    if unlogged_from < next {
        let last = next - 1;
        let why = match reasons.are_void() {
            true => "their writes failed",
            false => reasons.sentence(),
        };
        say(
            out,
            format_args!("  sequence {unlogged_from} to {last} are not in the log: {why}"),
        )?;
    }
    for keyspace in &keyspaces {
        dump_keyspace_edit(keyspace, out)?;
    }
    for (id, name) in &dropped {
        say(out, format_args!("  keyspace {id} was called {name:?}"))?;
    }
    match all_up_to {
        Some(largest) => say(
            out,
            format_args!("  there is no other keyspace up to {largest}"),
        ),
        None => Ok(()),
    }
}
