//! A build on a terminal, as lines: what runs, for how long, and what it writes. Nothing here reads a clock, writes, or knows the terminal.

use cli::progress::bar;
use cli::screen::{Line, Size, cut, width};
use std::collections::VecDeque;
use std::time::Duration;

/// Lines of its output that are shown below a step.
const WINDOW: usize = 6;
/// Bytes kept of what a step writes, should it fail.
const MAX_LOG: usize = 8 << 20;
/// Cells that a step's name needs for its time to be shown, too.
const SHORTEST_NAME: usize = 12;
/// Where times end, unless a name is longer: a window that becomes narrower breaks what is wider.
const EDGE: usize = 80;

const BLUE: u8 = 34;
const YELLOW: u8 = 33;
const RED: u8 = 31;
const FAINT: u8 = 2;

/// Steps that run, and how many have.
#[derive(Debug, Default)]
pub struct Board {
    jobs: Vec<Job>,
    done: usize,
    begun: usize,
    expected: usize,
}

#[derive(Debug)]
struct Job {
    number: usize,
    name: String,
    began: Duration,
    /// What it wrote last, and the line it has not ended.
    lines: VecDeque<String>,
    partial: String,
    log: Log,
    transfers: Vec<Transfer>,
}

/// What is being fetched or sent.
#[derive(Debug)]
struct Transfer {
    item: String,
    current: u64,
    total: Option<u64>,
}

/// All it wrote, as long as that is not too much.
#[derive(Debug, Default)]
struct Log {
    text: String,
    /// Lines before it that were let go.
    dropped: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    Cached,
    Failed,
}

/// A line that is written once and stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stay {
    /// A step that has ended, cut to the window.
    Step {
        name: String,
        end: End,
        took: Duration,
    },
    Warning(String),
    /// Of a log or from somebody else, as long as it is.
    Text(String),
    /// How all of it ended.
    Headline {
        text: String,
        good: bool,
    },
}

impl Stay {
    pub fn line(&self, cells: usize) -> Line {
        let (text, colour) = match self {
            Stay::Step { name, end, took } => {
                let (word, colour) = match end {
                    End::Done => ("", BLUE),
                    End::Cached => ("CACHED ", BLUE),
                    End::Failed => ("ERROR ", RED),
                };
                (with_time(&format!(" => {word}{name}"), *took, cells), Some(colour))
            }
            Stay::Warning(text) => (cut(text, usize::MAX), Some(YELLOW)),
            Stay::Text(text) => (cut(text, usize::MAX), None),
            Stay::Headline { text, good } => (cut(text, cells), Some(if *good { BLUE } else { RED })),
        };
        Line { text, colour }
    }
}

impl Board {
    /// That many more steps will come.
    pub fn expect(&mut self, count: usize) {
        self.expected += count;
    }

    pub fn start(&mut self, number: usize, name: &str, at: Duration) {
        self.begun += 1;
        self.jobs.push(Job {
            number,
            name: name.to_owned(),
            began: at,
            lines: VecDeque::new(),
            partial: String::new(),
            log: Log::default(),
            transfers: Vec::new(),
        });
    }

    /// A whole line of what a step writes.
    pub fn line(&mut self, number: usize, text: &str, at: Duration) {
        if let Some(job) = self.job(number) {
            job.log.push(&format!("{:.3} {text}", at.saturating_sub(job.began).as_secs_f64()));
            if job.lines.len() == WINDOW {
                job.lines.pop_front();
            }
            job.lines.push_back(text.to_owned());
            job.partial.clear();
        }
    }

    /// The beginning of one, as far as it was written.
    pub fn partial(&mut self, number: usize, text: &str) {
        if let Some(job) = self.job(number) {
            text.clone_into(&mut job.partial);
        }
    }

    pub fn transfer(&mut self, number: usize, item: &str, current: u64, total: Option<u64>) {
        let Some(job) = self.job(number) else { return };
        if let Some(known) = job.transfers.iter_mut().find(|known| known.item == item) {
            known.current = current;
            known.total = total.or(known.total);
        } else {
            job.transfers.push(Transfer { item: item.to_owned(), current, total });
        }
    }

