//! The stages that are other programs.

use crate::{Args, Pull};
use cli::{Explain, Fault, Kind, Result};
use oci::Platform;
use oci::wishes::NetworkMode;
use record::{Config, Record};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use store::Store;

/// The image's record: from the store if it may be, else from img-pull.
pub fn image(store: &Store, image: &str, args: &Args) -> Result<Record> {
    match from_store_if_wanted(store, image, args)? {
        Some(record) => Ok(record),
        None => pull(image, args),
    }
}

/// `None` when it is img-pull's turn.
pub fn from_store_if_wanted(store: &Store, image: &str, args: &Args) -> Result<Option<Record>> {
    let platform = match platform(args) {
        Some(text) => Platform::parse(&text)?,
        None => Platform::host(),
    };
    if matches!(args.pull, Pull::Always | Pull::Newer) {
        return Ok(None);
    }
    match from_store(store, image, &platform) {
        Ok(record) => Ok(Some(record)),
        Err(fault) if fault.kind() == Kind::NotFound && args.pull == Pull::Missing => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn platform(args: &Args) -> Option<String> {
    args.flags.platform.clone().or_else(|| args.pulling.platform())
}

/// Runs img-rm when the container is gone; an image others use stays.
pub fn remove_image(image: &str) -> Result<()> {
    let tool = shim::sibling("img-rm")?;
    let output = Command::new(&tool)
        .args(["--quiet", "--", image])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .explain(|| format!("run {}", tool.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fault::failed(format!("the image stays: {}", said.lines().next().unwrap_or_default())))
}

fn from_store(store: &Store, image: &str, platform: &Platform) -> Result<Record> {
    let entry = store.find_image(image)?;
    let mut record = Record::new();
    record.set("image", &store.load_image(&entry, platform)?)?;
    Ok(record)
}

fn pull(image: &str, args: &Args) -> Result<Record> {
    let tool = shim::sibling("img-pull")?;
    let mut command = Command::new(&tool);
    // Unpacked on their way, the layers are there when the record is.
    command.args(["--output", "json", "--unpack"]);
    if args.pull == Pull::Newer {
        command.args(["--policy", "newer"]);
    }
    if let Some(platform) = platform(args) {
        command.args(["--platform", &platform]);
    }
    command.args(args.pulling.words());
    if let Some(file) = &args.pulling.authfile {
        command.env("REGISTRY_AUTH_FILE", file);
    }
    if args.quiet {
        command.stderr(Stdio::piped());
    }
    let output = command
        .arg("--")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .explain(|| format!("run {}", tool.display()))?;
    if !output.status.success() {
        let fault = Fault::failed(format!("img-pull: {}", output.status)).on(image);
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(match said.lines().next() {
            Some(line) => fault.hint(line),
            None => fault,
        });
    }
    let text = String::from_utf8(output.stdout).explain(|| "read what img-pull printed".into())?;
    Record::parse(&text).map_err(|fault| fault.within("read what img-pull printed"))
}

/// net-attach, started before there is anything for it to do: it gets ready while the container is made.
pub struct NetAttach {
    child: Child,
    path: PathBuf,
}

impl NetAttach {
    /// `None` for a container without a network of its own.
    pub fn start(config: &Config) -> Result<Option<NetAttach>> {
        let mode = NetworkMode::of(config)?;
        if !matches!(mode, NetworkMode::Bridge | NetworkMode::Private) {
            if config.ports.is_empty() || matches!(mode, NetworkMode::Host | NetworkMode::None) {
                return Ok(None);
            }
            return Err(Fault::usage("ports can be published on a network only").hint("leave --network out"));
        }
        let path = shim::sibling("net-attach")?;
        let child = Command::new(&path)
            .args(["--output", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .explain(|| format!("run {}", path.display()))?;
        Ok(Some(NetAttach { child, path }))
    }

    /// Hands it the container and waits until that is attached.
    pub fn attach(mut self, record: &Record) -> Result<()> {
        if let Some(mut stdin) = self.child.stdin.take() {
            // A tool that ends early says why itself.
            let _ = record.write_to(&mut stdin).and_then(|()| stdin.flush());
        }
        let status = self.child.wait().explain(|| format!("wait for {}", self.path.display()))?;
        if status.success() { Ok(()) } else { Err(Fault::failed(format!("net-attach: {status}"))) }
    }
}

impl Drop for NetAttach {
    fn drop(&mut self) {
        // Only one that was never handed anything is still there: killed before its input ends, it complains of nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
