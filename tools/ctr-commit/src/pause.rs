//! Stopping a container's processes for a while, whatever becomes of this one.

use cgroup::Cgroup;
use cli::{Explain, Fault, Result};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use std::os::fd::{AsFd, OwnedFd};
use store::{ContainerDir, Status};
use sys::process::Fork;

/// A container whose processes stand still. A process of its own lets them run again when this is dropped, or when this process ends,
/// however it does.
pub struct Pause {
    cgroup: Cgroup,
    dir: ContainerDir,
    /// Closed, it tells the guard.
    line: Option<OwnedFd>,
    guard: OwnedFd,
}

impl Pause {
    /// `None` for a container that does not run, or stands still already.
    ///
    /// # Errors
    /// When its processes cannot be stopped. They run then.
    pub fn start(dir: &ContainerDir) -> Result<Option<Pause>> {
        if dir.status()? != Status::Running {
            return Ok(None);
        }
        let Some(state) = dir.live_state()? else { return Ok(None) };
        let cgroup = match state.cgroup.as_slice() {
            [] => {
                return Err(
                    Fault::conflict("it has no control group, so it cannot be paused").hint("--pause=false")
                );
            }
            directories => Cgroup::open(directories)?,
        };
        if cgroup.is_to_be_frozen() {
            return Ok(None);
        }
        let (theirs, ours) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).explain(|| "make a pipe".into())?;
        // Before anything is stopped: from here on there is always somebody to let it run.
        let guard = match sys::process::clone3(0, None).explain(|| "make a process".into())? {
            Fork::Child => watch(dir, &cgroup, &theirs, ours),
            Fork::Parent { pidfd, .. } => pidfd,
        };
        drop(theirs);
        let pause = Pause { cgroup, dir: dir.clone(), line: Some(ours), guard };
        pause.cgroup.freeze().map_err(|fault| fault.within("pause the container").hint("--pause=false"))?;
        Ok(Some(pause))
    }

    /// Lets it run again.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(mut self) -> Result<()> {
        self.release();
        if self.cgroup.is_to_be_frozen() && !is_paused(&self.dir) {
            return Err(Fault::failed("the container's processes were paused and do not run again"));
        }
        Ok(())
    }

    fn release(&mut self) {
        self.line = None;
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.guard.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if self.line.is_some() {
            self.release();
        }
    }
}

/// Somebody else has paused it meanwhile.
fn is_paused(dir: &ContainerDir) -> bool {
    dir.status().is_ok_and(|status| status == Status::Paused)
}

/// The guard: waits for the other end of the pipe to be closed, by whatever means.
fn watch(dir: &ContainerDir, cgroup: &Cgroup, line: &OwnedFd, ours: OwnedFd) -> ! {
    drop(ours);
    // Ctrl-C is for the tool, not for who cleans up after it; and no reader of the tool's output waits for this process.
    let _ = rustix::process::setsid();
    let _ = sys::process::close_all_from(0, &[line.as_fd()]);
    let mut byte = [0];
    while rustix::io::read(line, &mut byte) == Err(Errno::INTR) {}
    if !is_paused(dir) {
        let _ = cgroup.thaw();
    }
    sys::process::exit_now(0)
}
