#![no_main]

#[path = "../../libs/core/tests/fuzz/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::check("cloud", bytes));
