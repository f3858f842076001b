//! Small families of tables, and which of them count.

use super::*;

fn table(number: FileNumber, making: Making, replaces: &[u64], gone: &[u64]) -> Found {
    let meta = TableMeta {
        number,
        ..TableMeta::default()
    };
    let origin = Origin {
        making,
        first: number,
        is_last: true,
        replaces: replaces.to_vec(),
        gone: gone.to_vec(),
        ..Origin::default()
    };
    Found {
        meta,
        origin,
        damage: None,
        has_values: true,
    }
}

fn counting(tables: Vec<Found>, gone: &[FileNumber]) -> Vec<FileNumber> {
    let found = tables
        .into_iter()
        .map(|table| (table.meta.number, table))
        .collect();
    let mut numbers: Vec<_> = that_count(&found, &gone.iter().copied().collect())
        .numbers
        .into_iter()
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn inputs_count_while_all_are_there_and_outputs_once_one_is_not() {
    let flush = |number| table(number, Making::Flush, &[], &[]);
    let merge = || table(3, Making::Merge, &[1, 2], &[]);
    assert_eq!(counting(vec![flush(1), flush(2), merge()], &[]), [1, 2]);
    assert_eq!(counting(vec![flush(1), merge()], &[]), [3]);
    // The manifest had let go of 1, though its file is there: the merge was complete.
    let later = table(4, Making::Flush, &[], &[1, 2]);
    assert_eq!(
        counting(vec![flush(1), flush(2), merge(), later], &[]),
        [3, 4]
    );
    assert_eq!(counting(vec![flush(1), flush(2), merge()], &[2]), [3]);
}

#[test]
fn what_was_replaced_long_ago_stays_away_and_what_does_not_count_says_nothing() {
    let flush = |number| table(number, Making::Flush, &[], &[]);
    // A reader held 1 while 3, which had replaced it, was replaced itself.
    let held = table(5, Making::Merge, &[3, 4], &[1]);
    assert_eq!(counting(vec![flush(1), held.clone()], &[]), [5]);
    // 5 is gone itself, after a restore of 1.
    let after = table(7, Making::Flush, &[], &[5]);
    assert_eq!(counting(vec![flush(1), held, after], &[]), [1, 7]);
}

#[test]
fn a_damaged_output_gives_way_to_its_inputs_and_a_damaged_input_to_its_output() {
    let flush = |number| table(number, Making::Flush, &[], &[]);
    let damaged = |table: Found| Found {
        damage: Some(Loss::new(Path::new("x"), "damaged")),
        ..table
    };
    let merge = table(3, Making::Merge, &[1, 2], &[]);
    let all = vec![flush(1), flush(2), damaged(merge.clone())];
    assert_eq!(counting(all, &[]), [1, 2]);
    assert_eq!(counting(vec![flush(1), damaged(flush(2)), merge], &[]), [3]);
}

#[test]
fn a_load_counts_as_a_whole() {
    let part = |number, part, is_last| {
        let mut table = table(number, Making::Load { after: 9 }, &[], &[]);
        (table.origin.first, table.origin.part, table.origin.is_last) = (1, part, is_last);
        table
    };
    let (a, b, c) = (part(1, 0, false), part(2, 1, false), part(3, 2, true));
    assert_eq!(
        counting(vec![a.clone(), b.clone(), c.clone()], &[]),
        [1, 2, 3]
    );
    let mut later = table(9, Making::Flush, &[], &[]);
    later.origin.loads = vec![(1, 20)];
    assert_eq!(counting(vec![a.clone(), c.clone(), later], &[]), [1, 9]);
    for incomplete in [vec![a.clone(), b.clone()], vec![a, c.clone()], vec![b, c]] {
        assert!(counting(incomplete, &[]).is_empty());
    }
}
