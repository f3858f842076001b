//! The verbs: the one registry from which the command line, the shell, their help and the shell's
//! completion are made.
//!
//! Invariant: every verb of this file works in the shell and as one command, or says why it cannot;
//! what a verb needs of a database stands in [`Verb::needs`] alone. Keys and values are taken as
//! they come, UTF-8 or not.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::Places;
use crate::formats::Format;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print the value of a key
    Get(Get),
    /// Set a key to a value; creates the database if there is none
    #[command(visible_alias = "put")]
    Set(Set),
    /// Remove a key, or all keys of a range; removing one that is not there is no error
    Delete(Delete),
    /// Say whether there is a key; as one command, exit code 1 says no
    Exists(KeyArgument),
    /// Print keys in their order
    Keys(Keys),
    /// Print records in key order, as escaped tsv
    Scan(Scan),
    /// Print the number of keys and what they and their values take
    Size,
    /// Print the number of keys
    Count,
    /// Print how long a key has to live
    Ttl(KeyArgument),
    /// Give a key a time to live
    SetTtl(SetTtl),
    /// Take a key's time to live away, so that it stays
    Persist(KeyArgument),
    /// Remove all keys of the keyspace
    Clear,

    /// Open a database, creating it if there is none
    Connect(Connect),
    /// Open a new database in memory
    ConnectMemory,
    /// Close the database
    Disconnect,
    /// List the keyspaces
    Keyspaces,
    /// Go to another keyspace; the first key that is set in a new one creates it
    Use(Use),
    /// Begin a transaction: what follows is seen by nobody else until commit
    Begin(Begin),
    /// Make what the transaction wrote durable and visible, all or nothing
    Commit,
    /// Forget what the transaction wrote
    Rollback,

    /// Make a backup
    Backup(Described),
    /// Make a recovery point: a moment to go back to that costs next to nothing to make
    RecoveryPoint(Described),
    /// List the backups and recovery points
    Backups,
    /// Print what is known of a backup or recovery point
    BackupInfo(Named),
    /// Read every byte of a backup or recovery point and compare it with its checksums
    BackupVerify(Named),
    /// Replace everything in the database by a backup or recovery point, or put it elsewhere
    BackupRestore(Restore),
    /// Remove a backup or recovery point
    BackupDelete(Named),

    /// Print the committed changes in order, as the log has them
    Changes(Changes),
    /// Make a named cursor, for which the log of changes is kept until it has acknowledged them
    CursorCreate(CursorCreate),
    /// List the change cursors and what they keep
    Cursors,
    /// Acknowledge the changes up to a sequence number for a cursor
    CursorAcknowledge(CursorAcknowledge),
    /// Remove a change cursor; what it alone kept of the log goes
    CursorDelete(CursorName),

    /// Print what the database is doing
    Status,
    /// Print what the database is made of
    Stats,
    /// Print the options in force, or one of them, or set it while the database is open
    Config(Config),
    /// Print what the last open found and did
    RecoveryState,
    /// Print what the database takes on disk, and for what
    DiskUsage,
    /// Check every byte of the database; exit code 0 only if all is well
    #[command(visible_alias = "verify")]
    Validate,
    /// Make a damaged database one that opens, from what is left of it, and print what was lost
    Repair,
    /// Merge all tables, leaving no overwritten, deleted or expired data behind
    Compact,
    /// Print the size and the limit of the write-ahead log
    WalStatus,
    /// Go on in a new segment of the write-ahead log
    WalRotate,
    /// Bring everything into tables and empty the write-ahead log; loses nothing
    WalClear,

    /// Read records from a file or pipe, one a line; creates the database if there is none
    Import(Import),
    /// Write every record to a file or pipe, one a line, in key order
    Export(Export),
    /// Print the records of a write-ahead log segment
    DumpWal(Dump),
    /// Print the properties and entries of a table
    DumpTable(Dump),
    /// Print the edits of a manifest
    DumpManifest(Dump),

    /// Take commands from a terminal or a pipe, one a line
    Shell(Shell),
    /// Print the version
    Version,
    /// Leave the shell
    #[command(visible_alias = "quit")]
    Exit,
}

