//! libFuzzer's door to [`esker_fuzz::version_edit`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::version_edit(data));
