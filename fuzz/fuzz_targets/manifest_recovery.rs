//! libFuzzer's door to [`esker_fuzz::manifest_recovery`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::manifest_recovery(data));
