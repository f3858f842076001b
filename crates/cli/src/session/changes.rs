//! The feed of changes and its cursors: `changes`, `cursors`, `cursor-create`, `cursor-acknowledge`,
//! `cursor-delete`.
//!
//! Invariant: batches stream by, one in memory at a time. What is missing is an error, but for the log
//! that is gone before its first batch where nobody has asked for a place to begin: that is said on
//! standard error. Printing acknowledges nothing.

use std::time::Duration;

use esker::{Change, ChangeBatch, ErrorKind, KeyspaceChange, Operation};
use serde_json::{Value, json};

use super::{Context, Session};
use crate::display::{self, size};
use crate::failure::{Failure, Result};
use crate::reply::{Reply, bytes_as_json};
use crate::streams::Output;
use crate::verb_arguments::{Changes, CursorAcknowledge, CursorCreate, CursorName};

/// How often somebody who follows looks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A longer key or value is cut where a person looks at it, columns.
const SHOWN_COLUMNS: usize = 60;

/// How batches are printed.
struct Printer {
    is_json: bool,
    columns: usize,
    count: u64,
}

impl Session {
    pub(super) fn changes(&mut self, verb: &Changes, context: &Context<'_>) -> Result<Reply> {
        let db = self.db()?;
        let mut changes = match &verb.cursor {
            Some(name) => db.change_cursor(name)?.changes()?,
            None => db.changes(verb.from.unwrap_or(1))?,
        };
        // Nobody writes to what is open for reading.
        let follows = verb.follow && !self.connected()?.is_read_only;
        let style = context.style;
        let mut printer = Printer {
            is_json: style.json,
            columns: match style.terminal {
                true => SHOWN_COLUMNS,
                false => usize::MAX / 8,
            },
            count: 0,
        };
        let mut begins_anywhere = verb.from.is_none() && verb.cursor.is_none();
        let limit = verb.limit.unwrap_or(u64::MAX);
        let mut output = Output::standard();
        if style.json {
            output.write(b"{\"ok\":true,\"batches\":[")?;
        }
        let ended = loop {
            if printer.count == limit {
                break Ok(());
            }
            match changes.next() {
                Some(Ok(batch)) => printer.batch(&batch, &mut output)?,
                Some(Err(error)) if error.kind() == ErrorKind::Gap && begins_anywhere => {
                    begins_anywhere = false;
                    eprintln!("esker: {error}");
                    changes.pass_gap();
                }
                Some(Err(error)) => break Err(Failure::from(error)),
                None if follows => {
                    output.flush()?;
                    if let Err(error) = changes.wait(LOOK_EVERY) {
                        break Err(Failure::from(error));
                    }
                }
                None => break Ok(()),
            }
            if self.interrupt.is_pressed() {
                // Whoever follows ends so.
                break if follows {
                    Ok(())
                } else {
                    Err(Failure::Interrupted)
                };
            }
        };
        if style.json {
            let mut end = format!("],\"next_sequence\":{}", changes.next_sequence());
            if let Err(failure) = &ended {
                end += &format!(",\"error\":{}", failure.as_json());
            }
            output.write((end + "}\n").as_bytes())?;
        }
        output.finish()?;
        match ended {
            // Its one object has said so already.
            Err(failure) if style.json => Err(Failure::Told(Box::new(failure))),
            Err(failure) => Err(failure),
            Ok(()) => Ok(Reply::printed()),
        }
    }

    pub(super) fn cursors(&mut self) -> Result<Reply> {
        let infos = self.db()?.change_cursors()?;
        let objects: Vec<Value> = infos
            .iter()
            .map(|info| {
                json!({
                    "name": info.name(),
                    "acknowledged": info.acknowledged(),
                    "pinned_bytes": info.pinned_bytes(),
                })
            })
            .collect();
        let text = match infos.is_empty() {
            true => "there are no change cursors\n".to_owned(),
            false => {
                let rows: Vec<Vec<String>> = infos
                    .iter()
                    .map(|info| {
                        vec![
                            display::key(info.name().as_bytes(), SHOWN_COLUMNS),
                            info.acknowledged().to_string(),
                            size(info.pinned_bytes()),
                        ]
                    })
                    .collect();
                display::table(&["name", "acknowledged", "keeps"], &rows)
            }
        };
        Ok(Reply::text(text).field("cursors", objects))
    }

    pub(super) fn cursor_create(&mut self, verb: &CursorCreate) -> Result<Reply> {
        let db = self.db()?;
        let cursor = match verb.from {
            Some(from) => db.create_change_cursor_from(&verb.name, from)?,
            None => db.create_change_cursor(&verb.name)?,
        };
        let acknowledged = cursor.acknowledged()?;
        let note = format!("the cursor begins behind {acknowledged}\n");
        Ok(Reply::done(note)
            .field("cursor", verb.name.as_str())
            .field("acknowledged", acknowledged))
    }

    pub(super) fn cursor_acknowledge(&mut self, verb: &CursorAcknowledge) -> Result<Reply> {
        let cursor = self.db()?.change_cursor(&verb.name)?;
        cursor.acknowledge(verb.sequence)?;
        Ok(Reply::done("acknowledged\n")
            .field("cursor", verb.name.as_str())
            .field("acknowledged", verb.sequence))
    }

