//! Ignore files, what names a git repository, modes: what a build's files are chosen by.

use ::context::git::GitUrl;
use ::context::{AddSource, Chmod, Ignore};

pub fn check(data: &[u8]) {
    match Ignore::parse(data, "x") {
        Ok(ignore) => {
            for path in data.split(|byte| *byte == b'\n').take(20) {
                if let Some(pattern) = ignore.pattern_for(path) {
                    assert!(!pattern.is_empty());
                }
            }
        }
        Err(fault) => assert_eq!(fault.kind(), fault::Kind::Input, "{fault}"),
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines().take(20) {
        assert_url(line);
        if let Ok(chmod) = Chmod::parse(line) {
            for mode in [0, 0o644, 0o7777] {
                assert_eq!(chmod.apply(mode, false) & !0o7777, 0, "{line}");
                assert_eq!(chmod.apply(mode, true) & !0o7777, 0, "{line}");
            }
        }
    }
}

/// Nothing of a URL becomes an option of git's, nor a way out of the checkout.
fn assert_url(text: &str) {
    let parsed = GitUrl::parse(text);
    assert_eq!(matches!(AddSource::of(text), Ok(AddSource::Git(_))), matches!(parsed, Ok(Some(_))), "{text}");
    match parsed {
        Ok(Some(url)) => {
            assert!(!url.remote.starts_with('-') && !url.remote.contains(['\0', '\n', ' ']), "{text}");
            assert!(url.reference.is_none_or(|reference| !reference.starts_with('-')), "{text}");
            let leads_out = |dir: &str| dir.starts_with('/') || dir.split('/').any(|name| name == "..");
            assert!(url.subdir.is_none_or(|dir| !leads_out(&dir)), "{text}");
        }
        Ok(None) => {}
        Err(fault) => assert_eq!(fault.kind(), fault::Kind::Input, "{fault}"),
    }
}
