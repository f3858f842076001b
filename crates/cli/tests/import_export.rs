//! Records in and out of a database through files and pipes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail.

mod binary;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use binary::{Place, text};

/// A small generator of reproducible noise (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Text of all planes, without tabs and newlines but with carriage returns and backslashes.
    fn text(&mut self, chars: u64) -> String {
        let mut text = String::new();
        while (text.chars().count() as u64) < chars {
            let bound = [0x80, 0x80, 0x800, 0x1_0000, 0x11_0000][self.below(5) as usize];
            match char::from_u32(self.below(bound) as u32) {
                None | Some('\t' | '\n') => {}
                Some(char) => text.push(char),
            }
        }
        text
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn fifty_thousand_unicode_records_come_out_sorted() {
    let place = Place::new();
    let mut noise = Noise(0x5eed);
    let mut lines = Vec::new();
    let mut expected = BTreeMap::new();
    while expected.len() < 50_000 {
        let (key_chars, value_chars) = (1 + noise.below(20), noise.below(60));
        let (key, value) = (noise.text(key_chars), noise.text(value_chars));
        lines.extend_from_slice(format!("{key}\t{value}\n").as_bytes());
        expected.insert(key, value);
    }
    let input = place.file("input.tsv");
    fs::write(&input, lines).unwrap();
    place.run(["import", text(&input)]).ok();
    assert_eq!(place.run(["count"]).text(), "50000\n");
    let expected: String = expected
        .iter()
        .map(|(k, v)| format!("{k}\t{v}\n"))
        .collect();
    assert!(
        place.run(["export", "-"]).text() == expected,
        "the export is the sorted input"
    );
    let output = place.file("output.tsv");
    let outcome = place.run(["export", text(&output)]);
    assert_eq!(outcome.err, "exported 50000 records\n");
    assert!(fs::read(output).unwrap() == expected.as_bytes());
}

#[test]
fn any_bytes_survive_tsv_and_jsonl() {
    let mut noise = Noise(1);
    let mut records = BTreeMap::new();
    for _ in 0..2000 {
        let (key_len, value_len) = (1 + noise.below(12), noise.below(40));
        let value = if noise.below(2) == 0 {
            noise.bytes(value_len)
        } else {
            noise.text(value_len).into_bytes()
        };
        records.insert(noise.bytes(key_len), value);
    }
    let first = Place::new();
    // Through the other door, so that the formats are checked against something else.
    let db = esker::Db::open(first.db()).unwrap();
    for (key, value) in &records {
        db.put_opt(key, value, &buffered()).unwrap();
    }
    db.close().unwrap();
    for format in ["tsv", "jsonl"] {
        let exported = first.run(["export", "--format", format, "-"]).ok();
        assert_eq!(
            exported.iter().filter(|byte| **byte == b'\n').count(),
            records.len()
        );
        let second = Place::new();
        let outcome = second.feed(["import", "--format", format, "-"], &exported);
        assert_eq!(outcome.err, format!("imported {} records\n", records.len()));
        let db = esker::Options::new().open_read_only(second.db()).unwrap();
        let copied: BTreeMap<Vec<u8>, Vec<u8>> = db
            .iter()
            .map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
            .collect();
        assert!(copied == records, "{format}");
        assert!(second.run(["export", "--format", format, "-"]).ok() == exported);
    }
}

fn buffered() -> esker::WriteOptions {
    esker::WriteOptions::new().durability(esker::Durability::Buffered)
}

#[test]
fn details_of_raw_tsv() {
    let place = Place::new();
    let outcome = place.feed(
        ["import", "-"],
        b"k\tfirst\ncr\tv\r\nk\tlast\ntabs\ta\tb\nend\tno newline",
    );
    assert_eq!(outcome.err, "imported 5 records\n");
    let expected = b"cr\tv\r\nend\tno newline\nk\tlast\ntabs\ta\tb\n";
    assert_eq!(place.run(["export", "-"]).ok(), expected);
    let nothing = place.feed(["import", "-"], b"");
    assert_eq!(
        (nothing.code, nothing.err.as_str()),
        (0, "imported 0 records\n")
    );
    assert_eq!(place.run(["count"]).text(), "4\n");
}

#[test]
fn a_bad_line_is_named_and_what_came_before_it_is_kept() {
    let long_key = [&vec![b'k'; (1 << 20) + 1][..], b"\tv"].concat();
    let cases: [(&str, &[u8], &[&str]); 7] = [
        ("raw-tsv", b"no tab here", &["there is no tab"]),
        ("raw-tsv", b"\tempty key", &["the key is empty"]),
        (
            "raw-tsv",
            &long_key,
            &["there is no tab within its first 1048577 bytes"],
        ),
        ("tsv", b"k\tbad \\x escape", &["\\x is no escape"]),
        (
            "tsv",
            &long_key,
            &["the key has 1048577 bytes; the limit is 1048576"],
        ),
        ("jsonl", b"{\"key\":\"k\"}", &["missing field `value`"]),
        ("jsonl", b"k\tv", &["expected value"]),
    ];
    for (format, line, words) in cases {
        let place = Place::new();
        let good = |i: u32| match format {
            "jsonl" => format!("{{\"key\":\"{i:04}\",\"value\":\"v\"}}\n"),
            _ => format!("{i:04}\tv\n"),
        };
        let mut input: Vec<u8> = (0..1234).map(good).collect::<String>().into_bytes();
        input.extend_from_slice(line);
        input.extend_from_slice(b"\n");
        input.extend_from_slice(good(9999).as_bytes());
        let outcome = place.feed(["import", "--format", format, "-"], &input);
        outcome.fails(1, &["line 1235", "1234 records before it were imported"]);
        outcome.fails(1, words);
        assert_eq!(place.run(["count"]).text(), "1234\n");
        place.run(["get", "9999"]).fails(1, &[]);
    }
}

/// Without a limit on lines these would go on until memory is full.
#[cfg(target_os = "linux")]
#[test]
fn endless_lines_are_given_up() {
    for format in ["raw-tsv", "tsv", "jsonl"] {
        let outcome = Place::new().run(["import", "--format", format, "/dev/zero"]);
        outcome.fails(1, &["line 1", "0 records before it were imported"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error() {
    let place = Place::new();
    place.run(["put", "k", "v"]).ok();
    for verb in [&["export", "-"][..], &["scan"], &["get", "k"], &["stats"]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let child = place
            .command(verb)
            .stdout(Stdio::from(full))
            .output()
            .unwrap();
        assert_eq!(child.status.code(), Some(3), "{verb:?}");
        let said = String::from_utf8(child.stderr).unwrap();
        assert!(said.contains("standard output"), "{said}");
    }
}

#[test]
fn export_refuses_what_raw_tsv_cannot_hold_and_leaves_no_file() {
    for (key, value, problem) in [
        ("a\tb", "v", "a tab"),
        ("a\nb", "v", "a newline"),
        ("a", "v\nw", "a newline"),
    ] {
        let place = Place::new();
        place.run(["put", key, value]).ok();
        let output = place.file("out.tsv");
        let outcome = place.run(["export", text(&output)]);
        outcome.fails(1, &[problem, "raw-tsv", &format!("{key:?}")]);
        assert!(!output.exists());
        let names: Vec<_> = fs::read_dir(output.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "only the database is left: {names:?}");
        place.run(["export", "--format", "tsv", text(&output)]).ok();
        assert!(output.exists());
    }
}

#[test]
fn a_missing_source_creates_no_database() {
    let place = Place::new();
    place
        .run(["import", text(&place.file("nowhere"))])
        .fails(3, &["nowhere"]);
    assert!(!place.db().exists());
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let place = Place::new();
    let records: String = (0..20_000)
        .map(|i| format!("{i:06}\tvalue of {i}\n"))
        .collect();
    place.feed(["import", "-"], records.as_bytes()).ok();
    for verb in [&["export", "-"][..], &["scan"]] {
        let mut child = place.command(verb).spawn().unwrap();
        let mut first = [0; 7];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(&first, b"000000\t");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn one_database_pours_into_another() {
    let (first, second) = (Place::new(), Place::new());
    let records: String = (0..5000)
        .map(|i| format!("{i:05}\t{}\n", "x".repeat(i % 300)))
        .collect();
    first.feed(["import", "-"], records.as_bytes()).ok();
    let mut export = first.command(["export", "-"]).spawn().unwrap();
    let pipe = export.stdout.take().unwrap();
    let import = second
        .command(["import", "-"])
        .stdin(Stdio::from(pipe))
        .output()
        .unwrap();
    assert!(export.wait().unwrap().success() && import.status.success());
    assert_eq!(second.run(["export", "-"]).text(), records);
}

#[test]
fn an_import_that_is_killed_leaves_the_records_before_some_point() {
    let place = Place::new();
    let records: String = (0..30_000)
        .map(|i| format!("{i:06}\tvalue of {i}\n"))
        .collect();
    let mut child = place
        .command(["import", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(records.as_bytes()).unwrap();
    // The pipe stays open: the import is still waiting for more when it is killed.
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stdin);
    place.run(["verify"]).ok();
    let kept = place.run(["export", "-"]).text();
    assert!(
        !kept.is_empty() && records.starts_with(&kept),
        "{} bytes",
        kept.len()
    );
    // And the next import goes on from there.
    place.feed(["import", "-"], records.as_bytes()).ok();
    assert_eq!(place.run(["export", "-"]).text(), records);
}

#[test]
fn large_values_stream_through() {
    let place = Place::new();
    let mut noise = Noise(7);
    let mut input = Vec::new();
    for i in 0..8 {
        let value = noise.bytes(3 << 20);
        input.extend_from_slice(format!("large{i}\t").as_bytes());
        input.extend(
            value
                .iter()
                .map(|byte| if *byte == b'\n' { b'.' } else { *byte }),
        );
        input.push(b'\n');
    }
    place.feed(["import", "-"], &input).ok();
    assert!(place.run(["export", "-"]).ok() == input);
}
