//! Finding the program to execute, and saying why it could not be.

use super::ExecFailure;
use fault::Fault;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As execvp(3): a name with a slash is a path, any other is looked for in PATH, which must be one of the container's.
pub fn find(name: &str, path: Option<&str>) -> Result<CString, ExecFailure> {
    let c_string = |path: &Path| {
        CString::new(path.as_os_str().as_bytes())
            .map_err(|_| ExecFailure::from(Fault::input("NUL in a path")))
    };
    let not_found = || ExecFailure {
        fault: Fault::not_found(format!("{name}: executable file not found in $PATH"))
            .hint("check the spelling, or whether the image has it"),
        exit_code: Some(127),
    };
    if name.contains('/') {
        return match usable(Path::new(name)) {
            Ok(()) => c_string(Path::new(name)),
            Err(error @ (Errno::NOENT | Errno::NOTDIR)) => Err(ExecFailure {
                fault: Fault::not_found(format!("{name}: no such file or directory"))
                    .because(std::io::Error::from(error)),
                exit_code: Some(127),
            }),
            Err(error) => Err(ExecFailure {
                fault: Fault::denied(format!("{name}: cannot be executed"))
                    .because(std::io::Error::from(error)),
                exit_code: Some(126),
            }),
        };
    }
    let mut denied = false;
    for directory in path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").split(':')
    {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        match usable(&candidate) {
            Ok(()) => return c_string(&candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(ExecFailure {
            fault: Fault::denied(format!("{name}: found in $PATH, but permission is denied")),
            exit_code: Some(126),
        });
    }
    Err(not_found())
}

fn usable(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        return Err(Errno::ACCESS);
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A seccomp profile older than faccessat2(2) is in force: execve(2) tells.
        Err(Errno::PERM | Errno::NOSYS) if stat.st_mode & 0o111 != 0 => Ok(()),
        other => other,
    }
}

/// Why execve(2) came back.
pub fn failure(program: &CStr, error: std::io::Error) -> ExecFailure {
    let exit_code = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => 127,
        _ => 126,
    };
    let hint = match error.raw_os_error() {
        Some(libc::ENOEXEC) => Some("is it built for another processor, or a script without #! line?"),
        Some(libc::ENOENT) => Some("the program is there, but its interpreter or loader is not"),
        _ => None,
    };
    let mut fault = Fault::failed(format!("exec {}", program.to_string_lossy())).because(error);
    if let Some(hint) = hint {
        fault = fault.hint(hint);
    }
    ExecFailure { fault, exit_code: Some(exit_code) }
}
