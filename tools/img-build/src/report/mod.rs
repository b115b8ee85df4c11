//! What a build is doing, for people and for programs.

mod frame;
mod live;

use cli::{Explain, Fault, Result};
use frame::{End, Stay};
use live::Live;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Lines kept of what a command writes, and how long one is.
const KEPT_LINES: usize = 200;
const LONGEST_LINE: usize = 4096;

/// What docker takes the form from where no option says it.
const VARIABLE: &str = "BUILDKIT_PROGRESS";

/// How it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// tty if stderr is a terminal, else plain
    #[default]
    Auto,
    /// A line for everything that happens, numbered by step
    Plain,
    /// What runs and the last lines of its output, drawn anew as they change
    Tty,
    /// One JSON object a line on stderr
    #[value(alias = "rawjson")]
    Json,
    /// Errors only
    #[value(alias = "none")]
    Quiet,
    /// What commands write, as it is; what was found in the cache
    #[value(skip)]
    Bare,
    /// What commands write, as it is
    #[value(skip)]
    Output,
}

impl Form {
    /// What an option says, or else `$BUILDKIT_PROGRESS`; never [`Form::Auto`].
    ///
    /// # Errors
    /// [`cli::Kind::Usage`] for a variable that says nothing known, and where there is no terminal for [`Form::Tty`].
    pub fn choose(asked: Option<Form>) -> Result<Form> {
        let of_variable = || std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
        let (form, source) = match (asked, of_variable()) {
            (Some(form), _) => (form, "--progress"),
            (None, Some(text)) => (Form::named(&text)?, VARIABLE),
            (None, None) => (Form::Auto, ""),
        };
        if form == Form::Tty && !io::stderr().is_terminal() {
            return Err(Fault::usage(format!("{source} tty: stderr is no terminal"))
                .hint("auto is tty on a terminal and plain elsewhere"));
        }
        Ok(match form {
            // A terminal that cannot go back in what was written has lines, too.
            Form::Auto | Form::Tty if cli::screen::is_live() => Form::Tty,
            Form::Auto | Form::Tty => Form::Plain,
            other => other,
        })
    }

    fn named(text: &str) -> Result<Form> {
        <Form as clap::ValueEnum>::from_str(text, true).map_err(|_| {
            Fault::usage(format!("${VARIABLE} is \"{}\", which is no form of progress", clean(text)))
                .hint("auto, plain, tty, json, quiet")
        })
    }

    /// Whether steps and lines are numbered and told of, one after the other.
    fn tells(self) -> bool {
        matches!(self, Form::Auto | Form::Plain)
    }
}

pub struct Report {
    tool: &'static str,
    form: Form,
    live: Option<Live>,
    /// Where events go as well.
    events: Option<Mutex<File>>,
    next: AtomicUsize,
    began: Instant,
    /// Which step's lines were written last: another's begin with its name.
    last: Mutex<usize>,
}

/// The descriptor of `--progress-fd`.
///
/// # Errors
/// [`cli::Kind::Usage`] when it is not open.
pub fn events(number: Option<i32>) -> Result<Option<File>> {
    let open = |number| {
        sys::descriptor::inherited(number)
            .map(File::from)
            .explain_as(cli::Kind::Usage, || format!("--progress-fd {number}"))
    };
    number.map(open).transpose()
}

/// A step that is told of.
pub struct Vertex<'r> {
    report: &'r Report,
    number: usize,
    name: String,
    began: Instant,
    output: Mutex<Output>,
}

#[derive(Default)]
struct Output {
    /// What has no line end yet.
    partial: Vec<u8>,
    lines: VecDeque<String>,
}

impl Report {
    pub fn new(tool: &'static str, form: Form, events: Option<File>) -> Report {
        let began = Instant::now();
        Report {
            tool,
            form,
            live: (form == Form::Tty).then(|| Live::new(began)),
            events: events.map(Mutex::new),
            next: AtomicUsize::new(1),
            began,
            last: Mutex::new(0),
        }
    }

    /// That many more steps will come, for who counts them.
    pub fn expect(&self, count: usize) {
        if let Some(live) = &self.live {
            live.expect(count);
        }
    }