    pub fn transferred(&mut self, number: usize, item: &str) {
        if let Some(job) = self.job(number) {
            job.transfers.retain(|known| known.item != item);
        }
    }

    /// What stays of a step that has ended; of one that failed all it wrote, too.
    pub fn end(&mut self, number: usize, end: End, at: Duration) -> Vec<Stay> {
        let Some(job) = self.take(number) else { return Vec::new() };
        self.done += usize::from(end != End::Failed);
        let mut stay = vec![Stay::Step { name: job.name.clone(), end, took: at.saturating_sub(job.began) }];
        if end == End::Failed && !job.log.text.is_empty() {
            let text = |text: &str| Stay::Text(text.to_owned());
            stay.extend([text("------"), Stay::Text(format!(" > {}:", job.name))]);
            if job.log.dropped > 0 {
                stay.push(Stay::Text(format!("({} lines before these are left out)", job.log.dropped)));
            }
            stay.extend(job.log.text.lines().map(text));
            stay.push(text("------"));
        }
        stay
    }

    /// Nothing is to be said of it any more.
    pub fn remove(&mut self, number: usize) {
        self.take(number);
    }

    fn take(&mut self, number: usize) -> Option<Job> {
        let place = self.jobs.iter().position(|job| job.number == number)?;
        Some(self.jobs.remove(place))
    }

    /// How all of it stands.
    pub fn headline(&self, at: Duration, status: &str) -> String {
        let all = self.expected.max(self.begun);
        format!("[+] Building {:.1}s ({}/{all}){status}", at.as_secs_f64(), self.done)
    }

    /// What is shown of the steps that run: never more lines, nor wider ones, than there is room for.
    pub fn frame(&self, at: Duration, room: Size) -> Vec<Line> {
        if room.height == 0 {
            return Vec::new();
        }
        let mut lines = vec![Line { text: cut(&self.headline(at, ""), room.width), colour: None }];
        let rest = room.height - 1;
        // The last line tells of those there is no line for.
        let shown = if self.jobs.len() <= rest { self.jobs.len() } else { rest.saturating_sub(1) };
        let jobs = &self.jobs[..shown];
        let details: Vec<Vec<String>> = jobs.iter().map(Job::details).collect();
        let wanted: Vec<usize> = details.iter().map(Vec::len).collect();
        for ((job, details), count) in
            jobs.iter().zip(details).zip(shares(&wanted, rest.saturating_sub(self.jobs.len())))
        {
            let name = format!(" => {}", job.name);
            let took = at.saturating_sub(job.began);
            lines.push(Line { text: with_time(&name, took, room.width), colour: None });
            // Of output the end, of transfers, which come first, the beginning.
            let transfers = job.transfers.len().min(count);
            let (first, last) = details.split_at(job.transfers.len());
            let last = last.iter().skip(last.len().saturating_sub(count - transfers));
            for text in first.iter().take(transfers).chain(last) {
                lines.push(Line { text: cut(text, room.width), colour: Some(FAINT) });
            }
        }
        let unseen = self.jobs.len() - shown;
        if unseen > 0 && rest > 0 {
            lines.push(Line { text: cut(&format!(" => … and {unseen} more"), room.width), colour: None });
        }
        lines
    }

    fn job(&mut self, number: usize) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.number == number)
    }
}

impl Job {
    /// The lines below its own.
    fn details(&self) -> Vec<String> {
        let transfers = self.transfers.iter().map(|transfer| {
            let hex = transfer.item.strip_prefix("sha256:").unwrap_or(&transfer.item);
            let label: String = hex.chars().take(12).collect();
            format!(" => => {}", bar(&label, transfer.current, transfer.total))
        });
        let output = self.lines.iter().chain(Some(&self.partial).filter(|partial| !partial.is_empty()));
        let unseen = output.clone().count().saturating_sub(WINDOW);
        transfers.chain(output.skip(unseen).map(|text| format!(" => => # {text}"))).collect()
    }
}

