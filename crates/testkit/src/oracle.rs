//! The judge of crashes: an ordered map that remembers every write, when it was begun and
//! acknowledged and for what durability, and says whether the state that was found after a crash is
//! one that the promises allow.
//!
//! The promise (prefix recovery): the state equals the state after some prefix of the order of writes;
//! the prefix contains every write whose durability class survives this kind of crash, and all that
//! was ordered before it; batches are whole. Outside the prefix rule stand *volatile* writes, which a
//! flush alone keeps (a prefix of their own, with all that was ordered before it), and *failed* ones,
//! which may be there or not, but whole.
//!
//! Invariant: the oracle accepts a state if and only if some choice that these rules allow gives
//! exactly this state. One oracle follows one writer: the order of its writes is the order in which
//! they were begun. Several writers on disjoint keys take one oracle each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, RangeInclusive};

use esker_base::write_batch::KeyspaceId;

use crate::step::{Action, Durability, readable};

#[cfg(test)]
mod tests;

/// What is in a database: keyspace and key, and the value.
pub type State = BTreeMap<Key, Vec<u8>>;

/// A key and where it lives.
pub type Key = (KeyspaceId, Vec<u8>);

/// A write that was begun; the number of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId(usize);

/// What the machine lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The process ended: what was `Buffered` is still there.
    Process,
    /// Power went: only what was `Sync` or flushed has to be there.
    Power,
}

/// A crash: when, of what kind, and what the clock said at the recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// How many operations of the disk had happened; compare
    /// [`CrashFileSystem::operations`](crate::disk::CrashFileSystem::operations).
    pub moment: usize,
    /// What was lost.
    pub loss: Loss,
    /// The time by which the recovered state was read, milliseconds.
    pub now_millis: u64,
}

/// A value and when it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    value: Vec<u8>,
    expires_millis: Option<u64>,
}

impl Entry {
    fn visible(&self, now_millis: u64) -> Option<&[u8]> {
        // A key is invisible from the instant at which it expires.
        let lives = self
            .expires_millis
            .is_none_or(|expires| now_millis < expires);
        lives.then_some(&self.value[..])
    }
}

type Entries = BTreeMap<Key, Entry>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// None yet.
    Pending,
    /// At this moment.
    Acknowledged(usize),
    /// An error: the write may be there or not.
    Failed,
}

#[derive(Clone, Debug)]
struct Write {
    actions: Vec<Action>,
    durability: Durability,
    now_millis: u64,
    begun: usize,
    answer: Answer,
}

/// The judge. See the module's documentation.
///
/// ```
/// use esker_testkit::{Action, Crash, Durability, Loss, Oracle, State};
///
/// let put = |key: &str, value: &str| Action::Put {
///     keyspace: 0,
///     key: key.into(),
///     value: value.into(),
///     ttl_millis: None,
/// };
/// let mut oracle = Oracle::new();
/// let first = oracle.begin(0, 0, Durability::Sync, vec![put("a", "1")]);
/// oracle.acknowledge(first, 5);
/// let batch = oracle.begin(5, 0, Durability::Buffered, vec![put("b", "2"), put("c", "3")]);
/// oracle.acknowledge(batch, 7);
///
/// let state = |pairs: &[(&str, &str)]| -> State {
///     pairs.iter().map(|(key, value)| ((0, (*key).into()), (*value).into())).collect()
/// };
/// let power = Crash { moment: 9, loss: Loss::Power, now_millis: 0 };
/// assert!(oracle.check(&state(&[("a", "1")]), &power).is_ok());
/// assert!(oracle.check(&state(&[("a", "1"), ("b", "2"), ("c", "3")]), &power).is_ok());
/// assert!(oracle.check(&state(&[]), &power).is_err(), "a synced write is lost");
/// assert!(oracle.check(&state(&[("a", "1"), ("b", "2")]), &power).is_err(), "half a batch");
/// let process = Crash { loss: Loss::Process, ..power };
/// assert!(oracle.check(&state(&[("a", "1")]), &process).is_err(), "a buffered write is lost");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    base: Entries,
    writes: Vec<Write>,
    /// What a reader must see now.
    live: Entries,
    /// When flushes ended, and how many writes each made durable.
    flushes: Vec<(usize, usize)>,
    /// As `flushes`, of the log: what was not logged is not made durable by them.
    log_syncs: Vec<(usize, usize)>,
}