/// The groups in which the shell's `help` lists the verbs.
pub(crate) const GROUPS: [(&str, &[&str]); 7] = [
    (
        "Records",
        &[
            "get", "set", "delete", "exists", "keys", "scan", "size", "count", "ttl", "set-ttl",
            "persist", "clear",
        ],
    ),
    (
        "Session",
        &[
            "connect",
            "connect-memory",
            "disconnect",
            "keyspaces",
            "use",
            "begin",
            "commit",
            "rollback",
            "version",
            "help",
            "exit",
        ],
    ),
    (
        "Backups",
        &[
            "backup",
            "recovery-point",
            "backups",
            "backup-info",
            "backup-verify",
            "backup-restore",
            "backup-delete",
        ],
    ),
    (
        "Changes",
        &[
            "changes",
            "cursors",
            "cursor-create",
            "cursor-acknowledge",
            "cursor-delete",
        ],
    ),
    (
        "Care",
        &[
            "status",
            "stats",
            "config",
            "recovery-state",
            "disk-usage",
            "validate",
            "compact",
            "wal-status",
            "wal-rotate",
            "wal-clear",
            "repair",
        ],
    ),
    (
        "Files",
        &[
            "import",
            "export",
            "dump-wal",
            "dump-table",
            "dump-manifest",
        ],
    ),
    ("Start", &["shell"]),
];

/// What a verb needs of a database when it is a command of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// None.
    Nothing,
    /// One that exists, without a byte of it being written.
    ToRead,
    /// One that exists, to change it.
    ToWrite,
    /// One to change; it is created where there is none.
    ToCreate,
    /// A session with more than one command.
    Session,
}

impl Verb {
    /// What the verb needs when it is a command of its own.
    pub(crate) fn needs(&self) -> Needs {
        match self {
            Self::Set(_) | Self::Import(_) => Needs::ToCreate,
            Self::Get(_)
            | Self::Exists(_)
            | Self::Keys(_)
            | Self::Scan(_)
            | Self::Size
            | Self::Count
            | Self::Ttl(_)
            | Self::Keyspaces
            | Self::Changes(_)
            | Self::Cursors
            | Self::Backups
            | Self::BackupInfo(_)
            | Self::BackupVerify(_)
            | Self::Status
            | Self::Stats
            | Self::Config(Config { value: None, .. })
            | Self::RecoveryState
            | Self::DiskUsage
            | Self::Validate
            | Self::Export(_) => Needs::ToRead,
            Self::WalStatus
            | Self::Config(Config { value: Some(_), .. })
            | Self::Delete(_)
            | Self::SetTtl(_)
            | Self::Persist(_)
            | Self::Clear
            | Self::Backup(_)
            | Self::RecoveryPoint(_)
            | Self::BackupRestore(_)
            | Self::BackupDelete(_)
            | Self::CursorCreate(_)
            | Self::CursorAcknowledge(_)
            | Self::CursorDelete(_)
            | Self::Compact
            | Self::WalRotate
            | Self::WalClear => Needs::ToWrite,
            Self::Connect(_)
            | Self::ConnectMemory
            | Self::Disconnect
            | Self::Use(_)
            | Self::Begin(_)
            | Self::Commit
            | Self::Rollback
            | Self::Exit => Needs::Session,
            Self::DumpWal(_)
            | Self::DumpTable(_)
            | Self::DumpManifest(_)
            | Self::Shell(_)
            | Self::Repair
            | Self::Version => Needs::Nothing,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Line;
    use clap::CommandFactory as _;

    #[test]
    fn every_verb_is_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, verbs)| *verbs)
            .copied()
            .collect();
        grouped.sort_unstable();
        let command = Line::command();
        let mut known: Vec<&str> = command.get_subcommands().map(|c| c.get_name()).collect();
        known.push("help");
        known.sort_unstable();
        assert_eq!(grouped, known);
    }
}
