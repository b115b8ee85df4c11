//! `--sdnotify`: telling the service manager (sd_notify(3)) that the container runs.

use fault::{Explain, Fault, Result};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that it is ready to whoever `NOTIFY_SOCKET` names; nothing where nobody wants to know.
///
/// # Errors
/// When somebody does and cannot be told: a unit would wait for it until its time is up.
pub fn ready() -> Result<()> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else {
        return Ok(());
    };
    let place = place.as_encoded_bytes();
    let address = match place.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        Some((b'/', _)) => SocketAddr::from_pathname(std::ffi::OsStr::new(
            std::str::from_utf8(place).map_err(|_| Fault::failed("NOTIFY_SOCKET is not UTF-8"))?,
        )),
        _ => return Err(Fault::failed("NOTIFY_SOCKET is neither a path nor an abstract socket")),
    };
    let tell = || -> std::io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(b"READY=1", &address?)?;
        Ok(())
    };
    tell().explain(|| "tell the service manager that the container runs".into())
}
