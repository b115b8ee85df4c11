//! PAX extended headers: `LENGTH KEY=VALUE\n` records (POSIX pax, "pax Extended Header").

use super::sparse::Segment;
use crate::limits::{MAX_SEGMENTS, MAX_XATTRS};
use fault::{Fault, Result};
use rustix::fs::Timespec;
use std::collections::BTreeMap;

/// What extended headers say about the entry that follows. A value that is there replaces the header's.
#[derive(Default)]
pub struct Extended {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Timespec>,
    pub atime: Option<Timespec>,
    /// `SCHILY.xattr.NAME`, as star, GNU tar and every image builder write them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: GnuSparse,
}

/// GNU tar's sparse files in PAX clothes, formats 0.0, 0.1 and 1.0.
#[derive(Default)]
pub struct GnuSparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub real_size: Option<u64>,
    pub name: Option<Vec<u8>>,
    /// Formats 0.0 and 0.1.
    pub map: Vec<Segment>,
    offset: Option<u64>,
}

impl GnuSparse {
    /// Format 1.0 puts its map in front of the data.
    pub fn map_is_in_data(&self) -> bool {
        self.major == Some(1)
    }

    pub fn is_there(&self) -> bool {
        self.map_is_in_data() || !self.map.is_empty() || (self.real_size.is_some() && self.major.is_some())
    }
}

/// Reads the records of one extended header; later ones win.
pub fn parse(mut data: &[u8], into: &mut Extended) -> Result<()> {
    while !data.is_empty() {
        let (key, value, rest) = split_record(data).ok_or_else(|| bad("record"))?;
        apply(key, value, into)?;
        data = rest;
    }
    Ok(())
}

fn split_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = data.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&data[..blank])?).ok()?;
    // The length counts everything: itself, the blank and the final line feed.
    if length <= blank + 1 || length > data.len() {
        return None;
    }
    let (record, rest) = data.split_at(length);
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let (key, value) = body.split_at(equals);
    Some((key, value.get(1..)?, rest))
}

fn apply(key: &[u8], value: &[u8], into: &mut Extended) -> Result<()> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        into.xattrs.insert(name.to_vec(), value.to_vec());
        let few = into.xattrs.len() <= MAX_XATTRS;
        return few.then_some(()).ok_or_else(|| bad("too many extended attributes"));
    }
    // An empty value takes a record back: the header's field counts again.
    let text = Some(value).filter(|v| !v.is_empty());
    match key {
        b"path" => into.path = text.map(<[u8]>::to_vec),
        b"linkpath" => into.link = text.map(<[u8]>::to_vec),
        b"size" => into.size = natural(text, "size")?,
        b"uid" => into.uid = natural(text, "uid")?,
        b"gid" => into.gid = natural(text, "gid")?,
        b"mtime" => into.mtime = time(text, "mtime")?,
        b"atime" => into.atime = time(text, "atime")?,
        _ => {
            if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                return apply_sparse(key, value, &mut into.sparse);
            }
            // Names of users, comments, checksums: nothing a layer is made of.
        }
    }
    Ok(())
}

