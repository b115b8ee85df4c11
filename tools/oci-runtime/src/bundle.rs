//! The bundle: a directory, and the config.json in it.

use crate::call::Call;
use crate::options::Opt;
use fault::{Explain, Fault, Result};
use runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags, openat, readlink};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Largest `config.json` read, in bytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

pub struct Bundle {
    /// Absolute, links followed.
    pub path: PathBuf,
    pub text: Vec<u8>,
    pub spec: Spec,
}

impl Bundle {
    /// The one the call names.
    pub fn load(call: &Call<'_>) -> Result<Bundle> {
        let given = call.options.path(Opt::Bundle).unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            openat(CWD, given, flags, Mode::empty()).explain(|| format!("chdir {}", given.display()))?;
        let path = path_of(&directory)?;
        let text = read(&directory, &path)?;
        let spec = Spec::parse(&text)
            .map_err(|fault| fault.within(path.join("config.json").display().to_string()))?;
        Ok(Bundle { path, text, spec })
    }
}

fn path_of(directory: &OwnedFd) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = readlink(link, Vec::new()).explain(|| "find the bundle".into())?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

fn read(directory: &OwnedFd, path: &Path) -> Result<Vec<u8>> {
    let what = || format!("read {}", path.join("config.json").display());
    let fd = match openat(directory, "config.json", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => {
            return Err(Fault::not_found("JSON specification file config.json not found")
                .hint(format!("in the bundle {}; spec writes one", path.display())));
        }
        Err(error) => return Err(std::io::Error::from(error)).explain(what),
    };
    let mut text = Vec::new();
    File::from(fd).take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text).explain(what)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(Fault::input(format!("{}: it is too long", what())));
    }
    Ok(text)
}