/// The database as it was at one moment; what expires goes from it as well.
#[derive(Clone, Debug)]
pub struct OracleSnapshot(Entries);

impl OracleSnapshot {
    /// What is to be seen in it at this time.
    #[must_use]
    pub fn state(&self, now_millis: u64) -> State {
        visible(&self.0, now_millis)
    }
}

fn visible(entries: &Entries, now_millis: u64) -> State {
    let visible =
        |(key, entry): (&Key, &Entry)| Some((key.clone(), entry.visible(now_millis)?.to_vec()));
    entries.iter().filter_map(visible).collect()
}

/// Which writes a recovered state contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first so many writes, except for the following.
    pub prefix: usize,
    /// Of the volatile ones, only those among the first so many.
    pub volatile_prefix: usize,
    /// Of the failed ones, these.
    pub failed: BTreeSet<WriteId>,
}

/// Why no legal choice gives the state that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The fewest writes that have to be there.
    pub least: usize,
    /// The most that can be there.
    pub most: usize,
    /// For each number of writes that can be there, one key that speaks against it.
    pub reasons: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        writeln!(
            f,
            "no prefix of {} to {} writes gives the state found:",
            self.least, self.most
        )?;
        for reason in self.reasons.iter().take(SHOWN) {
            writeln!(f, "  {reason}")?;
        }
        match self.reasons.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

impl std::error::Error for Violation {}

fn apply(entries: &mut Entries, actions: &[Action], now_millis: u64) {
    for action in actions {
        match action {
            Action::Put {
                keyspace,
                key,
                value,
                ttl_millis,
            } => {
                let expires_millis = ttl_millis.map(|ttl| now_millis.saturating_add(ttl));
                let entry = Entry {
                    value: value.clone(),
                    expires_millis,
                };
                entries.insert((*keyspace, key.clone()), entry);
            }
            Action::Delete { keyspace, key } => {
                entries.remove(&(*keyspace, key.clone()));
            }
            Action::DeleteRange {
                keyspace,
                start,
                end,
            } => {
                let range = key_range(*keyspace, start, end);
                let covered: Vec<_> = entries.range(range).map(|(key, _)| key.clone()).collect();
                for key in covered {
                    entries.remove(&key);
                }
            }
        }
    }
}

fn key_range(keyspace: KeyspaceId, start: &[u8], end: &[u8]) -> (Bound<Key>, Bound<Key>) {
    let end = Bound::Excluded((keyspace, start.max(end).to_vec()));
    (Bound::Included((keyspace, start.to_vec())), end)
}

impl Write {
    /// What the write does to those of `keys` that it touches: the last action on a key counts.
    fn effects<'a>(&'a self, keys: &BTreeSet<&'a Key>) -> BTreeMap<&'a Key, Option<Entry>> {
        let mut effects = BTreeMap::new();
        for action in &self.actions {
            match action {
                Action::Put {
                    keyspace,
                    key,
                    value,
                    ttl_millis,
                } => {
                    let expires_millis = ttl_millis.map(|ttl| self.now_millis.saturating_add(ttl));
                    if let Some(key) = keys.get(&(*keyspace, key.clone())) {
                        effects.insert(
                            *key,
                            Some(Entry {
                                value: value.clone(),
                                expires_millis,
                            }),
                        );
                    }
                }
                Action::Delete { keyspace, key } => {
                    if let Some(key) = keys.get(&(*keyspace, key.clone())) {
                        effects.insert(*key, None);
                    }
                }
                Action::DeleteRange {
                    keyspace,
                    start,
                    end,
                } => {
                    let covered = keys.range::<Key, _>(key_range(*keyspace, start, end));
                    effects.extend(covered.map(|key| (*key, None)));
                }
            }
        }
        effects
    }

    fn puts(&self) -> impl Iterator<Item = Key> {
        self.actions.iter().filter_map(|action| match action {
            Action::Put { keyspace, key, .. } => Some((*keyspace, key.clone())),
            Action::Delete { .. } | Action::DeleteRange { .. } => None,
        })
    }

    /// Whether it was acknowledged before the crash for something that this crash does not undo.
    fn must_survive(&self, crash: &Crash) -> bool {
        let class = match crash.loss {
            Loss::Process => Durability::Buffered,
            Loss::Power => Durability::Sync,
        };
        let Answer::Acknowledged(moment) = self.answer else {
            return false;
        };
        moment <= crash.moment && self.durability >= class
    }
}

