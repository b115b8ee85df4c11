//! Where the archive comes from: a file, stdin, or the files that records on stdin tell of.

use cli::{Explain, Fault, Result};
use record::Record;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};

/// Large enough that a system call costs little, small enough for a second-level cache.
const CHUNK: usize = 128 << 10;

pub type Archive = Box<dyn BufRead>;

pub enum Input {
    /// With what to call it in an error.
    Archive(Archive, String),
    Records(record::Reader),
}

impl Input {
    pub fn open(file: Option<&Path>) -> Result<Input> {
        if let Some(path) = file.filter(|path| *path != Path::new("-")) {
            return Ok(Input::Archive(open_file(path)?, path.display().to_string()));
        }
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Fault::usage("stdin is a terminal").hint("img-load --input FILE, or img-load <FILE"));
        }
        let mut stdin = BufReader::with_capacity(CHUNK, stdin);
        loop {
            let start = match stdin.fill_buf() {
                Ok(start) => start,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).explain(|| "read stdin".into()),
            };
            let blanks = start.iter().take_while(|b| b.is_ascii_whitespace()).count();
            match start.get(blanks) {
                // No archive begins so.
                Some(b'{') => break,
                Some(_) => return Ok(Input::Archive(Box::new(stdin), "stdin".into())),
                None if start.is_empty() => {
                    return Err(Fault::input(
                        "nothing on stdin: the stage before it failed or printed nothing",
                    ));
                }
                None => stdin.consume(blanks),
            }
        }
        Ok(Input::Records(record::Reader::new(stdin)))
    }
}

pub fn open_file(path: &Path) -> Result<Archive> {
    let file = File::open(path).explain(|| format!("open {}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(CHUNK, file)))
}

/// The file a record of `img-save --into` tells of.
pub fn archive_of(record: &Record) -> Result<PathBuf> {
    let archive: Option<String> = record.get("archive")?;
    archive.map(PathBuf::from).ok_or_else(|| {
        Fault::input("the record has no member \"archive\"").hint("img-save --into FILE prints such records")
    })
}
