//! libFuzzer's door to [`esker_fuzz::backup_metadata`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::backup_metadata(data));
