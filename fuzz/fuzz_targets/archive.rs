#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| surfaces::archive::check(data));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, _seed: u32| {
    let size = libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    // Packed ones are left as they are.
    if !matches!(data[..size], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', ..]) {
        surfaces::layer::mend(&mut data[..size]);
    }
    size
});