impl Log {
    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() > MAX_LOG {
            // A half at once, as what is left is moved.
            let half = self.text.len() / 2;
            let end =
                self.text.bytes().skip(half).position(|byte| byte == b'\n').map_or(0, |end| half + end + 1);
            self.dropped += self.text.drain(..end).filter(|character| *character == '\n').count();
        }
    }
}

/// How many of the lines each wants it gets: all take in turns.
fn shares(wanted: &[usize], lines: usize) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    let mut left = lines;
    loop {
        let before = left;
        for (share, wanted) in shares.iter_mut().zip(wanted) {
            if left > 0 && *share < *wanted {
                *share += 1;
                left -= 1;
            }
        }
        if left == before {
            return shares;
        }
    }
}

/// With the seconds at the right, if there is room for both.
fn with_time(text: &str, took: Duration, cells: usize) -> String {
    let time = format!("{:.1}s", took.as_secs_f64());
    let Some(room) = cells.checked_sub(time.len() + 1).filter(|room| *room >= SHORTEST_NAME) else {
        return cut(text, cells);
    };
    let text = cut(text, room);
    let fill = room.min(EDGE - 1 - time.len().min(EDGE - 1)).saturating_sub(width(&text)) + 1;
    format!("{text}{:fill$}{time}", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn texts(board: &Board, at: Duration, width: usize, height: usize) -> Vec<String> {
        board.frame(at, Size { width, height }).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn what_runs_is_shown_with_what_it_writes() {
        let mut board = Board::default();
        board.expect(3);
        board.start(1, "[a 1/2] RUN make", Duration::ZERO);
        board.start(2, "[b 1/1] RUN sleep 9", SECOND);
        for number in 0..9 {
            board.line(1, &format!("line {number}"), SECOND);
        }
        board.partial(1, "50%");
        let all = [
            "[+] Building 2.5s (0/3)",
            " => [a 1/2] RUN make                2.5s",
            " => => # line 4",
            " => => # line 5",
            " => => # line 6",
            " => => # line 7",
            " => => # line 8",
            " => => # 50%",
            " => [b 1/1] RUN sleep 9             1.5s",
        ];
        let at = Duration::from_millis(2500);
        assert_eq!(texts(&board, at, 40, 24), all);
        assert_eq!(texts(&board, at, 40, 5), [all[0], all[1], all[6], all[7], all[8]]);
        assert_eq!(texts(&board, at, 40, 2), [all[0], " => … and 2 more"]);
        assert_eq!(
            texts(&board, at, 16, 3),
            [
                all[0].get(..15).unwrap().to_owned() + "…",
                " => [a 1/2] RUN…".into(),
                " => [b 1/1] RUN…".into()
            ]
        );
        assert_eq!(texts(&board, at, 40, 1), [all[0]]);
        assert_eq!(texts(&board, at, 40, 0), [""; 0]);
        let done = board.end(2, End::Cached, at);
        assert_eq!(done[0].line(40).text, " => CACHED [b 1/1] RUN sleep 9      1.5s");
        let failed: Vec<String> =
            board.end(1, End::Failed, at).iter().map(|stay| stay.line(20).text).collect();
        assert_eq!(failed[..4], [" => ERROR [a 1… 2.5s", "------", " > [a 1/2] RUN make:", "1.000 line 0"]);
        assert_eq!((failed.len(), failed[12].as_str()), (13, "------"));
        assert_eq!(texts(&board, at, 40, 24), ["[+] Building 2.5s (1/3)"]);
    }

    #[test]
    fn downloads_show_bytes() {
        let mut board = Board::default();
        board.start(1, "pull debian:12", Duration::ZERO);
        board.transfer(1, "sha256:0123456789abcdef", 0, Some(2_000_000));
        board.transfer(1, "sha256:0123456789abcdef", 1_000_000, None);
        board.transfer(1, "layer", 7, None);
        let lines = texts(&board, SECOND, 80, 24);
        assert_eq!(lines[2], " => => 0123456789ab  [===============               ]  1.0 MB / 2.0 MB");
        assert_eq!(lines[3], " => => layer  7 B");
        board.transferred(1, "layer");
        assert_eq!(texts(&board, SECOND, 80, 24).len(), 3);
    }

    #[test]
    fn a_log_has_an_end() {
        let mut log = Log::default();
        let line = "ä".repeat(1000);
        let count = 3 * MAX_LOG / line.len();
        (0..count).for_each(|_| log.push(&line));
        assert!(log.text.len() <= MAX_LOG && log.text.len() >= MAX_LOG / 2 - line.len());
        assert_eq!(log.dropped + log.text.lines().count(), count);
        assert!(log.text.lines().all(|kept| kept == line));
    }

    /// Something happens to a step.
    #[derive(Clone, Debug)]
    enum Act {
        Start(Vec<u8>),
        Line(Vec<u8>),
        Partial(Vec<u8>),
        Transfer(Vec<u8>, u64, Option<u64>),
        End(End),
        Remove,
        Expect(usize),
    }

    /// Bytes that are often what a terminal acts on, or wide.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let special = prop::sample::select(vec![
            "\x1b[2J",
            "\x1b]0;x\x07",
            "\x1b",
            "\u{9b}31m",
            "\r",
            "\n",
            "\t",
            "\u{8}",
            "\0",
            "日本",
            "👩\u{200d}👧",
            "e\u{301}",
            "\u{202e}",
            "\u{301}\u{301}\u{301}",
            "\u{feff}",
            "\u{1160}",
            "\u{fe0f}",
        ]);
        let part = prop_oneof![
            special.prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..20),
            "\\PC{0,30}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    fn act() -> impl Strategy<Value = (usize, Act)> {
        let end = prop::sample::select(vec![End::Done, End::Cached, End::Failed]);
        let act = prop_oneof![
            3 => bytes().prop_map(Act::Start),
            6 => bytes().prop_map(Act::Line),
            2 => bytes().prop_map(Act::Partial),
            3 => (bytes(), any::<u64>(), any::<Option<u64>>()).prop_map(|(item, current, total)| Act::Transfer(item, current, total)),
            2 => end.prop_map(Act::End),
            1 => Just(Act::Remove),
            1 => (0..9usize).prop_map(Act::Expect),
        ];
        (0..12usize, act)
    }

    fn harmless(text: &str) -> bool {
        !text.chars().any(|character| {
            character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}')
        })
    }

    proptest! {
        #[test]
        fn no_frame_is_larger_than_the_room_nor_acts_on_the_terminal(
            acts in prop::collection::vec(act(), 0..80),
            rooms in prop::collection::vec((0..120usize, 0..40usize), 1..6),
        ) {
            let mut board = Board::default();
            let mut stay = Vec::new();
            for (second, (number, act)) in acts.into_iter().enumerate() {
                let at = SECOND * second as u32;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                match act {
                    Act::Start(name) => board.start(number, &text(&name), at),
                    Act::Line(line) => board.line(number, &text(&line), at),
                    Act::Partial(line) => board.partial(number, &text(&line)),
                    Act::Transfer(item, current, total) => board.transfer(number, &text(&item), current, total),
                    Act::End(end) => stay.extend(board.end(number, end, at)),
                    Act::Remove => board.remove(number),
                    Act::Expect(count) => board.expect(count),
                }
            }
            for (cells, height) in rooms {
                let frame = board.frame(SECOND * 99, Size { width: cells, height });
                prop_assert!(frame.len() <= height);
                prop_assert_eq!(frame.len().min(1), height.min(1), "there is a headline wherever there is room");
                for line in &frame {
                    prop_assert!(width(&line.text) <= cells, "{:?} in {}", line.text, cells);
                    prop_assert!(harmless(&line.text), "{:?}", line.text);
                }
                for stay in &stay {
                    let line = stay.line(cells);
                    prop_assert!(harmless(&line.text), "{:?}", line.text);
                    if matches!(stay, Stay::Step { .. }) {
                        prop_assert!(width(&line.text) <= cells);
                    }
                }
            }
        }
    }
}
