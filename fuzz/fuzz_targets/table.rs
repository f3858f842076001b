//! libFuzzer's door to [`esker_fuzz::table`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::table(data));
