//! Any bytes to `fuzzed::checkpoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("checkpoint", data);
});
