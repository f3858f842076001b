//! What the verbs take: their arguments and options, a struct each.
//!
//! Invariant: keys, values and paths are taken as they come, UTF-8 or not. `verbs` says which verb takes what, and the
//! sessions carry them out.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::args::Places;
use crate::formats::Format;

/// A key as it is given.
#[derive(Args, Debug)]
pub(crate) struct KeyArgument {
    /// The key
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    pub(crate) key: OsString,
    /// KEY is written in hexadecimal digits
    #[arg(long)]
    pub(crate) hex: bool,
}

/// `get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) key: KeyArgument,
    /// Print the bytes of the value alone, without a newline after them
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

/// `set`, which is also called `put`.
#[derive(Args, Debug)]
pub(crate) struct Set {
    #[command(flatten)]
    pub(crate) key: KeyArgument,
    /// The value
    #[arg(allow_negative_numbers = true, required_unless_present = "stdin")]
    pub(crate) value: Option<OsString>,
    /// Take all of standard input for the value
    #[arg(long, conflicts_with = "value")]
    pub(crate) stdin: bool,
    /// How long the key lives: 90s, 15m, 1h30m, 7d; for ever where this is not given
    #[arg(long, value_name = "DURATION")]
    pub(crate) ttl: Option<String>,
}

/// `delete`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["key", "prefix", "from", "to"]))]
pub(crate) struct Delete {
    /// The key
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    #[arg(conflicts_with_all = ["prefix", "from", "to"])]
    pub(crate) key: Option<OsString>,
    #[command(flatten)]
    pub(crate) range: RangeArguments,
}

/// The keys that are meant: all that every option agrees on.
#[derive(Args, Debug, Default)]
pub(crate) struct RangeArguments {
    /// Only keys that begin with this
    #[arg(long, value_name = "KEY")]
    pub(crate) prefix: Option<OsString>,
    /// Only keys from this one on
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<OsString>,
    /// The given keys are written in hexadecimal digits
    #[arg(long)]
    pub(crate) hex: bool,
}

/// How many of a range, and from where.
#[derive(Args, Debug, Default)]
pub(crate) struct Walk {
    #[command(flatten)]
    pub(crate) range: RangeArguments,
    /// At most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// From the last key to the first
    #[arg(long)]
    pub(crate) reverse: bool,
}

/// `keys`.
#[derive(Args, Debug)]
pub(crate) struct Keys {
    /// Only keys that begin with this
    #[arg(
        value_name = "PREFIX",
        allow_negative_numbers = true,
        conflicts_with = "prefix"
    )]
    pub(crate) beginning: Option<OsString>,
    /// At most this many
    #[arg(value_name = "LIMIT", conflicts_with = "limit")]
    pub(crate) most: Option<u64>,
    #[command(flatten)]
    pub(crate) walk: Walk,
}

/// `scan`.
#[derive(Args, Debug)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) walk: Walk,
}

/// `set-ttl`.
#[derive(Args, Debug)]
pub(crate) struct SetTtl {
    #[command(flatten)]
    pub(crate) key: KeyArgument,
    /// How long the key lives from now on: 90s, 15m, 1h30m, 7d
    #[arg(value_name = "DURATION")]
    pub(crate) ttl: String,
}

/// `config`.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// The option
    #[arg(value_name = "OPTION")]
    pub(crate) name: Option<String>,
    /// What to set it to: a number of bytes or milliseconds, a word, or none
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) value: Option<String>,
}

/// `connect`.
#[derive(Args, Debug)]
pub(crate) struct Connect {
    /// The directory of the database
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Change nothing: writes are refused
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Refuse a directory that holds no database, instead of creating one
    #[arg(long)]
    pub(crate) existing: bool,
    #[command(flatten)]
    pub(crate) places: Places,
}

/// `use`.
#[derive(Args, Debug)]
pub(crate) struct Use {
    /// The keyspace
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `begin`.
#[derive(Args, Debug)]
pub(crate) struct Begin {
    /// Only writes to the same keys conflict; what was only read may change meanwhile
    #[arg(long)]
    pub(crate) snapshot: bool,
}

/// `backup` and `recovery-point`.
#[derive(Args, Debug)]
pub(crate) struct Described {
    /// What it is for
    #[arg(value_name = "DESCRIPTION")]
    pub(crate) description: Vec<String>,
}

/// A verb on one backup or recovery point.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// Its name, as `backups` prints it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `changes`.
#[derive(Args, Debug)]
pub(crate) struct Changes {
    /// From the batch with this sequence number on; by default from the oldest that is left
    #[arg(long, value_name = "N", conflicts_with = "cursor")]
    pub(crate) from: Option<u64>,
    /// What this cursor has not acknowledged yet; acknowledges nothing
    #[arg(long, value_name = "NAME")]
    pub(crate) cursor: Option<String>,
    /// At most this many batches
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Wait for more, until Ctrl-C or the limit; of use in a shell, whose program alone has the database open
    #[arg(long)]
    pub(crate) follow: bool,
}

/// `cursor-create`.
#[derive(Args, Debug)]
pub(crate) struct CursorCreate {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What it is to read begins with this sequence number; by default with the next write
    #[arg(long, value_name = "N")]
    pub(crate) from: Option<u64>,
}

/// A verb on one change cursor.
#[derive(Args, Debug)]
pub(crate) struct CursorName {
    /// Its name, as `cursors` prints it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `cursor-acknowledge`.
#[derive(Args, Debug)]
pub(crate) struct CursorAcknowledge {
    /// Its name, as `cursors` prints it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The last sequence number that need not come again
    #[arg(value_name = "N")]
    pub(crate) sequence: u64,
}

/// `backup-restore`.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// Its name, as `backups` prints it
    #[arg(value_name = "NAME", required_unless_present_any = ["sequence", "time", "latest"])]
    pub(crate) name: Option<String>,
    /// What was there after this sequence number, by the archive of the log
    #[arg(long, value_name = "N", conflicts_with = "name")]
    pub(crate) sequence: Option<u64>,
    /// What was there at this time, milliseconds since 1970, by the archive of the log
    #[arg(long, value_name = "MILLIS", conflicts_with_all = ["name", "sequence"])]
    pub(crate) time: Option<u64>,
    /// What is at the end of the log
    #[arg(long, conflicts_with_all = ["name", "sequence", "time"])]
    pub(crate) latest: bool,
    /// Make a database of it in DIR, and leave this one as it is
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
}

/// `import`.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// How a record is written on its line
    #[arg(long, value_enum, default_value = "raw-tsv")]
    pub(crate) format: Format,
    /// Where the records come from; - is standard input
    pub(crate) file: PathBuf,
}

/// `export`.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// How a record is written on its line
    #[arg(long, value_enum, default_value = "raw-tsv")]
    pub(crate) format: Format,
    /// Where the records go; - is standard output
    pub(crate) file: PathBuf,
}

/// `dump-wal`, `dump-table` and `dump-manifest`.
#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// The file; a bare name is looked for in the directory that --db gives
    pub(crate) file: PathBuf,
}

/// `shell`.
#[derive(Args, Debug)]
pub(crate) struct Shell {
    /// The directory of the database, as --db gives it; created if there is none
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Goes on after a line that failed; the exit code tells that one did
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Remembers nothing that is typed
    #[arg(long)]
    pub(crate) no_history: bool,
    /// Opens the database for reading only
    #[arg(long)]
    pub(crate) read_only: bool,
}
