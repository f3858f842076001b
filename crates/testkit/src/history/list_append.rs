//! Transactions over lists: what anomalies a history holds.
//!
//! Invariant: each element is appended to a list at most once in a history, which makes every read
//! say exactly which writes it has seen, and in which order they happened.

use std::collections::BTreeMap;
use std::fmt;

use super::graph::{Edge, Graph};

#[cfg(test)]
mod tests;

/// A list, by number.
pub type ListId = u64;
/// What is appended.
pub type Element = u64;

/// One thing that a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It appended an element.
    Append(ListId, Element),
    /// It read a list and found these elements, what it had appended itself included.
    Read(ListId, Vec<Element>),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was acknowledged.
    Committed,
    /// It was refused or rolled back: nobody may see any of it.
    Aborted,
    /// Nobody knows: an error, or a crash before the answer. It counts as committed once somebody
    /// has read what it appended.
    Unknown,
}

/// One transaction as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// In this order.
    pub operations: Vec<Operation>,
    /// How it ended.
    pub ending: Ending,
    /// A moment before its first operation, on a clock that all clients share.
    pub begun: u64,
    /// A moment after its end on the same clock.
    pub ended: u64,
}

/// What a database promises about its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No G0, G1a, G1b, G1c and no G-single; write skew is allowed. (A little weaker than snapshot
    /// isolation proper.)
    Snapshot,
    /// As if one after the other.
    Serializable,
    /// As if one after the other, each at some moment between its begin and its end.
    StrictSerializable,
}

/// What was found, by the names of Adya and of Elle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A transaction did not see its own writes, or saw a list change.
    Internal,
    /// An element stands in a list twice, or was appended by nobody.
    Garbage,
    /// Two reads of one list are not prefixes of each other: writes were reordered or lost.
    IncompatibleOrder,
    /// Something that a committed transaction appended is missing from a read that began later.
    LostWrite,
    /// A cycle of overwritten writes.
    G0,
    /// A read of what an aborted transaction wrote.
    G1a,
    /// A read of what a transaction had not finished writing.
    G1b,
    /// A cycle of writes and reads of them.
    G1c,
    /// A cycle with one write over what was read: read skew, a lost update.
    GSingle,
    /// A cycle with several of those: write skew.
    G2,
    /// One of the cycles, by way of the order in real time: a read that came too late.
    RealTime,
}

/// An anomaly, with the transactions that show it (their places in the history).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is.
    pub kind: Kind,
    /// Who takes part; for a cycle, in its order.
    pub transactions: Vec<usize>,
    /// A sentence.
    pub message: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, who) = (self.kind, &self.transactions);
        write!(f, "{kind:?} among transactions {who:?}: {}", self.message)
    }
}

impl std::error::Error for Anomaly {}

/// Whether `history` keeps what `level` promises.
///
/// ```
/// use esker_testkit::history::list_append::{Ending, Kind, Level, Operation, Transaction, check};
///
/// let transaction = |begun, operations| Transaction {
///     operations,
///     ending: Ending::Committed,
///     begun,
///     ended: begun + 5,
/// };
/// // Each reads the other's list before the other writes it: write skew.
/// let history = [
///     transaction(0, vec![Operation::Read(1, vec![]), Operation::Append(2, 10)]),
///     transaction(1, vec![Operation::Read(2, vec![]), Operation::Append(1, 20)]),
///     transaction(9, vec![Operation::Read(1, vec![20]), Operation::Read(2, vec![10])]),
/// ];
/// assert!(check(&history, Level::Snapshot).is_ok());
/// assert_eq!(check(&history, Level::Serializable).unwrap_err().kind, Kind::G2);
/// ```
///
/// # Errors
/// The first anomaly that was found.
pub fn check(history: &[Transaction], level: Level) -> Result<(), Anomaly> {
    let history = Checked::new(history)?;
    history.internal()?;
    let orders = history.orders()?;
    history.reads(&orders)?;
    history.cycles(&orders, level)?;
    if level == Level::StrictSerializable {
        history.lost(&orders)?;
    }
    Ok(())
}

struct Checked<'a> {
    transactions: &'a [Transaction],
    writers: BTreeMap<(ListId, Element), usize>,
}

/// The longest read of each list, and who saw it.
type Orders<'a> = BTreeMap<ListId, (&'a [Element], usize)>;

fn anomaly(kind: Kind, transactions: Vec<usize>, message: String) -> Anomaly {
    Anomaly {
        kind,
        transactions,
        message,
    }
}

