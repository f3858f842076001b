//! libFuzzer's door to [`esker_fuzz::block`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::block(data));
