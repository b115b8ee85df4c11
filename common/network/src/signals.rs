//! Ctrl-C leaves nothing half-made: what takes milliseconds is finished first.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The signals that ask a tool to end wait until this is dropped.
pub struct Uninterrupted(Option<SigSet>);

impl Uninterrupted {
    /// Begin after locks are taken: waiting for one must stay interruptible.
    pub fn begin() -> Uninterrupted {
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        // Without it the work is as safe as under SIGKILL.
        Uninterrupted(set.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = before.thread_set_mask();
        }
    }
}