impl<'a> Checked<'a> {
    fn new(transactions: &'a [Transaction]) -> Result<Self, Anomaly> {
        let mut writers = BTreeMap::new();
        for (number, transaction) in transactions.iter().enumerate() {
            for operation in &transaction.operations {
                if let Operation::Append(list, element) = operation
                    && let Some(other) = writers.insert((*list, *element), number)
                {
                    let message = format!("the history appends {element} to {list} twice");
                    return Err(anomaly(Kind::Garbage, vec![other, number], message));
                }
            }
        }
        Ok(Self {
            transactions,
            writers,
        })
    }

    /// What each transaction that may have committed read of others, before its own appends.
    fn external_reads(&self) -> impl Iterator<Item = (usize, ListId, &'a [Element])> {
        let transactions = self.transactions;
        let lived = transactions.iter().enumerate();
        let lived = lived.filter(|(_, it)| it.ending != Ending::Aborted);
        lived.flat_map(move |(number, transaction)| {
            let mut touched = Vec::new();
            let operations = transaction.operations.iter();
            operations.filter_map(move |operation| match operation {
                Operation::Append(list, _) => {
                    touched.push(*list);
                    None
                }
                Operation::Read(list, found) => {
                    let first = !touched.contains(list);
                    touched.push(*list);
                    first.then_some((number, *list, &found[..]))
                }
            })
        })
    }

