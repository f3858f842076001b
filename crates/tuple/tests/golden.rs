//! The format against its golden file: what version 1 wrote, every later version must read, and
//! writes until its number changes. The file stands word for word in `docs/format/tuple.md`.
#![allow(clippy::unwrap_used)]

use esker_tuple::{Element, decode_elements, encode, encode_elements};
use std::cmp::Reverse;
use std::path::Path;

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

#[test]
fn tuples_are_version_1() {
    let text = read("testdata/tuple/tuple_v1.hex");
    let page = read("docs/format/tuple.md");
    assert!(page.contains(&format!("```text\n{text}```")));
    let golden: Vec<u8> = text.lines().flat_map(line_bytes).collect();

    let descending = |element| Element::Descending(Box::new(element));
    let expected = [
        Element::Null,
        Element::Bool(false),
        Element::Bool(true),
        Element::Int(-300),
        Element::Int(-1),
        Element::Int(0),
        Element::Int(1),
        Element::Int(300),
        Element::Int(i128::from(u64::MAX)),
        Element::F32(1.5),
        Element::F64(-1.5),
        Element::F64(0.0),
        Element::Bytes(b"a\0b".to_vec()),
        Element::String("é".into()),
        Element::Tuple(vec![Element::Int(7), Element::Null]),
        descending(Element::Int(1)),
        descending(Element::String("a".into())),
        descending(Element::Tuple(vec![Element::Int(7)])),
    ];
    assert_eq!(decode_elements(&golden).unwrap(), expected);
    assert_eq!(encode_elements(&expected).unwrap(), golden);

    // Each line is one component, and the lines of ascending ones stand in their order.
    let lines: Vec<_> = text.lines().map(line_bytes).collect();
    assert!(lines[..15].is_sorted());
    let typed = encode(&(
        (None::<u8>, false, true, -300i16, -1i8),
        (0u8, 1i64, 300u32, u64::MAX, 1.5f32),
        (-1.5f64, 0.0f64, b"a\0b", "é", (7u8, None::<bool>)),
        (Reverse(1u8), Reverse("a"), Reverse((7i32,))),
    ));
    let nested: Vec<u8> = [&lines[..5], &lines[5..10], &lines[10..15], &lines[15..]]
        .iter()
        .flat_map(|group| [&[0x48][..], &group.concat(), &[0]].concat())
        .collect();
    assert_eq!(typed, nested);
}