impl Oracle {
    /// The oracle of an empty database.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A write begins: at this moment of the disk, by this time of the clock.
    pub fn begin(
        &mut self,
        moment: usize,
        now_millis: u64,
        durability: Durability,
        actions: Vec<Action>,
    ) -> WriteId {
        let answer = Answer::Pending;
        self.writes.push(Write {
            actions,
            durability,
            now_millis,
            begun: moment,
            answer,
        });
        WriteId(self.writes.len() - 1)
    }

    /// The write was acknowledged at this moment of the disk.
    pub fn acknowledge(&mut self, id: WriteId, moment: usize) {
        let write = &mut self.writes[id.0];
        write.answer = Answer::Acknowledged(moment);
        apply(&mut self.live, &write.actions, write.now_millis);
    }

    /// The write ended in an error. Readers must not see it; after a crash it may be there.
    pub fn fail(&mut self, id: WriteId) {
        self.writes[id.0].answer = Answer::Failed;
    }

    /// A flush that was asked for has ended well at this moment: everything acknowledged before it
    /// began, which is taken to be everything up to the oldest write without an answer, is durable.
    pub fn flushed(&mut self, moment: usize) {
        self.flushes.push((moment, self.answered()));
    }

    /// As [`Oracle::flushed`], for a sync of the log: volatile writes are not in it.
    pub fn log_synced(&mut self, moment: usize) {
        self.log_syncs.push((moment, self.answered()));
    }

    fn answered(&self) -> usize {
        let mut writes = self.writes.iter();
        let pending = writes.position(|write| write.answer == Answer::Pending);
        pending.unwrap_or(self.writes.len())
    }

