//! Any bytes to `fuzzed::schedule`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("schedule", data);
});
