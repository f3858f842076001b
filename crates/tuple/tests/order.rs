//! The promise of the encoding, against random values: bytes order as values do, and come back.
#![allow(clippy::unwrap_used)]

use esker_base::ErrorKind;
use esker_tuple::{
    Element, FromTuple, MAX_DEPTH, ToTuple, decode, decode_elements, encode, encode_elements,
    prefix, range,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::fmt::Debug;
use std::ops::RangeBounds;

/// Few and short values, so that equal and nearly equal ones meet.
fn leaf() -> impl Strategy<Value = Element> {
    let bytes = || {
        vec(
            prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff), any::<u8>()],
            0..4,
        )
    };
    let text = prop_oneof!["[a\u{0}\u{1}é\u{10ffff}]{0,3}", any::<String>()];
    prop_oneof![
        Just(Element::Null),
        any::<bool>().prop_map(Element::Bool),
        (-300i128..300).prop_map(Element::Int),
        any::<i64>().prop_map(|value| Element::Int(value.into())),
        any::<i128>().prop_map(Element::Int),
        any::<u128>().prop_map(Element::Uint),
        any::<u32>().prop_map(|bits| Element::F32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Element::F64(f64::from_bits(bits))),
        prop_oneof![
            Just(0.0),
            Just(-0.0),
            Just(f64::NAN),
            Just(f64::INFINITY),
            -2.0..2.0
        ]
        .prop_map(Element::F64),
        bytes().prop_map(Element::Bytes),
        text.prop_map(Element::String),
    ]
}

fn element() -> impl Strategy<Value = Element> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Element::Tuple),
            inner.prop_map(|element| Element::Descending(Box::new(element))),
        ]
    })
}

