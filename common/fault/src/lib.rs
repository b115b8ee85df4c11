//! The error every shared crate returns: what kind it is, what failed, why, and a way out.
//!
//! One type instead of one enum per crate, because every error here ends the same way: as one line
//! `tool: subject: what failed: why`, a hint, and an exit status chosen by its [`Kind`]. Modules whose
//! callers must tell cases apart match on the kind.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;

pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// What sort of failure it is. The one table of exit statuses and HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An operation or the operating system failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Empty, malformed or unsupported input.
    Input,
    NotFound,
    /// It exists already, is in use, or is in the wrong state.
    Conflict,
    Denied,
    /// Worth another try: timeout, unavailable.
    Retryable,
}

impl Kind {
    /// Exit status of a tool that failed so.
    pub const fn exit_status(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Input => 3,
            Kind::NotFound => 4,
            Kind::Conflict => 5,
            Kind::Denied => 6,
            Kind::Retryable => 7,
        }
    }

    /// HTTP status of a request that failed so.
    pub const fn http_status(self) -> u16 {
        match self {
            Kind::Failed => 500,
            Kind::Usage | Kind::Input => 400,
            Kind::NotFound => 404,
            Kind::Conflict => 409,
            Kind::Denied => 403,
            Kind::Retryable => 503,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Usage => "usage",
            Kind::Input => "input",
            Kind::NotFound => "not-found",
            Kind::Conflict => "conflict",
            Kind::Denied => "denied",
            Kind::Retryable => "retryable",
        }
    }

    /// The kind of a name; what is unknown has just failed.
    pub fn from_name(name: &str) -> Kind {
        [Kind::Usage, Kind::Input, Kind::NotFound, Kind::Conflict, Kind::Denied, Kind::Retryable]
            .into_iter()
            .find(|kind| kind.name() == name)
            .unwrap_or(Kind::Failed)
    }

    /// The kind an operating system error stands for when nothing better is known.
    pub fn of_io(error: &std::io::Error) -> Kind {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::PermissionDenied => Kind::Denied,
            ErrorKind::TimedOut => Kind::Retryable,
            _ => Kind::Failed,
        }
    }
}

/// A failure. Boxed, so that `Result<T>` stays small on paths that succeed.
pub struct Fault(Box<Inner>);

struct Inner {
    kind: Kind,
    subject: Option<String>,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
}

impl Fault {
    /// `what` in lower case, no full stop, naming the path or id: `open /x/y`.
    pub fn new(kind: Kind, what: impl Into<String>) -> Fault {
        Fault(Box::new(Inner { kind, subject: None, what: what.into(), source: None, hint: None }))
    }

    pub fn failed(what: impl Into<String>) -> Fault {
        Fault::new(Kind::Failed, what)
    }

    pub fn usage(what: impl Into<String>) -> Fault {
        Fault::new(Kind::Usage, what)
    }

    pub fn input(what: impl Into<String>) -> Fault {
        Fault::new(Kind::Input, what)
    }

    pub fn not_found(what: impl Into<String>) -> Fault {
        Fault::new(Kind::NotFound, what)
    }

    pub fn conflict(what: impl Into<String>) -> Fault {
        Fault::new(Kind::Conflict, what)
    }

    pub fn denied(what: impl Into<String>) -> Fault {
        Fault::new(Kind::Denied, what)
    }

    pub fn retryable(what: impl Into<String>) -> Fault {
        Fault::new(Kind::Retryable, what)
    }

    /// The reason behind it, printed after `what`.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Fault {
        self.0.source = Some(source.into());
        self
    }

    /// A way out, printed on a line of its own.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.0.hint = Some(hint.into());
        self
    }

    /// What it happened to: a reference, a container, a path. Kept if there is one already, because the
    /// place that failed knows best.
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Fault {
        self.0.subject.get_or_insert_with(|| subject.into());
        self
    }

    /// Says in which larger step this failed; the present text becomes the reason.
    #[must_use]
    pub fn within(mut self, what: impl Into<String>) -> Fault {
        self.0.what = format!("{}: {}", what.into(), self.0.what);
        self
    }

    /// The same failure of another kind: what is malformed input in a record is wrong usage as an argument.
    #[must_use]
    pub fn as_kind(mut self, kind: Kind) -> Fault {
        self.0.kind = kind;
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// `errno` if an operating system error is the reason.
    pub fn os_error(&self) -> Option<i32> {
        let mut cause: Option<&(dyn Error + 'static)> = self.0.source.as_deref().map(|e| e as _);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return io.raw_os_error();
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        let mut cause: Option<&(dyn Error + 'static)> = self.0.source.as_deref().map(|e| e as _);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // A Fault prints its own chain.
            if error.is::<Fault>() {
                break;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self, self.0.kind.name())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// Turns any error into a [`Fault`] with a word about what was tried.
pub trait Explain<T> {
    /// The kind follows the operating system's error where there is one (`EACCES` is denied).
    fn explain(self, what: impl FnOnce() -> String) -> Result<T>;
    fn explain_as(self, kind: Kind, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Error + Send + Sync + 'static> Explain<T> for std::result::Result<T, E> {
    fn explain(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let any: &(dyn Error + 'static) = &error;
            let kind = any
                .downcast_ref::<std::io::Error>()
                .map(Kind::of_io)
                .or_else(|| any.downcast_ref::<Fault>().map(Fault::kind))
                .unwrap_or(Kind::Failed);
            Fault::new(kind, what()).because(error)
        })
    }

    fn explain_as(self, kind: Kind, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Fault::new(kind, what()).because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_chain_once() {
        let io = std::io::Error::from_raw_os_error(13);
        let fault = Err::<(), _>(io).explain(|| "open /x".into()).unwrap_err().within("read layer");
        assert_eq!(fault.to_string(), "read layer: open /x: Permission denied (os error 13)");
        assert_eq!(fault.kind(), Kind::Denied);
        assert_eq!(fault.os_error(), Some(13));
        let outer = Err::<(), _>(fault).explain(|| "unpack".into()).unwrap_err();
        assert_eq!(outer.to_string(), "unpack: read layer: open /x: Permission denied (os error 13)");
        assert_eq!(outer.kind(), Kind::Denied);
    }

    #[test]
    fn the_innermost_subject_stays() {
        let fault = Fault::not_found("no such image").on("debian:12").on("other");
        assert_eq!(fault.subject(), Some("debian:12"));
        assert_eq!(fault.kind().exit_status(), 4);
        assert_eq!(fault.kind().http_status(), 404);
    }
}