    /// Begins a step nobody expected.
    pub fn another(&self, name: &str) -> Vertex<'_> {
        self.expect(1);
        self.start(name)
    }

    /// Begins what is seen where it takes long, and told of nowhere else.
    pub fn seen(&self, name: &str) -> Vertex<'_> {
        if self.is_live() { self.another(name) } else { self.nobody() }
    }

    /// Whether stderr is drawn on.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Nothing is drawn any more, so that other things can be written; it is told how the build ended.
    pub fn finish(&self, good: bool) {
        if let Some(live) = &self.live {
            live.finish(good);
        }
    }

    /// Begins a step.
    pub fn start(&self, name: &str) -> Vertex<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = clean(name);
        self.event(json!({"event": "start", "step": number, "item": name}));
        let vertex = Vertex { report: self, number, name, began: Instant::now(), output: Mutex::default() };
        vertex.line(&vertex.name);
        if let Some(live) = &self.live {
            live.start(number, &vertex.name);
        }
        vertex
    }

    /// One nobody is told of.
    pub fn nobody(&self) -> Vertex<'_> {
        Vertex {
            report: self,
            number: 0,
            name: String::new(),
            began: Instant::now(),
            output: Mutex::default(),
        }
    }

    pub fn warn(&self, text: &str) {
        self.event(json!({"event": "warning", "message": text}));
        match (self.form, &self.live) {
            (Form::Quiet | Form::Json, _) => {}
            (Form::Bare | Form::Output, _) => {
                let _ = writeln!(io::stderr().lock(), "{}: warning: {}", self.tool, clean(text));
            }
            (_, Some(live)) => live.above(Stay::Warning(format!("warning: {}", clean(text)))),
            (_, None) => self.print(0, &format!("warning: {}", clean(text))),
        }
    }

    /// A line another tool has written for people, which its events came between.
    pub fn pass(&self, line: &str) {
        match &self.live {
            Some(live) => live.above(Stay::Text(clean(line))),
            None => {
                let _ = writeln!(io::stderr().lock(), "{}", clean(line));
            }
        }
    }

    /// What a command that failed wrote last, where nobody was told of it as it came.
    pub fn repeat(&self, title: &str, lines: &[String]) {
        if self.form == Form::Quiet && !lines.is_empty() {
            let text =
                lines.iter().fold(format!("{}:\n", clean(title)), |text, line| text + "  " + line + "\n");
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
    }

    /// Seconds since the build began.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn event(&self, mut event: Value) {
        if self.events.is_none() && self.form != Form::Json {
            return;
        }
        if let Some(members) = event.as_object_mut() {
            members.insert("tool".to_owned(), json!(self.tool));
            members.insert("seconds".to_owned(), json!(self.seconds()));
        }
        let line = format!("{event}\n");
        match &self.events {
            // Its reader may be gone.
            Some(file) => {
                let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
            }
            None => {
                let _ = io::stderr().lock().write_all(line.as_bytes());
            }
        }
    }

    fn print(&self, number: usize, text: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = String::new();
        if *last != number && *last != 0 {
            line.push('\n');
        }
        *last = number;
        if number > 0 {
            let _ = write!(line, "#{number} ");
        }
        let _ = writeln!(line, "{text}");
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

impl Vertex<'_> {
    /// It was made before.
    pub fn cached(&self) {
        if self.number == 0 {
            return;
        }
        self.report.event(json!({"event": "present", "step": self.number, "item": self.name}));
        if self.report.form == Form::Bare {
            let _ = writeln!(io::stderr().lock(), "{}: cached: {}", self.report.tool, self.name);
        }
        self.line("CACHED");
        self.end(End::Cached);
    }

    pub fn done(&self) {
        if self.number == 0 {
            return;
        }
        self.flush();
        let seconds = self.began.elapsed().as_secs_f64();
        self.report.event(json!({"event": "done", "step": self.number, "item": self.name}));
        self.line(&format!("DONE {seconds:.1}s"));
        self.end(End::Done);
    }

    pub fn failed(&self, fault: &Fault) {
        self.flush();
        self.report.event(
            json!({"event": "failed", "step": self.number, "item": self.name, "message": fault.to_string()}),
        );
        self.line("FAILED");
        self.end(End::Failed);
    }

    fn end(&self, end: End) {
        if let Some(live) = &self.report.live {
            live.end(self.number, end);
        }
    }

    /// Whether anybody wants to know how far it has come.
    pub fn is_followed(&self) -> bool {
        let report = self.report;
        self.number > 0 && (report.live.is_some() || report.events.is_some() || report.form == Form::Json)
    }

    /// How many bytes of something have been fetched or sent.
    pub fn moved(&self, item: &str, current: u64, total: Option<u64>) {
        let item = clean(item);
        if current > 0 {
            let mut event =
                json!({"event": "progress", "step": self.number, "item": item, "current": current});
            if let Some(total) = total {
                event["total"] = json!(total);
            }
            self.report.event(event);
        }
        if let Some(live) = &self.report.live {
            live.tell(|board, _| board.transfer(self.number, &item, current, total));
        }
    }

    /// All of them have.
    pub fn arrived(&self, item: &str) {
        if let Some(live) = &self.report.live {
            live.tell(|board, _| board.transferred(self.number, &clean(item)));
        }
    }

    /// What its command writes: whole lines are told of as they come.
    pub fn output(&self, bytes: &[u8]) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(self.report.form, Form::Bare | Form::Output) {
            let _ = io::stderr().lock().write_all(bytes);
        }
        for byte in bytes {
            if *byte == b'\n' || output.partial.len() >= LONGEST_LINE {
                let line = std::mem::take(&mut output.partial);
                self.told(&mut output, &line);
            }
            if *byte != b'\n' {
                output.partial.push(*byte);
            }
        }
        if let (Some(live), false) = (&self.report.live, output.partial.is_empty()) {
            let text = clean(&String::from_utf8_lossy(&output.partial));
            live.tell(|board, _| board.partial(self.number, &text));
        }
    }

    fn flush(&self) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if !output.partial.is_empty() {
            let line = std::mem::take(&mut output.partial);
            self.told(&mut output, &line);
        }
    }

    fn told(&self, output: &mut Output, line: &[u8]) {
        let text = clean(&String::from_utf8_lossy(line));
        self.report.event(json!({"event": "output", "step": self.number, "line": text}));
        if let Some(live) = &self.report.live {
            live.tell(|board, at| board.line(self.number, &text, at));
        } else {
            self.line(&format!("{:.3} {text}", self.began.elapsed().as_secs_f64()));
        }
        if output.lines.len() == KEPT_LINES {
            output.lines.pop_front();
        }
        output.lines.push_back(text);
    }

    /// What it wrote last.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.flush();
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.lines.iter().skip(output.lines.len().saturating_sub(count)).cloned().collect()
    }

    fn line(&self, text: &str) {
        if self.report.form.tells() {
            self.report.print(self.number, text);
        }
    }
}

