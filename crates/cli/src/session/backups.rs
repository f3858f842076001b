//! Verbs on backups and recovery points.
//!
//! Invariant: whatever takes the data of now, or a backup, away says by name and size what goes.

use esker::{BackupInfo, Db, RestorePoint};
use serde_json::{Value, json};

use super::{Context, Session};
use crate::display::{self, counted, size};
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::reply::Reply;
use crate::verb_arguments::{Described, Named, Restore};

impl Session {
    pub(super) fn backup(&mut self, verb: &Described) -> Result<Reply> {
        self.only_what_is_committed("backup");
        let db = self.db()?;
        let progress = Progress::of_work(&db, "backup");
        let info = db.create_backup(&verb.description.join(" "))?;
        drop(progress);
        let text = format!(
            "backup {} made: {} in {}, {} of them new\n",
            info.name(),
            size(info.size_bytes()),
            counted(info.table_count() as u64, "table", "tables"),
            size(info.new_bytes()),
        );
        Ok(Reply::text(text).field("backup", as_json(&info)))
    }

    pub(super) fn recovery_point(&mut self, verb: &Described) -> Result<Reply> {
        self.only_what_is_committed("recovery point");
        let db = self.db()?;
        let info = db.create_recovery_point(&verb.description.join(" "))?;
        let text = format!("recovery point {} made\n", info.name());
        Ok(Reply::text(text).field("backup", as_json(&info)))
    }

    fn only_what_is_committed(&self, what: &str) {
        if let Some(open) = &self.transaction
            && open.writes > 0
        {
            let size = open.size();
            eprintln!("esker: the open transaction of {size} is not in the {what}");
        }
    }

    pub(super) fn backups(&mut self) -> Result<Reply> {
        let infos = self.db()?.list_backups()?;
        let objects: Vec<Value> = infos.iter().map(as_json).collect();
        if infos.is_empty() {
            return Ok(Reply::text("there are no backups\n").field("backups", objects));
        }
        let rows: Vec<Vec<String>> = infos
            .iter()
            .map(|info| {
                vec![
                    info.name().to_owned(),
                    kind(info).to_owned(),
                    size(info.size_bytes()),
                    info.sequence().to_string(),
                    display::value(info.description().as_bytes(), 60),
                ]
            })
            .collect();
        let headings = ["name", "kind", "size", "sequence", "description"];
        Ok(Reply::text(display::table(&headings, &rows)).field("backups", objects))
    }

    pub(super) fn backup_info(&mut self, verb: &Named) -> Result<Reply> {
        let info = self.db()?.backup_info(&verb.name)?;
        let text = display::pairs(&[
            ("name", info.name().to_owned()),
            ("kind", kind(&info).to_owned()),
            (
                "description",
                display::value(info.description().as_bytes(), 1000),
            ),
            ("made", display::moment(info.created_millis())),
            ("made by", format!("esker {}", info.esker_version())),
            ("sequence", display::count(info.sequence())),
            ("size", size(info.size_bytes())),
            ("new when made", size(info.new_bytes())),
            ("tables", info.table_count().to_string()),
            ("keyspaces", info.keyspace_names().join(", ")),
        ]);
        Ok(Reply::text(text).field("backup", as_json(&info)))
    }

    pub(super) fn backup_verify(&mut self, verb: &Named) -> Result<Reply> {
        let db = self.db()?;
        let progress = Progress::bytes();
        let interrupt = self.interrupt.clone();
        let report = db.verify_backup_with(&verb.name, &|so_far| {
            progress.advance(so_far.done_bytes, so_far.total_bytes);
            !interrupt.is_pressed()
        })?;
        drop(progress);
        super::care::judged(&report, &format!("backup {}", verb.name))
    }

    pub(super) fn backup_restore(
        &mut self,
        verb: &Restore,
        context: &mut Context<'_>,
    ) -> Result<Reply> {
        let db = self.db()?;
        let Some(name) = &verb.name else {
            return self.restore_point(verb, context);
        };
        let info = db.backup_info(name)?;
        let name = info.name();
        if let Some(target) = &verb.into {
            let progress = Progress::of_work(&db, "restore");
            db.restore_into(&RestorePoint::Backup(name.to_owned()), target)?;
            drop(progress);
            let target = target.display().to_string();
            let note = format!("{name} restored into {target}\n");
            return Ok(Reply::text(note)
                .field("backup", name)
                .field("into", target));
        }
        self.outside_transaction("backup-restore")?;
        let now = db.snapshot().sequence();
        let since = now.saturating_sub(info.sequence());
        let place = self.connected()?.place();
        let kept = match since {
            0 => String::new(),
            _ if db.wal().is_archived() => format!(
                ", unless it is restored in its turn: points before this restore stay restorable \
                 (backup-restore --sequence {now})"
            ),
            _ => self.kept_since(&info)?,
        };
        let since = lost(since);
        context.confirm(&format!(
            "This replaces everything in {place}, all keyspaces, by {}. {since}{kept}.",
            described(&info)
        ))?;
        let progress = Progress::of_work(&db, "restore");
        db.restore_backup(name)?;
        drop(progress);
        let hint = undo_hint(&db, now);
        Ok(Reply::text(format!("{name} restored\n{hint}")).field("backup", name))
    }

