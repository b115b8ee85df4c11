//! Ctrl-C leaves nothing half-made: what takes milliseconds is finished first.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The signals that ask a tool to end wait until this is dropped.
pub struct Uninterrupted(Option<SigSet>);

impl Uninterrupted {
    /// Begin after locks are taken: waiting for one must stay interruptible.
    pub fn begin() -> Uninterrupted {
        // Without it the work is as safe as under SIGKILL.
        Uninterrupted(to_end().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

/// What may take minutes, as CNI plugins do, is not waited for: the caller has written down what will have to be undone, so that
/// to be ended here is no worse than to be killed.
pub fn interruptible<T>(work: impl FnOnce() -> T) -> T {
    let before = to_end().thread_swap_mask(SigmaskHow::SIG_UNBLOCK).ok();
    let done = work();
    if let Some(before) = before {
        let _ = before.thread_set_mask();
    }
    done
}

fn to_end() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = before.thread_set_mask();
        }
    }
}
