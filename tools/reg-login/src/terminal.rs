//! Asking on the terminal, whatever stdin is.

use cli::{Explain, Fault, Result};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

const MAX_BYTES: usize = 64 << 10;

/// A line, shown as it is typed.
pub fn ask(prompt: &str) -> Result<String> {
    let mut terminal = open()?;
    say(&mut terminal, prompt)?;
    let mut line = Vec::new();
    loop {
        match next(&mut terminal)? {
            None | Some(b'\n') => break,
            Some(byte) => line.push(byte),
        }
        if line.len() > MAX_BYTES {
            return Err(Fault::usage("this is too long"));
        }
    }
    let line = String::from_utf8(line).map_err(|_| Fault::usage("this is not UTF-8"))?;
    Ok(line.trim().to_owned())
}

/// A line that is not shown.
///
/// Read byte by byte, Ctrl-C among them: a signal would end the program and leave the terminal without an echo.
pub fn ask_secretly(prompt: &str) -> Result<String> {
    let mut terminal = open()?;
    // First: who is asked may answer at once.
    let quiet = Quiet::new(&terminal)?;
    say(&mut terminal, prompt)?;
    let mut line = Vec::new();
    let read = loop {
        match next(&mut terminal) {
            Err(fault) => break Err(fault),
            Ok(Some(3)) => break Err(Fault::failed("interrupted")),
            Ok(None | Some(b'\n' | b'\r' | 4)) => break Ok(()),
            // Backspace takes a character, Ctrl-U the line.
            Ok(Some(8 | 127)) => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            Ok(Some(21)) => line.clear(),
            Ok(Some(byte)) => line.push(byte),
        }
        if line.len() > MAX_BYTES {
            break Err(Fault::usage("this is too long"));
        }
    };
    drop(quiet);
    say(&mut terminal, "\n")?;
    read?;
    String::from_utf8(line).map_err(|_| Fault::usage("the password is not UTF-8"))
}

fn open() -> Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|error| {
        Fault::usage("there is no terminal to ask on").because(error).hint("-u USER --password-stdin")
    })
}

fn say(terminal: &mut File, text: &str) -> Result<()> {
    terminal.write_all(text.as_bytes()).explain(|| "write to the terminal".to_owned())
}

fn next(terminal: &mut File) -> Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match terminal.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(byte.first().copied()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).explain(|| "read from the terminal".to_owned()),
        }
    }
}

/// A terminal without echo; as it was when dropped.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn new(terminal: &File) -> Result<Quiet> {
        let what = || "turn off the terminal's echo".to_owned();
        let terminal = terminal.try_clone().explain(what)?;
        let before = tcgetattr(&terminal).map_err(std::io::Error::from).explain(what)?;
        let mut quiet = before.clone();
        quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &quiet).map_err(std::io::Error::from).explain(what)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing is left to try when this fails.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
