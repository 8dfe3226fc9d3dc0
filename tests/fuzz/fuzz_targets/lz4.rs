#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| riverrun_fuzz::check("lz4", bytes));
