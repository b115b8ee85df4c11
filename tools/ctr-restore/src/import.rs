//! A container made from an archive.

use crate::resume::{Wish, discard, resume};
use crate::{Args, network, print, steps};
use checkpoint::Incoming;
use cli::{Context, Explain, Fault, Kind, Result};
use record::{Config, Container, Image, PortWish, Record, Rootfs};
use rustix::termios::isatty;
use shim::Prepared;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use store::{ContainerDir, LastRun, StoppedBy, Store};

pub fn run(args: &Args, context: &mut Context, store: &Store, path: &Path) -> Result<()> {
    let ports = ports(args)?;
    if let Some(name) = &args.name {
        store::check_name(name)?;
    }
    if args.chosen.output.dry_run {
        return context.print_steps(None, &steps(args));
    }
    rootfs::allow_many_files();
    let what = path.display().to_string();
    let incoming = Incoming::open(open(path)?).map_err(|fault| fault.on(what.as_str()))?;
    let about: Container = incoming.record.require("container").map_err(|fault| fault.on(what.as_str()))?;
    let subject = args.name.clone().unwrap_or_else(|| about.name.clone());
    let (record, statistics) =
        import(args, context, store, incoming, &about, ports).map_err(|fault| fault.on(subject.as_str()))?;
    print(context, record, statistics, &subject)
}

fn ports(args: &Args) -> Result<Option<Vec<PortWish>>> {
    let wishes: Vec<PortWish> = args.publish.iter().cloned().map(PortWish::Text).collect();
    for wish in &wishes {
        oci::wishes::port(wish).map_err(|fault| fault.within("--publish").as_kind(Kind::Usage))?;
    }
    Ok(Some(wishes).filter(|wishes| !wishes.is_empty()))
}

fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    if path != Path::new("-") {
        return Ok(Box::new(File::open(path).explain(|| format!("open {}", path.display()))?));
    }
    if isatty(rustix::stdio::stdin()) {
        return Err(
            Fault::usage("stdin is a terminal, which no archive comes from").hint("--import FILE, or |")
        );
    }
    Ok(Box::new(std::io::stdin()))
}

fn import(
    args: &Args,
    context: &mut Context,
    store: &Store,
    incoming: Incoming<'_>,
    about: &Container,
    ports: Option<Vec<PortWish>>,
) -> Result<(Record, Option<serde_json::Value>)> {
    let mut prepared = prepare(args, store, about)?;
    let dir = prepared.dir().clone();
    let mut record = incoming.record.clone();
    network::ignore(args, &mut record)?;
    let networks = network::earlier(args, &record)?;
    let mut config: Config = record.config()?;
    config.name = Some(args.name.clone().unwrap_or_else(|| about.name.clone()));
    if let Some(ports) = ports {
        config.ports = ports;
    }
    if let Some(rootfs) = rootfs_of(store, &record, &config)? {
        record.set("rootfs", &rootfs)?;
    }
    // A new one, as far as ctr-create is concerned.
    for section in ["container", "networks", "exit_code"] {
        record.remove(section);
    }
    ctr_create::create(store, record, config, Some(&mut prepared), &mut |text| context.warn("", text))?;
    let made = Unfinished { store, dir: &dir };
    // Nothing may be mounted of what is going to be changed.
    discard(&dir)?;
    // overlayfs' mark on the files of a container that removes itself (overlayfs.rst, "Volatile mount"): nothing was written to them yet.
    store::remove_tree(&dir.bundle.join("work/work/incompat/volatile"))?;
    let placed = incoming.place(&dir)?;
    if placed.left_out > 0 {
        context.warn(
            &dir.id,
            &format!("{} devices and attributes of its files cannot be made here", placed.left_out),
        );
    }
    dir.write_last_run(&LastRun {
        started_at: about.started_at.clone(),
        finished_at: about.checkpointed_at.clone(),
        exit_code: Some(128 + 9),
        stopped_by: Some(StoppedBy::Checkpoint),
        ..LastRun::default()
    })?;
    dir.update(|record| {
        let mut container: Container = record.require("container")?;
        container.checkpointed_at.clone_from(&about.checkpointed_at);
        record.set("container", &container)?;
        if networks.is_empty() { Ok(()) } else { record.set("networks", &networks) }
    })?;
    let statistics = resume(store, &dir, &Wish::of(args), None, &mut |text| context.warn(&dir.id, text))?;
    made.finished();
    Ok((dir.current()?, statistics))
}

/// An id: the one in the archive, or for another name one of its own.
fn prepare(args: &Args, store: &Store, about: &Container) -> Result<Prepared> {
    if args.name.is_some() {
        return ctr_create::prepare(store);
    }
    if !store::is_id(&about.id) {
        return Err(
            Fault::input("container.id in the archive is not 64 hexadecimal digits").on(about.id.as_str())
        );
    }
    let dir = store.container_dir(&about.id);
    if dir.bundle.exists() {
        return Err(Fault::conflict("the container is here already")
            .hint("--name NAME makes another one of the archive; ctr-rm removes the one that is here"));
    }
    Prepared::start(&dir)
}

/// Where the image's layers are in this store; `None` for a root directory of the user's own, whose place is in the record.
fn rootfs_of(store: &Store, record: &Record, config: &Config) -> Result<Option<Rootfs>> {
    let overlay = record.rootfs()?.is_none_or(|rootfs| rootfs.driver == "overlay");
    if config.rootfs.is_some() || !overlay {
        return Ok(None);
    }
    let image: Image = record.require("image")?;
    match img_unpack::unpack(store, &image) {
        Err(fault) if fault.kind() == Kind::NotFound => {
            pull(&image)?;
            img_unpack::unpack(store, &image).map(Some)
        }
        unpacked => unpacked.map(Some),
    }
}

/// Another program: it links network code, this one does not.
fn pull(image: &Image) -> Result<()> {
    if image.reference.is_empty() {
        return Err(Fault::not_found("the container's image is not here, and has no name to pull it by")
            .hint("img-save and img-load bring it over"));
    }
    let tool = shim::sibling("img-pull")?;
    let mut wanted = image.reference.clone();
    if !image.digest.is_empty() && !wanted.contains('@') {
        wanted = format!("{wanted}@{}", image.digest);
    }
    let status = Command::new(&tool)
        .args(["--quiet", "--", &wanted])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .explain(|| format!("run {}", tool.display()))?;
    if status.success() {
        return Ok(());
    }
    Err(Fault::not_found(format!(
        "the container's image {} is not here, and img-pull failed: {status}",
        image.reference
    ))
    .hint("img-save and img-load bring it over"))
}

/// Takes a container that could not be restored away again.
struct Unfinished<'a> {
    store: &'a Store,
    dir: &'a ContainerDir,
}

impl Unfinished<'_> {
    fn finished(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // Best effort: ctr-rm and ctr-prune are there for what stays.
        let options = ctr_rm::Options { force: true, volumes: true };
        let _ = ctr_rm::remove(self.store, self.dir, options);
    }
}
