//! A real registry: Debian's docker-registry on a free port of loopback.

use crate::own::die_with_parent;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends when dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Child,
    port: u16,
    _settings: tempfile::TempDir,
}

impl DockerRegistry {
    /// Serves the images of [`crate::images()`], read-only.
    pub fn with_images() -> Option<DockerRegistry> {
        let images = crate::images()?;
        DockerRegistry::start(&images.registry_storage(), true)
    }

    /// Serves a storage folder. `None`, said aloud, where the program is not installed.
    pub fn start(storage: &Path, read_only: bool) -> Option<DockerRegistry> {
        DockerRegistry::start_with(storage, read_only, "", "")
    }

    /// The same with more settings: in YAML, at its top, and below `http` as `, name: value`.
    pub fn start_with(storage: &Path, read_only: bool, settings: &str, http: &str) -> Option<DockerRegistry> {
        if crate::find_program("docker-registry").is_none() {
            crate::skip("docker-registry is not installed");
            return None;
        }
        // The port is free when looked for and may be taken before the registry does.
        (0..5)
            .find_map(|_| try_start(storage, read_only, settings, http))
            .or_else(|| panic!("docker-registry does not start"))
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn try_start(storage: &Path, read_only: bool, more: &str, http: &str) -> Option<DockerRegistry> {
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
    let settings = tempfile::tempdir().ok()?;
    let file = settings.path().join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n  \
         maintenance: {{readonly: {{enabled: {read_only}}}, uploadpurging: {{enabled: false}}}}\n\
         http: {{addr: \"127.0.0.1:{port}\"{http}}}\n{more}\n",
        storage.display()
    );
    std::fs::write(&file, text).ok()?;
    let mut process = die_with_parent("docker-registry")
        .arg("serve")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let give_up = Instant::now() + Duration::from_mins(1);
    while Instant::now() < give_up {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(DockerRegistry { process, port, _settings: settings });
        }
        if !matches!(process.try_wait(), Ok(None)) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = process.kill();
    let _ = process.wait();
    None
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs skopeo with a policy that accepts everything; its arguments follow.
pub fn skopeo() -> Command {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy");
    command
}
