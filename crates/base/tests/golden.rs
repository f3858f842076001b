//! The formats of this crate against golden files: what version 1 wrote, every later version must
//! read, and writes until its format number changes.
//!
//! Invariant: files under `testdata/` are written by hand from the format's description and never
//! regenerated. Each is hexadecimal with comments, and stands word for word as the worked example
//! of its page in `docs/format/`.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use esker_base::internal_key::{self, MAX_SEQUENCE, Trailer, ValueKind};
use esker_base::range_tombstone::{FragmentedTombstones, RangeTombstone};
use esker_base::write_batch::{BatchEncoder, BatchView, Record};

fn read(relative: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(relative);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn line_bytes(line: &str) -> Vec<u8> {
    let digits = line.split('#').next().unwrap_or_default();
    digits
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// The bytes of a golden file, having checked that `page` shows them.
fn golden(file: &str, page: &str) -> Vec<u8> {
    let text = read(&format!("testdata/base/{file}"));
    let page_text = read(&format!("docs/format/{page}"));
    assert!(
        page_text.contains(&format!("```text\n{text}```")),
        "{page} does not show {file}"
    );
    assert!(
        page_text.contains(&format!("testdata/base/{file}")),
        "{page} does not name {file}"
    );
    text.lines().flat_map(line_bytes).collect()
}

#[test]
fn write_batches_are_version_1() {
    let golden = golden("write_batch_v1.hex", "write_batch.md");
    let expiring = [&5u64.to_le_bytes()[..], b"x"].concat();
    let record = |keyspace, kind, key, value| Record {
        keyspace,
        kind,
        key,
        value,
    };
    let expected = [
        record(0, ValueKind::Value, b"k", b"v"),
        record(300, ValueKind::Tombstone, b"gone", b""),
        record(0, ValueKind::ValueWithExpiry, b"t", &expiring),
        record(0, ValueKind::RangeDelete, b"a", b"m"),
        record(1, ValueKind::RangeDelete, b"a", b""),
        record(0, ValueKind::SingleDelete, b"s", b""),
    ];
    let view = BatchView::parse(&golden).unwrap();
    assert_eq!((view.sequence(), view.count()), (7, 6));
    assert_eq!(
        view.records().collect::<Result<Vec<_>, _>>().unwrap(),
        expected
    );

    let mut batch = BatchEncoder::new();
    for record in expected {
        batch.push(record.keyspace, record.kind, record.key, record.value);
    }
    assert_eq!(batch.seal(7), golden);
}

#[test]
fn range_tombstones_are_version_1() {
    let golden = golden("range_tombstones_v1.hex", "range_tombstones.md");
    let deletion = |start: &str, end: &str, sequence| RangeTombstone {
        start: start.into(),
        end: end.into(),
        sequence,
    };
    let expected = FragmentedTombstones::build([
        deletion("a", "e", 5),
        deletion("c", "k", 9),
        deletion("x", "", 300),
    ]);
    assert_eq!(FragmentedTombstones::decode(&golden).unwrap(), expected);
    let mut bytes = Vec::new();
    expected.encode(&mut bytes);
    assert_eq!(bytes, golden);
}

#[test]
fn internal_keys_are_version_1() {
    let expected: [(&[u8], Trailer); 5] = [
        (b"a", Trailer::new(9, ValueKind::Tombstone)),
        (b"a", Trailer::new(7, ValueKind::Value)),
        (
            b"a\0",
            Trailer::new(MAX_SEQUENCE, ValueKind::ValueWithExpiry),
        ),
        (b"b", Trailer::new(256, ValueKind::MergeOperand)),
        (b"b", Trailer::new(0, ValueKind::Value)),
    ];
    let bytes: Vec<u8> = expected
        .iter()
        .flat_map(|(key, trailer)| [*key, &trailer.raw().to_le_bytes()].concat())
        .collect();
    assert_eq!(bytes, golden("internal_keys_v1.hex", "internal_key.md"));
    assert!(expected.is_sorted_by(|a, b| internal_key::compare(a.0, a.1, b.0, b.1).is_lt()));
}
