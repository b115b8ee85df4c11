//! RUN: a command in a container that is there for it alone.

use crate::layer::Unfinished;
use crate::runner::{FLAG, Order, Report};
use cli::{Explain, Fault, Result};
use ctr_create::etc::Etc;
use ctr_create::facts;
use oci::spec::{Identity, Tree};
use record::{Config, Image, Record, Rootfs};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use store::{ContainerDir, Store};

/// The container's name for itself: the same in every build.
const HOSTNAME: &str = "build";
const MAX_REPORT: u64 = 1 << 20;

/// A command and what it is run with.
#[derive(Debug, Default)]
pub struct Wanted {
    /// What is wished for, the command, its environment, user, directory and mounts included.
    pub config: Config,
    /// Layers of mounts that are images or stages, by what the mount calls them, lowest first.
    pub images: HashMap<String, Vec<PathBuf>>,
    /// The network of ours to be on.
    pub network: Option<String>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out_of_memory: bool,
    /// Where something was mounted; no slash in front.
    pub mounted_on: Vec<Vec<u8>>,
}

/// Runs it on top of `lower`, writing into `layer`. Takes what it writes to both outputs, as it comes.
///
/// # Errors
/// When it cannot be run; that it fails is no error here.
pub fn run(
    store: &Store,
    lower: &[PathBuf],
    layer: &Unfinished,
    wanted: Wanted,
    output: &mut dyn FnMut(&[u8]),
) -> Result<Ended> {
    if lower.is_empty() {
        return Err(Fault::input("there are no files to run a command in")
            .hint("FROM scratch has nothing: COPY something first"));
    }
    let bundle = layer.scratch.path().join("bundle");
    std::fs::create_dir(&bundle).explain(|| format!("make directory {}", bundle.display()))?;
    let order = write_bundle(store, lower, layer, wanted, &bundle)?;
    let ended = start(&order, output)?;
    // Mount points are told from what the specification says, as it was made here.
    let mounted_on = mounted_on(&bundle)?;
    match ended {
        Report::Exited { code, out_of_memory } => Ok(Ended { code, out_of_memory, mounted_on }),
        Report::Failed(failure) => match failure.exit_code {
            // As a shell says it that cannot find it.
            Some(code) => {
                output(format!("{}\n", failure.message).as_bytes());
                Ok(Ended { code, out_of_memory: false, mounted_on })
            }
            None => Err(failure.into_fault()),
        },
    }
}

fn write_bundle(
    store: &Store,
    lower: &[PathBuf],
    layer: &Unfinished,
    wanted: Wanted,
    bundle: &Path,
) -> Result<Order> {
    let Wanted { mut config, images, network } = wanted;
    config.hostname.get_or_insert_with(|| HOSTNAME.to_owned());
    let id = ctr_create::names::new_id()?;
    let mut record = Record::new();
    // All that counts of the image's is in the wishes; its volumes are none while it is built.
    let host = oci::Platform::host();
    let image = json!({"os": host.os, "architecture": host.architecture, "config": {}});
    record.set("image", &Image { reference: "build".to_owned(), config: image, ..Image::default() })?;
    let layers = lower.iter().map(|path| path.display().to_string()).collect();
    record.set("rootfs", &Rootfs { layers, driver: "overlay".to_owned(), ..Rootfs::default() })?;
    let who = Identity { bundle: Some(bundle.to_owned()), ..facts::identity(store, &id, "build") };
    let mut generated = facts::specification(store, &record, &config, &who)?;
    for used in &mut generated.trees {
        if let Tree::Image { reference, layers, .. } = &mut used.tree {
            let lower = images.get(reference);
            layers.clone_from(lower.ok_or_else(|| Fault::failed(format!("no files of {reference}")))?);
        }
    }
    let dir = ContainerDir { id: id.clone(), bundle: bundle.to_owned(), run: bundle.join("run") };
    volume::trees::write(&dir, &generated.trees)?;
    let etc = Etc {
        hosts: generated.wishes.hosts.clone(),
        resolver: generated.wishes.resolver.clone(),
        network: generated.wishes.network.clone(),
    };
    let spec = serde_json::to_vec(&generated.json()?).explain(|| "write the specification".into())?;
    let mut files = vec![
        ("config.json", spec),
        ("hostname", format!("{HOSTNAME}\n").into_bytes()),
        ("hosts", etc.hosts().into_bytes()),
        ("resolv.conf", etc.resolv_conf().into_bytes()),
    ];
    files.extend(generated.files.into_iter().map(|(name, text)| (name, text.into_bytes())));
    for (name, content) in files {
        let path = bundle.join(name);
        // Whatever the umask is: not only root looks names up.
        std::fs::write(&path, content)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)))
            .explain(|| format!("write {}", path.display()))?;
    }
    let rootfs = bundle.join("rootfs");
    std::fs::create_dir(&rootfs).explain(|| format!("make directory {}", rootfs.display()))?;
    Ok(Order {
        id,
        bundle: bundle.to_owned(),
        lower: lower.to_vec(),
        upper: layer.upper(),
        work: layer.work(),
        network,
    })
}

fn start(order: &Order, output: &mut dyn FnMut(&[u8])) -> Result<Report> {
    let program = std::env::current_exe().explain(|| "find the own program".into())?;
    let mut child = Command::new(&program)
        // The program may be one of many tools in a file.
        .arg0("img-build")
        .arg(format!("{FLAG}={}", order.bundle.join(&order.id).display()))
        // A Ctrl-C is the build's, which ends its commands in order.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .explain(|| format!("start {}", program.display()))?;
    let mut text = serde_json::to_vec(order).explain(|| "write the order".into())?;
    text.push(b'\n');
    // Open until the end: its closing tells the runner that nobody waits any more.
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &mut stdin {
        stdin.write_all(&text).explain(|| "give the order".into())?;
    }
    let mut buffer = vec![0; 32 << 10];
    if let Some(mut stderr) = child.stderr.take() {
        loop {
            match stderr.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => output(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).explain(|| "read what the command writes".into()),
            }
        }
    }
    let mut report = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_REPORT).read_to_end(&mut report).explain(|| "read the report".into())?;
    }
    drop(stdin);
    let status = child.wait().explain(|| "wait for the command".into())?;
    serde_json::from_slice(&report)
        .map_err(|_| Fault::failed(format!("the process that runs the command ended early: {status}")))
}

fn mounted_on(bundle: &Path) -> Result<Vec<Vec<u8>>> {
    let path = bundle.join("config.json");
    let content = std::fs::read(&path).explain(|| format!("read {}", path.display()))?;
    let spec: Value = serde_json::from_slice(&content).explain(|| format!("read {}", path.display()))?;
    let mounts = spec["mounts"].as_array().into_iter().flatten();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for mount in mounts {
        let mut clean = Vec::new();
        if let Some(target) = mount["destination"].as_str()
            && layer::archive::clean(target.as_bytes(), &mut clean).is_ok()
            && !clean.is_empty()
        {
            found.push(clean);
        }
    }
    Ok(found)
}
