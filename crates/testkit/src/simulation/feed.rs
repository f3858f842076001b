//! The feed of changes, followed through a durable cursor, and the archive of the log.
//!
//! In some seeds somebody makes a copy of what all clients share, the default keyspace and the lists, by
//! nothing but what the cursor tells, and acknowledges it now and then. Invariant: whatever stands in the
//! copy at an acknowledged position, the batches behind it lead from there to what the database holds, when
//! everybody rests and after every crash: none was skipped, told twice or torn. Where the feed says that
//! something is missing, the copy is made anew. In half of these seeds the log is archived, and a restore to
//! an acknowledged position holds what the copy held there.
//!
//! Nobody else's steps are other ones for it: seeds without a feed run as if it did not exist.

use std::collections::BTreeMap;
use std::path::Path;

use esker::{
    ChangeBatch, ChangeCursor, Db, ErrorKind, Keyspace, Operation, RestorePoint, RestoreSource,
};

use super::accounts;
use super::failure::Failure;
use super::world::{DIRECTORY, World, locked};
use crate::seed::Random;

const CURSOR: &str = "follower";

/// Values and when they expire (0: never), by keyspace (whether it is that of the lists) and key.
type Copy = BTreeMap<(bool, Vec<u8>), (Vec<u8>, u64)>;

/// What the follower knows.
#[derive(Clone, Default)]
pub(crate) struct Feed {
    acknowledged: Vec<Acknowledged>,
    /// Whether something is missing, so that a copy has to be made anew.
    is_lost: bool,
}

/// A position that the cursor may stand at.
#[derive(Clone)]
struct Acknowledged {
    sequence: u64,
    /// Operations of the disk before it was asked for.
    begun: usize,
    /// Operations at its answer; `None` for an error.
    returned: Option<usize>,
    /// All that was written up to there; `None` where a loss of power may take a part of it.
    copy: Option<Copy>,
}

/// Whether the run of `seed` has a follower.
pub(crate) fn is_followed(seed: u64) -> bool {
    Random::of_part(seed, 9).chance(4)
}

/// Whether the run of `seed` archives its log.
pub(crate) fn is_archived(seed: u64) -> bool {
    is_followed(seed) && Random::of_part(seed, 10).chance(2)
}

/// Makes the cursor where a life begins without one; nobody else is about.
pub(crate) fn begin(world: &World, db: &Db) -> Result<(), Failure> {
    let Some(mut feed) = locked(&world.feed).take() else {
        return Ok(());
    };
    if feed.acknowledged.is_empty() {
        let begun = world.moment();
        let cursor = db.create_change_cursor(CURSOR)?;
        feed.acknowledged.push(Acknowledged {
            sequence: cursor.acknowledged()?,
            begun,
            returned: Some(world.moment()),
            copy: Some(scan(world, db)?),
        });
    }
    *locked(&world.feed) = Some(feed);
    Ok(())
}

/// Follows for a while, beside the clients, unless somebody is at it.
pub(crate) fn follow(world: &World, db: &Db, random: &mut Random) -> Result<(), Failure> {
    let Some(mut feed) = locked(&world.feed).take() else {
        return Ok(());
    };
    let most = random.index(40);
    let acknowledges = random.chance(2);
    let followed = feed.follow(world, db, most, acknowledges);
    *locked(&world.feed) = Some(feed);
    followed.map(drop)
}

/// Follows to the end, while nobody writes: what was told is what is there. Says whether it was compared.
pub(crate) fn settle(world: &World, db: &Db, random: &mut Random) -> Result<bool, Failure> {
    let Some(mut feed) = locked(&world.feed).take() else {
        return Ok(false);
    };
    let settled = feed.settle(world, db, random.chance(2));
    *locked(&world.feed) = Some(feed);
    settled
}

impl Feed {
    /// Where the cursor stands. An acknowledgement that failed may have moved it.
    fn position(&self, cursor: &ChangeCursor, moment: usize) -> Result<&Acknowledged, Failure> {
        let sequence = cursor.acknowledged()?;
        let returned = |it: &Acknowledged| it.returned.is_some_and(|at| at <= moment);
        let least = self.acknowledged.iter().rposition(returned).unwrap_or(0);
        let mut possible = self.acknowledged[least..].iter();
        possible
            .rfind(|it| it.sequence == sequence && it.begun <= moment)
            .ok_or_else(|| {
                let known = self.acknowledged[least..].iter().map(|it| it.sequence);
                let known: Vec<_> = known.collect();
                Failure::Wrong(format!(
                    "the cursor stands at {sequence}, not one of {known:?}"
                ))
            })
    }

