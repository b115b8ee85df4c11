//! The command line: options as data, and reading them as runc does (urfave/cli).
//!
//! Not clap's: engines start this program several times for each container, and a parser of tables costs nothing to build.
//! [`crate::help`] makes clap's form of the same tables for manual pages and completions.

use fault::{Fault, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Every option of every verb; one name means one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    AdditionalGids,
    All,
    Apparmor,
    AutoDedup,
    BlkioWeight,
    Bundle,
    Cap,
    Cgroup,
    ConsoleSocket,
    CpuBurst,
    CpuIdle,
    CpuPeriod,
    CpuQuota,
    CpuRtPeriod,
    CpuRtRuntime,
    CpuShare,
    CpusetCpus,
    CpusetMems,
    Cwd,
    Debug,
    Detach,
    EmptyNs,
    Env,
    ExtUnixSk,
    FileLocks,
    Force,
    Format,
    Help,
    IgnorePaused,
    ImagePath,
    Interval,
    Keep,
    KernelMemory,
    KernelMemoryTcp,
    L3CacheSchema,
    LazyPages,
    LeaveRunning,
    LinkRemap,
    Log,
    LogFormat,
    LsmMountContext,
    LsmProfile,
    ManageCgroupsMode,
    MemBwSchema,
    Memory,
    MemoryReservation,
    MemorySwap,
    NoNewKeyring,
    NoNewPrivs,
    NoPivot,
    NoSubreaper,
    PageServer,
    ParentPath,
    PidFile,
    PidfdSocket,
    PidsLimit,
    PreDump,
    PreserveFds,
    Process,
    ProcessLabel,
    Quiet,
    Resources,
    Root,
    Rootless,
    ShellJob,
    SpecRootless,
    Stats,
    StatusFd,
    SystemdCgroup,
    TcpClose,
    TcpEstablished,
    TcpSkipInFlight,
    Tty,
    User,
    Version,
    WorkPath,
}

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    /// Under this name in help.
    Value(&'static str),
    /// It may be given several times.
    Values(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub opt: Opt,
    pub long: &'static str,
    pub short: Option<char>,
    pub takes: Takes,
    pub help: &'static str,
}

impl Flag {
    pub const fn switch(opt: Opt, long: &'static str, help: &'static str) -> Flag {
        Flag { opt, long, short: None, takes: Takes::Nothing, help }
    }

    pub const fn value(opt: Opt, long: &'static str, name: &'static str, help: &'static str) -> Flag {
        Flag { opt, long, short: None, takes: Takes::Value(name), help }
    }

    pub const fn values(opt: Opt, long: &'static str, name: &'static str, help: &'static str) -> Flag {
        Flag { opt, long, short: None, takes: Takes::Values(name), help }
    }

    pub const fn short(self, short: char) -> Flag {
        Flag { short: Some(short), ..self }
    }
}

/// What a command line says.
#[derive(Debug, Default)]
pub struct Parsed {
    given: Vec<(Opt, OsString)>,
    pub operands: Vec<OsString>,
}

impl Parsed {
    pub fn is_set(&self, opt: Opt) -> bool {
        self.given.iter().any(|(given, _)| *given == opt)
    }

    /// Of a switch; the last mention counts.
    pub fn has(&self, opt: Opt) -> bool {
        self.os(opt).is_some_and(|value| value == "true")
    }

    /// `None` also for one that is empty, which means the default everywhere.
    pub fn path(&self, opt: Opt) -> Option<&Path> {
        self.os(opt).filter(|value| !value.is_empty()).map(Path::new)
    }

    /// The same as text.
    pub fn text(&self, opt: Opt) -> Result<Option<&str>> {
        self.os(opt).filter(|value| !value.is_empty()).map(utf8).transpose()
    }

    pub fn all(&self, opt: Opt) -> Result<Vec<&str>> {
        self.given.iter().filter(|(given, _)| *given == opt).map(|(_, value)| utf8(value)).collect()
    }

    pub fn number(&self, opt: Opt, flag: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(opt)? else { return Ok(None) };
        let wrong = || Fault::usage(format!("invalid value {text:?} for flag -{flag}: it is no number"));
        text.parse().map(Some).map_err(|_| wrong())
    }

    fn os(&self, opt: Opt) -> Option<&OsStr> {
        self.given.iter().rev().find(|(given, _)| *given == opt).map(|(_, value)| value.as_os_str())
    }

    pub fn operand(&self, index: usize) -> Result<&str> {
        self.operands.get(index).map_or(Ok(""), |value| utf8(value))
    }

    /// Puts what another says after what this one does.
    pub fn add(&mut self, other: Parsed) {
        self.given.extend(other.given);
        self.operands.extend(other.operands);
    }
}

fn utf8(value: &OsStr) -> Result<&str> {
    value.to_str().ok_or_else(|| Fault::usage(format!("{} is not text", value.display())))
}

/// Where options end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionsEnd {
    /// Before the first operand, which is left with what follows it.
    BeforeOperands,
    /// After the first: what follows is somebody else's command line.
    AfterFirst,
    Never,
}

