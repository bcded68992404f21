//! Any bytes to `fuzzed::shard`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzed::run("shard", data);
});
