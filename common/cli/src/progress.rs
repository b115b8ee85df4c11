//! Progress of long work: bars for people, on a terminal's stderr unless they are asked for, and events as data for
//! `--progress json` and `--progress-fd N`.
//!
//! One vocabulary for all tools, one JSON object a line:
//!
//! ```text
//! {"event":"start","tool":"img-pull","subject":"docker.io/library/debian:12","item":"sha256:…","total":29126465}
//! {"event":"progress", …, "current":1048576,"total":29126465}
//! {"event":"done", …}        {"event":"present", …}: it was there already
//! ```
//!
//! `subject` is what the user asked for, `item` a part of it, `current` and `total` count bytes unless `unit` says
//! otherwise; `total` is absent where it is not known.

use crate::screen::{self, Line, Region, Size};
use clap::{Args as ClapArgs, ValueEnum};
use fault::{Explain, Fault, Kind, Result};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two drawings, and between two `progress` events of an item.
const INTERVAL: Duration = Duration::from_millis(100);
/// Bars drawn at once.
const MAX_BARS: usize = 8;
const BAR_WIDTH: usize = 30;

/// Where events go if nothing else is said.
const STDERR: i32 = 2;

/// The flags of tools whose work takes long. Flatten it: `#[command(flatten)] pub progress: cli::ProgressArgs`.
#[derive(Clone, Copy, Debug, Default, ClapArgs)]
pub struct ProgressArgs {
    /// How to show progress
    #[arg(long, value_enum, value_name = "FORM", default_value_t, help_heading = "Output")]
    pub progress: Form,

    /// Write progress to this descriptor, one JSON object a line; with --progress json it is 2, stderr, otherwise
    #[arg(long, value_name = "FD", help_heading = "Output")]
    pub progress_fd: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Bars if stderr is a terminal, unless --quiet
    #[default]
    Auto,
    /// Bars on stderr, terminal or not
    Bars,
    /// One JSON object a line
    Json,
    /// Not at all
    None,
}

/// Shared between threads.
#[derive(Debug)]
pub struct Progress {
    tool: &'static str,
    events: bool,
    bars: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    events: Option<File>,
    active: Vec<Bar>,
    next: u64,
    /// Lines on the terminal that are ours.
    region: Region,
    drawn_at: Option<Instant>,
}

#[derive(Debug)]
struct Bar {
    id: u64,
    label: String,
    current: u64,
    total: Option<u64>,
}

/// One piece of work. Dropped without [`Item::done`], it failed: its bar goes away and no event says `done`.
#[derive(Debug)]
pub struct Item<'a> {
    progress: &'a Progress,
    id: u64,
    /// The members that name it, ready to print.
    names: String,
    total: Option<u64>,
    told_at: Instant,
}

impl Progress {
    /// `quiet` draws no bars, if they are not asked for.
    ///
    /// # Errors
    /// [`Kind::Usage`] when there is no such descriptor, or nothing to be written to it.
    pub fn new(tool: &'static str, args: ProgressArgs, quiet: bool) -> Result<Progress> {
        let (descriptor, bars) = match (args.progress, args.progress_fd) {
            (Form::None, Some(number)) => {
                return Err(Fault::usage(format!(
                    "--progress none leaves nothing for --progress-fd {number}"
                ))
                .hint("without --progress, events go there"));
            }
            (Form::None, None) => (None, false),
            (Form::Json, number) => (Some(number.unwrap_or(STDERR)), false),
            (Form::Bars, number) => (number, true),
            (Form::Auto, number) => (number, !quiet && screen::is_live()),
        };
        let events = descriptor
            .map(|number| {
                sys::descriptor::inherited(number)
                    .map(File::from)
                    .explain_as(Kind::Usage, || format!("--progress-fd {number}"))
            })
            .transpose()?;
        let has_events = events.is_some();
        let state = State { events, active: Vec::new(), next: 0, region: Region::default(), drawn_at: None };
        Ok(Progress { tool, events: has_events, bars, state: Mutex::new(state) })
    }

    /// Begins an item. `label` is what people are shown.
    pub fn start(&self, subject: &str, item: &str, label: &str, total: Option<u64>) -> Item<'_> {
        let names = if self.events { self.names(subject, item) } else { String::new() };
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        if self.bars {
            state.active.push(Bar { id, label: label.to_owned(), current: 0, total });
        }
        state.emit("start", &names, None, total);
        Item { progress: self, id, names, total, told_at: Instant::now() }
    }

    /// An item that needs no work.
    pub fn present(&self, subject: &str, item: &str) {
        if self.events {
            self.lock().emit("present", &self.names(subject, item), None, None);
        }
    }

    /// Takes the bars off the terminal, before something else is written to it.
    pub fn clear(&self) {
        if self.bars {
            self.lock().erase();
        }
    }

    fn names(&self, subject: &str, item: &str) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        format!("\"tool\":{},\"subject\":{},\"item\":{}", quote(self.tool), quote(subject), quote(item))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Item<'_> {
    /// How far it has come.
    pub fn set(&mut self, current: u64) {
        if (!self.progress.bars && !self.progress.events) || self.told_at.elapsed() < INTERVAL {
            return;
        }
        self.told_at = Instant::now();
        let mut state = self.progress.lock();
        state.emit("progress", &self.names, Some(current), self.total);
        if let Some(bar) = state.active.iter_mut().find(|bar| bar.id == self.id) {
            bar.current = current;
            state.draw();
        }
    }

    pub fn done(self) {
        self.progress.lock().emit("done", &self.names, self.total, self.total);
    }
}

