//! Any bytes to `fuzzed::recipe`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("recipe", data);
});
