//! What holds for all line formats: round trips of any bytes, and clear words for malformed lines.

use super::*;
use proptest::prelude::*;

const ALL: [Format; 3] = [Format::RawTsv, Format::Tsv, Format::Jsonl];

fn encoded(format: Format, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    format.encode(key, value, &mut out).unwrap();
    out
}

/// Bytes in which the special ones are common.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let special = prop::sample::select(&b"\\\t\n\r\"{}\0\xff\xc3tnr"[..]);
    prop_oneof![
        prop::collection::vec(prop_oneof![special, any::<u8>()], 0..64),
        any::<String>().prop_map(String::into_bytes),
    ]
}

fn one_line(encoded: &[u8]) -> &[u8] {
    let (newline, line) = encoded.split_last().unwrap();
    assert_eq!(*newline, b'\n');
    assert!(
        !line.contains(&b'\n'),
        "{:?}",
        line.escape_ascii().to_string()
    );
    line
}

proptest! {
    #[test]
    fn any_bytes_survive_tsv_and_jsonl(key in bytes(), value in bytes()) {
        for format in [Format::Tsv, Format::Jsonl] {
            let encoded = encoded(format, &key, &value);
            let record = format.decode(one_line(&encoded)).unwrap().unwrap();
            prop_assert_eq!(&*record.key, &key[..]);
            prop_assert_eq!(&*record.value, &value[..]);
            let limits = RecordLimits { key_bytes: key.len(), value_bytes: value.len() };
            prop_assert!(encoded.len() - 1 <= format.line_limits(limits).line_bytes);
        }
    }

    #[test]
    fn raw_tsv_round_trips_or_refuses(key in bytes(), value in bytes()) {
        let mut out = b"before".to_vec();
        let fits = !key.contains(&b'\t') && !key.contains(&b'\n') && !value.contains(&b'\n');
        let result = Format::RawTsv.encode(&key, &value, &mut out);
        prop_assert_eq!(result.is_ok(), fits);
        if fits {
            let record = Format::RawTsv.decode(one_line(&out[6..])).unwrap().unwrap();
            prop_assert_eq!((&*record.key, &*record.value), (&key[..], &value[..]));
        } else {
            prop_assert_eq!(&out[..], b"before");
        }
    }

    #[test]
    fn a_tsv_line_that_is_accepted_is_what_its_record_encodes_to(line in bytes()) {
        if !line.contains(&b'\n') && let Ok(Some(record)) = Format::Tsv.decode(&line) {
            let again = encoded(Format::Tsv, &record.key, &record.value);
            prop_assert_eq!(one_line(&again), &line[..]);
        }
    }

    #[test]
    fn no_line_makes_a_decoder_panic(line in bytes(), cut in any::<prop::sample::Index>()) {
        for format in ALL {
            let _ = format.decode(&line);
            let mut mutated = encoded(Format::Jsonl, &line, b"\xff\xfe");
            let at = cut.index(mutated.len());
            mutated[at] ^= 0x15;
            let _ = format.decode(&mutated);
            mutated.truncate(at);
            let _ = format.decode(&mutated);
        }
    }
}

#[test]
fn lines_as_they_are_documented() {
    type Case<'a> = (Format, &'a [u8], &'a [u8], &'a [u8]);
    let cases: [Case<'_>; 8] = [
        (Format::RawTsv, b"k", b"v\tw\r", b"k\tv\tw\r\n"),
        (Format::RawTsv, b"\\t", b"", b"\\t\t\n"),
        (Format::RawTsv, b"\xff", b"\0", b"\xff\t\0\n"),
        (
            Format::Tsv,
            b"a\tb",
            b"c\nd\re\\",
            b"a\\tb\tc\\nd\\re\\\\\n",
        ),
        (Format::Tsv, b"", b"\xff", b"\t\xff\n"),
        (
            Format::Jsonl,
            b"k",
            b"",
            b"{\"key\":\"k\",\"value\":\"\"}\n",
        ),
        (
            Format::Jsonl,
            b"\"\t\0",
            b"\xc3\xbc",
            b"{\"key\":\"\\\"\\t\\u0000\",\"value\":\"\xc3\xbc\"}\n",
        ),
        (
            Format::Jsonl,
            b"\xff",
            b"\xfe\0",
            b"{\"key\":{\"base64\":\"/w==\"},\"value\":{\"base64\":\"/gA=\"}}\n",
        ),
    ];
    for (format, key, value, expected) in cases {
        let got = encoded(format, key, value);
        assert_eq!(
            got.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }
}

