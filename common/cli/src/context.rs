//! One run of a tool: what came in, what goes out, what failed.

use crate::{Common, ErrorFormat, OutputFormat, Table};
use fault::{Fault, Result};
use record::{Reader, Record};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputMode {
    /// One record a line.
    Json,
    /// A table or a few lines for people.
    Table,
    /// Ids or names only.
    Quiet,
}

/// What a tool works on: names from its arguments, or records from stdin. Never both.
pub enum Input {
    Names(Vec<String>),
    Records(Vec<Record>),
}

impl Input {
    /// As a type that stands for either.
    pub fn into_subjects<S: From<String> + From<Record>>(self) -> Vec<S> {
        match self {
            Input::Names(names) => names.into_iter().map(S::from).collect(),
            Input::Records(records) => records.into_iter().map(S::from).collect(),
        }
    }
}

pub struct Context {
    tool: &'static str,
    common: Common,
    quiet: bool,
    own_failure_status: Option<u8>,
    /// Status of the first failure, or what [`Context::exit_with`] set.
    status: Option<u8>,
    stdout_closed: bool,
}

impl Context {
    pub fn new(tool: &'static str, common: Common, quiet: bool, own_failure_status: Option<u8>) -> Context {
        Context { tool, common, quiet, own_failure_status, status: None, stdout_closed: false }
    }

    pub fn tool(&self) -> &'static str {
        self.tool
    }

    pub fn common(&self) -> &Common {
        &self.common
    }

    pub fn mode(&self) -> OutputMode {
        if self.quiet {
            return OutputMode::Quiet;
        }
        match self.common.output {
            Some(OutputFormat::Table) => OutputMode::Table,
            None if io::stdout().is_terminal() => OutputMode::Table,
            Some(OutputFormat::Json) | None => OutputMode::Json,
        }
    }

    /// The records on stdin, all of them, before any is acted on. A terminal there is a usage error.
    ///
    /// The records before a malformed one are handed out with the error, so that the failure is reported and
    /// the others still go on.
    pub fn read_records(&mut self) -> Result<Vec<Record>> {
        if io::stdin().is_terminal() {
            return Err(Fault::usage("nothing to work on: no name given and stdin is a terminal")
                .hint(format!("name it, or pipe records in; see {} --help", self.tool)));
        }
        let mut records = Vec::new();
        for item in Reader::new(io::stdin().lock()) {
            match item {
                Ok(record) => records.push(record),
                Err(fault) => self.report(&fault),
            }
        }
        Ok(records)
    }

    /// Records for a tool that makes something: none at all means the stage before failed.
    pub fn require_records(&mut self) -> Result<Vec<Record>> {
        let records = self.read_records()?;
        if records.is_empty() && self.status.is_none() {
            return Err(Fault::input("no record on stdin: the stage before it failed or printed nothing"));
        }
        Ok(records)
    }

    /// Names if there are any, else the records on stdin.
    pub fn input(&mut self, names: &[String]) -> Result<Input> {
        if names.is_empty() {
            Ok(Input::Records(self.read_records()?))
        } else {
            Ok(Input::Names(names.to_vec()))
        }
    }

    /// Handles each subject; a failure is reported and the next one tried.
    pub fn each<S>(
        &mut self,
        subjects: impl IntoIterator<Item = S>,
        mut act: impl FnMut(&mut Context, S) -> Result<()>,
    ) {
        for subject in subjects {
            if self.stdout_closed {
                return;
            }
            if let Err(fault) = act(self, subject) {
                self.report(&fault);
            }
        }
    }

    /// Works on up to `at_most` subjects at a time, for work that mostly waits; `done` prints each result here, in the
    /// order in which they come. Failures are reported as by [`Context::each`].
    pub fn each_at_once<S: Send, T: Send>(
        &mut self,
        subjects: Vec<S>,
        at_most: usize,
        work: impl Fn(S) -> Result<T> + Sync,
        mut done: impl FnMut(&mut Context, T) -> Result<()>,
    ) {
        if subjects.len() < 2 {
            return self.each(subjects, |context, subject| {
                let result = work(subject)?;
                done(context, result)
            });
        }
        let threads = at_most.clamp(1, subjects.len());
        let queue = std::sync::Mutex::new(subjects.into_iter());
        let next = || queue.lock().ok()?.next();
        let (sender, results) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, next, work) = (sender.clone(), &next, &work);
                let task = move || {
                    while let Some(subject) = next() {
                        // Nobody listens any more once stdout is closed; what was asked for is done all the same.
                        let _ = sender.send(work(subject));
                    }
                };
                if let Err(error) =
                    std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, task)
                {
                    // Those that did start go on with the queue.
                    self.report(&Fault::failed("start a thread").because(error));
                    break;
                }
            }
            drop(sender);
            for result in results {
                if let Err(fault) = result.and_then(|result| done(self, result)) {
                    self.report(&fault);
                }
            }
        });
    }

    /// Writes one failure to stderr; the first one decides the exit status.
    pub fn report(&mut self, fault: &Fault) {
        print_fault(self.tool, fault, self.common.error_format);
        let status = self.own_failure_status.unwrap_or(fault.kind().exit_status());
        self.status.get_or_insert(status);
    }

    /// Like [`Context::report`], with an exit status of its own: docker's 125, 126 and 127.
    pub fn report_as(&mut self, fault: &Fault, status: u8) {
        print_fault(self.tool, fault, self.common.error_format);
        self.status.get_or_insert(status);
    }

    /// A warning: something was done otherwise than one might expect.
    pub fn warn(&self, subject: &str, message: &str) {
        warn(self.tool, subject, message, self.common.error_format);
    }

    /// The status of a container's process becomes this tool's.
    pub fn exit_with(&mut self, status: u8) {
        self.status.get_or_insert(status);
    }

    pub fn finish(&self) -> u8 {
        self.status.unwrap_or(0)
    }

    /// Prints a result as a line of JSON.
    pub fn print_record(&mut self, record: &Record) -> Result<()> {
        let mut line = record.to_line();
        line.push('\n');
        self.print(&line)
    }

    /// Prints a result in the way the output mode asks for: the record, `id`, or the line for people.
    pub fn print_result(&mut self, record: &Record, id: &str, for_people: &str) -> Result<()> {
        match self.mode() {
            OutputMode::Json => self.print_record(record),
            OutputMode::Quiet => self.print(&format!("{id}\n")),
            OutputMode::Table => self.print(&format!("{for_people}\n")),
        }
    }

    /// Prints the steps of a plan, for `--dry-run`: an object a line, or a few words each for people. `container` is the
    /// one they are about, if they are about one.
    pub fn print_steps(&mut self, container: Option<&str>, steps: &[impl Serialize]) -> Result<()> {
        let mut text = String::new();
        for step in steps {
            let mut step =
                serde_json::to_value(step).map_err(|error| Fault::failed("print the plan").because(error))?;
            if let (Some(id), Some(members)) = (container, step.as_object_mut()) {
                members.insert("container".into(), id.into());
            }
            text += &if self.mode() == OutputMode::Table { in_words(&step) } else { step.to_string() };
            text.push('\n');
        }
        self.print(&text)
    }

    pub fn print_table(&mut self, table: &Table) -> Result<()> {
        let width =
            if io::stdout().is_terminal() { terminal_size::terminal_size().map(|(w, _)| w.0) } else { None };
        self.print(&table.render(width.map(usize::from)))
    }

    /// Text to stdout in one write. A reader that has gone away is not an error, it ends the work.
    pub fn print(&mut self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdout_closed = true;
                Ok(())
            }
            Err(error) => Err(Fault::failed("write to stdout").because(error)),
        }
    }

    /// For tools whose result is lost when nobody reads it.
    pub fn stdout_closed(&self) -> bool {
        self.stdout_closed
    }
}

