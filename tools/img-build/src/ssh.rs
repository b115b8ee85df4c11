//! `RUN --mount=type=ssh`: a socket through which a command has an agent sign, and nothing else.
//!
//! The protocol is that of draft-miller-ssh-agent. Only two of its requests pass: for the list of keys, and for a signature.
//! An agent takes others too: to add keys, to remove them, to lock itself.

use cli::{Explain, Result};
use dockerfile::mount::Ownership;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// Longest message, as OpenSSH has it.
const MAX_MESSAGE: u32 = 256 << 10;

/// A socket that is served until this is dropped.
pub struct Agent {
    socket: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    /// Listens at `socket`, which belongs to whom the mount says, for the agent at `upstream`.
    pub fn new(socket: &Path, upstream: &Path, ownership: &Ownership) -> Result<Agent> {
        let failed = || format!("listen at {}", socket.display());
        let listener = UnixListener::bind(socket).explain(failed)?;
        std::os::unix::fs::chown(socket, Some(ownership.uid), Some(ownership.gid))
            .and_then(|()| std::fs::set_permissions(socket, std::fs::Permissions::from_mode(ownership.mode)))
            .explain(failed)?;
        // Told at once if nobody is there.
        drop(
            UnixStream::connect(upstream)
                .explain(|| format!("reach the ssh agent at {}", upstream.display()))?,
        );
        let over = Arc::new(AtomicBool::new(false));
        let (ended, upstream) = (Arc::clone(&over), upstream.to_owned());
        let thread = std::thread::Builder::new()
            .name("ssh".to_owned())
            .spawn(move || {
                for client in listener.incoming().flatten() {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    let upstream = upstream.clone();
                    // A connection ends with its command, or with the build.
                    let served = std::thread::Builder::new().spawn(move || {
                        let _ = serve(client, &upstream);
                    });
                    drop(served);
                }
            })
            .explain(|| "start a thread".into())?;
        Ok(Agent { socket: socket.to_owned(), over, thread: Some(thread) })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes it up.
        let woken = UnixStream::connect(&self.socket).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

fn serve(mut client: UnixStream, upstream: &Path) -> std::io::Result<()> {
    let mut agent = UnixStream::connect(upstream)?;
    while let Some(request) = message(&mut client)? {
        if !matches!(request.get(4), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST))) {
            client.write_all(&FAILURE)?;
            continue;
        }
        agent.write_all(&request)?;
        let Some(answer) = message(&mut agent)? else { return Ok(()) };
        client.write_all(&answer)?;
    }
    Ok(())
}

/// A message with its length in front; `None` at the end.
fn message(from: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let size = u32::from_be_bytes(length);
    if size == 0 || size > MAX_MESSAGE {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidData));
    }
    let mut message = length.to_vec();
    from.take(u64::from(size)).read_to_end(&mut message)?;
    Ok((message.len() == size as usize + 4).then_some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_asked_for_keys_and_signatures_only() {
        let place = testkit::Place::new();
        let (upstream, socket) = (place.path().join("upstream"), place.path().join("socket"));
        let listener = UnixListener::bind(&upstream).unwrap();
        let agent = std::thread::spawn(move || {
            let mut asked = Vec::new();
            // The first one only looks whether somebody is there.
            for client in listener.incoming().flatten().take(2) {
                let mut client = client;
                while let Ok(Some(request)) = message(&mut client) {
                    asked.push(request[4]);
                    client.write_all(&[0, 0, 0, 2, 12, request[4]]).unwrap();
                }
            }
            asked
        });
        let owner = Ownership { uid: 0, gid: 0, mode: 0o600 };
        let served = Agent::new(&socket, &upstream, &owner).unwrap();
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut client = UnixStream::connect(&socket).unwrap();
        let mut ask = |kind: u8| {
            client.write_all(&[0, 0, 0, 1, kind]).unwrap();
            message(&mut client).unwrap().unwrap()
        };
        assert_eq!(ask(REQUEST_IDENTITIES), [0, 0, 0, 2, 12, REQUEST_IDENTITIES]);
        for refused in [17, 18, 19, 22, 25, 27] {
            assert_eq!(ask(refused), FAILURE, "{refused}");
        }
        assert_eq!(ask(SIGN_REQUEST), [0, 0, 0, 2, 12, SIGN_REQUEST]);
        drop(client);
        drop(served);
        assert_eq!(agent.join().unwrap(), [REQUEST_IDENTITIES, SIGN_REQUEST]);
        let nobody = Agent::new(&place.path().join("other"), &place.path().join("nobody"), &owner);
        assert!(nobody.is_err());
    }
}
