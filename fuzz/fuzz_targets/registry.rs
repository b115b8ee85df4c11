#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        // A hostile answer sends the client wherever it likes.
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        assert!(routes.lines().count() <= 1, "run it by scripts/fuzz: only loopback may be reachable");
    },
    |data: &[u8]| surfaces::registry::check(data)
);