/// Where a library prints results without knowing the tool around it.
pub trait Out {
    fn record(&mut self, record: &Record) -> Result<()>;
}

impl Out for Context {
    fn record(&mut self, record: &Record) -> Result<()> {
        self.print_record(record)
    }
}

/// `lease_address  network=bridge  address=10.89.0.2  container=4f1c0a2b3c4d`
fn in_words(step: &serde_json::Value) -> String {
    let word = |(name, value): (&String, &serde_json::Value)| match (name.as_str(), value.as_str()) {
        ("step", Some(text)) => text.to_owned(),
        ("container", Some(id)) => format!("{name}={}", id.get(..12).unwrap_or(id)),
        (_, Some(text)) => format!("{name}={text}"),
        (_, None) => format!("{name}={value}"),
    };
    let words: Vec<String> = step.as_object().into_iter().flatten().map(word).collect();
    one_line(&words.join("  "))
}

fn one_line(text: &str) -> String {
    // Errors quote hostile input: no control character of it may reach a terminal.
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(crate) fn print_fault(tool: &str, fault: &Fault, format: ErrorFormat) {
    let message = one_line(&fault.to_string());
    let text = match format {
        ErrorFormat::Json => {
            let mut object = serde_json::json!({
                "tool": tool,
                "kind": fault.kind().name(),
                "status": fault.kind().exit_status(),
                "message": message,
            });
            if let Some(subject) = fault.subject() {
                object["subject"] = one_line(subject).into();
            }
            if let Some(hint) = fault.hint_text().filter(|hint| !hint.is_empty()) {
                object["hint"] = one_line(hint).into();
            }
            format!("{object}\n")
        }
        ErrorFormat::Text => {
            let subject = fault.subject().map(|s| format!("{}: ", one_line(s))).unwrap_or_default();
            let hint = match fault.hint_text() {
                Some(hint) if !hint.is_empty() => format!("hint: {}\n", one_line(hint)),
                _ => String::new(),
            };
            format!("{tool}: {subject}{message}\n{hint}")
        }
    };
    // With stderr gone there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

pub(crate) fn warn(tool: &str, subject: &str, message: &str, format: ErrorFormat) {
    let subject = one_line(subject);
    let message = one_line(message);
    let text = match format {
        ErrorFormat::Json => {
            format!(
                "{}\n",
                serde_json::json!({"tool": tool, "level": "warning", "subject": subject, "message": message})
            )
        }
        ErrorFormat::Text if subject.is_empty() => format!("{tool}: warning: {message}\n"),
        ErrorFormat::Text => format!("{tool}: {subject}: warning: {message}\n"),
    };
    let _ = io::stderr().write_all(text.as_bytes());
}
