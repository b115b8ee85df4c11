//! Names of places images are copied from and to.

use ::image::Location;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Location::parse(text) {
        Ok(location) => {
            let spelling = location.to_string();
            assert_eq!(Location::parse(&spelling).expect("a spelling of a place"), location, "{spelling}");
            let _ = location.holds_one_platform();
        }
        Err(fault) => assert_eq!(fault.kind(), fault::Kind::Usage, "{fault}"),
    }
}