/// Reads options among the arguments; returns how many arguments it took. `--name value`, `--name=value`, both with one
/// hyphen too, `-n value`, `-nvalue`, `-xyz`; `--` ends them.
pub fn parse(tables: &[&[Flag]], arguments: &[OsString], end: OptionsEnd) -> Result<(Parsed, usize)> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            at += 1;
            break;
        }
        if bytes.len() < 2 || bytes[0] != b'-' {
            if end == OptionsEnd::BeforeOperands {
                return Ok((parsed, at));
            }
            parsed.operands.push(argument.clone());
            at += 1;
            if end == OptionsEnd::AfterFirst {
                break;
            }
            continue;
        }
        at += 1 + take(tables, argument, arguments.get(at + 1), &mut parsed)?;
    }
    if end == OptionsEnd::BeforeOperands {
        return Ok((parsed, at));
    }
    parsed.operands.extend(arguments[at..].iter().cloned());
    Ok((parsed, arguments.len()))
}

/// One argument that begins with a hyphen; returns how many of the following it took.
fn take(tables: &[&[Flag]], argument: &OsStr, next: Option<&OsString>, parsed: &mut Parsed) -> Result<usize> {
    let bytes = argument.as_bytes();
    let bare = bytes.strip_prefix(b"--").unwrap_or(&bytes[1..]);
    let (name, attached) = match bare.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bare[..at], Some(OsStr::from_bytes(&bare[at + 1..]))),
        None => (bare, None),
    };
    if let Some(flag) = find(tables, |flag| flag.long.as_bytes() == name) {
        return give(flag, attached, next, parsed);
    }
    if bytes.starts_with(b"--") {
        return Err(unknown(name));
    }
    // Letters: switches up to one that takes the rest or the next argument.
    for (index, letter) in bare.iter().enumerate() {
        let letter = char::from(*letter);
        let flag = find(tables, |flag| flag.short == Some(letter)).ok_or_else(|| unknown(name))?;
        let rest = &bare[index + 1..];
        match flag.takes {
            Takes::Nothing if rest.starts_with(b"=") => {
                return give(flag, Some(OsStr::from_bytes(&rest[1..])), next, parsed);
            }
            Takes::Nothing => give(flag, None, None, parsed)?,
            _ if rest.is_empty() => return give(flag, None, next, parsed),
            _ => {
                let value = OsStr::from_bytes(rest.strip_prefix(b"=").unwrap_or(rest));
                return give(flag, Some(value), None, parsed);
            }
        };
    }
    Ok(0)
}

fn give(
    flag: &Flag,
    attached: Option<&OsStr>,
    next: Option<&OsString>,
    parsed: &mut Parsed,
) -> Result<usize> {
    let (value, taken) = match (flag.takes, attached, next) {
        (Takes::Nothing, None, _) => (OsString::from("true"), 0),
        (Takes::Nothing, Some(value), _) => (boolean(flag, value)?, 0),
        (_, Some(value), _) => (value.to_owned(), 0),
        (_, None, Some(value)) => (value.clone(), 1),
        (_, None, None) => {
            return Err(Fault::usage(format!("flag needs an argument: --{}", flag.long)));
        }
    };
    parsed.given.push((flag.opt, value));
    Ok(taken)
}

