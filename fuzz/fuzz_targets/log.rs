//! Any bytes to `fuzzed::log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("log", data);
});
