//! The bytes of a composite key.

use esker_tuple::{decode, decode_elements, encode, encode_elements};
use std::cmp::Reverse;

/// What decodes has one encoding, and orders as it does; typed decoding agrees or refuses.
pub fn tuple(data: &[u8]) {
    if let Ok(elements) = decode_elements(data) {
        assert_eq!(encode_elements(&elements).expect("what was decoded"), data);
        for pair in elements.windows(2) {
            let bytes = |element| encode_elements(std::slice::from_ref(element)).expect("as above");
            assert_eq!(bytes(&pair[0]).cmp(&bytes(&pair[1])), pair[0].cmp(&pair[1]));
        }
    }
    type Typed = (String, Reverse<Option<i64>>, (Vec<u8>, u8));
    if let Ok(key) = decode::<Typed>(data) {
        assert_eq!(encode(&key), data);
    }
}