fn keeps_order<T: ToTuple + FromTuple + Ord + Debug>(a: &T, b: &T) -> Result<(), TestCaseError> {
    prop_assert_eq!(encode(a).cmp(&encode(b)), a.cmp(b), "{:?} {:?}", a, b);
    prop_assert_eq!(&decode::<T>(&encode(a)).unwrap(), a);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn bytes_order_as_elements_do(a in vec(element(), 0..4), b in vec(element(), 0..4)) {
        let (x, y) = (encode_elements(&a).unwrap(), encode_elements(&b).unwrap());
        prop_assert_eq!(x.cmp(&y), a.cmp(&b), "{:x?} {:x?}", x, y);
        prop_assert_eq!(&decode_elements(&x).unwrap(), &a);
    }

    #[test]
    fn what_follows_a_common_beginning_decides(
        common in vec(element(), 0..3), a in element(), b in element(), rest in vec(element(), 0..2),
    ) {
        let whole = |element: &Element| {
            [&common[..], std::slice::from_ref(element), &rest].concat()
        };
        let (x, y) = (whole(&a), whole(&b));
        let bytes = (encode_elements(&x).unwrap(), encode_elements(&y).unwrap());
        prop_assert_eq!(bytes.0.cmp(&bytes.1), a.cmp(&b));
        prop_assert!(bytes.0.starts_with(&encode_elements(&common).unwrap()));
    }

    #[test]
    fn no_element_is_a_prefix_of_another(a in element(), b in element()) {
        let (x, y) = (encode_elements(&[a]).unwrap(), encode_elements(&[b]).unwrap());
        prop_assert!(x == y || !y.starts_with(&x));
    }

    #[test]
    fn rust_values_keep_their_order(
        a: (i8, u64, String, Option<bool>), b: (i8, u64, String, Option<bool>),
        c: (Vec<u8>, i128, [u8; 3]), d: (Vec<u8>, i128, [u8; 3]),
    ) {
        keeps_order(&a, &b)?;
        keeps_order(&c, &d)?;
        keeps_order(&(Reverse(a.2.clone()), a.0), &(Reverse(b.2.clone()), b.0))?;
        keeps_order(&(Reverse(c.0.clone()), Reverse(c.1)), &(Reverse(d.0.clone()), Reverse(d.1)))?;
        keeps_order(&Reverse(Some((c.1, Reverse(c.2)))), &Reverse(Some((d.1, Reverse(d.2)))))?;
    }

    #[test]
    fn integers_of_all_widths_share_one_order(a: i64, b: u8, c: u128) {
        prop_assert_eq!(encode(&a), encode(&i128::from(a)));
        prop_assert_eq!(encode(&b), encode(&i16::from(b)));
        prop_assert_eq!(encode(&a) < encode(&b), a < i64::from(b));
        let below = i128::try_from(c).is_ok_and(|c| c < i128::from(a));
        prop_assert_eq!(encode(&c) < encode(&a), below);
    }

    #[test]
    fn floats_have_their_total_order(a: f64, b: f64, c: f32, d: f32) {
        prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.total_cmp(&b));
        prop_assert_eq!(encode(&c).cmp(&encode(&d)), c.total_cmp(&d));
        prop_assert_eq!(decode::<f64>(&encode(&a)).unwrap().to_bits(), a.to_bits());
    }

    #[test]
    fn ranges_of_leading_components_hold_what_begins_with_them(
        key: (u8, i16, String), low: u8, high: u8,
    ) {
        let bytes = encode(&key);
        prop_assert!(prefix(&(key.0,)).contains(&bytes));
        prop_assert!(prefix(&(key.0, key.1)).contains(&bytes));
        prop_assert!(!prefix(&(key.0.wrapping_add(1),)).contains(&bytes));
        let (a, b) = ((low,), (high,));
        prop_assert_eq!(range(&(a..b)).contains(&bytes), (low..high).contains(&key.0));
        prop_assert_eq!(range(&(a..=b)).contains(&bytes), (low..=high).contains(&key.0));
        prop_assert_eq!(range(&(a..)).contains(&bytes), key.0 >= low);
        let above = (std::ops::Bound::Excluded(a), std::ops::Bound::Unbounded);
        prop_assert_eq!(range(&above).contains(&bytes), key.0 > low);
    }

    #[test]
    fn any_bytes_give_the_elements_they_encode_or_an_error(bytes: Vec<u8>) {
        match decode_elements(&bytes) {
            Ok(elements) => prop_assert_eq!(encode_elements(&elements).unwrap(), bytes),
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Corruption);
                prop_assert!(error.offset().is_some());
            }
        }
    }

    #[test]
    fn damaged_keys_are_noticed_or_are_other_keys(
        elements in vec(element(), 1..4), at: prop::sample::Index, bit in 0u8..8, cut: bool,
    ) {
        let mut bytes = encode_elements(&elements).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        if let Ok(decoded) = decode_elements(&bytes) {
            prop_assert_ne!(&decoded, &elements);
            prop_assert_eq!(encode_elements(&decoded).unwrap(), bytes);
        }
    }
}

#[test]
fn nesting_has_a_limit_both_ways() {
    let deep =
        |levels: usize| (0..levels).fold(Element::Null, |inner, _| Element::Tuple(vec![inner]));
    let deepest = [deep(MAX_DEPTH)];
    let bytes = encode_elements(&deepest).unwrap();
    assert_eq!(decode_elements(&bytes).unwrap(), deepest);
    let error = encode_elements(&[deep(MAX_DEPTH + 1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let hostile = vec![0x48; 1 << 20];
    assert_eq!(
        decode_elements(&hostile).unwrap_err().kind(),
        ErrorKind::Corruption
    );
}

#[test]
fn mismatches_say_what_was_found_and_where() {
    let bytes = encode(&("ada", 300u16));
    let cases = [
        (
            decode::<(u8, u16)>(&bytes).unwrap_err(),
            "no integer but a string",
            0,
        ),
        (
            decode::<(String, u8)>(&bytes).unwrap_err(),
            "does not fit into u8",
            6,
        ),
        (
            decode::<(String,)>(&bytes).unwrap_err(),
            "more components",
            6,
        ),
        (
            decode::<(String, u16, u8)>(&bytes).unwrap_err(),
            "a component is missing",
            9,
        ),
        (
            decode::<(String, Reverse<u16>)>(&bytes).unwrap_err(),
            "descending",
            6,
        ),
    ];
    for (error, sentence, offset) in cases {
        assert!(error.to_string().contains(sentence), "{error}");
        assert_eq!(
            (error.kind(), error.offset()),
            (ErrorKind::Corruption, Some(offset))
        );
    }
}
