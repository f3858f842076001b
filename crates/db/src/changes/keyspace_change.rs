//! What a feed tells of keyspaces that came and went.
//!
//! Invariants: what a mark says stands before the first batch behind it, and again with every segment that
//! begins before that batch, so that whoever has acknowledged all before it is told in any case; hidden
//! keyspaces are left out. What is told twice changes nothing. Called by the feed of changes.

use crate::index::definition::is_reserved_name;
use crate::log_mark::Mark;
use esker_base::write_batch::KeyspaceId;
use esker_manifest::KeyspaceEdit;

/// What became of keyspaces before a [`ChangeBatch`](crate::ChangeBatch) was committed. Later versions may
/// know more.
///
/// A keyspace goes by its name and a number, which no other one ever gets: one of the same name with another
/// number is another one, and has nothing of what the first one held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyspaceChange {
    /// This one was created, and is empty.
    Created {
        /// Its name.
        name: String,
        /// Its number.
        number: u32,
    },
    /// This one was dropped, with all that it held.
    Dropped {
        /// Its name.
        name: String,
        /// Its number.
        number: u32,
    },
    /// There are these and no others: whatever else there was is dropped. Said where it is not certain that the
    /// log has told of each one, as after the database was opened.
    All {
        /// Names and numbers.
        keyspaces: Vec<(String, u32)>,
    },
}

/// Adds what a mark says, if it was not said.
pub(super) fn add(changes: &mut Vec<KeyspaceChange>, mark: &Mark) {
    let mut found = Vec::new();
    if mark.all_up_to.is_some() {
        let named = mark.keyspaces.iter().filter_map(created);
        found.push(KeyspaceChange::All {
            keyspaces: named.collect(),
        });
    } else {
        // In the order in which it happened: another keyspace may have got the name of one that went.
        found.extend(mark.keyspaces.iter().filter_map(|edit| {
            let created =
                created(edit).map(|(name, number)| KeyspaceChange::Created { name, number });
            created.or_else(|| dropped(mark, edit))
        }));
    }
    for change in found {
        if !changes.contains(&change) {
            changes.push(change);
        }
    }
}

fn created(edit: &KeyspaceEdit) -> Option<(String, KeyspaceId)> {
    let (name, _) = edit.create.as_ref()?;
    (!is_reserved_name(name)).then(|| (name.clone(), edit.id))
}

fn dropped(mark: &Mark, edit: &KeyspaceEdit) -> Option<KeyspaceChange> {
    let mut names = mark.dropped.iter().filter(|_| edit.drop);
    let (number, name) = names.find(|(number, _)| *number == edit.id)?;
    (!is_reserved_name(name)).then(|| KeyspaceChange::Dropped {
        name: name.clone(),
        number: *number,
    })
}
