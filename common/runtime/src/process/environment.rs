//! The command's arguments and environment.

use fault::{Fault, Result};
use oci::users::{self, UserFiles};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::collections::HashSet;
use std::ffi::CString;
use std::io::Read;

/// Longest passwd file read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

pub fn c_strings(strings: &[String], what: &str) -> Result<Vec<CString>> {
    strings
        .iter()
        .map(|text| {
            CString::new(text.as_bytes()).map_err(|_| Fault::input(format!("{what} holds a NUL byte")))
        })
        .collect()
}

/// The value of a variable: the last one's, as a shell has it.
pub fn lookup(environment: &[CString], name: &[u8]) -> Option<String> {
    let value =
        environment.iter().rev().find_map(|pair| pair.as_bytes().strip_prefix(name)?.strip_prefix(b"="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Each variable once, where its last mention is; an empty `HOME` not at all.
///
/// Fails on what is not `NAME=VALUE`.
pub fn once_each(environment: Vec<CString>) -> Result<Vec<CString>> {
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut kept = Vec::with_capacity(environment.len());
    for pair in environment.into_iter().rev() {
        let bytes = pair.as_bytes();
        let length = match bytes.iter().position(|byte| *byte == b'=') {
            Some(length) if length > 0 => length,
            _ => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                return Err(Fault::input(format!("process.env: {text:?} is not NAME=VALUE")));
            }
        };
        if seen.insert(bytes[..length].to_vec()) && bytes != b"HOME=" {
            kept.push(pair);
        }
    }
    kept.reverse();
    Ok(kept)
}

/// `HOME=` and what the container's passwd file has for the user; `/` where it has nothing.
pub fn home(uid: u32) -> CString {
    let files = UserFiles { passwd: passwd(), group: None };
    let home =
        users::resolve(&uid.to_string(), &[], &files).map_or_else(|_| "/".to_owned(), |user| user.home);
    CString::new(format!("HOME={home}")).unwrap_or_else(|_| c"HOME=/".to_owned())
}

/// The file is the container's: only a regular one of bearable length is read.
fn passwd() -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::File::from(openat(CWD, "/etc/passwd", flags, Mode::empty()).ok()?);
    if !file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE_BYTES) {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(pairs: &[&str]) -> Vec<CString> {
        pairs.iter().map(|pair| CString::new(*pair).unwrap()).collect()
    }

    #[test]
    fn the_last_mention_counts() {
        let kept = once_each(own(&["ONE=two", "HOME=/x", "PATH=/bin", "ONE=", "HOME="])).unwrap();
        assert_eq!(kept, own(&["PATH=/bin", "ONE="]));
        assert_eq!(lookup(&own(&["A=1", "AB=3", "A=2"]), b"A").as_deref(), Some("2"));
        assert_eq!(lookup(&kept, b"HOME"), None);
        for bad in ["ONE", "=two", ""] {
            assert!(once_each(own(&[bad])).is_err(), "{bad}");
        }
    }
}
