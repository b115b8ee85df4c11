//! Files with holes: where the bytes that follow belong.

use super::pax::decimal;
use crate::limits::MAX_SEGMENTS;
use fault::{Fault, Result};
use std::io::BufRead;
use tar::GnuSparseHeader;

/// `length` bytes of data at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// A sparse file's map: segments in order, not overlapping, within the size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparse {
    pub size: u64,
    pub segments: Vec<Segment>,
}

impl Sparse {
    /// Checks a map against the bytes the archive holds for it.
    pub fn new(size: u64, segments: Vec<Segment>, stored: u64) -> Result<Sparse> {
        let mut end = 0u64;
        let mut sum = 0u64;
        for segment in &segments {
            let fits = segment.offset >= end;
            end = segment.offset.checked_add(segment.length).filter(|_| fits).ok_or_else(bad)?;
            // No overflow: the segments lie side by side below `end`.
            sum += segment.length;
        }
        if end > size || sum != stored || i64::try_from(size).is_err() {
            return Err(bad());
        }
        Ok(Sparse { size, segments })
    }
}

fn bad() -> Fault {
    Fault::input("malformed map of a sparse file")
}

/// Adds the used ones of a header's fixed number of slots.
pub fn push_slots(slots: &[GnuSparseHeader], segments: &mut Vec<Segment>) -> Result<()> {
    for slot in slots.iter().filter(|slot| !slot.is_empty()) {
        if segments.len() >= MAX_SEGMENTS {
            return Err(Fault::input("a sparse file is in too many pieces"));
        }
        let offset = super::header::natural(&slot.offset, "offset in a sparse file")?;
        let length = super::header::natural(&slot.numbytes, "length in a sparse file")?;
        segments.push(Segment { offset, length });
    }
    Ok(())
}

/// Format 1.0: the number of segments, then offset and length of each, a decimal number a line, filled up to a block.
/// Returns the map and how many bytes it took.
pub fn read_map(input: &mut impl BufRead, limit: u64) -> Result<(Vec<Segment>, u64)> {
    let mut lines = Lines { input, taken: 0, limit };
    let count = lines.number()?;
    if count > MAX_SEGMENTS as u64 {
        return Err(Fault::input("a sparse file is in too many pieces"));
    }
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(Segment { offset: lines.number()?, length: lines.number()? });
    }
    while !lines.taken.is_multiple_of(super::BLOCK as u64) {
        lines.byte()?;
    }
    Ok((segments, lines.taken))
}

struct Lines<'a, R> {
    input: &'a mut R,
    taken: u64,
    limit: u64,
}

impl<R: BufRead> Lines<'_, R> {
    fn byte(&mut self) -> Result<u8> {
        if self.taken >= self.limit {
            return Err(bad());
        }
        let byte = self.input.fill_buf().ok().and_then(|buffer| buffer.first().copied()).ok_or_else(bad)?;
        self.input.consume(1);
        self.taken += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64> {
        let mut digits = [0u8; 20];
        for index in 0..=digits.len() {
            match self.byte()? {
                b'\n' => return decimal(&digits[..index]).ok_or_else(bad),
                byte => *digits.get_mut(index).ok_or_else(bad)? = byte,
            }
        }
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_to_be_in_order_and_add_up() {
        let segment = |offset, length| Segment { offset, length };
        assert!(Sparse::new(100, vec![segment(0, 10), segment(90, 10)], 20).is_ok());
        assert!(Sparse::new(100, vec![], 0).is_ok());
        for (size, segments, stored) in [
            (100, vec![segment(0, 10), segment(5, 10)], 20),
            (100, vec![segment(95, 10)], 10),
            (100, vec![segment(0, 10)], 11),
            (100, vec![segment(u64::MAX, 2)], 2),
            (u64::MAX, vec![segment(u64::MAX - 1, 1)], 1),
        ] {
            assert!(Sparse::new(size, segments, stored).is_err());
        }
    }

    #[test]
    fn reads_a_map_before_the_data() {
        let mut data = b"2\n0\n5\n1000\n3\n".to_vec();
        data.resize(512, 0);
        data.extend_from_slice(b"hello");
        let (map, taken) = read_map(&mut &data[..], 600).unwrap();
        assert_eq!((map.len(), map[1].offset, taken), (2, 1000, 512));
        for bad in [&b"2\n0\n5\n"[..], b"x\n", b"99999999999999999999999\n", b"", b"70000\n"] {
            assert!(read_map(&mut &bad[..], 512).is_err());
        }
        assert!(read_map(&mut &data[..], 100).is_err());
    }
}
