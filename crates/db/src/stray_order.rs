//! In which order tables go that nothing names, told from what they say of themselves.
//!
//! A crash may leave any of those whose removal no sync has covered, and repair without a manifest then takes what is
//! left for the database. So before a table goes, these are gone for certain:
//!
//! - The tables that it names as replaced or gone.
//! - Those that it may hide: of the same keyspace, with a key in common, and with a record that is older than some
//!   record of its own. But not those that name it: when they were made, it hid nothing of them any more.
//! - What the other tables of its bulk load wait for: without one of them repair does not take the others.
//!
//! Values are last, for what points to them counts as damaged without them.
//!
//! Sequence numbers tell no order where each of two tables has a record that is older than one of the other, as after a
//! merge of a part of the keys; nor do they for a load of which no table says when it was done. Such tables wait for each
//! other, and for them all that may hide or names them: they have no order.
//!
//! Invariant: whichever tables of a step are left, with all of the steps behind it and those without an order: what no
//! reader could see while all were there, none sees then. Pure. Called by `strays`.

use esker_base::SequenceNumber;
use esker_base::filename::FileNumber;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_sstable::{Making, Origin};
use std::collections::{BTreeSet, HashMap};

/// What is known of a table that nothing names: `None` where it is damaged so that repair knows nothing either.
pub(crate) type StrayTable = (FileNumber, Option<(TableMeta, Origin)>);

/// In which order tables go.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StrayOrder {
    /// Each when the one before it is gone for certain.
    pub(crate) steps: Vec<Vec<FileNumber>>,
    /// These only when a table of the database names them as gone.
    pub(crate) unordered: Vec<FileNumber>,
}

/// A table as the order needs it.
struct Stray<'a> {
    number: FileNumber,
    keyspace: &'a str,
    bounds: &'a KeyBounds,
    oldest: SequenceNumber,
    newest: SequenceNumber,
    /// Says which load it is of, if it is of one.
    load: Option<FileNumber>,
    names: BTreeSet<FileNumber>,
}

impl Stray<'_> {
    fn may_hide(&self, other: &Self) -> bool {
        self.newest >= other.oldest
            && self.keyspace == other.keyspace
            && self.bounds.overlaps(other.bounds)
    }

    fn is_of_load_of(&self, other: &Self) -> bool {
        self.load.is_some() && self.load == other.load
    }

    /// Whether `other`'s file must be gone for certain before this one's may go.
    fn waits_for(&self, other: &Self) -> bool {
        if self.number == other.number || self.is_of_load_of(other) {
            return false;
        }
        let is_named = other.names.contains(&self.number);
        self.names.contains(&other.number) || (!is_named && self.may_hide(other))
    }
}

/// The order of `tables`.
pub(crate) fn order_of(tables: &[StrayTable]) -> StrayOrder {
    let loads: HashMap<FileNumber, SequenceNumber> = tables
        .iter()
        .flat_map(|(_, known)| known)
        .flat_map(|(_, origin)| origin.loads.iter().copied())
        .collect();
    let (mut values, mut unknown, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for (number, known) in tables {
        match known {
            None => unknown.push(*number),
            Some((_, origin)) if origin.making == Making::Values => values.push(*number),
            Some((meta, origin)) => left.push(stray_of(*number, meta, origin, &loads)),
        }
    }
    left.sort_by_key(|it| it.number);
    let mut order = StrayOrder::default();
    let mut waits = count_waits(&left);
    while let Some(step) = next_step(&left, &waits) {
        let (gone, rest): (Vec<_>, Vec<_>) = left
            .into_iter()
            .zip(waits)
            .partition(|(it, _)| step.contains(&it.number));
        waits = rest
            .iter()
            .map(|(it, count)| count - gone.iter().filter(|(other, _)| it.waits_for(other)).count())
            .collect();
        left = rest.into_iter().map(|(it, _)| it).collect();
        order.steps.push(step.into_iter().collect());
    }
    if left.is_empty() {
        order.steps.push(values);
    } else {
        order.unordered = left.iter().map(|it| it.number).chain(values).collect();
    }
    match order.steps.first_mut() {
        Some(first) => first.extend(unknown),
        None => order.steps.push(unknown),
    }
    order.steps.retain(|step| !step.is_empty());
    order
}

fn stray_of<'a>(
    number: FileNumber,
    meta: &'a TableMeta,
    origin: &'a Origin,
    loads: &HashMap<FileNumber, SequenceNumber>,
) -> Stray<'a> {
    let (oldest, newest, load) = match (origin.making, loads.get(&number)) {
        (Making::Load { .. }, Some(&sequence)) => (sequence, sequence, Some(origin.first)),
        // Repair takes it for newer than all that it finds.
        (Making::Load { after }, None) => (after + 1, SequenceNumber::MAX, Some(origin.first)),
        _ => (meta.smallest_sequence, meta.largest_sequence, None),
    };
    Stray {
        number,
        keyspace: &origin.name,
        bounds: &meta.bounds,
        oldest,
        newest,
        load,
        names: origin
            .replaces
            .iter()
            .chain(&origin.gone)
            .copied()
            .collect(),
    }
}

