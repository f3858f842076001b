//! A session: the database that commands work on, the keyspace they mean, the transaction they are in.
//!
//! Invariant: one command runs at a time and leaves the session usable, whatever came of it; an open
//! transaction is rolled back, with a word, when its database is left. The shell runs many commands
//! in one session; a single command is a session of its own. The verbs are in the files below.

mod backups;
mod care;
mod changes;
mod config;
mod connection;
mod exchange;
mod records;
mod repair;
mod transaction;
mod walk;

use std::path::PathBuf;

use esker::{Db, Keyspace};

use crate::args::Common;
use crate::confirm::{self, Ask};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::reply::{Reply, Style};
use crate::verbs::Verb;

pub(crate) use connection::{Connection, Pending};
pub(crate) use transaction::OpenTransaction;

/// The keyspace that every database has.
pub(crate) const DEFAULT_KEYSPACE: &str = "default";

/// The state that commands share.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) connection: Option<Connection>,
    /// What is to be connected when it is first needed: a command that is wrong opens nothing.
    pub(crate) pending: Option<Pending>,
    pub(crate) transaction: Option<OpenTransaction>,
    /// How answers are printed, where the command itself does not say.
    pub(crate) style: Style,
    /// How the command that runs, or ran last, is answered, its failure included.
    pub(crate) answering: Style,
    pub(crate) yes: bool,
    pub(crate) interrupt: Interrupt,
}

/// A command as the verbs see it: its options settled, and whom to ask.
pub(crate) struct Context<'a> {
    pub(crate) style: Style,
    yes: bool,
    keyspace: Option<String>,
    ask: &'a mut dyn Ask,
}

impl Context<'_> {
    /// Whether a question would be put, and so has to know what it is about.
    pub(crate) fn asks(&self) -> bool {
        !self.yes
    }

    /// Returns only if `loss`, a sentence, was agreed to.
    pub(crate) fn confirm(&mut self, loss: &str) -> Result<()> {
        confirm::confirm(self.ask, self.yes, loss)
    }
}

impl Session {
    /// Runs one command and prints its answer, but not its failure. After an `exit` that succeeded
    /// the session is to end.
    pub(crate) fn run(&mut self, common: &Common, verb: &Verb, ask: &mut dyn Ask) -> Result<()> {
        self.interrupt.forget();
        let mut context = Context {
            style: Style {
                json: self.style.json || common.json,
                ..self.style
            },
            yes: self.yes || common.yes,
            keyspace: common.keyspace.clone(),
            ask,
        };
        if matches!(verb, Verb::Exit) {
            self.leave_transaction(&mut context, "exit")?;
            return Reply::done("").print(context.style);
        }
        self.answer(verb, &mut context)?.print(context.style)
    }