impl Drop for Item<'_> {
    fn drop(&mut self) {
        if !self.progress.bars {
            return;
        }
        let mut state = self.progress.lock();
        state.active.retain(|bar| bar.id != self.id);
        if state.active.is_empty() {
            state.erase();
        }
    }
}

impl State {
    fn emit(&mut self, event: &str, names: &str, current: Option<u64>, total: Option<u64>) {
        let Some(file) = &mut self.events else { return };
        let mut line = format!("{{\"event\":\"{event}\",{names}");
        for (name, value) in [("current", current), ("total", total)] {
            if let Some(value) = value {
                let _ = write!(line, ",\"{name}\":{value}");
            }
        }
        line.push_str("}\n");
        if file.write_all(line.as_bytes()).is_err() {
            // Nobody listens any more; the work goes on.
            self.events = None;
        }
    }

    fn draw(&mut self) {
        if self.drawn_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        let line = |shown: &Bar| Line { text: bar(&shown.label, shown.current, shown.total), colour: None };
        let lines: Vec<Line> = self.active.iter().take(MAX_BARS).map(line).collect();
        let text = self.region.draw("", &lines, Size::of(io::stderr()));
        self.drawn_at = Some(Instant::now());
        let _ = io::stderr().write_all(text.as_bytes());
    }

    fn erase(&mut self) {
        let text = self.region.erase(Size::of(io::stderr()));
        if !text.is_empty() {
            let _ = io::stderr().write_all(text.as_bytes());
        }
        self.drawn_at = None;
    }
}

/// How far something has come, in a line: `4f1c…  [=====     ]  15 B / 30 B`. The label goes through [`screen::cut`] with the rest.
pub fn bar(label: &str, current: u64, total: Option<u64>) -> String {
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{label}  {}", bytes(current));
    };
    let filled = (u128::from(current.min(total)) * BAR_WIDTH as u128 / u128::from(total)) as usize;
    format!(
        "{label}  [{}{}]  {} / {}",
        "=".repeat(filled),
        " ".repeat(BAR_WIDTH - filled),
        bytes(current),
        bytes(total)
    )
}

/// For people: `29.1 MB`, in powers of a thousand as docker shows them.
pub fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{count} {name}") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_sizes_are_short() {
        assert_eq!(bar("4f1c", 15, Some(30)), "4f1c  [===============               ]  15 B / 30 B");
        assert_eq!(bar("4f1c", 15, None), "4f1c  15 B");
        assert!(bar("x", u64::MAX, Some(u64::MAX)).contains(&"=".repeat(BAR_WIDTH)));
        let texts = [0, 999, 1000, 29_126_465, 999_999_999, u64::MAX].map(bytes);
        assert_eq!(texts, ["0 B", "999 B", "1.0 kB", "29.1 MB", "1.0 GB", "18.4 EB"]);
    }

    #[test]
    fn events_are_lines_of_json() {
        let path = std::env::temp_dir().join(format!("cli-progress-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let to = |progress, progress_fd| ProgressArgs { progress, progress_fd };
        let progress = Progress::new("tool", to(Form::Auto, Some(number)), true).unwrap();
        progress.present("a\"b", "one");
        progress.start("a", "two", "two", Some(5)).done();
        drop(progress.start("a", "three", "three", None));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let events: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!(names, ["present", "start", "done", "start"]);
        assert_eq!((&events[0]["subject"], &events[2]["total"]), (&"a\"b".into(), &5.into()));
        for (form, number) in [(Form::Auto, -1), (Form::Json, -1), (Form::Bars, -1), (Form::None, 2)] {
            assert_eq!(Progress::new("tool", to(form, Some(number)), true).unwrap_err().kind(), Kind::Usage);
        }
        for (form, number, events, bars) in [
            (Form::Json, None, true, false),
            (Form::Json, Some(1), true, false),
            (Form::Bars, None, false, true),
            (Form::Bars, Some(1), true, true),
            (Form::None, None, false, false),
            (Form::Auto, None, false, false),
        ] {
            let progress = Progress::new("tool", to(form, number), true).unwrap();
            assert_eq!((progress.events, progress.bars), (events, bars), "{form:?} {number:?}");
        }
    }
}
