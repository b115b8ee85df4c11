//! A container's log files, read forward and, for `--tail`, backward.
//!
//! Input: how many lines from the end, a blank, since when, a blank, until when (each may be empty), a line feed; then
//! the files, oldest first, with a byte 0x1e between them.

use super::scratch::Scratch;
use ctr_logs::entry::Entry;
use ctr_logs::files::{Line, LogFile, Window, keep_tail, numbered, open_newer};
use ctr_logs::moment;
use jiff::Timestamp;

const MOST_FILES: usize = 8;

pub fn check(data: &[u8]) {
    let Some(feed) = data.iter().position(|b| *b == b'\n') else { return };
    let (Ok(head), body) = (std::str::from_utf8(&data[..feed]), &data[feed + 1..]) else { return };
    let now = Timestamp::UNIX_EPOCH;
    let mut words = head.splitn(3, ' ');
    let count = words.next().and_then(|text| text.parse().ok());
    let mut when = || words.next().and_then(|text| moment::parse(text, now).ok());
    let window = Window { since: when(), until: when() };
    let contents: Vec<&[u8]> = body.splitn(MOST_FILES, |b| *b == 0x1e).collect();

    let scratch = Scratch::new("logs");
    let newest = scratch.path().join("log.json");
    for (index, content) in contents.iter().enumerate() {
        std::fs::write(numbered(&newest, contents.len() - 1 - index), content).expect("write a file");
    }
    let mut files = open_newer(&newest, None).expect("open the files");
    assert_eq!(files.len(), contents.len());
    if let Some(count) = count {
        keep_tail(&mut files, count, window).expect("read the files");
    }
    let read: Vec<Vec<u8>> = files.iter_mut().flat_map(lines).collect();
    assert_eq!(read, expected(&contents, count, window));
}

fn lines(file: &mut LogFile) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    loop {
        match file.next_line().expect("read a file") {
            Line::Whole(range) => lines.push(file.line(range).to_vec()),
            Line::TooLong => panic!("no line of an input is that long"),
            Line::End { torn } => {
                assert_eq!(torn, !file.torn().is_empty());
                return lines;
            }
        }
    }
}

/// The same worked out with everything in memory.
fn expected(contents: &[&[u8]], count: Option<u64>, window: Window) -> Vec<Vec<u8>> {
    let whole = |content: &&[u8]| -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = content.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        // What follows the last line feed.
        lines.pop();
        lines
    };
    let mut lines: Vec<Vec<u8>> = contents.iter().flat_map(whole).collect();
    let Some(count) = count else { return lines };
    let (mut ends, mut seen) = (0, false);
    for index in (0..lines.len()).rev() {
        let Some(entry) = Entry::parse(&lines[index]) else { continue };
        let moment = entry.moment();
        if window.until.is_some_and(|until| moment.is_some_and(|moment| moment > until)) {
            continue;
        }
        ends += u64::from(entry.log.ends_with('\n') || !seen);
        seen = true;
        if ends > count || window.since.is_some_and(|since| moment.is_some_and(|moment| moment < since)) {
            return lines.split_off(index + 1);
        }
    }
    lines
}
