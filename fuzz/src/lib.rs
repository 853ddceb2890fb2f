//! What all targets are made of.

pub use leadpipe;
pub use libfuzzer_sys;

/// Makes a target of a law of `leadpipe::fuzzing`. Half of the inputs are mutated as the text that they
/// are, the others as bytes.
#[macro_export]
macro_rules! target {
    ($law:ident) => {
        use $crate::libfuzzer_sys;

        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::leadpipe::fuzzing::$law(bytes));

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
            if seed % 2 == 0 {
                return libfuzzer_sys::fuzzer_mutate(data, size, most);
            }
            let mutated = $crate::leadpipe::fuzzing::mutate(&data[..size], seed.into());
            let size = mutated.len().min(most);
            data[..size].copy_from_slice(&mutated[..size]);
            size
        });
    };
}
