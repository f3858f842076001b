//! Random deeds, reopenings and strangers among them: an index finds what a scan of the records finds.

use super::{declared, found};
use esker::{Keyspace, ManualClock, Options, WriteBatch};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Deed {
    Put(u8, Vec<u8>),
    PutExpiring(u8, Vec<u8>, u8),
    Delete(u8),
    DeleteRange(u8, u8),
    Batch(Vec<(u8, Option<Vec<u8>>)>),
    Clear,
    Advance(u8),
    Flush,
    Compact,
    Reopen,
    Stranger(u8, Vec<u8>),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let words = || proptest::collection::vec(b'a'..b'f', 0..4);
    let key = || 0u8..24;
    let deed = prop_oneof![
        8 => (key(), words()).prop_map(|(k, w)| Deed::Put(k, w)),
        3 => (key(), words(), 1u8..9).prop_map(|(k, w, t)| Deed::PutExpiring(k, w, t)),
        3 => key().prop_map(Deed::Delete),
        2 => (key(), key()).prop_map(|(a, b)| Deed::DeleteRange(a.min(b), a.max(b))),
        4 => proptest::collection::vec((key(), proptest::option::of(words())), 1..6)
            .prop_map(Deed::Batch),
        1 => Just(Deed::Clear),
        2 => (1u8..9).prop_map(Deed::Advance),
        1 => Just(Deed::Flush),
        1 => Just(Deed::Compact),
        1 => Just(Deed::Reopen),
        1 => (key(), words()).prop_map(|(k, w)| Deed::Stranger(k, w)),
    ];
    proptest::collection::vec(deed, 1..60)
}

fn text(words: &[u8]) -> String {
    words
        .iter()
        .map(|&word| char::from(word).to_string() + " ")
        .collect()
}

/// What is to be there: the value and when it expires.
type Model = BTreeMap<String, (String, u64)>;

fn check_against(notes: &Keyspace, model: &Model, now_millis: u64) -> Result<(), TestCaseError> {
    for word in ["a", "b", "c", "d", "e"] {
        let live = model.iter().filter(|(_, (_, expiry))| *expiry > now_millis);
        let having = live.filter(|(_, (text, _))| text.split_whitespace().any(|w| w == word));
        let expected: Vec<_> = having.map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(found(notes, word), expected, "{}", word);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sequence_of_deeds_keeps_the_index_true(deeds in deeds()) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at_millis(1_000_000));
        let mut now = 1_000_000u64;
        let open = || declared().clock(clock.clone()).open(dir.path()).unwrap();
        let (mut db, mut model) = (open(), Model::new());
        let mut notes = db.keyspace("notes").unwrap();
        let name = |key: u8| format!("k{key:02}");
        for deed in deeds {
            match deed {
                Deed::Put(key, words) => {
                    notes.put(name(key), text(&words)).unwrap();
                    model.insert(name(key), (text(&words), u64::MAX));
                }
                Deed::PutExpiring(key, words, seconds) => {
                    let ttl = Duration::from_secs(seconds.into());
                    notes.put_with_ttl(name(key), text(&words), ttl).unwrap();
                    model.insert(name(key), (text(&words), now + u64::from(seconds) * 1000));
                }
                Deed::Delete(key) => {
                    notes.delete(name(key)).unwrap();
                    model.remove(&name(key));
                }
                Deed::DeleteRange(from, to) => {
                    notes.delete_range(name(from)..name(to)).unwrap();
                    model.retain(|key, _| *key < name(from) || *key >= name(to));
                }
                Deed::Batch(operations) => {
                    let mut batch = WriteBatch::new();
                    for (key, words) in operations {
                        match words {
                            Some(words) => {
                                batch.put_in(&notes, name(key), text(&words));
                                model.insert(name(key), (text(&words), u64::MAX));
                            }
                            None => {
                                batch.delete_in(&notes, name(key));
                                model.remove(&name(key));
                            }
                        }
                    }
                    db.write(batch).unwrap();
                }
                Deed::Clear => {
                    notes.clear().unwrap();
                    model.clear();
                }
                Deed::Advance(seconds) => {
                    clock.advance(Duration::from_secs(seconds.into()));
                    now += u64::from(seconds) * 1000;
                }
                Deed::Flush => db.flush().unwrap(),
                Deed::Compact => db.compact().unwrap(),
                Deed::Reopen => {
                    db.close().unwrap();
                    db = open();
                    db.build_indexes().unwrap();
                    notes = db.keyspace("notes").unwrap();
                }
                Deed::Stranger(key, words) => {
                    db.close().unwrap();
                    let stranger = Options::new().clock(clock.clone()).open(dir.path()).unwrap();
                    stranger.keyspace("notes").unwrap().put(name(key), text(&words)).unwrap();
                    stranger.close().unwrap();
                    model.insert(name(key), (text(&words), u64::MAX));
                    db = open();
                    db.build_indexes().unwrap();
                    notes = db.keyspace("notes").unwrap();
                }
            }
            check_against(&notes, &model, now)?;
        }
        let report = db.validate().unwrap();
        prop_assert!(report.is_ok(), "{:?}", report.issues());
    }
}
