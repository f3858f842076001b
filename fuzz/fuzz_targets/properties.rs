//! libFuzzer's door to [`esker_fuzz::properties`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::properties(data));
