//! What criu counted (`stats-dump`, `stats-restore`; its `images/stats.proto`).

use super::wire::{Value, read};
use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde_json::{Map, json};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// In criu's working directory.
pub const DUMP: &str = "stats-dump";
pub const RESTORE: &str = "stats-restore";

/// Of criu's images: one for services, one for this kind, each four bytes (its `include/magic.h`); the message's length follows.
const HEAD_BYTES: usize = 12;
const MAGIC_SERVICE: u32 = 0x5510_5940;
const MAGIC_STATS: u32 = 0x5709_3306;
/// Longest file read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Field numbers and names of `DumpStatsEntry`; times in microseconds.
const DUMPED: [(u32, &str); 6] = [
    (1, "freezing_time"),
    (2, "frozen_time"),
    (3, "memdump_time"),
    (4, "memwrite_time"),
    (5, "pages_scanned"),
    (7, "pages_written"),
];
/// The same of `RestoreStatsEntry`.
const RESTORED: [(u32, &str); 5] = [
    (1, "pages_compared"),
    (2, "pages_skipped_cow"),
    (3, "forking_time"),
    (4, "restore_time"),
    (5, "pages_restored"),
];

/// The counts in a file of criu's, by criu's names; times in microseconds.
///
/// # Errors
/// When the file is not there, or is no such file.
pub fn of(path: &Path) -> Result<serde_json::Value> {
    let what = || format!("read criu's statistics {}", path.display());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty()).explain(what)?);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).explain(what)?;
    parse(&bytes).map_err(|fault| fault.within(what()))
}

fn parse(bytes: &[u8]) -> Result<serde_json::Value> {
    let wrong = || Fault::input("it is not a file of criu's statistics");
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(wrong)?;
    let word =
        |at: usize| head.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes);
    let message = rest.get(..word(8) as usize).ok_or_else(wrong)?;
    if (word(0), word(4)) != (MAGIC_SERVICE, MAGIC_STATS) {
        return Err(wrong());
    }
    for (field, value) in read(message)? {
        let names: &[(u32, &str)] = match field {
            1 => &DUMPED,
            2 => &RESTORED,
            _ => continue,
        };
        return named(value, names);
    }
    Err(wrong())
}

fn named(value: Value<'_>, names: &[(u32, &str)]) -> Result<serde_json::Value> {
    let fields = read(value.bytes())?;
    let count =
        |number| fields.iter().find(|(field, _)| *field == number).map_or(0, |(_, value)| value.number());
    let members: Map<_, _> =
        names.iter().map(|(number, name)| ((*name).to_owned(), json!(count(*number)))).collect();
    Ok(members.into())
}

#[cfg(test)]
mod tests {
    use super::super::wire::Writer;
    use super::*;

    fn file(field: u32, counts: &[(u32, u64)]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .message(field, |inner| counts.iter().for_each(|(number, count)| inner.number(*number, *count)));
        let message = writer.finish();
        let mut bytes = Vec::new();
        for word in [MAGIC_SERVICE, MAGIC_STATS, message.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&message);
        bytes
    }

    #[test]
    fn counts_have_their_names() {
        let dumped = parse(&file(1, &[(1, 11), (2, 22), (7, 77), (99, 1)])).unwrap();
        assert_eq!((&dumped["freezing_time"], &dumped["frozen_time"]), (&json!(11), &json!(22)));
        assert_eq!((&dumped["pages_written"], &dumped["memdump_time"]), (&json!(77), &json!(0)));
        assert_eq!(parse(&file(2, &[(5, 3)])).unwrap()["pages_restored"], 3);
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let good = file(1, &[(1, 11)]);
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err(), "{length}");
        }
        assert!(parse(&[0; 64]).is_err() && parse(&[0xff; 64]).is_err());
        assert!(parse(&file(3, &[(1, 1)])).is_err());
        assert!(of(Path::new("/nonexistent")).is_err() && of(Path::new("/dev/null")).is_err());
    }
}
