//! The feed of changes: committed batches in order, out of the archived and the live log.
//!
//! Invariants: every batch that readers see is yielded once, whole, in the order of sequence numbers,
//! and nothing that they do not see. A number that was given to a write and is in no log is a `Gap`,
//! which stays until the caller passes over it: nothing is skipped silently. What a file has or lacks
//! counts only if the files are still the same afterwards: segments are archived, removed and used
//! again while they are read.
//!
//! How it is known what readers see: [`Feed::until`] is the last visible sequence number, loaded before
//! the segments are listed or found unchanged. What a write that failed has left in a segment is behind
//! it, or the segment has been left by then, and what begins the next one says so (`log_history`).

use crate::archived_segment::ArchivedSegment;
use crate::db::Db;
use crate::engine::{Engine, Mode};
use crate::log::Log;
use crate::log_history::{Event, LogFile, LogHistory, Missing, gap};
use crate::log_mark::Reasons;
use esker_base::filename::FileNumber;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use std::time::Duration;

pub(crate) mod batch;
pub(crate) mod cursor;
pub(crate) mod keyspace_change;

use batch::ChangeBatch;
use keyspace_change::KeyspaceChange;

/// Writes that a feed cannot give: [`Changes::gap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeGap {
    first_sequence: SequenceNumber,
    last_sequence: SequenceNumber,
    reason: &'static str,
}

impl ChangeGap {
    /// The first sequence number that is missing.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The last sequence number that is missing.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// The first sequence number behind it: what there may be is available from here on.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.last_sequence + 1
    }

    /// Why, as a part of a sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.reason
    }
}

/// The feed of changes from some sequence number on: [`Db::changes`].
///
/// It yields the batches there are, then `None`, and more once more has been written:
/// [`Changes::wait`] waits for that. After an error it is where it was before.
#[derive(Debug)]
pub struct Changes {
    db: Db,
    feed: Feed,
    gap: Option<ChangeGap>,
    /// The log was to be kept for it.
    is_of_cursor: bool,
}

impl Changes {
    fn new(db: &Db, from: SequenceNumber) -> Self {
        Self {
            db: db.clone(),
            feed: Feed::new(from),
            gap: None,
            is_of_cursor: false,
        }
    }

    /// The changes that a cursor is to read, from a number on that is not behind the next write.
    fn of_cursor(db: &Db, from: SequenceNumber) -> Self {
        Self {
            is_of_cursor: true,
            ..Self::new(db, from)
        }
    }

    /// The sequence number that comes next: everything before has been yielded. It is where another
    /// feed goes on from here.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.feed.next
    }

    /// Waits until something has been written that was not yielded yet, but no longer than `timeout`
    /// on the database's clock; says whether something was. Does not look from time to time, and costs writers one wake-up.
    ///
    /// # Errors
    /// `Closed` where the database is closed, also meanwhile.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let engine = self.db.engine();
        let watchers = &engine.commit_queue.watchers;
        let next = self.feed.next;
        let found = watchers.wait(engine.clock(), timeout, || {
            engine.visible_sequence() >= next || engine.is_closed()
        });
        engine.check_open()?;
        Ok(found)
    }

    /// What is missing, after [`ErrorKind::Gap`] and [`ErrorKind::Lagged`].
    #[must_use]
    pub fn gap(&self) -> Option<&ChangeGap> {
        self.gap.as_ref()
    }

    /// Goes on behind the writes that are missing, after [`ErrorKind::Gap`] or [`ErrorKind::Lagged`]: the caller has made up for
    /// them, from a snapshot for instance. Does nothing where nothing is missing.
    pub fn pass_gap(&mut self) {
        if let Some(gap) = self.gap.take() {
            self.feed.next = gap.next_sequence();
        }
    }

    fn next_batch(&mut self) -> Result<Option<ChangeBatch>> {
        self.gap = None;
        let engine = self.db.engine();
        engine.check_open()?;
        let next = self.feed.next_batch(engine);
        let error = match next {
            Err(error) => error,
            found => return found,
        };
        self.feed.history = None;
        let Some(missing) = self.feed.missing.take() else {
            return Err(error);
        };
        let gap = ChangeGap {
            first_sequence: missing.first,
            last_sequence: missing.last,
            reason: missing.reasons.sentence(),
        };
        let next = gap.next_sequence();
        let mut sentence = format!("{}; what is left begins with {next}", error.message());
        self.gap = Some(gap);
        let mut kind = ErrorKind::Gap;
        // Only what was in the log can have been let go of.
        if self.is_of_cursor && missing.reasons == Reasons::default() {
            kind = ErrorKind::Lagged;
            sentence = format!("the cursor has kept more of the log than it may: {sentence}");
        }
        Err(Error::new(kind, sentence))
    }
}

