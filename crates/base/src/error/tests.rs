//! Kinds, sentences, places and advice.

use super::*;
use std::collections::HashSet;

/// Every kind. The match makes the compiler ask for a new one here.
const KINDS: [ErrorKind; 19] = [
    ErrorKind::InvalidArgument,
    ErrorKind::NotFound,
    ErrorKind::Corruption,
    ErrorKind::Io,
    ErrorKind::NoSpace,
    ErrorKind::Locked,
    ErrorKind::Closed,
    ErrorKind::ReadOnly,
    ErrorKind::Unsupported,
    ErrorKind::Conflict,
    ErrorKind::Deadlock,
    ErrorKind::TimedOut,
    ErrorKind::Cancelled,
    ErrorKind::LimitExceeded,
    ErrorKind::Background,
    ErrorKind::UniqueViolation,
    ErrorKind::NotReady,
    ErrorKind::Gap,
    ErrorKind::Lagged,
];

fn place(kind: ErrorKind) -> usize {
    match kind {
        ErrorKind::InvalidArgument => 0,
        ErrorKind::NotFound => 1,
        ErrorKind::Corruption => 2,
        ErrorKind::Io => 3,
        ErrorKind::NoSpace => 4,
        ErrorKind::Locked => 5,
        ErrorKind::Closed => 6,
        ErrorKind::ReadOnly => 7,
        ErrorKind::Unsupported => 8,
        ErrorKind::Conflict => 9,
        ErrorKind::Deadlock => 10,
        ErrorKind::TimedOut => 11,
        ErrorKind::Cancelled => 12,
        ErrorKind::LimitExceeded => 13,
        ErrorKind::Background => 14,
        ErrorKind::UniqueViolation => 15,
        ErrorKind::NotReady => 16,
        ErrorKind::Gap => 17,
        ErrorKind::Lagged => 18,
    }
}

#[test]
fn every_kind_has_advice_of_its_own() {
    let mut advice = HashSet::new();
    for (at, kind) in KINDS.into_iter().enumerate() {
        assert_eq!(place(kind), at);
        let sentence = kind.advice();
        assert!(
            sentence.len() > 10 && !sentence.ends_with('.'),
            "{sentence}"
        );
        assert!(
            !sentence.contains("  ") && !sentence.contains('\n'),
            "{sentence}"
        );
        assert!(advice.insert(sentence), "{kind:?}");
        assert_eq!(Error::new(kind, "x").advice(), sentence);
    }
}

#[test]
fn display_is_a_sentence_with_its_place_its_keys_and_its_cause() {
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let path = Path::new("000007.sst");
    let cases: [(Error, ErrorKind, &str); 9] = [
        (
            Error::corruption("a block does not match its checksum"),
            ErrorKind::Corruption,
            "a block does not match its checksum",
        ),
        (
            Error::corruption("a block does not match its checksum")
                .with_file(path)
                .with_offset(4096)
                .with_file(Path::new("outer"))
                .with_offset(1),
            ErrorKind::Corruption,
            "a block does not match its checksum (000007.sst at byte 4096)",
        ),
        (
            Error::corruption("a block is cut short").with_offset(7),
            ErrorKind::Corruption,
            "a block is cut short (at byte 7)",
        ),
        (
            Error::corruption("a table is missing")
                .with_file(path)
                .with_keys(&KeyBounds::inclusive("a\n", vec![b'k'; 40]))
                .with_keys(&KeyBounds::inclusive("outer", "outer")),
            ErrorKind::Corruption,
            "a table is missing (000007.sst), keys \"a\\n\" to \"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk...\"",
        ),
        (
            Error::corruption("a table is missing").with_keys(&KeyBounds::half_open("a", "")),
            ErrorKind::Corruption,
            "a table is missing, keys from \"a\" on",
        ),
        (
            Error::io("sync the log", path, io::Error::other("the device is gone")),
            ErrorKind::Io,
            "could not sync the log (000007.sst): the device is gone",
        ),
        (
            Error::io("append to the log", path, full),
            ErrorKind::NoSpace,
            "could not append to the log (000007.sst): no storage space",
        ),
        (
            Error::invalid_argument("option block_bytes is 3; it must be 256 to 1048576"),
            ErrorKind::InvalidArgument,
            "option block_bytes is 3; it must be 256 to 1048576",
        ),
        (
            Error::new(ErrorKind::Background, "writes have stopped")
                .with_source(Error::corruption("a table is missing").with_file(path)),
            ErrorKind::Background,
            "writes have stopped: a table is missing (000007.sst)",
        ),
    ];
    for (error, kind, sentence) in cases {
        assert_eq!(error.to_string(), sentence);
        assert_eq!(error.kind(), kind);
        assert_eq!(format!("{error:?}"), format!("{kind:?}: {sentence}"));
    }
}

#[test]
fn what_a_program_needs_is_there_without_reading_the_sentence() {
    let error = Error::io(
        "read",
        Path::new("x"),
        io::Error::from(io::ErrorKind::PermissionDenied),
    )
    .with_offset(9)
    .with_keys(&KeyBounds::inclusive("a", "b"));
    assert_eq!(error.message(), "could not read");
    assert_eq!(
        (error.file(), error.offset()),
        (Some(Path::new("x")), Some(9))
    );
    assert_eq!(error.keys(), Some((&b"a"[..], &b"b"[..])));
    let source = std::error::Error::source(&error).unwrap();
    let source = source.downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(error.clone().to_string(), error.to_string());
}
