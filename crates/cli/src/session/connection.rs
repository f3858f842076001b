//! `connect`, `connect-memory`, `disconnect`, `keyspaces`, `use`: which database and which keyspace.
//!
//! Invariant: a session is connected to one database at most; another is opened before the old one
//! is closed, so that a mistyped directory costs nothing.

use std::path::{Path, PathBuf};

use esker::{Db, Options};
use serde_json::Value;

use super::{Context, DEFAULT_KEYSPACE, Session};
use crate::args::Places;
use crate::failure::{Failure, Result};
use crate::open;
use crate::reply::Reply;
use crate::verb_arguments::{Connect, Use};
use crate::verbs::Needs;

/// A database that is open.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) db: Db,
    /// What the prompt calls it.
    pub(crate) name: String,
    /// The keyspace of commands that name none.
    pub(crate) keyspace: String,
    pub(crate) is_memory: bool,
    pub(crate) is_read_only: bool,
}

/// A connection that is to be made.
#[derive(Debug)]
pub(crate) enum Pending {
    /// To the database in a directory, for what a verb needs of it.
    Directory {
        directory: PathBuf,
        needs: Needs,
        places: Places,
    },
    /// To a new database in memory.
    Memory,
}

impl Pending {
    pub(super) fn open(self) -> Result<Connection> {
        let (directory, needs, places) = match self {
            Self::Memory => return Connection::in_memory(),
            Self::Directory {
                directory,
                needs,
                places,
            } => (directory, needs, places),
        };
        let db = match needs {
            Needs::ToCreate => open::or_create(&directory, &places)?,
            Needs::ToWrite => open::for_writing(&directory, &places)?,
            _ => open::for_reading(&directory, &places)?,
        };
        let is_read_only = !matches!(needs, Needs::ToCreate | Needs::ToWrite);
        Ok(Connection::on_disk(db, &directory, is_read_only))
    }
}

impl Connection {
    /// `db` of `directory`.
    pub(crate) fn on_disk(db: Db, directory: &Path, is_read_only: bool) -> Self {
        // The last part of the path, also where it is written as `.` or with a slash at its end.
        let whole = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
        let name = whole.file_name().unwrap_or(whole.as_os_str());
        Self {
            db,
            name: name.to_string_lossy().into_owned(),
            keyspace: DEFAULT_KEYSPACE.to_owned(),
            is_memory: false,
            is_read_only,
        }
    }

    /// A new database in memory.
    pub(crate) fn in_memory() -> Result<Self> {
        Ok(Self {
            db: Options::new().open_in_memory().map_err(Failure::opening)?,
            name: "(memory)".to_owned(),
            keyspace: DEFAULT_KEYSPACE.to_owned(),
            is_memory: true,
            is_read_only: false,
        })
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        if self.is_memory {
            "memory".to_owned()
        } else {
            self.db.directory().display().to_string()
        }
    }
}

impl Session {
    pub(super) fn connect(&mut self, verb: &Connect, context: &mut Context<'_>) -> Result<Reply> {
        self.leave_transaction(context, "connect")?;
        let directory = &verb.directory;
        self.refuse_twice(directory)?;
        let db = match (verb.read_only, verb.existing) {
            (true, _) => open::for_reading(directory, &verb.places)?,
            (false, true) => open::for_writing(directory, &verb.places)?,
            (false, false) => open::or_create(directory, &verb.places)?,
        };
        let created = db.recovery_state().created();
        let connection = Connection::on_disk(db, directory, verb.read_only);
        let place = connection.place();
        self.replace_connection(Some(connection))?;
        let note = if created {
            format!("connected to {place}, a new database")
        } else {
            format!("connected to {place}")
        };
        Ok(Reply::done(note)
            .field("directory", place)
            .field("created", created)
            .field("read_only", verb.read_only))
    }

    /// Opening a database that this very session has open would find it locked.
    fn refuse_twice(&self, directory: &Path) -> Result<()> {
        let is_open = self.directory().is_some_and(|open| {
            let same = |path: &Path| std::fs::canonicalize(path).ok();
            open == *directory || (same(&open).is_some() && same(&open) == same(directory))
        });
        if is_open {
            let shown = directory.display();
            let sentence =
                format!("{shown} is connected already; disconnect first to open it anew");
            return Err(Failure::Usage(sentence));
        }
        Ok(())
    }

    pub(super) fn connect_memory(&mut self, context: &mut Context<'_>) -> Result<Reply> {
        self.leave_transaction(context, "connect-memory")?;
        self.replace_connection(Some(Connection::in_memory()?))?;
        let note = "connected to a new database in memory; it goes when it is left";
        Ok(Reply::done(note).field("memory", true))
    }

    pub(super) fn disconnect(&mut self, context: &mut Context<'_>) -> Result<Reply> {
        self.connected()?;
        self.leave_transaction(context, "disconnect")?;
        self.replace_connection(None)?;
        Ok(Reply::done("disconnected"))
    }

    /// Closes the database that is connected, and connects another.
    pub(crate) fn replace_connection(&mut self, connection: Option<Connection>) -> Result<()> {
        let old = std::mem::replace(&mut self.connection, connection);
        old.map_or(Ok(()), |old| Ok(old.db.close()?))
    }

    pub(super) fn keyspaces(&mut self, context: &Context<'_>) -> Result<Reply> {
        let current = self.connected()?.keyspace.clone();
        let names = self.db()?.keyspace_names()?;
        let mut text = String::new();
        for name in &names {
            let is_marked = context.style.terminal && context.style.session;
            let mark = if !is_marked {
                ""
            } else if *name == current {
                "* "
            } else {
                "  "
            };
            text += &format!("{mark}{name}\n");
        }
        let names: Vec<Value> = names.into_iter().map(Value::from).collect();
        Ok(Reply::text(text)
            .field("keyspaces", names)
            .field("current", current))
    }

    pub(super) fn use_keyspace(&mut self, verb: &Use) -> Result<Reply> {
        let names = self.db()?.keyspace_names()?;
        let name = verb.name.clone();
        if name.is_empty() || name.len() > 255 {
            return Err(Failure::Usage(
                "a keyspace's name has 1 to 255 bytes".into(),
            ));
        }
        let exists = names.contains(&name);
        if !exists && self.connected()?.is_read_only {
            let sentence = format!(
                "there is no keyspace {name:?}, and a database that is open for reading only gets no new one"
            );
            return Err(Failure::Missing(sentence));
        }
        let note = if exists {
            format!("using keyspace {name:?}")
        } else {
            format!("using keyspace {name:?}, which the first key that is set in it will create")
        };
        if let Some(connection) = &mut self.connection {
            connection.keyspace.clone_from(&name);
        }
        Ok(Reply::done(note)
            .field("keyspace", name)
            .field("exists", exists))
    }
}
