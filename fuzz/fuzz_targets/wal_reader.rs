//! libFuzzer's door to [`esker_fuzz::wal_reader`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::wal_reader(data));
