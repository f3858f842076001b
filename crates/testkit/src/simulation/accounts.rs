//! Lists that all clients share: every transfer is a transaction that reads some of them and appends
//! its number to each, over two keyspaces.
//!
//! Invariant: what the clients saw is one history, which must be serializable (or keep snapshot
//! isolation, as the seed says); after a crash every list is a beginning of what it was, with every
//! transfer whole or absent.

use esker::{Db, Error, ErrorKind, Isolation, Keyspace, Snapshot, TransactionOptions};

use super::failure::Failure;
use super::world::{World, locked};
use crate::history::list_append::{Element, Ending, Level, ListId, Operation, Transaction, check};
use crate::seed::Random;

/// Lists: the even ones in the default keyspace, the odd ones in another.
pub(crate) const LISTS: ListId = 4;
/// How their keys begin; no client's do.
const PREFIX: &[u8] = b"!list ";
pub(crate) const KEYSPACE: &str = "shared";

/// What all clients together know of the lists.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    pub(crate) level: Level,
    history: Vec<Transaction>,
    /// For each transaction of the history, what the disk makes of it.
    marks: Vec<Mark>,
    next: Element,
}

/// A transaction against the operations of the disk.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The moment at which its answer was there.
    answered: usize,
    /// Whether it was acknowledged as durable.
    is_synced: bool,
}

impl Accounts {
    pub(crate) fn new(seed: u64) -> Self {
        let strict = Random::of_part(seed, 8).chance(2);
        Self {
            level: if strict {
                Level::StrictSerializable
            } else {
                Level::Snapshot
            },
            history: Vec::new(),
            marks: Vec::new(),
            next: 1,
        }
    }

    fn record(&mut self, transaction: Transaction, answered: usize, is_synced: bool) {
        self.history.push(transaction);
        self.marks.push(Mark {
            answered,
            is_synced,
        });
    }
}

fn key(list: ListId) -> Vec<u8> {
    [PREFIX, list.to_string().as_bytes()].concat()
}

fn home(db: &Db, list: ListId) -> esker::Result<Keyspace> {
    match list % 2 {
        0 => Ok((**db).clone()),
        _ => db.keyspace(KEYSPACE),
    }
}

fn decode(value: Option<&[u8]>) -> Vec<Element> {
    let bytes = value.unwrap_or_default();
    bytes
        .chunks(8)
        .map(|chunk| {
            let mut element = [0; 8];
            element[..chunk.len()].copy_from_slice(chunk);
            Element::from_le_bytes(element)
        })
        .collect()
}

fn encode(list: &[Element]) -> Vec<u8> {
    list.iter()
        .flat_map(|element| element.to_le_bytes())
        .collect()
}

/// One transfer: some lists are read and appended to.
pub(crate) fn transfer(world: &World, db: &Db, random: &mut Random) -> Result<(), Failure> {
    let (element, level) = {
        let mut accounts = locked(&world.accounts);
        accounts.next += 1;
        (accounts.next, accounts.level)
    };
    let lists: Vec<ListId> = (0..LISTS).filter(|_| random.chance(2)).collect();
    let isolation = match level {
        Level::Snapshot => Isolation::Snapshot,
        _ => Isolation::Serializable,
    };
    let is_sync = random.chance(2);
    let durability = if is_sync {
        esker::Durability::Sync
    } else {
        esker::Durability::Buffered
    };
    let begun = world.scheduler.event();
    let mut operations = Vec::new();
    let mut attempt = || -> esker::Result<()> {
        let options = TransactionOptions::new()
            .isolation(isolation)
            .durability(durability);
        let mut transaction = db.begin_with(&options)?;
        for list in &lists {
            let keyspace = home(db, *list)?;
            let mut found = decode(transaction.get_in(&keyspace, key(*list))?.as_deref());
            operations.push(Operation::Read(*list, found.clone()));
            // Some lists are only read: what makes write skew possible.
            if !random.chance(3) {
                found.push(element);
                transaction.put_in(&keyspace, key(*list), encode(&found))?;
                operations.push(Operation::Append(*list, element));
            }
        }
        if random.chance(10) {
            transaction.rollback()?;
            return Err(Error::new(ErrorKind::Conflict, "rolled back"));
        }
        transaction.commit()
    };
    let result = attempt();
    let ending = match &result {
        Ok(()) => Ending::Committed,
        Err(error) if error.kind() == ErrorKind::Conflict => Ending::Aborted,
        Err(_) => Ending::Unknown,
    };
    let is_synced = is_sync && result.is_ok();
    let transaction = Transaction {
        operations,
        ending,
        begun,
        ended: world.scheduler.event(),
    };
    locked(&world.accounts).record(transaction, world.moment(), is_synced);
    match ending {
        Ending::Unknown => result.map_err(Failure::Refused),
        _ => Ok(()),
    }
}