    pub(super) fn cursor_delete(
        &mut self,
        verb: &CursorName,
        context: &mut Context<'_>,
    ) -> Result<Reply> {
        let db = self.db()?;
        let at = db.change_cursor(&verb.name)?.acknowledged()?;
        let last = db.snapshot().sequence();
        let (from, name) = (at + 1, &verb.name);
        context.confirm(&format!(
            "This deletes the change cursor {name:?} for good, and the log that it alone keeps of the \
             changes {from} to {last}."
        ))?;
        db.delete_change_cursor(name)?;
        Ok(Reply::text(format!("{name} deleted\n")).field("cursor", name.as_str()))
    }
}

impl Printer {
    fn batch(&mut self, batch: &ChangeBatch, output: &mut Output) -> Result<()> {
        let (first, last) = (batch.first_sequence(), batch.last_sequence());
        if self.is_json {
            let comma = if self.count == 0 { "" } else { "," };
            let changes: Vec<Value> = batch.changes().map(as_json).collect();
            let batch = json!({
                "first_sequence": first,
                "last_sequence": last,
                "committed_millis": batch.committed_millis(),
                "keyspaces": batch.keyspaces().iter().map(keyspace_as_json).collect::<Vec<_>>(),
                "changes": changes,
            });
            output.write(format!("{comma}{batch}").as_bytes())?;
        } else {
            output.write(format!("batch {first} to {last}\n").as_bytes())?;
            for change in batch.keyspaces() {
                output.write(keyspace_line(change).as_bytes())?;
            }
            for change in batch.changes() {
                output.write(self.line(change).as_bytes())?;
            }
        }
        self.count += 1;
        Ok(())
    }

    /// A change for people; keys and values as words that the shell reads back.
    fn line(&self, change: Change<'_>) -> String {
        let word = |bytes| display::key(bytes, self.columns);
        let keyspace = display::key(change.keyspace().as_bytes(), SHOWN_COLUMNS);
        let what = match change.operation() {
            Operation::Put { key, value } => format!("put {} {}", word(key), word(value)),
            Operation::PutExpiring {
                key,
                value,
                expires_at_millis,
            } => format!(
                "put {} {} (until {})",
                word(key),
                word(value),
                display::moment(expires_at_millis)
            ),
            Operation::Delete { key } => format!("delete {}", word(key)),
            Operation::DeleteRange { start, end } => match end {
                Some(end) => format!("delete from {} to {}", word(start), word(end)),
                None => format!("delete from {} on", word(start)),
            },
            Operation::Merge { key, operand } => format!("merge {} {}", word(key), word(operand)),
            other => format!("{other:?}"),
        };
        format!("  {keyspace}: {what}\n")
    }
}

/// What became of keyspaces, for people.
fn keyspace_line(change: &KeyspaceChange) -> String {
    let shown = |name: &str| display::key(name.as_bytes(), SHOWN_COLUMNS);
    match change {
        KeyspaceChange::Created { name, number } => {
            format!("  keyspace {} was created (number {number})\n", shown(name))
        }
        KeyspaceChange::Dropped { name, number } => {
            format!("  keyspace {} was dropped (number {number})\n", shown(name))
        }
        KeyspaceChange::All { keyspaces } => {
            let names: Vec<_> = keyspaces.iter().map(|(name, _)| shown(name)).collect();
            format!(
                "  there are the keyspaces {} and no others\n",
                names.join(", ")
            )
        }
        other => format!("  {other:?}\n"),
    }
}

fn keyspace_as_json(change: &KeyspaceChange) -> Value {
    match change {
        KeyspaceChange::Created { name, number } => {
            json!({ "change": "created", "keyspace": name, "number": number })
        }
        KeyspaceChange::Dropped { name, number } => {
            json!({ "change": "dropped", "keyspace": name, "number": number })
        }
        KeyspaceChange::All { keyspaces } => {
            let all = keyspaces.iter();
            let all = all.map(|(name, number)| json!({ "keyspace": name, "number": number }));
            json!({ "change": "all", "keyspaces": all.collect::<Vec<_>>() })
        }
        other => json!({ "change": format!("{other:?}") }),
    }
}

fn as_json(change: Change<'_>) -> Value {
    let mut object = json!({ "keyspace": change.keyspace(), "sequence": change.sequence() });
    let fields = match change.operation() {
        Operation::Put { key, value } => {
            json!({ "operation": "put", "key": bytes_as_json(key), "value": bytes_as_json(value) })
        }
        Operation::PutExpiring {
            key,
            value,
            expires_at_millis,
        } => json!({
            "operation": "put",
            "key": bytes_as_json(key),
            "value": bytes_as_json(value),
            "expires_at_millis": expires_at_millis,
        }),
        Operation::Delete { key } => json!({ "operation": "delete", "key": bytes_as_json(key) }),
        Operation::DeleteRange { start, end } => json!({
            "operation": "delete_range",
            "from": bytes_as_json(start),
            "to": end.map(bytes_as_json),
        }),
        Operation::Merge { key, operand } => json!({
            "operation": "merge",
            "key": bytes_as_json(key),
            "operand": bytes_as_json(operand),
        }),
        other => json!({ "operation": format!("{other:?}") }),
    };
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
    object
}