    /// Every transaction sees its own writes, and a list that does not change otherwise.
    fn internal(&self) -> Result<(), Anomaly> {
        for (number, transaction) in self.transactions.iter().enumerate() {
            let mut known: BTreeMap<ListId, Vec<Element>> = BTreeMap::new();
            let mut appended: BTreeMap<ListId, Vec<Element>> = BTreeMap::new();
            for operation in &transaction.operations {
                match operation {
                    Operation::Append(list, element) => {
                        if let Some(known) = known.get_mut(list) {
                            known.push(*element);
                        }
                        appended.entry(*list).or_default().push(*element);
                    }
                    Operation::Read(list, found) => {
                        let own = appended.get(list).map_or(&[][..], Vec::as_slice);
                        let same = known.get(list).is_none_or(|known| known == found);
                        if !same || !found.ends_with(own) {
                            let message = format!("list {list} read as {found:?}");
                            return Err(anomaly(Kind::Internal, vec![number], message));
                        }
                        known.insert(*list, found.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// The order of each list's elements: the longest read, of which every other one is a prefix.
    fn orders(&self) -> Result<Orders<'a>, Anomaly> {
        let mut orders: Orders<'a> = BTreeMap::new();
        for (number, transaction) in self.transactions.iter().enumerate() {
            if transaction.ending == Ending::Aborted {
                continue;
            }
            for operation in &transaction.operations {
                let Operation::Read(list, found) = operation else {
                    continue;
                };
                let (longest, who) = orders.entry(*list).or_insert((found, number));
                let common = found.len().min(longest.len());
                if found[..common] != longest[..common] {
                    let message = format!("list {list} read as {found:?} and as {longest:?}");
                    return Err(anomaly(
                        Kind::IncompatibleOrder,
                        vec![*who, number],
                        message,
                    ));
                }
                if found.len() > longest.len() {
                    (*longest, *who) = (found, number);
                }
            }
        }
        for (list, (elements, who)) in &orders {
            for (place, element) in elements.iter().enumerate() {
                let twice = elements[..place].contains(element);
                if twice || !self.writers.contains_key(&(*list, *element)) {
                    let message = format!("element {element} in list {list}");
                    return Err(anomaly(Kind::Garbage, vec![*who], message));
                }
            }
        }
        Ok(orders)
    }

    fn writer(&self, list: ListId, element: Element) -> Option<usize> {
        self.writers.get(&(list, element)).copied()
    }

    /// The last element that transaction `number` appended to `list`.
    fn last_append(&self, number: usize, list: ListId) -> Option<Element> {
        let operations = self.transactions[number].operations.iter().rev();
        let mut appends = operations.filter_map(|operation| match operation {
            Operation::Append(it, element) if *it == list => Some(*element),
            _ => None,
        });
        appends.next()
    }

    /// No read of what was taken back, or not yet whole.
    fn reads(&self, orders: &Orders<'a>) -> Result<(), Anomaly> {
        for (list, (elements, reader)) in orders {
            for element in *elements {
                let Some(writer) = self.writer(*list, *element) else {
                    continue;
                };
                if self.transactions[writer].ending == Ending::Aborted {
                    let message = format!("element {element} of list {list}");
                    return Err(anomaly(Kind::G1a, vec![writer, *reader], message));
                }
            }
        }
        for (reader, list, found) in self.external_reads() {
            let Some(last) = found.last() else { continue };
            let Some(writer) = self.writer(list, *last) else {
                continue;
            };
            if writer != reader && self.last_append(writer, list) != Some(*last) {
                let message = format!("list {list} read as {found:?}");
                return Err(anomaly(Kind::G1b, vec![writer, reader], message));
            }
        }
        Ok(())
    }

    fn graph(&self, orders: &Orders<'a>) -> Graph {
        // Behind the transactions stands one node for each end, for the order in real time.
        let count = self.transactions.len();
        let mut graph = Graph::new(2 * count);
        for (list, (elements, _)) in orders {
            for pair in elements.windows(2) {
                if let (Some(from), Some(to)) =
                    (self.writer(*list, pair[0]), self.writer(*list, pair[1]))
                {
                    graph.add(from, to, Edge::WriteWrite);
                }
            }
        }
        for (reader, list, found) in self.external_reads() {
            if let Some(writer) = found.last().and_then(|last| self.writer(list, *last)) {
                graph.add(writer, reader, Edge::WriteRead);
            }
            let next = orders
                .get(&list)
                .and_then(|(order, _)| order.get(found.len()));
            if let Some(writer) = next.and_then(|next| self.writer(list, *next)) {
                graph.add(reader, writer, Edge::ReadWrite);
            }
        }
        let committed = |number: &usize| self.transactions[*number].ending == Ending::Committed;
        let mut by_end: Vec<usize> = (0..count).filter(committed).collect();
        by_end.sort_by_key(|number| self.transactions[*number].ended);
        for (place, number) in by_end.iter().enumerate() {
            graph.add(*number, count + place, Edge::RealTime);
            if place > 0 {
                graph.add(count + place - 1, count + place, Edge::RealTime);
            }
        }
        for (number, transaction) in self.transactions.iter().enumerate() {
            let ended = |other: &usize| self.transactions[*other].ended < transaction.begun;
            let before = by_end.partition_point(ended);
            if before > 0 {
                graph.add(count + before - 1, number, Edge::RealTime);
            }
        }
        graph
    }

    fn cycles(&self, orders: &Orders<'a>, level: Level) -> Result<(), Anomaly> {
        use Edge::{ReadWrite, RealTime, WriteRead, WriteWrite};
        let graph = self.graph(orders);
        let kinds: [(Kind, Edge, &[Edge], Level); 6] = [
            (Kind::G0, WriteWrite, &[WriteWrite], Level::Snapshot),
            (
                Kind::G1c,
                WriteRead,
                &[WriteWrite, WriteRead],
                Level::Snapshot,
            ),
            (
                Kind::GSingle,
                ReadWrite,
                &[WriteWrite, WriteRead],
                Level::Snapshot,
            ),
            (
                Kind::G2,
                ReadWrite,
                &[WriteWrite, WriteRead, ReadWrite],
                Level::Serializable,
            ),
            (
                Kind::RealTime,
                WriteRead,
                &[WriteWrite, WriteRead, ReadWrite, RealTime],
                Level::StrictSerializable,
            ),
            (
                Kind::RealTime,
                ReadWrite,
                &[WriteWrite, WriteRead, ReadWrite, RealTime],
                Level::StrictSerializable,
            ),
        ];
        for (kind, first, others, least) in kinds {
            if least > level {
                continue;
            }
            if let Some(cycle) = graph.cycle(first, others) {
                let who: Vec<_> = cycle
                    .into_iter()
                    .filter(|node| *node < self.transactions.len())
                    .collect();
                let told: Vec<_> = who
                    .iter()
                    .map(|number| format!("{number}: {:?}", self.transactions[*number]))
                    .collect();
                return Err(anomaly(kind, who, told.join("; ")));
            }
        }
        Ok(())
    }

    /// What a committed transaction appended is in every list that was read from its end on.
    fn lost(&self, orders: &Orders<'a>) -> Result<(), Anomaly> {
        for ((list, element), writer) in &self.writers {
            let transaction = &self.transactions[*writer];
            if transaction.ending != Ending::Committed {
                continue;
            }
            let seen = orders
                .get(list)
                .is_some_and(|(order, _)| order.contains(element));
            if seen {
                // The order in real time of those who did not see it is the graph's business.
                continue;
            }
            let mut reads = self.external_reads();
            let later = reads.find(|(reader, it, _)| {
                it == list && self.transactions[*reader].begun > transaction.ended
            });
            if let Some((reader, _, found)) = later {
                let message = format!("element {element} is not in list {list}, read as {found:?}");
                return Err(anomaly(Kind::LostWrite, vec![*writer, reader], message));
            }
        }
        Ok(())
    }
}
