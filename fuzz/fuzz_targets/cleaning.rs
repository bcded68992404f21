//! Any bytes to `fuzzed::cleaning`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("cleaning", data);
});
