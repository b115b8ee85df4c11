//! One block of 512 bytes: the header of an entry (POSIX pax, "ustar Interchange Format", and GNU tar's variants).

use fault::{Fault, Result};
use tar::Header;

pub const BLOCK: usize = 512;

/// What the header block itself says, before extended headers are taken into account.
pub struct Fields {
    pub kind: u8,
    pub size: u64,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: i64,
    pub device: (u32, u32),
}

/// Checks the sum and reads the numbers.
pub fn fields(block: &[u8; BLOCK]) -> Result<Fields> {
    check_sum(block)?;
    let header = Header::from_byte_slice(block);
    let old = header.as_old();
    let kind = old.linkflag[0];
    let device = match header.as_ustar().map(|h| (&h.dev_major, &h.dev_minor)) {
        Some(pair) => Some(pair),
        None => header.as_gnu().map(|h| (&h.dev_major, &h.dev_minor)),
    };
    // Only devices have numbers there worth reading; some writers leave rubbish otherwise.
    let device = match (kind, device) {
        (b'3' | b'4', Some((major, minor))) => (device_number(major)?, device_number(minor)?),
        _ => (0, 0),
    };
    Ok(Fields {
        kind,
        size: natural(&old.size, "size")?,
        mode: (number(&old.mode, "mode")? & 0o7777) as u32,
        uid: natural(&old.uid, "uid")?,
        gid: natural(&old.gid, "gid")?,
        mtime: number(&old.mtime, "mtime")?,
        device,
    })
}

fn device_number(field: &[u8]) -> Result<u32> {
    u32::try_from(number(field, "device number")?).map_err(|_| bad("device number"))
}

fn bad(what: &str) -> Fault {
    Fault::input(format!("malformed tar header: {what}"))
}

pub fn natural(field: &[u8], what: &str) -> Result<u64> {
    u64::try_from(number(field, what)?).map_err(|_| bad(what))
}

/// Octal digits, or GNU's base-256: a set top bit, then two's complement, most significant byte first.
pub fn number(field: &[u8], what: &str) -> Result<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field).ok_or_else(|| bad(what)),
        _ => octal(field).ok_or_else(|| bad(what)),
    }
}

fn base_256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    // The top bit is the mark; the sign extends over it.
    let mut value = i128::from(if negative { *first as i8 } else { (*first & 0x7f) as i8 });
    for byte in rest {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !is_blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    let mut value = 0i64;
    for byte in &digits[..end] {
        if !(b'0'..=b'7').contains(byte) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?;
    }
    Some(value)
}

/// The sum of all bytes with the sum's own field taken as blanks. Some old writers summed signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<()> {
    let wanted = number(&Header::from_byte_slice(block).as_old().cksum, "checksum")?;
    let mut unsigned = 8 * i64::from(b' ');
    let mut signed = unsigned;
    for byte in block[..148].iter().chain(&block[156..]) {
        unsigned += i64::from(*byte);
        signed += i64::from(*byte as i8);
    }
    if wanted == unsigned || wanted == signed { Ok(()) } else { Err(bad("the checksum is wrong")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_spellings() {
        for (field, wanted) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0", Some(-256)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"8", None),
            (b"-1", None),
            (b"777777777777777777777777", None),
        ] {
            assert_eq!(number(field, "x").ok(), wanted, "{field:?}");
        }
    }
}
