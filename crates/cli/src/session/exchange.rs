//! `import`, `export` and the dumps, within a session.
//!
//! Invariant: as the single commands of the same names; in a session, standard input belongs to the
//! shell, and a transaction takes no part.

use std::io::Write;
use std::path::Path;

use super::{Context, Session};
use crate::failure::{Failure, Result};
use crate::reply::Reply;
use crate::streams::Input;
use crate::verb_arguments::{Dump, Export, Import};
use crate::{dump, export, import};

impl Session {
    pub(super) fn import(&mut self, verb: &Import, context: &Context<'_>) -> Result<Reply> {
        self.outside_transaction("import")?;
        if context.style.session && verb.file.as_os_str() == "-" {
            let sentence = "the shell reads commands from standard input; import from a file, or by a single command";
            return Err(Failure::Usage(sentence.into()));
        }
        // First the source: a mistyped name must not leave an empty database behind.
        let input = Input::open(&verb.file)?;
        let keyspace = self.keyspace_for_writing(context)?;
        let records = import::run(&keyspace, &self.db()?, input, verb.format)?;
        eprintln!("imported {}", import::counted(records));
        Ok(Reply::default().field("records", records))
    }

    pub(super) fn export(&mut self, verb: &Export, context: &Context<'_>) -> Result<Reply> {
        self.outside_transaction("export")?;
        let is_dash = verb.file.as_os_str() == "-";
        if is_dash && context.style.json {
            let sentence = "export to standard output and --json would mix; export to a file";
            return Err(Failure::Usage(sentence.into()));
        }
        let records = export::run(&self.keyspace(context)?, verb)?;
        eprintln!("exported {}", import::counted(records));
        Ok(Reply::default().field("records", records))
    }

    pub(super) fn dump(
        &mut self,
        verb: &Dump,
        context: &Context<'_>,
        inspector: fn(&Path, &mut dyn Write) -> esker::Result<()>,
    ) -> Result<Reply> {
        let directory = self.directory();
        if context.style.json {
            let mut text = Vec::new();
            dump::write(directory.as_deref(), verb, inspector, &mut text)?;
            let lines = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = lines.lines().collect();
            return Ok(Reply::default().field("lines", lines));
        }
        dump::run(directory.as_deref(), verb, inspector)?;
        Ok(Reply::printed())
    }
}