fn boolean(flag: &Flag, value: &OsStr) -> Result<OsString> {
    match value.as_bytes() {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok("true".into()),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok("false".into()),
        _ => Err(Fault::usage(format!(
            "invalid boolean value {:?} for --{}",
            value.to_string_lossy(),
            flag.long
        ))),
    }
}

fn find<'a>(tables: &[&'a [Flag]], is_it: impl Fn(&Flag) -> bool) -> Option<&'a Flag> {
    tables.iter().flat_map(|table| table.iter()).find(|flag| is_it(flag))
}

fn unknown(name: &[u8]) -> Fault {
    let name = OsString::from_vec(name.to_vec());
    Fault::usage(format!("flag provided but not defined: -{}", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOBAL: &[Flag] =
        &[Flag::value(Opt::Root, "root", "DIR", ""), Flag::switch(Opt::Debug, "debug", "")];
    const FLAGS: &[Flag] = &[
        Flag::value(Opt::Bundle, "bundle", "DIR", "").short('b'),
        Flag::switch(Opt::Detach, "detach", "").short('d'),
        Flag::switch(Opt::Tty, "tty", "").short('t'),
        Flag::values(Opt::Env, "env", "NAME=VALUE", "").short('e'),
    ];

    fn parse_all(arguments: &[&str], end: OptionsEnd) -> Result<(Parsed, usize)> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        parse(&[FLAGS, GLOBAL], &arguments, end)
    }

    #[test]
    fn options_are_read_before_and_after_operands() {
        for arguments in [
            &["--bundle", "/b", "-d", "id"][..],
            &["id", "--bundle=/b", "--detach"],
            &["-b", "/b", "id", "-d"],
            &["-b/b", "-detach", "id"],
            &["-b=/b", "-td", "id"],
            &["-db", "/b", "--tty=false", "--", "id"],
            &["--root", "/r", "-bundle", "/x", "-bundle=/b", "-d=false", "-d", "id"],
        ] {
            let (parsed, taken) = parse_all(arguments, OptionsEnd::Never).unwrap();
            assert_eq!(taken, arguments.len());
            assert_eq!(parsed.path(Opt::Bundle), Some(Path::new("/b")), "{arguments:?}");
            assert!(parsed.has(Opt::Detach), "{arguments:?}");
            assert_eq!(parsed.operands, ["id"], "{arguments:?}");
        }
    }

    #[test]
    fn what_follows_the_first_operand_may_be_somebody_elses() {
        let (parsed, _) =
            parse_all(&["-e", "A=1,2", "-eB=", "id", "sh", "-d", "--", "x"], OptionsEnd::AfterFirst).unwrap();
        assert_eq!(parsed.all(Opt::Env).unwrap(), ["A=1,2", "B="]);
        assert!(!parsed.has(Opt::Detach));
        assert_eq!(parsed.operands, ["id", "sh", "-d", "--", "x"]);
        let (parsed, taken) = parse_all(&["--debug", "run", "-d"], OptionsEnd::BeforeOperands).unwrap();
        assert!(parsed.has(Opt::Debug) && parsed.operands.is_empty());
        assert_eq!(taken, 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (arguments, words) in [
            (&["--nope"][..], "flag provided but not defined: -nope"),
            (&["-x"], "not defined: -x"),
            (&["-dx"], "not defined: -dx"),
            (&["--bundle"], "flag needs an argument: --bundle"),
            (&["-b"], "flag needs an argument: --bundle"),
            (&["--tty=maybe"], "invalid boolean value \"maybe\" for --tty"),
        ] {
            let fault = parse_all(arguments, OptionsEnd::Never).unwrap_err();
            assert!(fault.to_string().contains(words), "{arguments:?}: {fault}");
        }
        let (parsed, _) = parse_all(&["-", "--bundle", ""], OptionsEnd::Never).unwrap();
        assert_eq!(parsed.operands, ["-"]);
        assert!(parsed.is_set(Opt::Bundle) && parsed.path(Opt::Bundle).is_none());
    }
}
