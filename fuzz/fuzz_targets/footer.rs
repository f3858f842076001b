//! libFuzzer's door to [`esker_fuzz::footer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::footer(data));
