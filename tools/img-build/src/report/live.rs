//! The display on a terminal: a thread that draws what [`frame`](super::frame) makes, ten times a second at most.
//!
//! While it is there, stderr is a pipe to it, so that whatever is written there meanwhile, by whomever, comes above what is drawn. Nobody who builds
//! waits for the terminal. There is no thread before the first step.

use super::frame::{Board, End, Stay};
use cli::screen::{self, Line, Region, Size};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);
/// Whoever slept that much longer than wanted was stopped (Ctrl-Z), and the shell has had the terminal.
const STOPPED: Duration = Duration::from_secs(2);
/// A line on stderr that has no end by then is taken as one.
const LONGEST_LINE: usize = 4096;

pub struct Live {
    shared: Arc<Shared>,
    drawer: Mutex<Drawer>,
}

struct Shared {
    began: Instant,
    colours: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    board: Board,
    /// Not written yet.
    above: Vec<Stay>,
    /// What comes after all else.
    ending: Option<Stay>,
}

enum Drawer {
    Waiting,
    Drawing {
        thread: JoinHandle<()>,
        terminal: OwnedFd,
        /// Closed, it ends the thread.
        wake: OwnedFd,
    },
    Ended,
}

impl Live {
    pub fn new(began: Instant) -> Live {
        let shared = Shared { began, colours: screen::has_colours(), state: Mutex::default() };
        Live { shared: Arc::new(shared), drawer: Mutex::new(Drawer::Waiting) }
    }

    pub fn expect(&self, count: usize) {
        self.shared.lock().board.expect(count);
    }

    pub fn start(&self, number: usize, name: &str) {
        self.shared.lock().board.start(number, name, self.shared.at());
        self.draw();
    }

    /// With the state as it is at this moment.
    pub fn tell(&self, tell: impl FnOnce(&mut Board, Duration)) {
        tell(&mut self.shared.lock().board, self.shared.at());
    }

    pub fn end(&self, number: usize, end: End) {
        let at = self.shared.at();
        let mut state = self.shared.lock();
        let stay = state.board.end(number, end, at);
        state.above.extend(stay);
    }

    /// Writes a line above what is drawn.
    pub fn above(&self, line: Stay) {
        self.shared.lock().above.push(line);
        if !matches!(*self.drawer(), Drawer::Drawing { .. }) {
            self.shared.last(None);
        }
    }

    /// Draws no more, but for how it ended; nothing if there was nothing to be drawn.
    pub fn finish(&self, good: bool) {
        let mut drawer = self.drawer();
        let Drawer::Drawing { thread, terminal, wake } = std::mem::replace(&mut *drawer, Drawer::Ended)
        else {
            return;
        };
        let status = if good { " FINISHED" } else { " FAILED" };
        let mut state = self.shared.lock();
        let text = state.board.headline(self.shared.at(), status);
        state.ending = Some(Stay::Headline { text, good });
        drop(state);
        let _ = rustix::stdio::dup2_stderr(&terminal);
        drop(wake);
        if thread.join().is_err() {
            // What it had no time for.
            self.shared.last(None);
        }
    }

    /// Begins to, unless it has.
    fn draw(&self) {
        let mut drawer = self.drawer();
        if matches!(*drawer, Drawer::Waiting) {
            // Without pipes or threads to be had there is less to see.
            *drawer = begin(&self.shared).unwrap_or(Drawer::Ended);
        }
    }

    fn drawer(&self) -> MutexGuard<'_, Drawer> {
        self.drawer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.finish(false);
    }
}