#[test]
fn foreign_json_is_understood() {
    let cases: [(&str, &[u8], &[u8]); 4] = [
        (" { \"value\" : \"v\" , \"key\" : \"k\" } \r", b"k", b"v"),
        (
            r#"{"key":"\u00fc\ud83d\ude00\/","value":"\b"}"#,
            "ü😀/".as_bytes(),
            b"\x08",
        ),
        (
            r#"{"key":{"base64":"YWI="},"value":"{\"base64\":1}"}"#,
            b"ab",
            b"{\"base64\":1}",
        ),
        (
            r#"{"key":{"base\u0036\u0034":"\u0059WI="},"value":""}"#,
            b"ab",
            b"",
        ),
    ];
    for (line, key, value) in cases {
        let record = Format::Jsonl.decode(line.as_bytes()).unwrap().unwrap();
        assert_eq!((&*record.key, &*record.value), (key, value), "{line}");
    }
    assert_eq!(Format::Jsonl.decode(b" \t\r"), Ok(None));
    assert_eq!(Format::Jsonl.decode(b""), Ok(None));
}

#[test]
fn malformed_lines_are_refused_in_words() {
    let cases: [(Format, &[u8], &str); 22] = [
        (Format::RawTsv, b"", "there is no tab"),
        (Format::RawTsv, b"key only", "there is no tab"),
        (Format::Tsv, b"", "there is no tab"),
        (Format::Tsv, b"key\\tonly", "there is no tab"),
        (Format::Tsv, b"k\tv\tw", "a second tab"),
        (Format::Tsv, b"k\tv\r", "a bare carriage return"),
        (Format::Tsv, b"k\\x41\tv", "\\x is no escape"),
        (Format::Tsv, b"k\tv\\\xff", "\\\\xff is no escape"),
        (Format::Tsv, b"k\tv\\", "a lone backslash"),
        (Format::Tsv, b"k\\\tv", "a lone backslash"),
        (Format::Jsonl, b"k\tv", "expected value (at column 1)"),
        (Format::Jsonl, b"[]", "invalid length 0"),
        (Format::Jsonl, b"{}", "missing field `key`"),
        (Format::Jsonl, b"{\"key\":\"k\"}", "missing field `value`"),
        (
            Format::Jsonl,
            b"{\"key\":\"k\",\"value\":\"v\",\"ttl\":1}",
            "unknown field `ttl`",
        ),
        (
            Format::Jsonl,
            b"{\"key\":\"k\",\"key\":\"l\",\"value\":\"v\"}",
            "duplicate field `key`",
        ),
        (
            Format::Jsonl,
            b"{\"key\":1,\"value\":\"v\"}",
            "expected a string or {\"base64\"",
        ),
        (
            Format::Jsonl,
            b"{\"key\":null,\"value\":\"v\"}",
            "expected a string or {\"base64\"",
        ),
        (
            Format::Jsonl,
            b"{\"key\":\"\xff\",\"value\":\"v\"}",
            "invalid unicode",
        ),
        (
            Format::Jsonl,
            br#"{"key":"\ud800","value":"v"}"#,
            "unexpected end of hex escape",
        ),
        (
            Format::Jsonl,
            br#"{"key":{"base64":"/w"},"value":"v"}"#,
            "bad base64",
        ),
        (
            Format::Jsonl,
            b"{\"key\":\"k\",\"value\":\"v\"} {}",
            "trailing characters",
        ),
    ];
    for (format, line, expected) in cases {
        let shown = line.escape_ascii();
        let problem = format.decode(line).expect_err(&shown.to_string());
        assert!(problem.contains(expected), "{format:?} {shown}: {problem}");
        assert!(!problem.contains('\n'), "{problem}");
    }
}

#[test]
fn records_beyond_the_limits_are_named() {
    let limits = RecordLimits {
        key_bytes: 2,
        value_bytes: 3,
    };
    let cases: [(&[u8], &[u8], Option<&str>); 4] = [
        (b"ab", b"abc", None),
        (b"", b"a", Some("the key is empty")),
        (b"abc", b"", Some("the key has 3 bytes; the limit is 2")),
        (b"a", b"abcd", Some("the value has 4 bytes; the limit is 3")),
    ];
    for (key, value, expected) in cases {
        let record = Record {
            key: Cow::Borrowed(key),
            value: Cow::Borrowed(value),
        };
        assert_eq!(limits.check(&record).err().as_deref(), expected);
    }
}
