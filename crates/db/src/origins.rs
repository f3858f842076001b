//! What new tables say of where they come from, so that repair can do without the manifest.
//!
//! Invariant: a table names every bulk-loaded one that its keyspace had when its job began, because
//! those do not know themselves that their load was completed, and when. And it names, as gone, every table that the manifest had let go of when its job began
//! and whose file a crash could show again: those that readers or recovery points hold, those that wait
//! for their removal, and those whose removal no directory sync has covered yet. Every job that makes tables
//! syncs the directory before its edit, so a name may be forgotten once such a job that began after the
//! removal is done (which it may have named before that, as a file that a reader kept). Where a job makes none, `untold_removals` has what takes the place of the names.

use crate::engine::Engine;
use crate::keyspace::KeyspaceState;
use crate::table_references::RemovalsUntil;
use esker_base::SequenceNumber;
use esker_base::filename::FileNumber;
use esker_compaction::{JobContext, JobOutput};
use esker_sstable::{Making, Origin};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Engine {
    /// Where a table of a keyspace comes from that is begun now.
    pub(crate) fn origin_of(
        &self,
        keyspace: &KeyspaceState,
        making: Making,
        replaces: impl IntoIterator<Item = FileNumber>,
    ) -> Origin {
        self.origin_above(self.floor(), keyspace, making, replaces)
    }

    /// As [`Engine::origin_of`]; up to `floor` all writes of every keyspace are known to be in tables.
    pub(crate) fn origin_above(
        &self,
        floor: SequenceNumber,
        keyspace: &KeyspaceState,
        making: Making,
        replaces: impl IntoIterator<Item = FileNumber>,
    ) -> Origin {
        let mut gone: BTreeSet<FileNumber> = self.tables.gone().into_iter().collect();
        gone.extend(self.points.numbers());
        if !gone.is_empty() {
            for number in self.versions.live_files() {
                gone.remove(&number);
            }
        }
        // The manifest after the memtables: what has left those by now, it says.
        let state = self.versions.state();
        let id = keyspace.id;
        let flushed = state.keyspaces.get(id);
        let flushed = flushed.map_or(0, |keyspace| keyspace.meta.flushed_sequence);
        let version = self.versions.current(id).unwrap_or_default();
        let tables = version.tables().map(|(_, _, meta)| meta);
        let loads = tables.filter(|meta| meta.ingested_sequence != 0);
        let loads = loads.map(|meta| (meta.number, meta.ingested_sequence));
        Origin {
            keyspace: id,
            name: keyspace.name.clone(),
            making,
            flushed,
            floor,
            replaces: replaces.into_iter().collect(),
            gone: gone.into_iter().collect(),
            loads: loads.collect(),
            ..Origin::default()
        }
    }

    /// Up to which sequence number all writes of every keyspace are in tables. Looks at all of them.
    pub(crate) fn floor(&self) -> SequenceNumber {
        // First: what is visible is in its memtable.
        let visible = self.visible_sequence();
        let manifest = self.versions.state();
        let keyspaces = self.all_keyspaces();
        let pending = keyspaces.iter().filter(|state| {
            let view = state.load();
            !view.sealed.is_empty() || !view.active.memtable.is_empty()
        });
        let flushed = pending.map(|state| {
            let keyspace = manifest.keyspaces.get(state.id);
            keyspace.map_or(0, |keyspace| keyspace.meta.flushed_sequence)
        });
        flushed.min().unwrap_or(visible).min(visible)
    }

    /// What a job of `keyspace` is given to work with whose tables say where they come from.
    pub(crate) fn traced_jobs_of(
        &self,
        keyspace: &KeyspaceState,
        making: Making,
        replaces: impl IntoIterator<Item = FileNumber>,
    ) -> JobContext {
        JobContext {
            origin: Some(Arc::new(self.origin_of(keyspace, making, replaces))),
            ..self.jobs_of(keyspace)
        }
    }

    /// Notes that `output`, of a job that was given `jobs`, is part of the database. Up to `began`, all removals had been
    /// made before it.
    pub(crate) fn job_is_done(&self, jobs: &JobContext, output: &JobOutput, began: RemovalsUntil) {
        let Some(origin) = &jobs.origin else { return };
        // Without tables it has synced nothing, and says nothing.
        if output.tables.is_empty() {
            return;
        }
        self.tables.forget_removed(began);
        if origin.making == Making::Flush {
            self.tables.note_told(&origin.gone);
        }
    }
}