impl Drop for Vertex<'_> {
    /// Of one that has not come to an end nothing stays.
    fn drop(&mut self) {
        if let Some(live) = &self.report.live {
            live.tell(|board, _| board.remove(self.number));
        }
    }
}

/// No control character of a container's reaches the terminal; of a line that is written over, the last writing counts.
fn clean(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // Colours and cursor movements (ECMA-48) go as a whole.
            '\x1b' => {
                if characters.next_if_eq(&'[').is_some() {
                    while characters.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                    characters.next();
                }
            }
            '\t' => clean.push('\t'),
            control if control.is_control() => clean.push('\u{fffd}'),
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_told_what_to_do() {
        for (text, shown) in [
            ("plain", "plain"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("10%\r20%\r100%", "100%"),
            ("line\r\n", "line"),
            ("\x1b]0;title\x07x", "]0;title\u{fffd}x"),
            ("a\tb\u{9b}c", "a\tb\u{fffd}c"),
            ("\x1b", ""),
            ("\x1b[", ""),
        ] {
            assert_eq!(clean(text), shown, "{text:?}");
        }
    }

    #[test]
    fn the_last_lines_are_kept() {
        let report = Report::new("img-build", Form::Quiet, None);
        let vertex = report.start("step");
        for number in 0..300 {
            vertex.output(format!("{number}\n").as_bytes());
        }
        vertex.output(b"no end");
        assert_eq!(vertex.last_lines(2), ["299", "no end"]);
        assert_eq!(vertex.last_lines(1000).len(), KEPT_LINES);
    }
}
