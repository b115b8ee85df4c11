//! Restart policies with docker's back-off: 100 ms, doubled with every quick failure up to a minute, and begun anew
//! after a run of ten seconds.

use oci::wishes::RestartPolicy;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_mins(1);
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// Whether a container that ended so is started again. Stopped by its user it never is.
pub fn wanted(policy: RestartPolicy, exit_code: i32, restarts: u32, stopped_by_user: bool) -> bool {
    if stopped_by_user {
        return false;
    }
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure(most) => exit_code != 0 && most.is_none_or(|most| restarts < most),
    }
}

#[derive(Debug)]
pub struct BackOff(Duration);

impl BackOff {
    pub fn new() -> BackOff {
        BackOff(Duration::ZERO)
    }

    /// How long to wait after a run of this length.
    pub fn next(&mut self, ran: Duration) -> Duration {
        self.0 = if self.0.is_zero() || ran >= LONG_ENOUGH { FIRST } else { (self.0 * 2).min(LONGEST) };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_follow_docker() {
        let on_failure = RestartPolicy::OnFailure;
        assert!(!wanted(RestartPolicy::No, 1, 0, false));
        assert!(wanted(RestartPolicy::Always, 0, 99, false));
        assert!(!wanted(RestartPolicy::Always, 1, 0, true));
        assert!(!wanted(on_failure(None), 0, 0, false));
        assert!(wanted(on_failure(Some(2)), 1, 1, false));
        assert!(!wanted(on_failure(Some(2)), 1, 2, false));
    }

    #[test]
    fn waits_double_and_start_over() {
        let mut back_off = BackOff::new();
        let short = Duration::from_secs(1);
        let waits: Vec<_> = (0..12).map(|_| back_off.next(short).as_millis()).collect();
        assert_eq!(&waits[..3], [100, 200, 400]);
        assert_eq!(*waits.last().unwrap(), 60_000);
        assert_eq!(back_off.next(LONG_ENOUGH), FIRST);
    }
}
