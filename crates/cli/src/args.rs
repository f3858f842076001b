//! The command line: its verbs and their options.
//!
//! Invariant: pure description; nothing is opened or printed here. Keys and values are taken as the
//! operating system hands them over, UTF-8 or not.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::failure::EXIT_CODES;
use crate::formats::Format;

/// Looks into and works on an esker database: an embedded, ordered, persistent key-value store.
#[derive(Debug, Parser)]
#[command(name = "esker", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The directory of the database; needed by every verb but the dumps
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) db: Option<PathBuf>,

    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print the value of a key
    Get(Get),
    /// Set a key to a value; creates the database if there is none
    Put(Put),
    /// Remove a key; removing one that is not there is no error
    Delete(Delete),
    /// Print records in key order, as escaped tsv
    Scan(Scan),
    /// Print the number of keys
    Count,
    /// Read records from a file or pipe, one a line; creates the database if there is none
    Import(Import),
    /// Write every record to a file or pipe, one a line, in key order
    Export(Export),
    /// Print what the database is made of
    Stats(Stats),
    /// Check every byte of the database; exit code 0 only if all is well
    Verify,
    /// Merge all tables, leaving no overwritten, deleted or expired data behind
    Compact,
    /// Print the records of a write-ahead log segment
    DumpWal(Dump),
    /// Print the properties and entries of a table
    DumpTable(Dump),
    /// Print the edits of a manifest
    DumpManifest(Dump),
}

/// A key as it is given on the command line.
#[derive(Args, Debug)]
pub(crate) struct KeyArgument {
    /// The key
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    pub(crate) key: OsString,
    /// KEY is written in hexadecimal digits
    #[arg(long)]
    pub(crate) hex: bool,
}

/// `esker get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) key: KeyArgument,
    /// Print the bytes of the value alone, without a newline after them
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `esker put`.
#[derive(Args, Debug)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) key: KeyArgument,
    /// The value
    #[arg(allow_negative_numbers = true, required_unless_present = "stdin")]
    pub(crate) value: Option<OsString>,
    /// Take all of standard input for the value
    #[arg(long, conflicts_with = "value")]
    pub(crate) stdin: bool,
}

/// `esker delete`.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) key: KeyArgument,
}

/// `esker scan`.
#[derive(Args, Debug)]
pub(crate) struct Scan {
    /// Only keys that begin with this
    #[arg(long, value_name = "KEY")]
    pub(crate) prefix: Option<OsString>,
    /// Only keys from this one on
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<OsString>,
    /// At most this many records
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// From the last key to the first
    #[arg(long)]
    pub(crate) reverse: bool,
    /// The given keys are written in hexadecimal digits
    #[arg(long)]
    pub(crate) hex: bool,
}

/// `esker import`.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// How a record is written on its line
    #[arg(long, value_enum, default_value = "raw-tsv")]
    pub(crate) format: Format,
    /// Where the records come from; - is standard input
    pub(crate) file: PathBuf,
}

/// `esker export`.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// How a record is written on its line
    #[arg(long, value_enum, default_value = "raw-tsv")]
    pub(crate) format: Format,
    /// Where the records go; - is standard output
    pub(crate) file: PathBuf,
}

/// `esker stats`.
#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// One JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `esker dump-wal`, `dump-table` and `dump-manifest`.
#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// The file; a bare name is looked for in the directory that --db gives
    pub(crate) file: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_description_is_consistent() {
        Arguments::command().debug_assert();
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
}
