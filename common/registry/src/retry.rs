//! What is worth another try, and when.

use crate::Options;
use fault::{Fault, Result};
use std::time::{Duration, Instant, SystemTime};
use ureq::http::StatusCode;

/// One try that failed.
pub(crate) enum Failed {
    Finally(Fault),
    /// May pass; `after` is what the registry asked for.
    Again {
        fault: Fault,
        after: Option<Duration>,
    },
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed::Finally(fault)
    }
}

/// Counts tries since something last came.
pub(crate) struct Patience {
    retries: u32,
    tried: u32,
    deadline: Duration,
    since: Instant,
}

impl Patience {
    pub(crate) fn new(options: &Options) -> Patience {
        // Several answers' time, and room for a `Retry-After` of half a minute with the default timeout.
        Patience { retries: options.retries, tried: 0, deadline: options.timeout * 4, since: Instant::now() }
    }

    /// Something came: start counting anew.
    pub(crate) fn progress(&mut self) {
        self.tried = 0;
        self.since = Instant::now();
    }

    /// For what ends with the registry hashing and moving what it got: an answer may take four times as long (see
    /// `Transport`), and a second one may be needed.
    pub(crate) fn for_upload(options: &Options) -> Patience {
        Patience { deadline: options.timeout * 10, ..Patience::new(options) }
    }

    /// Something was sent until then: that time was not spent waiting. Whether it arrived is not known yet.
    pub(crate) fn worked_until(&mut self, then: Instant) {
        self.since = self.since.max(then);
    }

    /// Waits until it is time for the next try, or gives the failure back.
    pub(crate) fn wait(&mut self, failed: Failed) -> Result<()> {
        let (fault, after) = match failed {
            Failed::Finally(fault) => return Err(fault),
            Failed::Again { fault, after } => (fault, after),
        };
        let pause = after.unwrap_or(backoff(self.tried));
        if self.tried >= self.retries || self.since.elapsed() + pause > self.deadline {
            return Err(match after {
                Some(after) => fault.hint(format!("the registry asks to wait {} seconds", after.as_secs())),
                None => fault,
            });
        }
        self.tried += 1;
        std::thread::sleep(pause);
        Ok(())
    }

    /// Tries until it works or is not worth trying.
    pub(crate) fn until_done<T>(mut self, mut attempt: impl FnMut() -> Result<T, Failed>) -> Result<T> {
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failed) => self.wait(failed)?,
            }
        }
    }
}

/// 0.1, 0.2, 0.4 … seconds, a little more or less for each process, so that many do not come at once.
fn backoff(tried: u32) -> Duration {
    let jitter = u64::from(std::process::id() % 32);
    Duration::from_millis((100 << tried.min(6)) + jitter)
}

/// Whether a status may be another one a moment later.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date (section 5.6.7).
pub(crate) fn retry_after<B>(response: &ureq::http::Response<B>) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?;
    let seconds = text.trim().parse::<u64>().ok().or_else(|| seconds_until(text.trim()))?;
    // Bounded, so that no sum with it overflows.
    Some(Duration::from_secs(seconds.min(1 << 30)))
}

/// From now to a date; none if it has passed.
fn seconds_until(date: &str) -> Option<u64> {
    let date = httpdate::parse_http_date(date).ok()?;
    Some(date.duration_since(SystemTime::now()).map_or(0, |left| left.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_a_time_to_wait() {
        let asked = |value: &str| {
            retry_after(&ureq::http::Response::builder().header("retry-after", value).body(()).unwrap())
        };
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
        assert!((28..=30).contains(&asked(&soon).unwrap().as_secs()), "{soon}");
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(asked(" 7 "), Some(Duration::from_secs(7)));
        for bad in ["", "-1", "soon", "Fri, 99 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 99999999999 23:59:59 GMT"]
        {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }

    #[test]
    fn patience_ends() {
        let options = Options { retries: 2, timeout: Duration::from_secs(1), ..Options::default() };
        let mut tries = 0;
        let result: Result<()> = Patience::new(&options).until_done(|| {
            tries += 1;
            Err(Failed::Again { fault: Fault::retryable("busy"), after: Some(Duration::ZERO) })
        });
        assert_eq!((tries, result.unwrap_err().kind()), (3, fault::Kind::Retryable));
        let mut tries = 0;
        let endless = Some(Duration::from_secs(u64::from(u32::MAX)));
        let result: Result<()> = Patience::new(&options).until_done(|| {
            tries += 1;
            Err(Failed::Again { fault: Fault::retryable("busy"), after: endless })
        });
        assert_eq!(tries, 1);
        assert!(result.unwrap_err().hint_text().unwrap().contains("4294967295 seconds"));
    }
}
