//! Turning tables into fewer, better tables.
//!
//! Two halves. The pure one decides, over plain data: [`shape`] (how large levels should be),
//! [`picker`] (what to compact next), [`plan`] (which tables become which), [`retention`] (which
//! records stay), [`pacing`] (how writers are slowed). The other acts: [`mod@flush`] and [`job`] read,
//! merge and write tables, `subcompaction` cuts a job into parts, [`executor`] runs them.
//!
//! Invariants: newer data never ends below older data of the same key; nothing that a snapshot can
//! see is dropped and nothing dropped comes back (I6); a job either hands over finished, synced,
//! reopened tables or leaves no file behind (I1). Memtables, versions' changes and scheduling are
//! the facade's business: nothing here starts by itself. `docs/compaction.md` explains how it
//! works and why.
#![forbid(unsafe_code)]

pub mod compaction_filter;
pub mod executor;
pub mod flush;
pub mod job;
pub mod job_context;
pub mod older_tables;
mod output;
mod overlap;
pub mod pacing;
pub mod picker;
pub mod plan;
pub mod retention;
pub mod shape;
#[cfg(test)]
mod simulation;
mod subcompaction;
mod value_output;
#[cfg(test)]
mod vec_iter;

pub use compaction_filter::{CompactionFilter, FilterDecision, OwnersFilter};
pub use executor::{Executor, Job, Lane, ManualExecutor, RayonExecutor};
pub use flush::flush;
pub use job::{JobOutput, JobStats, run};
pub use job_context::JobContext;
pub use older_tables::OlderTables;
pub use pacing::{Admission, Pressure, admit};
pub use picker::{
    MemtableSize, PickInput, RangePick, Relief, debt_bytes, pick, pick_for_reads, pick_range,
};
pub use plan::{OutputRun, Plan, PlanKind, PlanRun, Reason};
pub use retention::{RetentionRules, RetentionStats};
pub use shape::{CompactionShape, Layout, ShapeOptions};