    fn answer(&mut self, verb: &Verb, context: &mut Context<'_>) -> Result<Reply> {
        match verb {
            Verb::Get(verb) => self.get(verb, context),
            Verb::Set(verb) => self.set(verb, context),
            Verb::Delete(verb) => self.delete(verb, context),
            Verb::Exists(verb) => self.exists(verb, context),
            Verb::Keys(verb) => self.keys(verb, context),
            Verb::Scan(verb) => self.scan(verb, context),
            Verb::Size => self.size(context),
            Verb::Count => self.count(context),
            Verb::Ttl(verb) => self.ttl(verb, context),
            Verb::SetTtl(verb) => self.set_ttl(verb, context),
            Verb::Persist(verb) => self.persist(verb, context),
            Verb::Clear => self.clear(context),
            Verb::Connect(verb) => self.connect(verb, context),
            Verb::ConnectMemory => self.connect_memory(context),
            Verb::Disconnect => self.disconnect(context),
            Verb::Keyspaces => self.keyspaces(context),
            Verb::Use(verb) => self.use_keyspace(verb),
            Verb::Begin(verb) => self.begin(verb),
            Verb::Commit => self.commit(),
            Verb::Rollback => self.rollback(),
            Verb::Backup(verb) => self.backup(verb),
            Verb::RecoveryPoint(verb) => self.recovery_point(verb),
            Verb::Backups => self.backups(),
            Verb::BackupInfo(verb) => self.backup_info(verb),
            Verb::BackupVerify(verb) => self.backup_verify(verb),
            Verb::BackupRestore(verb) => self.backup_restore(verb, context),
            Verb::BackupDelete(verb) => self.backup_delete(verb, context),
            Verb::Changes(verb) => self.changes(verb, context),
            Verb::CursorCreate(verb) => self.cursor_create(verb),
            Verb::Cursors => self.cursors(),
            Verb::CursorAcknowledge(verb) => self.cursor_acknowledge(verb),
            Verb::CursorDelete(verb) => self.cursor_delete(verb, context),
            Verb::Status => self.status(),
            Verb::Stats => self.stats(),
            Verb::Config(verb) => self.config(verb, context),
            Verb::RecoveryState => self.recovery_state(),
            Verb::DiskUsage => self.disk_usage(),
            Verb::Validate => self.validate(),
            Verb::Repair => self.repair(context),
            Verb::Compact => self.compact(),
            Verb::WalStatus => self.wal_status(),
            Verb::WalRotate => self.wal_rotate(),
            Verb::WalClear => self.wal_clear(),
            Verb::Import(verb) => self.import(verb, context),
            Verb::Export(verb) => self.export(verb, context),
            Verb::DumpWal(verb) => self.dump(verb, context, esker::inspect::dump_wal),
            Verb::DumpTable(verb) => self.dump(verb, context, esker::inspect::dump_table),
            Verb::DumpManifest(verb) => self.dump(verb, context, esker::inspect::dump_manifest),
            Verb::Version => Ok(version()),
            Verb::Shell(_) => Err(Failure::Usage("this is the shell already".into())),
            // Handled before, since it has no answer.
            Verb::Exit => Ok(Reply::done("")),
        }
    }

    /// The database that is connected: a handle, cheap to have.
    pub(crate) fn db(&mut self) -> Result<Db> {
        Ok(self.connected()?.db.clone())
    }

    /// The connection; made now where it was put off.
    pub(crate) fn connected(&mut self) -> Result<&Connection> {
        if let Some(pending) = self.pending.take() {
            self.connection = Some(pending.open()?);
        }
        let sentence = if self.style.session {
            "no database is connected; connect DIR opens one, connect-memory makes one"
        } else {
            "which database? Give its directory with --db DIR"
        };
        self.connection
            .as_ref()
            .ok_or_else(|| Failure::Usage(sentence.into()))
    }

    /// The directory of the database that is connected, if it has one.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        if let Some(Pending::Directory { directory, .. }) = &self.pending {
            return Some(directory.clone());
        }
        let connection = self.connection.as_ref()?;
        (!connection.is_memory).then(|| connection.db.directory().to_path_buf())
    }

    /// Leaves everything: rolls an open transaction back and closes the database.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.abandon_transaction();
        self.replace_connection(None)
    }

    /// The name of the keyspace that a command means.
    fn keyspace_name(&mut self, context: &Context<'_>) -> Result<String> {
        let connection = self.connected()?;
        let named = context.keyspace.as_ref();
        Ok(named.unwrap_or(&connection.keyspace).clone())
    }

    /// The keyspace that a command means; it must exist.
    pub(crate) fn keyspace(&mut self, context: &Context<'_>) -> Result<Keyspace> {
        let name = self.keyspace_name(context)?;
        let db = self.db()?;
        let names = db.keyspace_names()?;
        if !names.contains(&name) {
            return Err(Failure::Missing(format!(
                "there is no keyspace {name:?}; there are: {}",
                names.join(", ")
            )));
        }
        Ok(db.keyspace(&name)?)
    }

    /// The keyspace that a command means; it is created where there is none.
    pub(crate) fn keyspace_for_writing(&mut self, context: &Context<'_>) -> Result<Keyspace> {
        let name = self.keyspace_name(context)?;
        Ok(self.db()?.keyspace(&name)?)
    }
}

fn version() -> Reply {
    let version = env!("CARGO_PKG_VERSION");
    Reply::text(format!("esker {version}\n")).field("version", version)
}
