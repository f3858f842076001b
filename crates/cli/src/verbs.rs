//! The verbs: the one registry from which the command line, the shell, their help and the shell's
//! completion are made.
//!
//! Invariant: every verb of this file works in the shell and as one command, or says why it cannot;
//! what a verb needs of a database stands in [`Verb::needs`] alone. Keys and values are taken as
//! they come, UTF-8 or not.

use clap::Subcommand;

use crate::verb_arguments::{
    Begin, Changes, Config, Connect, CursorAcknowledge, CursorCreate, CursorName, Delete,
    Described, Dump, Export, Get, Import, KeyArgument, Keys, Named, Restore, Scan, Set, SetTtl,
    Shell, Use,
};

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