    /// Reads up to `most` batches behind the acknowledged position; the copy then, and its sequence.
    fn follow(
        &mut self,
        world: &World,
        db: &Db,
        most: usize,
        acknowledges: bool,
    ) -> Result<Option<(u64, Copy)>, Failure> {
        if self.is_lost {
            return Ok(None);
        }
        let cursor = db.change_cursor(CURSOR)?;
        let at = self.position(&cursor, world.moment())?;
        let begun_at = at.sequence;
        let Some(mut copy) = at.copy.clone() else {
            self.is_lost = true;
            return Ok(None);
        };
        let Some(last) = read(&cursor, begun_at, &mut copy, most)? else {
            self.is_lost = true;
            return Ok(None);
        };
        if acknowledges && last > begun_at {
            self.acknowledge(world, &cursor, last, Some(copy.clone()))?;
        }
        Ok(Some((last, copy)))
    }

    fn acknowledge(
        &mut self,
        world: &World,
        cursor: &ChangeCursor,
        sequence: u64,
        copy: Option<Copy>,
    ) -> Result<(), Failure> {
        self.acknowledged.push(Acknowledged {
            sequence,
            begun: world.moment(),
            returned: None,
            copy,
        });
        cursor.acknowledge(sequence)?;
        if let Some(last) = self.acknowledged.last_mut() {
            last.returned = Some(world.moment());
        }
        Ok(())
    }

    fn settle(&mut self, world: &World, db: &Db, is_thorough: bool) -> Result<bool, Failure> {
        let followed = self.follow(world, db, usize::MAX, is_thorough)?;
        let found = scan(world, db)?;
        if let Some((_, told)) = followed {
            compare(world, told, found).map_err(|difference| {
                Failure::Wrong(format!("what the feed told is not there: {difference}"))
            })?;
            return Ok(true);
        }
        self.is_lost = false;
        let cursor = db.change_cursor(CURSOR)?;
        // What went past the log is in memory alone, until it is flushed.
        if is_thorough {
            db.flush()?;
        }
        let sequence = db.snapshot().sequence();
        self.acknowledge(world, &cursor, sequence, is_thorough.then_some(found))?;
        Ok(false)
    }
}

/// After a crash: the cursor stands where an acknowledgement has put it, and leads from there to what is
/// left. What the follower knows then, and whether it was compared.
pub(crate) fn after_crash(
    world: &World,
    after: &World,
    db: &Db,
    moment: usize,
) -> Result<(Option<Feed>, bool), Failure> {
    let Some(known) = locked(&world.feed).clone() else {
        return Ok((None, false));
    };
    let cursor = match db.change_cursor(CURSOR) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = known.acknowledged.first().and_then(|it| it.returned);
            return match made {
                Some(made) if made <= moment => Err(Failure::Wrong("the cursor is gone".into())),
                _ => Ok((Some(Feed::default()), false)),
            };
        }
        found => found?,
    };
    let at = known.position(&cursor, moment)?;
    let mut copy = at.copy.clone().unwrap_or_default();
    let last = read(&cursor, at.sequence, &mut copy, usize::MAX)?;
    let is_whole = last.is_some() && at.copy.is_some();
    if is_whole {
        compare(after, copy, scan(after, db)?).map_err(|difference| {
            Failure::Wrong(format!(
                "the feed does not lead to what is left: {difference}"
            ))
        })?;
    }
    let feed = Feed {
        acknowledged: vec![Acknowledged {
            begun: 0,
            returned: Some(0),
            ..at.clone()
        }],
        is_lost: false,
    };
    Ok((Some(feed), is_whole))
}