impl Iterator for Changes {
    type Item = Result<ChangeBatch>;

    /// The next batch; `None` where there is none yet.
    ///
    /// # Errors
    /// `Gap` where writes are in no log that is left, naming them and the first one that is, `Lagged`
    /// where that is since a cursor could keep no more of it;
    /// `Corruption` with file and offset where the log is damaged; `Io` where it cannot be read;
    /// `Closed`.
    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// The files that hold the log at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Files {
    live: Vec<FileNumber>,
    /// The segment that takes records.
    current: Option<FileNumber>,
    archived: Vec<ArchivedSegment>,
}

impl Files {
    /// Those of now. The live ones first: what is archived meanwhile is then found twice, not missed.
    fn list(engine: &Engine) -> Result<Self> {
        let (live, current) = engine.segments.readable();
        Ok(Self {
            live,
            current,
            archived: engine.archived_segments()?,
        })
    }
}

/// What reads the log for a feed.
#[derive(Debug)]
struct Feed {
    /// Everything before has been read.
    next: SequenceNumber,
    /// Nothing was read yet: the first number that is wanted may lie within a batch.
    is_fresh: bool,
    /// The last number that readers are known to see.
    until: SequenceNumber,
    files: Files,
    history: Option<LogHistory>,
    /// The numbers that the last `Gap` named.
    missing: Option<Missing>,
    /// What became of keyspaces since the last batch that was yielded.
    keyspaces: Vec<KeyspaceChange>,
}

/// What is found next.
enum Found {
    Batch(ChangeBatch),
    /// Nothing that may be shown, a mark, or other files than before.
    Passed,
    End,
}

impl Feed {
    fn new(from: SequenceNumber) -> Self {
        Self {
            next: from,
            is_fresh: true,
            until: 0,
            files: Files::default(),
            history: None,
            missing: None,
            keyspaces: Vec::new(),
        }
    }

    /// The next batch that readers see, if there is one.
    fn next_batch(&mut self, engine: &Engine) -> Result<Option<ChangeBatch>> {
        self.missing = None;
        while self.look_ahead(engine)? {
            let found = self.step(engine).and_then(|found| match found {
                Found::End => self.at_end(engine),
                found => Ok(found),
            });
            match found {
                Ok(Found::Batch(batch)) => return Ok(Some(batch)),
                Ok(_) => {}
                Err(error) => self.after_error(engine, error)?,
            }
        }
        Ok(None)
    }

    /// Sees to it that there is something to read; `false` where everything has been.
    fn look_ahead(&mut self, engine: &Engine) -> Result<bool> {
        if self.next <= self.until && self.history.is_some() {
            return Ok(true);
        }
        // Before the segments are looked at, see above.
        self.until = engine.visible_sequence();
        if self.next > self.until {
            return Ok(false);
        }
        let is_whole = self.history.as_ref().is_some_and(LogHistory::is_whole);
        if !is_whole || engine.segments.current() != self.files.current {
            let files = Files::list(engine)?;
            self.open(engine, files)?;
        }
        if let Some(history) = &mut self.history {
            history.set_until(self.until);
        }
        Ok(true)
    }

    /// Reads on in `files`.
    fn open(&mut self, engine: &Engine, files: Files) -> Result<()> {
        let live = files.live.iter();
        let live = live.map(|&number| LogFile::live(&engine.directory, number));
        let all = live.chain(files.archived.iter().map(LogFile::archived));
        // Without a segment of this life, the last one is to be closed once there is one.
        let growing = files.current.or(files.live.last().copied());
        let history = LogHistory::after(&engine.fs, all, self.next - 1);
        self.files = files;
        let old = self.history.take();
        match history {
            Ok(history) => {
                let mut history =
                    history.following(growing, engine.segments.void_from(), self.is_fresh);
                if let Some(old) = old {
                    history.take_over(old);
                }
                history.set_until(self.until);
                self.history = Some(history);
                Ok(())
            }
            Err(error) => self.after_error(engine, error),
        }
    }

    fn step(&mut self, engine: &Engine) -> Result<Found> {
        let Some(history) = &mut self.history else {
            return Ok(Found::Passed);
        };
        let found = match history.next() {
            Ok(None) => return Ok(Found::End),
            Ok(Some(Event::Mark(mark))) => {
                keyspace_change::add(&mut self.keyspaces, mark);
                Found::Passed
            }
            Ok(Some(Event::Batch(batch, payload, millis))) => {
                let keyspaces = std::mem::take(&mut self.keyspaces);
                let batch = ChangeBatch::of(engine, &batch, payload, millis, keyspaces)?;
                batch.map_or(Found::Passed, Found::Batch)
            }
            Err(error) => {
                self.missing = history.missing();
                return Err(error);
            }
        };
        self.next = history.next_sequence();
        self.is_fresh = false;
        Ok(found)
    }

