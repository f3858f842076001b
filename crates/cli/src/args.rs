//! The command line: what stands before and beside a verb. The verbs are in `verbs.rs`.
//!
//! Invariant: pure description; nothing is opened or printed here. A line of the shell is the same
//! verbs and the same options, without those that say which database.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::failure::{EXIT_CODES, Failure, Result};
use crate::verbs::Verb;

/// Looks into and works on an esker database: an embedded, ordered, persistent key-value store.
#[derive(Debug, Parser)]
#[command(name = "esker", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The directory of the database; needed by every verb but the dumps
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "memory")]
    pub(crate) db: Option<PathBuf>,

    /// Works on a new database in memory, which goes when the command ends
    #[arg(long, global = true, conflicts_with_all = ["backup_directory", "wal_archive_directory"])]
    pub(crate) memory: bool,

    #[command(flatten)]
    pub(crate) places: Places,

    #[command(flatten)]
    pub(crate) common: Common,

    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// A line of the shell.
#[derive(Debug, Parser)]
#[command(name = "esker", no_binary_name = true, disable_version_flag = true)]
pub(crate) struct Line {
    #[command(flatten)]
    pub(crate) common: Common,

    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where a database keeps what may be outside of its directory; to be named at every opening.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Places {
    /// Where the backups are, if not in the database's directory
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) backup_directory: Option<PathBuf>,

    /// Where the archive of the log is, if not in the database's directory; turns it on
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) wal_archive_directory: Option<PathBuf>,
}

impl Places {
    /// Fails if a place is named beside no database that is opened: it would be ignored.
    pub(crate) fn refuse_without(&self, what_to_do: &str) -> Result<()> {
        if self.backup_directory.is_none() && self.wal_archive_directory.is_none() {
            return Ok(());
        }
        let sentence = format!(
            "--backup-directory and --wal-archive-directory are for a database that is opened: \
             {what_to_do}"
        );
        Err(Failure::Usage(sentence))
    }
}

/// Options that every verb has.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Common {
    /// One JSON object on a line for each command, instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Does not ask before something is destroyed
    #[arg(long, short = 'y', global = true)]
    pub(crate) yes: bool,

    /// The keyspace whose records are meant; "default" where none is named
    #[arg(long, short = 'k', value_name = "NAME", global = true)]
    pub(crate) keyspace: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_description_is_consistent() {
        Arguments::command().debug_assert();
        Line::command().debug_assert();
    }

    #[test]
    fn the_directory_may_be_named_before_and_after_the_verb() {
        for line in [
            ["esker", "--db", "d", "get", "-5"],
            ["esker", "get", "-5", "--db", "d"],
        ] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert_eq!(arguments.db, Some(PathBuf::from("d")));
            assert!(matches!(arguments.verb, Verb::Get(get) if get.key.key == "-5"));
        }
    }

    #[test]
    fn a_line_of_the_shell_is_a_verb_and_its_options() {
        let line = Line::try_parse_from(["get", "k", "--json", "-k", "users"]).unwrap();
        assert!(line.common.json && line.common.keyspace.as_deref() == Some("users"));
        assert!(matches!(line.verb, Verb::Get(get) if get.key.key == "k"));
        assert!(Line::try_parse_from(["get", "k", "--db", "d"]).is_err());
    }
}