/// How many tables each waits for.
fn count_waits(tables: &[Stray<'_>]) -> Vec<usize> {
    let count = |it: &Stray<'_>| tables.iter().filter(|other| it.waits_for(other)).count();
    tables.iter().map(count).collect()
}

/// Those that wait for nothing, nor does their load. `None` where there are none.
fn next_step(tables: &[Stray<'_>], waits: &[usize]) -> Option<BTreeSet<FileNumber>> {
    let waiting = tables.iter().zip(waits).filter(|(_, count)| **count > 0);
    let loads: BTreeSet<_> = waiting.filter_map(|(it, _)| it.load).collect();
    let all = tables.iter().zip(waits);
    let next =
        all.filter(|(it, count)| **count == 0 && it.load.is_none_or(|load| !loads.contains(&load)));
    let next: BTreeSet<_> = next.map(|(it, _)| it.number).collect();
    Some(next).filter(|next| !next.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::RangeInclusive;

    /// A table with records of these sequence numbers.
    fn table(
        number: FileNumber,
        sequences: RangeInclusive<SequenceNumber>,
        keys: [&str; 2],
        gone: &[FileNumber],
    ) -> StrayTable {
        let meta = TableMeta {
            number,
            smallest_sequence: *sequences.start(),
            largest_sequence: *sequences.end(),
            bounds: KeyBounds::inclusive(keys[0], keys[1]),
            ..TableMeta::default()
        };
        let origin = Origin {
            gone: gone.to_vec(),
            ..Origin::default()
        };
        (number, Some((meta, origin)))
    }

    fn change(mut table: StrayTable, change: impl FnOnce(&mut Origin)) -> StrayTable {
        change(&mut table.1.as_mut().unwrap().1);
        table
    }

    fn load(number: FileNumber, first: FileNumber, keys: [&str; 2]) -> StrayTable {
        change(table(number, 0..=0, keys, &[]), |it| {
            it.making = Making::Load { after: 100 };
            it.first = first;
        })
    }

    /// Sees that `tables` go in `steps`, in whatever order they are found.
    fn check(tables: &[StrayTable], steps: &[&[FileNumber]], unordered: &[FileNumber]) {
        let sorted = |numbers: &[FileNumber]| numbers.iter().copied().collect::<BTreeSet<_>>();
        let reversed: Vec<_> = tables.iter().rev().cloned().collect();
        for tables in [tables, &reversed] {
            let found = order_of(tables);
            let found_steps: Vec<_> = found.steps.iter().map(|step| sorted(step)).collect();
            let expected: Vec<_> = steps.iter().map(|step| sorted(step)).collect();
            assert_eq!(found_steps, expected, "{tables:?}");
            assert_eq!(sorted(&found.unordered), sorted(unordered), "{tables:?}");
        }
    }

    const ALL: [&str; 2] = ["a", "z"];

    #[test]
    fn what_is_hidden_goes_first() {
        check(&[], &[], &[]);
        check(&[table(9, 5..=5, ALL, &[])], &[&[9]], &[]);
        let older = table(5, 1..=100, ALL, &[]);
        check(
            &[table(4, 150..=150, ALL, &[]), older.clone()],
            &[&[5], &[4]],
            &[],
        );
        // No key in common; of another keyspace.
        let (left, right) = (["a", "c"], ["d", "f"]);
        check(
            &[table(4, 150..=150, left, &[]), table(5, 1..=9, right, &[])],
            &[&[4, 5]],
            &[],
        );
        let elsewhere = change(table(4, 150..=150, ALL, &[]), |it| it.name = "other".into());
        check(&[elsewhere, older.clone()], &[&[4, 5]], &[]);
        // Its records have lost their numbers: it is in the last level.
        check(&[table(4, 0..=0, ALL, &[]), older], &[&[4], &[5]], &[]);
    }

    #[test]
    fn what_is_named_goes_first() {
        // A merge, its inputs, and what hides it all.
        let merge = [
            table(7, 1..=100, ALL, &[2, 3]),
            table(2, 1..=50, ALL, &[]),
            table(3, 51..=100, ALL, &[]),
            table(6, 150..=150, ALL, &[]),
        ];
        check(&merge, &[&[2], &[3], &[7], &[6]], &[]);
        // Its newest record was dropped: it looks older than what it names, which a reader kept.
        check(
            &[table(8, 90..=90, ALL, &[1]), table(1, 1..=100, ALL, &[])],
            &[&[1], &[8]],
            &[],
        );
    }

    #[test]
    fn what_cannot_be_told_apart_has_no_order() {
        // A range delete above the output of a merge of other keys with what it hides.
        let part = table(5, 50..=150, ALL, &[]);
        let delete = table(4, 100..=100, ["a", "c"], &[]);
        check(&[part.clone(), delete.clone()], &[], &[4, 5]);
        // What is below goes, and what is above stays, and the values.
        let below = table(2, 1..=9, ALL, &[]);
        let above = table(6, 200..=200, ALL, &[]);
        let values = change(table(7, 0..=0, ALL, &[]), |it| it.making = Making::Values);
        let tables = [
            part,
            delete,
            below,
            above,
            values,
            table(8, 0..=0, ALL, &[2]),
        ];
        check(&tables, &[&[2], &[8]], &[4, 5, 6, 7]);
        // Nothing was ever written like that.
        check(
            &[table(1, 1..=1, ALL, &[2]), table(2, 2..=2, ALL, &[1])],
            &[],
            &[1, 2],
        );
    }

    /// The story: 6 looks older than 5 since what it had of 3 that was newer is deleted, and so is the delete. The three
    /// waited for each other, and 6 went first: 3 was current again.
    #[test]
    fn what_only_looks_newer_does_not_go_behind() {
        let replaced = table(3, 10..=200, ALL, &[]);
        let below = table(5, 100..=100, ["b", "c"], &[]);
        let merged = table(6, 10..=60, ALL, &[3]);
        check(&[replaced, below, merged], &[], &[3, 5, 6]);
    }

    #[test]
    fn a_load_hides_what_was_written_while_it_was_made() {
        let flush = table(4, 150..=150, ["a", "c"], &[]);
        let later = |loads: &[_]| {
            change(table(9, 300..=300, ["x", "z"], &[]), |it| {
                it.loads = loads.to_vec()
            })
        };
        // Of two tables: 8 has nothing in common with the flush, but 7 does not count without it.
        let (one, two) = (load(7, 7, ["a", "k"]), load(8, 7, ["l", "z"]));
        check(
            &[
                flush.clone(),
                one.clone(),
                two.clone(),
                later(&[(7, 200), (8, 200)]),
            ],
            &[&[4], &[7, 8], &[9]],
            &[],
        );
        // Nobody knows when it was done.
        check(&[flush, one, two, later(&[])], &[], &[4, 7, 8, 9]);
    }

    #[test]
    fn values_are_last_and_damage_is_first() {
        let values = |number| {
            change(table(number, 0..=0, ALL, &[]), |it| {
                it.making = Making::Values
            })
        };
        let tables = [
            values(5),
            values(6),
            table(4, 150..=150, ALL, &[5]),
            (3, None),
        ];
        check(&tables, &[&[3, 4], &[5, 6]], &[]);
        check(&[(3, None)], &[&[3]], &[]);
    }
}
