//! Any bytes to `fuzzed::evaluation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("evaluation", data);
});
