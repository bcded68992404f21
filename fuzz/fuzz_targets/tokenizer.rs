//! Any bytes to `fuzzed::tokenizer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("tokenizer", data);
});
