//! libFuzzer's door to [`esker_fuzz::write_batch`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::write_batch(data));