fn apply_sparse(key: &[u8], value: &[u8], sparse: &mut GnuSparse) -> Result<()> {
    let text = Some(value).filter(|v| !v.is_empty());
    match key {
        b"major" => sparse.major = natural(text, "GNU.sparse.major")?,
        b"minor" => sparse.minor = natural(text, "GNU.sparse.minor")?,
        b"realsize" | b"size" => sparse.real_size = natural(text, "GNU.sparse.size")?,
        b"name" => sparse.name = text.map(<[u8]>::to_vec),
        b"offset" => sparse.offset = natural(text, "GNU.sparse.offset")?,
        b"numbytes" => {
            let length = natural(text, "GNU.sparse.numbytes")?;
            let (Some(offset), Some(length)) = (sparse.offset.take(), length) else {
                return Err(bad("GNU.sparse.numbytes"));
            };
            push_segment(&mut sparse.map, offset, length)?;
        }
        b"map" => {
            sparse.map.clear();
            let mut numbers = value.split(|b| *b == b',');
            while let Some(offset) = numbers.next() {
                let length = numbers.next().and_then(decimal).ok_or_else(|| bad("GNU.sparse.map"))?;
                let offset = decimal(offset).ok_or_else(|| bad("GNU.sparse.map"))?;
                push_segment(&mut sparse.map, offset, length)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn push_segment(map: &mut Vec<Segment>, offset: u64, length: u64) -> Result<()> {
    if map.len() >= MAX_SEGMENTS {
        return Err(bad("a sparse file in too many pieces"));
    }
    map.push(Segment { offset, length });
    Ok(())
}

fn bad(what: &str) -> Fault {
    Fault::input(format!("malformed PAX header: {what}"))
}

/// Decimal digits only.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, b| {
        if !b.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })
}

fn natural(text: Option<&[u8]>, what: &str) -> Result<Option<u64>> {
    text.map(|text| decimal(text).ok_or_else(|| bad(what))).transpose()
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are dropped towards the past.
fn time(text: Option<&[u8]>, what: &str) -> Result<Option<Timespec>> {
    text.map(|text| parse_time(text).ok_or_else(|| bad(what))).transpose()
}

fn parse_time(text: &[u8]) -> Option<Timespec> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0i64;
    for index in 0..9 {
        nanoseconds = nanoseconds * 10 + fraction.get(index).map_or(0, |b| i64::from(b - b'0'));
    }
    let beyond = fraction.iter().skip(9).any(|b| *b != b'0');
    if !negative {
        return Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds });
    }
    // -1.25 s is 750 000 000 ns after -2 s.
    let below = nanoseconds + i64::from(beyond);
    let (borrow, tv_nsec) = if below == 0 { (0, 0) } else { (1, 1_000_000_000 - below) };
    Some(Timespec { tv_sec: seconds.checked_neg()?.checked_sub(borrow)?, tv_nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        let mut out = format!("{length} {key}=").into_bytes();
        out.extend_from_slice(value);
        out.push(b'\n');
        out
    }

    #[test]
    fn times_before_and_after_1970() {
        for (text, wanted) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("-1", Some((-1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("-0.0000000001", Some((-1, 999_999_999))),
            ("-0.0", Some((0, 0))),
            ("1.", Some((1, 0))),
            (".5", None),
            ("1e3", None),
            ("--1", None),
            ("99999999999999999999", None),
        ] {
            let time = parse_time(text.as_bytes()).map(|t| (t.tv_sec, t.tv_nsec));
            assert_eq!(time, wanted, "{text}");
        }
    }

    #[test]
    fn values_may_hold_anything() {
        let mut data = record("path", b"a\nb=c");
        data.extend(record("SCHILY.xattr.security.capability", &[0, 1, b'\n', 0xff]));
        data.extend(record("SCHILY.xattr.user.empty", b""));
        data.extend(record("size", b"12"));
        data.extend(record("size", b""));
        let mut extended = Extended::default();
        parse(&data, &mut extended).unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a\nb=c"[..]));
        assert_eq!(extended.xattrs[&b"security.capability"[..]], [0, 1, b'\n', 0xff]);
        assert_eq!(extended.xattrs[&b"user.empty"[..]], b"");
        assert_eq!(extended.size, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"5 a=b"[..],
            b"6 a=bc",
            b"99 a=b\n",
            b"0 a=b\n",
            b"2 ",
            b"3 \n",
            b"a a=b\n",
            b"6 abc\n",
            b"18446744073709551616 a=b\n",
            b"\n",
            b"12 size=-12\n",
            b"21 GNU.sparse.map=1\n\n",
        ] {
            assert!(parse(bad, &mut Extended::default()).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn attributes_are_counted() {
        // Two headers of one entry, as a list that was searched for each new one took the square of their number.
        let header = |range: std::ops::Range<usize>| -> Vec<u8> {
            range.flat_map(|n| record(&format!("SCHILY.xattr.user.{n}"), b"")).collect()
        };
        let mut extended = Extended::default();
        parse(&header(0..MAX_XATTRS), &mut extended).unwrap();
        parse(&header(0..1), &mut extended).unwrap();
        assert_eq!(extended.xattrs.len(), MAX_XATTRS);
        assert!(parse(&header(MAX_XATTRS..MAX_XATTRS + 1), &mut extended).is_err());
    }
}
