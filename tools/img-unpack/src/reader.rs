//! A blob being read, watched from outside.

use cli::progress::Item;
use cli::{Explain, Fault, Result};
use rustix::fd::OwnedFd;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Ctrl-C and its like, held back so that what is half-made can be removed first.
#[derive(Debug)]
pub struct Interrupt {
    signals: OwnedFd,
    /// The number of the one that came.
    seen: AtomicU8,
}

impl Interrupt {
    /// From here on SIGINT, SIGTERM and SIGHUP only end the unpacking. To be called before threads are made.
    pub fn hold() -> Result<Interrupt> {
        let signals = [libc_signal::HUP, libc_signal::INT, libc_signal::TERM];
        let signals = sys::process::signal_descriptor(&signals).explain(|| "hold signals back".into())?;
        Ok(Interrupt { signals, seen: AtomicU8::new(0) })
    }

    /// The signal that came, from then on for good.
    pub fn signal(&self) -> Option<u8> {
        // The first member of a signalfd_siginfo, 128 bytes in all, is the number (signalfd(2)).
        let mut info = [0u8; 128];
        if rustix::io::read(&self.signals, &mut info[..]) == Ok(info.len())
            && let Some(number) = info.first_chunk::<4>()
        {
            self.seen.store(u32::from_ne_bytes(*number) as u8, Ordering::Relaxed);
        }
        Some(self.seen.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}

/// Numbers that are the same on every Linux (signal(7)).
mod libc_signal {
    pub const HUP: i32 = 1;
    pub const INT: i32 = 2;
    pub const TERM: i32 = 15;
}

/// Whether the work is to go on.
#[derive(Debug, Default)]
pub struct Stop<'a> {
    stopped: AtomicBool,
    interrupted: AtomicBool,
    interrupt: Option<&'a Interrupt>,
}

impl<'a> Stop<'a> {
    pub fn new(interrupt: Option<&'a Interrupt>) -> Stop<'a> {
        Stop { interrupt, ..Stop::default() }
    }

    /// Tells everybody to stop; whether it is the first to do so.
    pub fn stop(&self) -> bool {
        !self.stopped.swap(true, Ordering::Relaxed)
    }

    pub fn is_stopped(&self) -> bool {
        if self.interrupt.is_some_and(|interrupt| interrupt.signal().is_some()) {
            self.interrupted.store(true, Ordering::Relaxed);
        }
        self.stopped.load(Ordering::Relaxed) || self.interrupted.load(Ordering::Relaxed)
    }

    /// Why it stopped.
    pub fn fault(&self) -> Fault {
        if self.interrupted.load(Ordering::Relaxed) {
            return Fault::failed("interrupted");
        }
        Fault::failed("stopped, because another layer failed")
    }

    pub fn was_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// Ends early when told to, and says how far it is.
pub struct Watched<'a> {
    blob: File,
    stop: &'a Stop<'a>,
    item: Option<Item<'a>>,
    read: u64,
}

impl<'a> Watched<'a> {
    pub fn new(blob: File, stop: &'a Stop<'a>, item: Option<Item<'a>>) -> Watched<'a> {
        Watched { blob, stop, item, read: 0 }
    }

    pub fn done(self) {
        if let Some(item) = self.item {
            item.done();
        }
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_stopped() {
            return Err(io::Error::other(self.stop.fault()));
        }
        let read = self.blob.read(buffer)?;
        self.read += read as u64;
        if let Some(item) = &mut self.item {
            item.set(self.read);
        }
        Ok(read)
    }
}
