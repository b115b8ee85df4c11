//! The directory of a checkpoint: criu's images, its log, and what its streams were.

use fault::{Explain, Fault, Kind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A JSON array with a text for each standard stream, as runc writes it.
const DESCRIPTORS: &str = "descriptors.json";

/// Longest file read, in bytes.
const MAX_DESCRIPTORS_BYTES: u64 = 64 << 10;

/// How much of the end of a log is looked through, in bytes.
const LOG_TAIL_BYTES: u64 = 256 << 10;

/// How many of its errors are told.
const MAX_COMPLAINTS: usize = 5;

/// A directory of images, or of logs.
#[derive(Debug)]
pub struct Images {
    pub path: PathBuf,
    directory: OwnedFd,
}

impl Images {
    /// Made if it is missing; memory of processes is nobody else's business.
    pub fn make(path: &Path) -> Result<Images> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .explain(|| format!("mkdir {}", path.display()))?;
        Images::open(path)
    }

    pub fn open(path: &Path) -> Result<Images> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())
            .explain(|| format!("open the image directory {}", path.display()))?;
        Ok(Images { path: path.to_owned(), directory })
    }

    /// Its descriptor's number: criu opens it by that.
    pub fn number(&self) -> i32 {
        self.directory.as_raw_fd()
    }

    /// That the images of an earlier dump are where `--parent-path` says.
    pub fn check_parent(&self, parent: &str) -> Result<()> {
        if parent.starts_with('/') {
            return Err(Fault::usage("--parent-path must be relative").hint("to the image directory"));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.directory, parent, flags, Mode::empty())
            .map(drop)
            .explain(|| format!("invalid --parent-path: open {}", self.path.join(parent).display()))
    }

    pub fn write_descriptors(&self, names: &[String]) -> Result<()> {
        let what = || format!("write {}", self.path.join(DESCRIPTORS).display());
        let text = serde_json::to_vec(names).explain_as(Kind::Failed, what)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, DESCRIPTORS, flags, Mode::RUSR | Mode::WUSR).explain(what)?;
        File::from(file).write_all(&text).explain(what)
    }

    /// What [`Images::write_descriptors`] wrote, or somebody else.
    pub fn descriptors(&self) -> Result<Vec<String>> {
        let what = || format!("read {}", self.path.join(DESCRIPTORS).display());
        let text = match self.open_file(DESCRIPTORS) {
            Ok(file) => read_small(file).explain(what)?,
            Err(Errno::NOENT) => {
                return Err(Fault::not_found(format!("{} holds no checkpoint", self.path.display()))
                    .hint(format!("there is no {DESCRIPTORS}; --image-path names the directory")));
            }
            Err(error) => return Err(std::io::Error::from(error)).explain(what),
        };
        let names: Vec<String> = serde_json::from_slice(&text).explain_as(Kind::Input, what)?;
        // What comes after would be numbers of descriptors that are criu's own.
        if names.len() > 3 {
            return Err(Fault::input(format!("{}: {} streams, 3 at most", what(), names.len())));
        }
        Ok(names)
    }

    /// The last errors in a log of criu's.
    pub fn complaints(&self, log: &str) -> Vec<String> {
        let Ok(mut file) = self.open_file(log) else { return Vec::new() };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let mut text = Vec::new();
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)));
        let _ = file.take(LOG_TAIL_BYTES).read_to_end(&mut text);
        errors_in(&String::from_utf8_lossy(&text))
    }

    /// A regular file and no link to one.
    fn open_file(&self, name: &str) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = openat(&self.directory, name, flags, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }
}

fn read_small(file: File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MAX_DESCRIPTORS_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_DESCRIPTORS_BYTES {
        return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
    }
    Ok(text)
}

fn errors_in(log: &str) -> Vec<String> {
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("Error")).collect();
    let last = &errors[errors.len().saturating_sub(MAX_COMPLAINTS)..];
    last.iter().map(|line| line.chars().filter(|c| !c.is_control()).take(500).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn images(name: &str) -> Images {
        let path = std::env::temp_dir().join(format!("runtime-images-{}-{name}", std::process::id()));
        Images::make(&path).unwrap()
    }

    #[test]
    fn descriptors_are_kept_as_runc_keeps_them() {
        let images = images("kept");
        let names = ["/dev/null".to_owned(), "pipe:[1]".to_owned(), "pipe:[2]".to_owned()];
        images.write_descriptors(&names).unwrap();
        let text = std::fs::read_to_string(images.path.join(DESCRIPTORS)).unwrap();
        assert_eq!(text, r#"["/dev/null","pipe:[1]","pipe:[2]"]"#);
        assert_eq!(images.descriptors().unwrap(), names);
        std::fs::remove_dir_all(&images.path).unwrap();
    }

    #[test]
    fn hostile_directories_are_refused() {
        let images = images("hostile");
        let file = images.path.join(DESCRIPTORS);
        assert_eq!(images.descriptors().unwrap_err().kind(), Kind::NotFound);
        for text in ["", "{", "[1]", r#"{"a":1}"#, r#"["a","b","c","pipe:[1]"]"#] {
            std::fs::write(&file, text).unwrap();
            assert!(images.descriptors().is_err(), "{text}");
        }
        std::fs::write(&file, "[]").unwrap();
        File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
        assert!(images.descriptors().is_err());
        std::fs::remove_file(&file).unwrap();
        symlink("/etc/hostname", &file).unwrap();
        assert!(images.descriptors().is_err());
        assert!(images.write_descriptors(&[]).is_err());
        symlink("/dev/zero", images.path.join("dump.log")).unwrap();
        assert!(images.complaints("dump.log").is_empty());
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mkfifoat(CWD, &file, Mode::RWXU).unwrap();
        assert!(images.descriptors().is_err());
        for parent in ["/etc", "not-there", "dump.log"] {
            assert!(images.check_parent(parent).is_err(), "{parent}");
        }
        images.check_parent("..").unwrap();
        std::fs::remove_dir_all(&images.path).unwrap();
    }

    #[test]
    fn the_last_errors_are_told() {
        let images = images("log");
        let line = |number| format!("(00.1) fine\n(00.2) Error (criu/x.c:{number}): bad\x1b[0m\n");
        let log: Vec<String> = (0..20_000).map(line).collect();
        std::fs::write(images.path.join("dump.log"), log.concat()).unwrap();
        let told = images.complaints("dump.log");
        assert_eq!(told.len(), MAX_COMPLAINTS);
        assert_eq!(told[4], "(00.2) Error (criu/x.c:19999): bad[0m");
        std::fs::remove_dir_all(&images.path).unwrap();
    }
}
