//! Regular expressions of regcomp(3), POSIX extended ones.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// A compiled expression.
pub struct Regex(libc::regex_t);

impl Regex {
    /// `Err` says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Regex, String> {
        let pattern = CString::new(pattern).map_err(|_| "it holds a zero byte".to_owned())?;
        let mut compiled = MaybeUninit::<libc::regex_t>::uninit();
        // SAFETY: the pattern ends with a zero byte; regcomp fills the structure in when it returns 0.
        let code = unsafe {
            libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB)
        };
        if code != 0 {
            return Err(words(code));
        }
        // SAFETY: filled in, as regcomp succeeded.
        Ok(Regex(unsafe { compiled.assume_init() }))
    }

    /// Whether it matches anywhere in the text. One with a zero byte in it is matched by nothing.
    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: the expression is compiled and not yet freed, the text ends with a zero byte, and no matches are asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp and freed here alone.
        unsafe { libc::regfree(&raw mut self.0) };
    }
}

fn words(code: i32) -> String {
    let mut buffer = [0u8; 128];
    // SAFETY: at most the buffer's length is written, a final zero byte included; no expression has to be given.
    unsafe { libc::regerror(code, std::ptr::null(), buffer.as_mut_ptr().cast(), buffer.len()) };
    CStr::from_bytes_until_nul(&buffer).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let hook = Regex::new("^(.*/)?nvidia-(smi|cli)$").unwrap();
        assert!(hook.matches("/usr/bin/nvidia-smi") && hook.matches("nvidia-cli"));
        assert!(!hook.matches("/usr/bin/nvidia") && !hook.matches("nvidia-smi\0"));
        assert!(Regex::new(".*").unwrap().matches(""));
        assert!(Regex::new("(").is_err() && Regex::new("a\0b").is_err());
    }
}