/// Reads all lists at one moment.
pub(crate) fn observe(world: &World, db: &Db) -> Result<(), Failure> {
    let begun = world.scheduler.event();
    let operations = read(db, Some(&db.snapshot()))?;
    let transaction = Transaction {
        operations,
        ending: Ending::Committed,
        begun,
        ended: world.scheduler.event(),
    };
    locked(&world.accounts).record(transaction, world.moment(), false);
    Ok(())
}

fn read(db: &Db, snapshot: Option<&Snapshot>) -> Result<Vec<Operation>, Failure> {
    let mut operations = Vec::new();
    for list in 0..LISTS {
        let keyspace = home(db, list)?;
        let found = match snapshot {
            Some(snapshot) => snapshot.of(&keyspace).get(key(list))?,
            None => keyspace.get(key(list))?,
        };
        operations.push(Operation::Read(list, decode(found.as_deref())));
    }
    Ok(operations)
}

/// The end of a life: the history so far must be explained, up to what is there now.
pub(crate) fn judge_history(world: &World, db: &Db) -> Result<(), Failure> {
    observe(world, db)?;
    let accounts = locked(&world.accounts);
    check(&accounts.history, accounts.level).map_err(|anomaly| Failure::Wrong(anomaly.to_string()))
}

/// What a crash at `moment` has left of the lists: the accounts to go on with.
///
/// What was read after that moment was read in another future: a transfer whose group was in the log
/// by then may be there now, while the life that went on saw it refused, since a sync failed, and other
/// transfers take its place. (Seeds 858 and 1229 were taken for lost writes until this was seen.)
pub(crate) fn judge_crash(
    accounts: &Accounts,
    db: &Db,
    moment: usize,
    seed: u64,
) -> Result<Accounts, Failure> {
    let wrong = |sentence: String| Err(Failure::Wrong(sentence));
    let found = read(db, None)?;
    let lists: Vec<&Vec<Element>> = found
        .iter()
        .map(|operation| match operation {
            Operation::Read(_, list) => list,
            Operation::Append(..) => unreachable!("only reads were made"),
        })
        .collect();
    for (number, (transaction, mark)) in accounts.history.iter().zip(&accounts.marks).enumerate() {
        let is_past = mark.answered <= moment;
        let mut there = 0;
        let mut all = 0;
        for operation in &transaction.operations {
            match operation {
                Operation::Append(list, element) => {
                    all += 1;
                    there += usize::from(lists[*list as usize].contains(element));
                }
                Operation::Read(list, earlier) => {
                    let now = lists[*list as usize];
                    let common = now.len().min(earlier.len());
                    let committed = transaction.ending == Ending::Committed;
                    if committed && is_past && now[..common] != earlier[..common] {
                        return wrong(format!("list {list} was {earlier:?} and is {now:?}"));
                    }
                }
            }
        }
        if there != 0 && there != all {
            return wrong(format!("{there} of {all} appends of transaction {number}"));
        }
        if there != 0 && transaction.ending == Ending::Aborted {
            return wrong(format!("transaction {number} was refused and is there"));
        }
        if there != all && mark.is_synced && is_past {
            return wrong(format!("transaction {number} was synced and is lost"));
        }
    }
    for (list, elements) in lists.iter().enumerate() {
        let known = |element: &&Element| {
            let append = Operation::Append(list as ListId, **element);
            let mut history = accounts.history.iter();
            history.any(|transaction| transaction.operations.contains(&append))
        };
        if let Some(garbage) = elements.iter().find(|element| !known(element)) {
            return wrong(format!(
                "list {list} holds {garbage}, which nobody appended"
            ));
        }
    }
    // The next life begins with one transaction that wrote all there is.
    let mut next = Accounts::new(seed);
    next.next = accounts.next;
    let appends = found.iter().flat_map(|operation| match operation {
        Operation::Read(list, elements) => elements
            .iter()
            .map(|element| Operation::Append(*list, *element))
            .collect(),
        Operation::Append(..) => Vec::new(),
    });
    let operations = appends.collect();
    next.record(
        Transaction {
            operations,
            ending: Ending::Committed,
            begun: 0,
            ended: 0,
        },
        0,
        false,
    );
    Ok(next)
}
