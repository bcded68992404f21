//! Any bytes to `fuzzed::text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("text", data);
});