fn begin(shared: &Arc<Shared>) -> io::Result<Drawer> {
    let terminal = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?;
    let (said, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // Another program may hold the other end for longer than is waited for.
    rustix::fs::fcntl_setfl(&said, OFlags::NONBLOCK)?;
    let (asleep, wake) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let drawing = Drawing {
        shared: Arc::clone(shared),
        terminal: rustix::io::fcntl_dupfd_cloexec(&terminal, 3)?,
        said,
        asleep,
        line: Vec::new(),
        region: Region::default(),
        shown: None,
    };
    let run = move || drawing.run();
    let thread = std::thread::Builder::new().name("display".to_owned()).stack_size(256 << 10).spawn(run)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    Ok(Drawer::Drawing { thread, terminal, wake })
}

impl Shared {
    fn at(&self) -> Duration {
        self.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines as they are written, whole.
    fn text(&self, stay: &[Stay], cells: usize) -> String {
        let mut text = String::new();
        for stay in stay {
            let line = self.coloured(stay.line(cells));
            let _ = match line.colour {
                Some(colour) => writeln!(text, "\x1b[{colour}m{}\x1b[0m", line.text),
                None => writeln!(text, "{}", line.text),
            };
        }
        text
    }

    fn coloured(&self, line: Line) -> Line {
        Line { colour: line.colour.filter(|_| self.colours), ..line }
    }

    /// Writes what is left to be written, without anything drawn.
    fn last(&self, terminal: Option<&OwnedFd>) {
        let mut state = self.lock();
        let mut stay = std::mem::take(&mut state.above);
        stay.extend(state.ending.take());
        drop(state);
        let cells = |size: Size| size.drawable().width;
        match terminal {
            Some(terminal) => write_all(terminal, self.text(&stay, cells(Size::of(terminal))).as_bytes()),
            None => write_all(io::stderr(), self.text(&stay, cells(Size::of(io::stderr()))).as_bytes()),
        }
    }
}

/// The thread's.
struct Drawing {
    shared: Arc<Shared>,
    terminal: OwnedFd,
    /// What is written to stderr.
    said: OwnedFd,
    asleep: OwnedFd,
    /// The beginning of a line of that.
    line: Vec<u8>,
    region: Region,
    /// What is on the terminal, and how large that was.
    shown: Option<(Vec<Line>, Size)>,
}

impl Drawing {
    fn run(mut self) {
        let mut due = Instant::now() + INTERVAL;
        loop {
            let is_over = self.wait(due);
            self.listen();
            if is_over {
                break;
            }
            if Instant::now() >= due {
                self.draw();
                due = Instant::now() + INTERVAL;
            }
        }
        if !self.line.is_empty() {
            self.said_line();
        }
        let text = self.region.erase(Size::of(&self.terminal));
        write_all(&self.terminal, text.as_bytes());
        self.shared.last(Some(&self.terminal));
    }

    /// Until it is time to draw, or something is said; whether that was all.
    fn wait(&mut self, due: Instant) -> bool {
        let wanted = due.saturating_duration_since(Instant::now());
        let began = Instant::now();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wanted.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.asleep, PollFlags::IN), PollFd::new(&self.said, PollFlags::IN)];
        let result = poll(&mut fds, Some(&timeout));
        let is_over = matches!(result, Ok(1..)) && !fds[0].revents().is_empty();
        if began.elapsed() > wanted + STOPPED {
            self.region.forget();
            self.shown = None;
        }
        is_over
    }

    /// Takes what others have written to stderr.
    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.said, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN) => return,
                Ok(count) => {
                    for byte in buffer.iter().take(count) {
                        if *byte == b'\n' || self.line.len() >= LONGEST_LINE {
                            self.said_line();
                        }
                        if *byte != b'\n' {
                            self.line.push(*byte);
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn said_line(&mut self) {
        let text = super::clean(&String::from_utf8_lossy(&self.line));
        self.line.clear();
        self.shared.lock().above.push(Stay::Text(text));
    }

    fn draw(&mut self) {
        let size = Size::of(&self.terminal);
        let room = size.drawable();
        let (stay, lines) = {
            let mut state = self.shared.lock();
            (std::mem::take(&mut state.above), state.board.frame(self.shared.at(), room))
        };
        let lines: Vec<Line> = lines.into_iter().map(|line| self.shared.coloured(line)).collect();
        let is_same = self.shown.as_ref().is_some_and(|(shown, then)| (shown, *then) == (&lines, size));
        if stay.is_empty() && is_same {
            return;
        }
        let above = self.shared.text(&stay, room.width);
        let text = self.region.draw(&above, &lines, size);
        self.shown = Some((lines, size));
        write_all(&self.terminal, text.as_bytes());
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            // Nobody is there any more.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};
    use std::io::{Read, Write};

    /// What a terminal got while stderr was one.
    fn on_a_terminal(act: impl FnOnce()) -> String {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 10, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let user = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let before = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3).unwrap();
        rustix::stdio::dup2_stderr(&user).unwrap();
        act();
        rustix::stdio::dup2_stderr(&before).unwrap();
        drop(user);
        let mut bytes = Vec::new();
        // At the end it says that nobody is there.
        let _ = std::fs::File::from(terminal).read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
    }

    /// The lines of a terminal that is high enough, after all that.
    fn screen(text: &str) -> Vec<String> {
        let (mut lines, mut row, mut column) = (vec![String::new()], 0usize, 0usize);
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '\r' => column = 0,
                '\n' => {
                    (row, column) = (row + 1, 0);
                    lines.resize(lines.len().max(row + 1), String::new());
                }
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "{text:?}");
                    let mut number = String::new();
                    while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                        number.push(digit);
                    }
                    let count = number.parse().unwrap_or(1);
                    match rest.next() {
                        Some('m') => {}
                        Some('A') => row = row.checked_sub(count).expect("there are that many lines"),
                        Some('B') => row = (row + count).min(lines.len() - 1),
                        Some('K') => lines[row].truncate(column),
                        Some('J') => {
                            lines[row].truncate(column);
                            lines.truncate(row + 1);
                        }
                        other => panic!("{other:?} in {text:?}"),
                    }
                }
                other => {
                    let line = &mut lines[row];
                    // All of it takes a byte and a cell.
                    assert!(other.is_ascii() && !other.is_control(), "{text:?}");
                    line.replace_range(column..(column + 1).min(line.len()).max(column), &other.to_string());
                    column += 1;
                }
            }
        }
        lines
    }

    fn say(text: &str) {
        io::stderr().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn what_others_write_comes_above_and_nothing_is_lost() {
        let text = on_a_terminal(|| {
            let live = Live::new(Instant::now());
            say("before\n");
            live.expect(2);
            live.start(1, "[a 1/1] RUN x");
            std::thread::sleep(INTERVAL * 2);
            say("from another\x1b[2J\n");
            std::thread::sleep(INTERVAL * 2);
            live.above(Stay::Warning("odd".to_owned()));
            live.end(1, End::Done);
            live.start(2, "[a 2/2] RUN y");
            live.end(2, End::Cached);
            say("without an end");
            live.finish(true);
            say("after\n");
            live.above(Stay::Text("late".to_owned()));
            live.finish(false);
        });
        // Drawn, and gone in the end.
        assert!(text.contains("[+] Building 0.") && text.contains(" (0/2)\x1b[K\n"), "{text:?}");
        assert!(!text.contains("\x1b[2J"), "{text:?}");
        let screen = screen(&text);
        let lines: Vec<&str> = screen.iter().map(|line| line.trim_end()).collect();
        assert_eq!(lines[..3], ["before", "from another", "odd"], "{screen:?}");
        assert!(lines[3].starts_with(" => [a 1/1] RUN x ") && lines[3].ends_with('s'), "{screen:?}");
        assert!(lines[4].starts_with(" => CACHED [a 2/2] RUN y "), "{screen:?}");
        assert_eq!(lines[5], "without an end", "{screen:?}");
        assert!(
            lines[6].starts_with("[+] Building 0.") && lines[6].ends_with(" (2/2) FINISHED"),
            "{screen:?}"
        );
        assert_eq!(lines[7..], ["after", "late", ""], "{screen:?}");
    }

    #[test]
    fn what_ends_at_once_is_written_at_once() {
        let text = on_a_terminal(|| {
            let live = Live::new(Instant::now());
            live.start(1, "x");
            live.end(1, End::Cached);
            live.finish(true);
        });
        assert!(!text.contains('\r') && text.matches('\n').count() == 2, "{text:?}");
        assert_eq!(on_a_terminal(|| Live::new(Instant::now()).finish(true)), "");
    }
}
