//! libFuzzer's door to [`esker_fuzz::range_tombstones`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::range_tombstones(data));
