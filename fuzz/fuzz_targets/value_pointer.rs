//! libFuzzer's door to [`esker_fuzz::value_pointer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::value_pointer(data));
