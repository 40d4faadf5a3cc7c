#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oona_tests::fuzz::run("keys", bytes));
