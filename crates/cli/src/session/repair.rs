//! `repair`: makes a damaged database one that opens, and says what it lost.
//!
//! Invariant: the database is not opened, and nothing happens before somebody has agreed.

use esker::Options;

use super::{Context, Session};
use crate::failure::{Failure, Result};
use crate::reply::Reply;

impl Session {
    pub(super) fn repair(&mut self, context: &mut Context<'_>) -> Result<Reply> {
        let Some(directory) = self.directory() else {
            let sentence = "which database? Give its directory with --db DIR";
            return Err(Failure::Usage(sentence.into()));
        };
        let shown = directory.display();
        // Nobody is asked about what is not there.
        if !directory.is_dir() {
            let sentence = format!("there is no esker database here ({shown})");
            return Err(Failure::Refused(sentence));
        }
        context.confirm(&format!(
            "This replaces the manifest of {shown} and moves files that the new one does not name into \
             {shown}/lost."
        ))?;
        let report = Options::new().repair(&directory)?;
        let losses: Vec<String> = report.losses().iter().map(ToString::to_string).collect();
        let aside: Vec<String> = report
            .put_aside()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Ok(Reply::text(report.to_string())
            .field("manifest_was_whole", report.manifest_was_whole())
            .field("keyspaces", report.keyspaces())
            .field("tables_kept", report.tables_kept())
            .field("tables_rewritten", report.tables_rewritten())
            .field("log_segments", report.log_segments())
            .field("records_left_out", report.records_left_out())
            .field("losses", losses)
            .field("put_aside", aside))
    }
}