/// Restores a closed database to a position that was acknowledged in this life. Whether the log reaches
/// back so far.
pub(crate) fn restore(world: &World, random: &mut Random, target: &Path) -> Result<bool, Failure> {
    let Some(feed) = locked(&world.feed).clone() else {
        return Ok(false);
    };
    let acknowledged = feed.acknowledged.iter();
    let known =
        acknowledged.filter_map(|it| it.returned.and(it.copy.as_ref()).map(|copy| (it, copy)));
    let known: Vec<_> = known.collect();
    if known.is_empty() {
        return Ok(false);
    }
    let (at, copy) = known[random.index(known.len())];
    let source = RestoreSource::new(DIRECTORY)
        .file_system(world.disk.clone())
        .clock(world.clock.clone());
    match source.restore(&RestorePoint::Sequence(at.sequence), target) {
        // Something went past the log, and no backup makes up for it.
        Err(error) if error.kind() == ErrorKind::Gap => return Ok(false),
        restored => restored?,
    };
    let db = world.open_copy(target)?;
    let found = scan(world, &db)?;
    compare(world, copy.clone(), found).map_err(|difference| {
        let sequence = at.sequence;
        Failure::Wrong(format!("restored to {sequence}: {difference}"))
    })?;
    db.close()?;
    Ok(true)
}

/// Takes what `cursor` tells into `copy`, at most so many batches. The last number told, or `None` where
/// something is missing.
fn read(
    cursor: &ChangeCursor,
    position: u64,
    copy: &mut Copy,
    most: usize,
) -> Result<Option<u64>, Failure> {
    let mut last = position;
    for batch in cursor.changes()?.take(most) {
        let batch = match batch {
            Err(error) if matches!(error.kind(), ErrorKind::Gap | ErrorKind::Lagged) => {
                return Ok(None);
            }
            batch => batch?,
        };
        if batch.first_sequence() <= last {
            let sentence = format!("batch {} is told after {last}", batch.first_sequence());
            return Err(Failure::Wrong(sentence));
        }
        last = batch.last_sequence();
        apply(copy, &batch);
    }
    Ok(Some(last))
}

fn apply(copy: &mut Copy, batch: &ChangeBatch) {
    for change in batch.changes() {
        let is_shared = match change.keyspace() {
            "default" => false,
            accounts::KEYSPACE => true,
            _ => continue,
        };
        let place = |key: &[u8]| (is_shared, key.to_vec());
        match change.operation() {
            Operation::Put { key, value } => {
                copy.insert(place(key), (value.to_vec(), 0));
            }
            Operation::PutExpiring {
                key,
                value,
                expires_at_millis,
            } => {
                copy.insert(place(key), (value.to_vec(), expires_at_millis));
            }
            Operation::Delete { key } => {
                copy.remove(&place(key));
            }
            Operation::DeleteRange { start, end } => copy.retain(|(keyspace, key), _| {
                let is_in = key.as_slice() >= start && end.is_none_or(|end| key.as_slice() < end);
                *keyspace != is_shared || !is_in
            }),
            // Nobody merges here.
            _ => {}
        }
    }
}

/// What is there now; nobody writes meanwhile.
fn scan(world: &World, db: &Db) -> Result<Copy, Failure> {
    let mut copy = Copy::new();
    let mut read = |is_shared: bool, keyspace: &Keyspace| -> Result<(), Failure> {
        for entry in keyspace.iter() {
            let (key, value) = entry?;
            let left = keyspace.ttl(&key)?;
            let expiry = left.map_or(0, |left| {
                world.clock.wall_millis() + u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
            });
            copy.insert((is_shared, key.to_vec()), (value.to_vec(), expiry));
        }
        Ok(())
    };
    read(false, db)?;
    if db
        .keyspace_names()?
        .iter()
        .any(|name| name == accounts::KEYSPACE)
    {
        read(true, &db.keyspace(accounts::KEYSPACE)?)?;
    }
    Ok(copy)
}

/// The first difference, of what has not expired.
fn compare(world: &World, mut told: Copy, found: Copy) -> Result<(), String> {
    let now = world.clock.wall_millis();
    told.retain(|_, (_, expiry)| *expiry == 0 || *expiry > now);
    if told == found {
        return Ok(());
    }
    let places = told.keys().chain(found.keys());
    let place = places
        .into_iter()
        .find(|it| told.get(*it) != found.get(*it));
    let say = |it: Option<&(Vec<u8>, u64)>| {
        it.map(|(value, expiry)| {
            (
                value[..value.len().min(16)].escape_ascii().to_string(),
                *expiry,
            )
        })
    };
    let Some(place) = place else { return Ok(()) };
    let key = place.1.escape_ascii();
    Err(format!(
        "{key}: {:?} was told, {:?} is there",
        say(told.get(place)),
        say(found.get(place))
    ))
}