    /// Writes begun so far.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.writes.len()
    }

    /// What a reader of the running database must see at this time.
    #[must_use]
    pub fn state(&self, now_millis: u64) -> State {
        visible(&self.live, now_millis)
    }

    /// What a snapshot that is taken now shows from now on.
    #[must_use]
    pub fn snapshot(&self) -> OracleSnapshot {
        OracleSnapshot(self.live.clone())
    }

    /// The writes that make an empty database what the running one is at this time, with the expiries
    /// that are still to come: what a backup of it would bring back.
    #[must_use]
    pub fn rebuild(&self, now_millis: u64) -> Vec<Action> {
        let put = |((keyspace, key), entry): (&Key, &Entry)| {
            entry.visible(now_millis)?;
            Some(Action::Put {
                keyspace: *keyspace,
                key: key.clone(),
                value: entry.value.clone(),
                ttl_millis: entry.expires_millis.map(|expires| expires - now_millis),
            })
        };
        self.live.iter().filter_map(put).collect()
    }

    /// What a reader of the running database must find under this key.
    #[must_use]
    pub fn get(&self, keyspace: KeyspaceId, key: &[u8], now_millis: u64) -> Option<&[u8]> {
        self.live
            .get(&(keyspace, key.to_vec()))?
            .visible(now_millis)
    }

    /// Whether `found`, what was read after `crash` and recovery, is a state that the promises allow;
    /// then which writes it contains (of several readings the shortest prefix).
    ///
    /// # Errors
    /// A [`Violation`] with the reasons, if not.
    pub fn check(&self, found: &State, crash: &Crash) -> Result<Outcome, Violation> {
        self.check_at_least(found, crash, 0)
    }

    /// As [`Oracle::check`], where the first `least` writes are known to be there: another writer's
    /// later write is.
    ///
    /// # Errors
    /// As [`Oracle::check`].
    pub fn check_at_least(
        &self,
        found: &State,
        crash: &Crash,
        least: usize,
    ) -> Result<Outcome, Violation> {
        let safe = |events: &[(usize, usize)]| {
            let past = events.iter().filter(|(moment, _)| *moment <= crash.moment);
            past.map(|(_, writes)| *writes).max().unwrap_or(0)
        };
        let flushed = safe(&self.flushes);
        let mut writes = self.writes.iter();
        let surviving = writes.rposition(|write| write.must_survive(crash));
        let least = surviving.map_or(0, |at| at + 1).max(flushed).max(least);
        let least = least.max(safe(&self.log_syncs));
        // A write whose first operation would come after the crash has left nothing.
        let begun = |write: &Write| write.begun < crash.moment;
        let most = self.writes.partition_point(begun).max(least);
        self.search(found, crash.now_millis, flushed, least..=most)
    }

    /// As [`Oracle::check`] for a copy that was made while the database was open: it contains the
    /// first so many writes, volatile or not.
    ///
    /// # Errors
    /// As [`Oracle::check`].
    pub fn check_copy(
        &self,
        found: &State,
        now_millis: u64,
        prefixes: RangeInclusive<usize>,
    ) -> Result<Outcome, Violation> {
        self.search(found, now_millis, *prefixes.start(), prefixes)
    }

    fn search(
        &self,
        found: &State,
        now_millis: u64,
        flushed: usize,
        prefixes: RangeInclusive<usize>,
    ) -> Result<Outcome, Violation> {
        let (least, most) = prefixes.clone().into_inner();
        let mut universe: BTreeSet<Key> = found.keys().chain(self.base.keys()).cloned().collect();
        universe.extend(self.writes[..most].iter().flat_map(Write::puts));
        let mut reasons = Vec::new();
        for prefix in prefixes {
            let volatile =
                (flushed..prefix).filter(|at| self.writes[*at].durability == Durability::Volatile);
            for volatile_prefix in std::iter::once(flushed).chain(volatile.map(|at| at + 1)) {
                match self.explain(&universe, found, now_millis, prefix, volatile_prefix) {
                    Ok(outcome) => return Ok(outcome),
                    Err(reason) => reasons.push(format!("with {prefix}: {reason}")),
                }
            }
        }
        Err(Violation {
            least,
            most,
            reasons,
        })
    }

    /// Whether these prefixes give `found`. Goes backwards: the last write of a key decides it. A
    /// failed write that agrees with what was found is taken to be there, since that can only leave
    /// less to be explained by those before it; so one pass is enough.
    fn explain(
        &self,
        universe: &BTreeSet<Key>,
        found: &State,
        now_millis: u64,
        prefix: usize,
        volatile_prefix: usize,
    ) -> Result<Outcome, String> {
        let mut undecided: BTreeSet<&Key> = universe.iter().collect();
        let mut failed = BTreeSet::new();
        let disagrees = |key: &Key, entry: Option<&Entry>| {
            let expected = entry.and_then(|entry| entry.visible(now_millis));
            let seen = found.get(key).map(Vec::as_slice);
            (expected != seen).then(|| describe(key, expected, seen))
        };
        for (index, write) in self.writes[..prefix].iter().enumerate().rev() {
            if undecided.is_empty() {
                break;
            }
            if write.durability == Durability::Volatile && index >= volatile_prefix {
                continue;
            }
            let effects = write.effects(&undecided);
            let reason = effects
                .iter()
                .find_map(|(key, entry)| disagrees(key, entry.as_ref()));
            match (reason, write.answer) {
                (Some(_), Answer::Failed) => continue,
                (Some(reason), _) => return Err(format!("{reason} by write {index}")),
                (None, Answer::Failed) => {
                    failed.insert(WriteId(index));
                }
                (None, _) => {}
            }
            for key in effects.keys() {
                undecided.remove(*key);
            }
        }
        match undecided
            .iter()
            .find_map(|key| disagrees(key, self.base.get(*key)))
        {
            Some(reason) => Err(format!("{reason} from before the first write")),
            None => Ok(Outcome {
                prefix,
                volatile_prefix,
                failed,
            }),
        }
    }

    /// The oracle of the database that was recovered with this outcome: to go on, and crash again.
    #[must_use]
    pub fn recovered(&self, outcome: &Outcome) -> Self {
        let mut base = self.base.clone();
        for (index, write) in self.writes[..outcome.prefix].iter().enumerate() {
            let lost = match (write.answer, write.durability) {
                (Answer::Failed, _) if !outcome.failed.contains(&WriteId(index)) => true,
                (_, Durability::Volatile) => index >= outcome.volatile_prefix,
                _ => false,
            };
            if !lost {
                apply(&mut base, &write.actions, write.now_millis);
            }
        }
        Self {
            live: base.clone(),
            base,
            ..Self::default()
        }
    }
}

fn describe(key: &Key, expected: Option<&[u8]>, found: Option<&[u8]>) -> String {
    let value = |value: Option<&[u8]>| match value {
        Some(value) => readable(value).to_string(),
        None => "nothing".to_owned(),
    };
    let (keyspace, key) = key;
    format!(
        "{keyspace}/{} is {} and should be {}",
        readable(key),
        value(found),
        value(expected)
    )
}
