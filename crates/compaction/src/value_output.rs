//! Writes the large values of a job's outputs into tables of values, and makes the pointers to them.
//!
//! Invariant (I1): a table of values, and its name, are durable before a table is finished that points
//! into it, so that whatever a crash leaves, a whole table's values are there; one edit names both. They
//! are cut by size, and where a table ends that points into them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use esker_base::filename::temporary_path;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result, Trailer, ValueKind};
use esker_sstable::{FilterKind, Making, Origin, TableOptions, TableWriter};

use crate::job_context::{CreatedFiles, JobContext};

/// The value tables of one part of a job.
pub(crate) struct ValueOutput<'a> {
    context: &'a JobContext,
    options: TableOptions,
    created: &'a CreatedFiles,
    current: Option<TableWriter>,
    finished: Vec<Arc<TableMeta>>,
    /// How many of them the directory is known to name for good.
    named: usize,
}

impl<'a> ValueOutput<'a> {
    pub(crate) fn new(context: &'a JobContext, level: usize, created: &'a CreatedFiles) -> Self {
        let options = TableOptions {
            // Values are found by pointers.
            filter: FilterKind::None,
            ..(context.table_options)(level)
        };
        Self {
            context,
            options,
            created,
            current: None,
            finished: Vec::new(),
            named: 0,
        }
    }

    /// Whether a record's value is to be kept apart; `stored` may begin with its expiry.
    #[inline]
    pub(crate) fn takes(&self, trailer: Trailer, stored: &[u8]) -> bool {
        let Some(threshold) = self.context.value_threshold_bytes else {
            return false;
        };
        stored.len() >= threshold
            && splits(trailer, stored).is_some_and(|at| stored.len() - at >= threshold)
    }

    /// Writes the value of a record that it [takes](ValueOutput::takes), and returns the record that
    /// stands in its place.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        trailer: Trailer,
        stored: &[u8],
    ) -> Result<(Trailer, Vec<u8>)> {
        let at = splits(trailer, stored).unwrap_or(0);
        let (expiry, value) = stored.split_at(at);
        let target = self.context.target_file_bytes;
        if self
            .current
            .as_ref()
            .is_some_and(|writer| writer.estimated_bytes() >= target)
        {
            self.end()?;
        }
        let pointer = match &mut self.current {
            Some(writer) => writer.add_value(key, trailer.sequence(), value)?,
            None => self.begin()?.add_value(key, trailer.sequence(), value)?,
        };
        let mut bytes = Vec::with_capacity(expiry.len() + 24);
        bytes.extend_from_slice(expiry);
        pointer.encode(&mut bytes);
        let kind = trailer.kind().unwrap_or(ValueKind::Value);
        let trailer = trailer.with_kind(kind.across_pointer());
        Ok((trailer, bytes))
    }

    fn begin(&mut self) -> Result<&mut TableWriter> {
        let number = (self.context.new_file_number)();
        let path = temporary_path(&self.context.directory, number);
        self.created.note(number);
        let writer = TableWriter::create(&*self.context.fs, &path, number, &self.options)?;
        Ok(self.current.insert(writer))
    }

    fn end(&mut self) -> Result<()> {
        let Some(mut writer) = self.current.take() else {
            return Ok(());
        };
        if let Some(origin) = &self.context.origin {
            writer.set_origin(Origin {
                keyspace: origin.keyspace,
                name: origin.name.clone(),
                making: Making::Values,
                ..Origin::default()
            });
        }
        let meta = writer.finish(self.context.clock.now_millis())?;
        self.context.give_name(meta.number)?;
        let written = &self.context.written_bytes;
        written.fetch_add(meta.file_bytes, Ordering::Relaxed);
        self.finished.push(Arc::new(meta));
        Ok(())
    }

    /// Makes everything written so far durable, names included.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.end()?;
        if self.finished.len() > self.named {
            let directory = &self.context.directory;
            let synced = self.context.fs.sync_dir(directory);
            synced.map_err(|error| Error::io("sync the directory", directory, error))?;
            self.named = self.finished.len();
        }
        Ok(())
    }

    /// All tables, which have been settled.
    pub(crate) fn into_finished(self) -> Vec<Arc<TableMeta>> {
        debug_assert!(self.current.is_none());
        self.finished
    }
}

/// Where the value of a record begins behind its expiry; `None` for records that are no values.
fn splits(trailer: Trailer, stored: &[u8]) -> Option<usize> {
    match trailer.kind() {
        Some(ValueKind::Value) => Some(0),
        Some(ValueKind::ValueWithExpiry) if stored.len() >= 8 => Some(8),
        _ => None,
    }
}
