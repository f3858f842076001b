//! LZ4 of blocks. The only place that names the compression crate.
//!
//! Invariant: decompression writes exactly the length that was stored, into a buffer that is never
//! larger than LZ4 could fill from its input. Called by `block_io` alone, after the checksum.
//!
//! SAFETY: the crate's decoder is its safe one, because the bytes it is given may have been made by anybody.
//! Its encoder is the one with unchecked accesses, which takes a sixth less time. What those rest on:
//! it reads the one slice that it is given, at positions that it has put into its own table during that call (the
//! table begins as zeros, and position 0 is one of them), no further than the end it has computed from the
//! slice's length; and it writes only after it has compared the room of the output with
//! `get_maximum_output_size`, more than which no input takes. So what the input holds decides nothing about where
//! it reads and writes, and we hand it slices of our own and that much room. The tests compress inputs of all
//! lengths at the ends of their allocations and compare what comes back.

use esker_base::{Error, Result};

/// LZ4 cannot expand its input by more than this factor: a run's length takes one byte for each
/// 255 bytes of it.
const MAX_EXPANSION: u64 = 256;

/// Appends the LZ4 block of `input` to `out`, if that saves at least an eighth of it.
pub(crate) fn compress_if_worthwhile(input: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.resize(
        start + lz4_flex::block::get_maximum_output_size(input.len()),
        0,
    );
    let worthwhile = input.len() - input.len() / 8;
    match lz4_flex::block::compress_into(input, &mut out[start..]) {
        Ok(bytes) if bytes < worthwhile => {
            out.truncate(start + bytes);
            true
        }
        _ => {
            out.truncate(start);
            false
        }
    }
}

/// Makes `out` the `uncompressed_bytes` bytes that the LZ4 block `input` stands for, whatever it held. After an
/// error it holds anything.
///
/// # Errors
/// Corruption.
pub(crate) fn decompress(input: &[u8], uncompressed_bytes: u64, out: &mut Vec<u8>) -> Result<()> {
    let possible = (input.len() as u64).saturating_mul(MAX_EXPANSION);
    let Ok(length) = usize::try_from(uncompressed_bytes.min(possible)) else {
        return Err(Error::corruption(
            "a compressed block states an impossible length",
        ));
    };
    if length as u64 != uncompressed_bytes {
        return Err(Error::corruption(
            "a compressed block states an impossible length",
        ));
    }
    // What is there already is overwritten: filling it with zeros first would cost as much as a copy.
    out.resize(length, 0);
    decompress_into(input, out)
}

/// As [`decompress`], where memory for as many bytes as `input` is said to stand for is there already.
///
/// # Errors
/// Corruption.
pub(crate) fn decompress_into(input: &[u8], out: &mut [u8]) -> Result<()> {
    match lz4_flex::block::decompress_into(input, out) {
        Ok(written) if written == out.len() => Ok(()),
        Ok(_) => Err(Error::corruption(
            "a compressed block is shorter than it states",
        )),
        Err(source) => {
            Err(Error::corruption("a compressed block cannot be decompressed").with_source(source))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn noise_is_stored_as_it_is_and_repetition_is_not() {
        let mut out = vec![7];
        let noise: Vec<u8> = (0..512u64)
            .flat_map(|i| esker_base::checksum::checksum(b"", i).to_le_bytes())
            .collect();
        assert!(!compress_if_worthwhile(&noise, &mut out));
        assert_eq!(out, [7]);
        let flat = vec![b'x'; 4096];
        assert!(compress_if_worthwhile(&flat, &mut out));
        let mut back = Vec::new();
        decompress(&out[1..], 4096, &mut back).unwrap();
        assert_eq!(back, flat);
        assert!(decompress(&out[1..], 4097, &mut back).is_err());
        assert!(decompress(&out[1..], 4095, &mut back).is_err());
        assert!(decompress(&out[1..], u64::MAX, &mut back).is_err());
    }

    #[test]
    fn every_length_comes_back() {
        let mut random = 9u64;
        for length in (0..400).chain([4096, 16384, 65534, 65535, 65536, 70000]) {
            for period in [1, 3, 50, usize::MAX] {
                let mut input: Vec<u8> = Vec::with_capacity(length);
                for at in 0..length {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                    // Literals and matches in turn, up to the last byte of the allocation.
                    let repeats = at >= period && at / period % 2 == 1;
                    let fresh = (random >> 56) as u8;
                    input.push(if repeats { input[at - period] } else { fresh });
                }
                let mut out = Vec::new();
                if compress_if_worthwhile(&input, &mut out) {
                    let mut back = Vec::new();
                    decompress(&out, length as u64, &mut back).unwrap();
                    assert_eq!(back, input, "{length} {period}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_exactly_the_stated_length_or_an_error(
            input in proptest::collection::vec(any::<u8>(), 0..300),
            length in 0u64..100_000,
        ) {
            let mut out = Vec::new();
            if decompress(&input, length, &mut out).is_ok() {
                prop_assert_eq!(out.len() as u64, length);
            }
            prop_assert!(out.capacity() as u64 <= input.len() as u64 * MAX_EXPANSION + 64);
        }
    }
}