    /// Restores a moment out of the archive of the log.
    fn restore_point(&mut self, verb: &Restore, context: &mut Context<'_>) -> Result<Reply> {
        let (point, words) = match (verb.sequence, verb.time) {
            (Some(sequence), _) => {
                let words = format!("what was there after sequence number {sequence}");
                (RestorePoint::Sequence(sequence), words)
            }
            (None, Some(millis)) => {
                let words = format!("what was there {millis} ms after 1970");
                (RestorePoint::Time(millis), words)
            }
            (None, None) => (RestorePoint::Latest, "the end of the log".to_owned()),
        };
        let db = self.db()?;
        let now = db.snapshot().sequence();
        let restored = if let Some(target) = &verb.into {
            let _progress = Progress::of_work(&db, "restore");
            db.restore_into(&point, target)?
        } else {
            self.outside_transaction("backup-restore")?;
            let place = self.connected()?.place();
            let since = match point {
                RestorePoint::Sequence(sequence) => lost(now.saturating_sub(sequence)),
                _ => "What was written since then is lost".to_owned(),
            };
            context.confirm(&format!(
                "This replaces everything in {place}, all keyspaces, by {words}. {since}, unless it is \
                 restored in its turn: points before this restore stay restorable."
            ))?;
            let _progress = Progress::of_work(&db, "restore");
            db.restore_to_point(&point)?
        };
        let from = restored.backup().unwrap_or("the beginning of the log");
        let batches = counted(restored.batches(), "batch", "batches");
        let sequence = restored.sequence();
        let mut note = format!("restored to sequence number {sequence}: {from} and {batches}");
        let target = verb
            .into
            .as_ref()
            .map(|target| target.display().to_string());
        if let Some(target) = &target {
            note = format!("{note}, into {target}");
        }
        let hint = match target {
            Some(_) => String::new(),
            None => undo_hint(&db, now),
        };
        let reply = Reply::text(format!("{note}\n{hint}"))
            .field("backup", restored.backup())
            .field("sequence", sequence)
            .field("batches", restored.batches());
        Ok(match target {
            Some(target) => reply.field("into", target),
            None => reply,
        })
    }

    /// For questions: whether what was written since `info` is in a later backup.
    fn kept_since(&mut self, info: &BackupInfo) -> Result<String> {
        let infos = self.db()?.list_backups()?;
        let later = infos
            .iter()
            .rev()
            .find(|other| other.sequence() > info.sequence());
        Ok(
            later.map_or(" for good: no later backup has them".into(), |later| {
                format!(", but for what {} has", later.name())
            }),
        )
    }

    /// For questions: what there is to go back to.
    pub(super) fn backups_to_go_back_to(&mut self) -> Result<String> {
        if self.connected()?.is_memory {
            return Ok(String::new());
        }
        let infos = self.db()?.list_backups()?;
        Ok(match infos.last() {
            Some(last) => format!(" The last backup is {}.", last.name()),
            None => " There is no backup.".into(),
        })
    }

    pub(super) fn backup_delete(
        &mut self,
        verb: &Named,
        context: &mut Context<'_>,
    ) -> Result<Reply> {
        let db = self.db()?;
        let info = db.backup_info(&verb.name);
        let what = match &info {
            Ok(info) => described(info),
            // What cannot be read can still be deleted.
            Err(error) if error.kind() == esker::ErrorKind::Corruption => {
                format!("backup {}, whose metadata is damaged", verb.name)
            }
            Err(error) => return Err(Failure::from(error.clone())),
        };
        let left = db.list_backups()?.len().saturating_sub(1);
        let left = match left {
            0 => "no other backup is left".to_owned(),
            left => format!("{left} others are left"),
        };
        context.confirm(&format!("This deletes {what} for good; {left}."))?;
        db.delete_backup(&verb.name)?;
        Ok(Reply::text(format!("{} deleted\n", verb.name)).field("backup", verb.name.as_str()))
    }
}

/// For questions: the writes that a restore takes away.
fn lost(writes: u64) -> String {
    match writes {
        0 => "Nothing was written since then".to_owned(),
        1 => "The 1 write since then is lost".to_owned(),
        _ => format!(
            "The {} since then are lost",
            counted(writes, "write", "writes")
        ),
    }
}

/// How a restore into the open database, whose last write was `before`, is undone where its log is archived.
fn undo_hint(db: &Db, before: u64) -> String {
    match db.wal().is_archived() {
        true => format!("to undo it: backup-restore --sequence {before}\n"),
        false => String::new(),
    }
}

fn kind(info: &BackupInfo) -> &'static str {
    if info.is_recovery_point() {
        "recovery point"
    } else {
        "backup"
    }
}

/// For questions: which backup, of when, how large.
fn described(info: &BackupInfo) -> String {
    let (kind, name, made) = (
        kind(info),
        info.name(),
        display::moment(info.created_millis()),
    );
    let description = match info.description() {
        "" => String::new(),
        text => format!("\"{}\", ", display::value(text.as_bytes(), 60)),
    };
    format!(
        "{kind} {name} ({description}made {made}, {})",
        size(info.size_bytes())
    )
}

fn as_json(info: &BackupInfo) -> Value {
    json!({
        "name": info.name(),
        "description": info.description(),
        "is_recovery_point": info.is_recovery_point(),
        "created_millis": info.created_millis(),
        "sequence": info.sequence(),
        "size_bytes": info.size_bytes(),
        "new_bytes": info.new_bytes(),
        "tables": info.table_count(),
        "keyspaces": info.keyspace_names(),
        "esker_version": info.esker_version(),
    })
}
