//! The kernel's texts.

use super::{BlkioEntry, Psi, RdmaEntry};
use std::collections::BTreeMap;

pub fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// `name 12` a line.
pub fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// `0-3,7`.
pub fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

pub fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 Read 4096` a line, or `8:0 4096`. The sum at the end is of no device.
pub fn blkio(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// Per processor `cpu user system` a line, below a heading: kernel's and user's.
pub fn usage_all(text: &str) -> (Vec<u64>, Vec<u64>) {
    let modes = |line: &str| {
        let mut words = line.split_whitespace().skip(1).map(str::parse::<u64>);
        let user = words.next()?.ok()?;
        Some((words.next()?.ok()?, user))
    };
    text.lines().skip(1).filter_map(modes).unzip()
}

/// `mlx5_0 hca_handle=2 hca_object=max` a line.
pub fn rdma(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let mut entry = RdmaEntry { device: words.next()?.to_owned(), ..RdmaEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = if value == "max" { u32::MAX } else { value.parse().ok()? };
            match key {
                "hca_handle" => entry.hca_handles = value,
                "hca_object" => entry.hca_objects = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full …`.
pub fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let pressure = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => pressure.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => pressure.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => pressure.avg300 = value.parse().unwrap_or(0.0),
                "total" => pressure.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    psi
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(number("max\n"), Some(u64::MAX));
        assert_eq!(number("12\n"), Some(12));
        assert_eq!(number("-"), None);
        assert_eq!(table("a 1\nbad\nb 2\n").len(), 2);
        assert_eq!(device("8:16"), Some((8, 16)));
        assert_eq!(device("x"), None);
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert!(list("\n").is_empty());
        assert_eq!(list("3-1,x,70000,5"), [5]);
        let psi = psi("some avg10=1.50 avg60=0.00 avg300=0.25 total=77\nfull avg10=0.00 total=5\nnonsense");
        assert_eq!((psi.some.avg10, psi.some.avg300, psi.some.total, psi.full.total), (1.5, 0.25, 77, 5));
        assert_eq!(usage_all("cpu user system\n0 5 7\n1 6 8 9\nx\n"), (vec![7, 8], vec![5, 6]));
    }

    #[test]
    fn tables_of_devices_are_read() {
        let entry = |op: &str, value| BlkioEntry { major: 8, minor: 0, op: op.to_owned(), value };
        assert_eq!(
            blkio("8:0 Read 4096\n8:0 Total 4096\n8:0 12\nTotal 4096\n8:0\n"),
            [entry("Read", 4096), entry("Total", 4096), entry("", 12)]
        );
        let device = |name: &str, hca_handles, hca_objects| RdmaEntry {
            device: name.to_owned(),
            hca_handles,
            hca_objects,
        };
        assert_eq!(
            rdma("mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n"),
            [device("mlx4_0", 2, 2000), device("ocrdma1", 3, u32::MAX)]
        );
    }
}
