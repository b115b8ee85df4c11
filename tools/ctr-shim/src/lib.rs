//! Looks after one container: its parent, its streams, its log, its exit status, its restart policy.
//!
//! Started by `ctr-create` and `ctr-start` with a socket as stdin, on which it is told to begin and says how that went. From
//! then on it listens on the container's `shim.sock` (see `common/shim`).
#![forbid(unsafe_code)]

mod attach;
mod container;
mod foreign;
mod health;
pub mod init;
mod log;
mod restart;
mod server;
mod settings;

use cli::{Common, Context, Fault, Result};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Look after one container (ctr-create and ctr-start start it; it is not for people)
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-shim",
    version,
    after_help = "Its stdin is a socket on which it reports. One runs for each container that waits or runs:\n  pgrep -a ctr-shim"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Directory of the container's bundle
    pub bundle: PathBuf,

    /// Directory of the container's run-time state
    pub run: PathBuf,

    /// Directory of the other tools, which it cannot find by its own program: that runs from a mount without a path
    pub tools: Option<PathBuf>,
}

cli::tool!(Args, "ctr-shim", common);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let _ = serve(&args.bundle, &args.run, args.tools.as_deref());
    context.exit_with(0);
    Ok(())
}

/// The shim's whole life.
pub fn serve(bundle: &Path, run: &Path, tools: Option<&Path>) -> ExitCode {
    // A group of its own: what is typed at a terminal is not for the shim.
    let _ = rustix::process::setsid();
    // Executed by a descriptor, whose number would be its name in ps(1).
    let _ = rustix::thread::set_name(c"ctr-shim");
    // Whatever the caller's is: the container sees some of what is made.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Started before there is anything to do; whoever did so may have thought better of it.
    if !matches!(shim::receive(rustix::stdio::stdin()), Ok(Some(_))) {
        return ExitCode::SUCCESS;
    }
    let outcome = server::Server::set_up(bundle, run, tools);
    let reply = match &outcome {
        Ok(server) => shim::Reply { ok: true, pid: Some(server.pid()), error: None },
        Err(fault) => shim::Reply { error: Some(shim::Failure::of(fault, None)), ..shim::Reply::default() },
    };
    // Whoever started it may be gone; a container that is set up is looked after all the same.
    let _ = shim::send(rustix::stdio::stdin(), &reply, &[]);
    match outcome {
        Ok(mut server) => {
            leave_streams();
            server.complete();
            sys::process::trim_heap();
            server.serve();
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Nobody may wait for the end of a pipe the shim holds by accident, or find a directory busy because of it.
fn leave_streams() {
    close_streams();
    let _ = std::env::set_current_dir("/");
}

fn close_streams() {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        for number in 0..3 {
            let _ = sys::process::duplicate_to(null.as_fd(), number);
        }
    }
}

/// A fault about one container.
fn about(id: String) -> impl Fn(Fault) -> Fault {
    move |fault| fault.on(id.clone())
}
