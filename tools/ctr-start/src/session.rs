//! Attached to a container: bytes between this process's streams and the shim's pipes until the container ends, the user
//! detaches, or nobody reads any more.

use crate::terminal::{self, DetachKeys, Raw};
use fault::{Explain, Fault, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use shim::{Client, Exit, Request};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use store::ContainerDir;

/// What to attach and how.
#[derive(Debug)]
pub struct Options {
    /// Where the container's stdin comes from; `None` leaves it alone. Ignored with a terminal.
    pub input: Option<OwnedFd>,
    /// With a terminal: pass on what is typed.
    pub interactive: bool,
    pub terminal: bool,
    /// Whether stdout and stderr are wanted; what a terminal shows is stdout.
    pub outputs: [bool; 2],
    pub detach_keys: DetachKeys,
    /// Pass signals that come to this process on to the container.
    pub signal_proxy: bool,
    /// How many seconds the container waits while nothing of its output is read; `None`: for ever.
    pub patience: Option<u64>,
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Exit(Exit),
    /// The detach keys were typed.
    Detached,
    /// Nobody reads this process's stdout any more.
    OutputClosed,
    /// Nothing was read for so long that the container did not wait any more; it runs on.
    LetGo,
    /// The shim was killed, and the container with it.
    ShimLost,
}

/// Bytes moved at once.
const CHUNK: usize = 256 << 10;

/// A session that is connected but not yet running: the container can be started now without losing output.
pub struct Session {
    client: Client,
    options: Options,
    dir: ContainerDir,
    signals: OwnedFd,
    tty: Option<OwnedFd>,
    to_container: Option<OwnedFd>,
    from_container: [Option<OwnedFd>; 2],
}

impl Session {
    /// Hands pipes to the shim.
    pub fn attach(dir: &ContainerDir, client: Client, options: Options) -> Result<Session> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into());
        // Without a keyboard a terminal is only asked for its size.
        let tty = match (options.terminal, options.interactive) {
            (true, true) => Some(terminal::open()?),
            (true, false) => terminal::open().ok(),
            (false, _) => None,
        };
        let with_input = if options.terminal { options.interactive } else { options.input.is_some() };
        let mut theirs = Vec::new();
        let mut to_container = None;
        if with_input {
            let (read, write) = pipe()?;
            theirs.push(read);
            to_container = Some(write);
        }
        let mut out = None;
        if options.outputs[0] {
            let (read, write) = pipe()?;
            // Without room for a larger one the usual size does.
            let _ = rustix::pipe::fcntl_setpipe_size(&read, 1 << 20);
            theirs.push(write);
            out = Some(read);
        }
        let mut err = None;
        if options.outputs[1] && !options.terminal {
            let (read, write) = pipe()?;
            theirs.push(write);
            err = Some(read);
        }
        let (stdout, stderr) = (out.is_some(), err.is_some());
        let request = Request::Attach { stdin: with_input, stdout, stderr, patience: options.patience };
        let fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
        client.request(&request, &fds)?;
        let signals = sys::process::signal_descriptor(&[
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGWINCH,
            libc::SIGPIPE,
        ])
        .explain(|| "prepare for signals".into())?;
        Ok(Session {
            client,
            options,
            dir: dir.clone(),
            signals,
            tty,
            to_container,
            from_container: [out, err],
        })
    }

    /// The connection, to send the start request over.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Moves bytes until the session ends.
    pub fn run(mut self) -> Result<End> {
        let tty = self.tty.take();
        let _raw = match (&tty, self.options.interactive) {
            (Some(tty), true) => Some(Raw::enter(tty.as_fd())?),
            _ => None,
        };
        if let Some(tty) = &tty {
            self.send_size(tty);
        }
        let input = match &tty {
            Some(tty) if self.options.interactive => {
                Some(tty.try_clone().explain(|| "copy the terminal".into())?)
            }
            Some(_) => None,
            None => self.options.input.take(),
        };
        self.pump(input, tty.as_ref())
    }

    fn pump(&mut self, mut input: Option<OwnedFd>, tty: Option<&OwnedFd>) -> Result<End> {
        let mut buffer = vec![0; CHUNK];
        let mut exit: Option<Option<Exit>> = None;
        loop {
            if let Some(exit) = &exit
                && self.from_container.iter().all(Option::is_none)
            {
                return Ok(match exit.clone() {
                    Some(exit) if exit.event == shim::LET_GO => End::LetGo,
                    other => other.map_or(End::ShimLost, End::Exit),
                });
            }
            let ready = self.wait(input.as_ref(), exit.is_none())?;
            for source in ready {
                match source {
                    Source::Output(stream) => {
                        if !self.move_output(stream, &mut buffer)? {
                            return Ok(End::OutputClosed);
                        }
                    }
                    Source::Input => {
                        if let Some(end) = self.move_input(&mut input, &mut buffer) {
                            return Ok(end);
                        }
                    }
                    Source::Signals => self.take_signals(tty),
                    Source::InputClosed => {
                        // The container reads no more: neither do we.
                        self.to_container = None;
                        input = None;
                    }
                    Source::Shim => exit = Some(self.client.exit()?),
                }
            }
        }
    }

    fn wait(&self, input: Option<&OwnedFd>, listen: bool) -> Result<Vec<Source>> {
        let mut sources = Vec::with_capacity(6);
        let mut fds = Vec::with_capacity(6);
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        for (stream, fd) in self.from_container.iter().enumerate() {
            if let Some(fd) = fd {
                add(Source::Output(stream), fd.as_fd(), PollFlags::IN);
            }
        }
        if let (Some(input), Some(to)) = (input, &self.to_container) {
            add(Source::Input, input.as_fd(), PollFlags::IN);
            add(Source::InputClosed, to.as_fd(), PollFlags::empty());
        }
        add(Source::Signals, self.signals.as_fd(), PollFlags::IN);
        if listen {
            add(Source::Shim, self.client.as_fd(), PollFlags::IN);
        }
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(std::io::Error::from(error)).explain(|| "wait for the container".into());
                }
            }
        }
        let ready = fds.iter().zip(sources).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(_, source)| source).collect())
    }

    /// `false` when nobody reads any more.
    fn move_output(&mut self, stream: usize, buffer: &mut [u8]) -> Result<bool> {
        let Some(from) = &self.from_container[stream] else { return Ok(true) };
        let to = if stream == 0 { rustix::stdio::stdout() } else { rustix::stdio::stderr() };
        // From pipe to pipe without touching the bytes; into anything else by way of the buffer.
        match splice(from, None, to, None, CHUNK, SpliceFlags::MOVE) {
            Ok(0) => {
                self.from_container[stream] = None;
                return Ok(true);
            }
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
            Err(Errno::PIPE) => return Ok(stream != 0 || self.lose(stream)),
            Err(_) => {}
        }
        let count = match rustix::io::read(from, &mut *buffer) {
            Ok(0) => {
                self.from_container[stream] = None;
                return Ok(true);
            }
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
            Err(error) => {
                return Err(std::io::Error::from(error)).explain(|| "read the container's output".into());
            }
        };
        match write_all(to, &buffer[..count]) {
            Ok(()) => Ok(true),
            Err(Errno::PIPE | Errno::IO) => Ok(stream != 0 || self.lose(stream)),
            Err(error) => Err(std::io::Error::from(error)).explain(|| "write the container's output".into()),
        }
    }

    /// stderr that nobody reads is dropped; stdout ends the session.
    fn lose(&mut self, stream: usize) -> bool {
        self.from_container[stream] = None;
        stream != 0
    }

    /// `Some` when the user detached.
    fn move_input(&mut self, input: &mut Option<OwnedFd>, buffer: &mut [u8]) -> Option<End> {
        let (Some(from), Some(to)) = (input.as_ref(), &self.to_container) else { return None };
        let count = match rustix::io::read(from, &mut *buffer) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return None,
            // A terminal that is gone.
            Err(_) => 0,
        };
        if count == 0 {
            // Closing the pipe closes the container's stdin.
            self.to_container = None;
            *input = None;
            return None;
        }
        let (bytes, detached) = if self.options.terminal {
            self.options.detach_keys.scan(&buffer[..count])
        } else {
            (buffer[..count].to_vec(), false)
        };
        if write_all(to.as_fd(), &bytes).is_err() {
            self.to_container = None;
            *input = None;
        }
        detached.then_some(End::Detached)
    }

    fn take_signals(&self, tty: Option<&OwnedFd>) {
        let mut info = [0u8; 128];
        while let Ok(read) = rustix::io::read(&self.signals, &mut info) {
            if read < 4 {
                return;
            }
            let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            match (number, tty) {
                (libc::SIGWINCH, Some(tty)) => self.send_size(tty),
                (libc::SIGWINCH | libc::SIGPIPE, _) => {}
                (number, _) if self.options.signal_proxy => {
                    self.tell(&Request::Signal { signal: number, stop: false });
                }
                // What it would have done.
                (number, _) => sys::process::die_of(number),
            }
        }
    }

    fn send_size(&self, tty: &OwnedFd) {
        if let Some(size) = terminal::size(tty) {
            self.tell(&Request::Resize { rows: size.ws_row, columns: size.ws_col });
        }
    }

    /// Over a connection of its own: on the session's the next packet is the exit.
    fn tell(&self, request: &Request) {
        if let Ok(Some(client)) = Client::connect(&self.dir) {
            // A container that is just ending takes no signals; its exit comes by itself.
            let _ = client.request(request, &[]);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Output(usize),
    Input,
    InputClosed,
    Signals,
    Shim,
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Somebody else made our stdout non-blocking.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Descriptor `number` of this process, for `--stdin-fd`.
pub fn descriptor(number: i32) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{number}");
    // A copy of its own, so that closing it later closes nothing of the user's. Opening it anew would fail for sockets.
    let file = sys::process::duplicate(number);
    file.map_err(|error| {
        Fault::usage(format!("descriptor {number} is not open ({path})"))
            .because(error)
            .hint(format!("open it in the shell: ctr-start --stdin-fd {number} {number}<FILE"))
    })
}
