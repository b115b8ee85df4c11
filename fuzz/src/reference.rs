//! References, digests and platforms: what is printed means what was read.

use oci::{Digest, Platform, Reference};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        for spelling in [reference.to_string(), reference.familiar()] {
            assert_eq!(
                Reference::parse(&spelling).expect("a spelling of a reference"),
                reference,
                "{spelling}"
            );
        }
        let stored = Reference::parse(&reference.stored_name()).expect("the stored name");
        assert_eq!(stored.identifier(), reference.identifier());
        let with_tag = reference.with_tag("t").expect("a tag");
        assert_eq!((with_tag.name(), with_tag.tag()), (reference.name(), Some("t")));
        // Both become parts of paths and addresses.
        assert!(!reference.path().split('/').any(|part| matches!(part, "" | "." | "..")), "{reference}");
        assert!(!reference.domain().contains('/'), "{reference}");
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.as_str(), text);
        assert!(digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(digest.short().len(), 12);
    }
    if let Ok(platform) = Platform::parse(text) {
        let again = Platform::parse(&platform.to_string()).expect("a platform's own spelling");
        assert_eq!(again, platform);
        assert_eq!(platform.rank(&again), Some(0), "{platform} runs itself");
    }
}
