//! Tables of flushes that a crash cut short: what they hold is in the log as well.
//!
//! The next open reads the log, and no harm is done where a record is in both, unless it is an operand: that
//! would count twice. So such a table is left out where the log has everything from its first record to its
//! last one. Where the log has not, the table is the only place of some of it, and stays.
//!
//! Invariant: what is left out is in the log, and is read from there, since no table is known to hold it.

use super::unnamed_loads::read_stretches;
use super::{Contents, Part};
use esker_base::Result;
use esker_base::filename::FileNumber;
use esker_base::table_meta::TableMeta;
use esker_vfs::FileSystem;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Leaves out the tables that the log makes superfluous.
pub(crate) fn leave_out(
    fs: &dyn FileSystem,
    directory: &Path,
    contents: &mut Contents,
) -> Result<()> {
    let mut parts = contents.keyspaces.values();
    if parts.all(|part| part.unfinished.is_empty()) {
        return Ok(());
    }
    let logged = read_stretches(fs, directory, &contents.segments)?;
    for part in contents.keyspaces.values_mut() {
        let unfinished = std::mem::take(&mut part.unfinished);
        let is_logged = |meta: &Arc<TableMeta>| {
            let (first, last) = (meta.smallest_sequence, meta.largest_sequence);
            logged
                .iter()
                .any(|stretch| stretch.contains(&first) && stretch.contains(&last))
        };
        let before = part.tables.len();
        part.tables
            .retain(|meta| !(unfinished.contains(&meta.number) && is_logged(meta)));
        if part.tables.len() < before {
            forget_values(part);
        }
    }
    Ok(())
}

/// Forgets the tables of values that nothing points to any more.
fn forget_values(part: &mut Part) {
    let refs = part.tables.iter().flat_map(|meta| &meta.value_refs);
    let needed: BTreeSet<FileNumber> = refs.map(|one| one.number).collect();
    part.values.retain(|meta| needed.contains(&meta.number));
    part.lost_values.retain(|number| needed.contains(number));
}