    /// What was read ends before what readers see. There are other files by now, or nothing was logged.
    fn at_end(&mut self, engine: &Engine) -> Result<Found> {
        let files = Files::list(engine)?;
        if files != self.files {
            return self.open(engine, files).map(|()| Found::Passed);
        }
        // Nothing is written from here on.
        let writer = engine.commit_queue.lock();
        let files = Files::list(engine)?;
        if files != self.files {
            drop(writer);
            return self.open(engine, files).map(|()| Found::Passed);
        }
        self.until = engine.visible_sequence();
        if let Some(history) = &mut self.history {
            history.set_until(self.until);
        }
        let found = self.step(engine)?;
        if !matches!(found, Found::End) {
            return Ok(found);
        }
        self.check_end(&writer.log)?;
        // Who only reads has written nothing since the opening.
        let knows = engine.archive.is_on() || engine.mode == Mode::ReadOnly;
        let (from, mut reasons) = writer.log.marker.unlogged();
        let (first, last) = (self.next, self.until);
        if knows && reasons.are_void() && from <= first {
            // They were lost with the power before they were durable.
            self.next = last + 1;
            self.history = None;
            return Ok(Found::Passed);
        }
        if !knows {
            reasons = Reasons::default();
        }
        self.missing = Some(Missing {
            first,
            last,
            reasons,
        });
        Err(gap(first, last, reasons))
    }

    /// With nobody writing: whether the log ends where its writer has left off.
    fn check_end(&mut self, log: &Log) -> Result<()> {
        let Some(history) = &mut self.history else {
            return Ok(());
        };
        let Some((number, path, offset)) = history.place() else {
            return Ok(());
        };
        if Some(number) != log.current_number() {
            return history.judge();
        }
        // What a write that failed has left may stand there.
        if offset < log.current_end() && !history.is_held_back() {
            let sentence = "no record stands where the log has one";
            return Err(Error::corruption(sentence)
                .with_file(path)
                .with_offset(offset));
        }
        Ok(())
    }

    /// An error counts only if the files that it was found in are still there: it is of what took their
    /// place otherwise.
    fn after_error(&mut self, engine: &Engine, error: Error) -> Result<()> {
        self.history = None;
        if Files::list(engine)? == self.files {
            return Err(error);
        }
        self.missing = None;
        Ok(())
    }
}

impl Db {
    /// The changes from sequence number `from_sequence` on (0 or 1: from the beginning), as far as the
    /// log is left: every committed batch that ends there or later, whole and in order. See the
    /// repository's `docs/guide/changes.md`.
    ///
    /// The log is left as long as the database needs it, in its archive
    /// ([`Options::wal_archive`](crate::Options::wal_archive)) as long as that keeps it, and as long as a
    /// cursor ([`Db::create_change_cursor`]) wants it.
    ///
    /// # Errors
    /// `Unsupported` in memory; `InvalidArgument` for a number behind the next write: it is not of this
    /// database, or of a later state of it; `Closed`. That changes are in no log that is left is said by
    /// the feed itself.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use esker::{Operation, WriteBatch};
    /// let db = esker::Options::new().wal_archive(true).open(dir.path())?;
    /// let mut batch = WriteBatch::new();
    /// batch.put("a", "1");
    /// batch.delete("b");
    /// db.write(batch)?;
    /// let mut changes = db.changes(1)?;
    /// let batch = changes.next().unwrap()?;
    /// assert_eq!((batch.first_sequence(), batch.last_sequence()), (1, 2));
    /// let operations: Vec<_> = batch.changes().map(|change| change.operation()).collect();
    /// assert_eq!(operations[1], Operation::Delete { key: b"b" });
    /// assert!(changes.next().is_none());
    /// # Ok(()) }
    /// ```
    pub fn changes(&self, from_sequence: u64) -> Result<Changes> {
        let engine = self.engine();
        engine.check_open()?;
        if engine.mode == Mode::Memory {
            let sentence = "an in-memory database has no log to read changes from";
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
        let last = engine.visible_sequence();
        if from_sequence > last + 1 {
            let sentence = format!(
                "nothing was written at sequence number {} yet: the last write has {last}; the position \
                 is of another database, or this one was brought back to an earlier state",
                from_sequence - 1
            );
            return Err(Error::invalid_argument(sentence));
        }
        Ok(Changes::new(self, from_sequence.max(1)))
    }
}
